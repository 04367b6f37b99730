"""`tooncrafter fetch`, and --model with a published model's name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests import hub_server
from tests.cli.world import Command, World, link_checkpoint
from tests.reference import key_list
from tooncrafter_jax.weights import hub_download
from tooncrafter_jax.weights.hub import Fetch, models_cache
from tooncrafter_jax.weights.hub_names import HubName
from tooncrafter_jax.weights.known_models import KNOWN_MODELS
from tooncrafter_jax.weights.rule import make
from tooncrafter_jax.weights.store import Checkpoint

pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")

TINY = "--architecture=tiny"


def projector() -> bytes:
    """A file with a part of the tiny model."""
    shapes = {name: shape for name, shape in key_list("tiny/keys.tsv").items() if name.startswith("image_proj_model.")}
    return save({name: make(name, shape).astype(np.float16) for name, shape in shapes.items()})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hub_server.Hub]:
    """A hub with one repository, which this process uses; its home is `tmp_path`/home."""
    with hub_server.Hub() as server:
        server.use(monkeypatch, str(tmp_path / "home"))
        monkeypatch.setattr(hub_download, "WAITS", ())
        server.repository("owner/name").commit({"model.safetensors": projector()})
        yield server


def test_a_model_is_fetched_and_then_there(server: hub_server.Hub, command: Command) -> None:
    result = command("fetch", "owner/name", TINY)
    assert result.code == 0, result.err
    (directory,) = (models_cache() / "owner--name").glob("main+model+as-published+*")  # of that architecture
    missing = "unet, clip_text, clip_image, autoencoder, decoder"
    missing = f"still missing: {missing}; fetch or convert a file that holds them into the same directory\n"
    assert result.out == f"  image_projector     29 tensors\n{directory}: fetched: image_projector\n{missing}"
    assert [line.split()[:2] for line in result.err.splitlines()] == [["note:", "downloading"], ["note:", "converting"]]
    result = command("fetch", "owner/name", TINY)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{directory}: already there: image_projector\n{missing}"


def test_a_directory_and_a_dtype(server: hub_server.Hub, command: Command, tmp_path: Path) -> None:
    argv = ["fetch", "hf://owner/name", str(tmp_path / "mine"), TINY, "--stored-dtype=bfloat16", "--quiet"]
    result = command(*argv)
    assert result.code == 0 and result.out.startswith(f"{tmp_path / 'mine'}: fetched: image_projector\n")
    assert Checkpoint(tmp_path / "mine").components == ("image_projector",)
    assert command(*argv).out.startswith(f"{tmp_path / 'mine'}: already there: image_projector\n")


def test_the_list(server: hub_server.Hub, command: Command) -> None:
    result = command("fetch", "--list")
    assert (result.code, result.err) == (0, "") and not server.log
    blocks = result.out.strip().split("\n\n")
    assert [block.split()[0] for block in blocks] == list(KNOWN_MODELS)
    assert blocks[0].splitlines()[:3] == [
        "Doubiiu/ToonCrafter   about 12.0 GB",
        "    ToonCrafter as its authors published it, with its sketch encoder",
        "    licence: Apache-2.0",
    ]
    assert "model.ckpt (10.50 GB)" in blocks[0] and "sketch_encoder.ckpt (1.46 GB)" in blocks[0]
    assert any("licence: not stated" in block for block in blocks)


def test_mistakes_end_in_one_sentence(server: hub_server.Hub, command: Command, tmp_path: Path) -> None:
    server.repository("owner/gated").refuses, server.repository("owner/gated").status = "GatedRepo", 403
    cases = {
        (): "name a MODEL, or give --list",
        ("--list", "owner/name"): "--list prints all models that are known: leave MODEL out",
        ("model.ckpt",): "'model.ckpt' is no name of a published model, which are OWNER/NAME",
        ("owner/nome",): "there is no repository owner/nome at http",
        ("owner/gated",): "owner/gated is gated: accept its conditions",
        ("owner/name@v9",): "owner/name has no revision 'v9'",
        ("owner/name/other.ckpt",): "owner/name@main has no file 'other.ckpt'",
        ("owner/name",): "does not fit this architecture",  # it is of the tiny one
        ("owner/name", "x", "--architecture=none"): "none",
    }
    for argv, sentence in cases.items():
        result = command("fetch", *argv)
        assert result.code == 2 and len(result.errors) == 1 and sentence in result.errors[0], result
    server.cuts = [0]
    server.repository("owner/name").commit({"model.safetensors": projector()[:-2]})
    result = command("fetch", "owner/name", TINY)
    assert result.code == 2 and "run the same again, and it goes on from there" in result.errors[0]


def test_sampling_with_a_published_model(
    world: World, server: hub_server.Hub, command: Command, checkpoint: Path
) -> None:
    fetch = Fetch(HubName("owner/tiny", "v1"))
    place = models_cache() / "owner--tiny" / "v1+model+as-published"
    place.parent.mkdir(parents=True)
    link_checkpoint(checkpoint, place)
    assert fetch.found() == place
    result = command("sample", *world.pair("--model=owner/tiny@v1"))
    assert result.code == 0, result.err
    assert not server.log and world.record()["request"]["model"]["path"] == str(place)
    result = command("sample", *world.pair("--model=owner/nome"))
    assert result.code == 2 and "there is no repository owner/nome" in result.errors[0]
    assert "note: 'owner/nome' is no directory here" in result.err
    count = len(server.log)
    result = command("sample", *world.pair("--model=owner/name", f"--first={world.path / 'no.png'}"))
    assert result.code == 2 and "no.png' does not exist" in result.errors[0] and len(server.log) == count


@pytest.mark.gate
def test_the_variables_of_the_environment(server: hub_server.Hub, tmp_path: Path) -> None:
    """In processes of their own: huggingface_hub reads them when it is loaded."""
    server.repository("owner/name").refuses = "RepoNotFound"

    def run(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | server.environment(str(tmp_path / "other")) | {"JAX_PLATFORMS": "cpu"} | variables
        program = [sys.executable, "-m", "tooncrafter_jax", "fetch", "owner/name", TINY, *argv]
        return subprocess.run(program, capture_output=True, text=True, env=environment, check=False)

    refused = run()
    assert refused.returncode == 2 and "or it is private" in refused.stderr and refused.stderr.count("\n") == 1
    fetched = run(HF_TOKEN=hub_server.TOKEN)
    assert fetched.returncode == 0, fetched.stderr
    assert str(tmp_path / "other" / "cache" / "tooncrafter_jax" / "models") in fetched.stdout
    assert list((tmp_path / "other" / "hub").glob("models--owner--name/snapshots/*/model.safetensors"))
    assert {one.token for one in server.of_store()} == {None}
    server.stop()
    offline = run("--stored-dtype=float32", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr  # of the file that is here
    assert "+float32+" in offline.stdout and ": fetched" in offline.stdout
