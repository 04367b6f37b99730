"""What a repository of the hub may hold: one of many files, a checkpoint directory, a model in parts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests import hub_server
from tests.weights.hub_models import IMAGE, NAME, PROJECTOR, TEXT, is_rule, part
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.notes import collected
from tooncrafter_jax.weights import hub, hub_sources, known_models
from tooncrafter_jax.weights.hub import RECORD, Fetch, models_cache
from tooncrafter_jax.weights.hub_names import HubName
from tooncrafter_jax.weights.known_models import KnownModel, PublishedFile
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")


def test_the_file_is_chosen_where_there_is_one(server: hub_server.Hub) -> None:
    server.repository("owner/many").commit(
        {"b.ckpt": b"1" * 2000, "a/x.safetensors": part(PROJECTOR), "c.txt": b"text"}
    )
    with pytest.raises(UserError) as raised:
        Fetch(HubName("owner/many")).run()
    assert str(raised.value) == (
        "owner/many holds 2 files of weights: name one of them, as in owner/many/b.ckpt; there are b.ckpt (0.00 GB), "
        "a/x.safetensors (0.00 GB)"
    )
    assert is_rule(Fetch(HubName("owner/many", None, "a/x.safetensors")).ready())
    server.repository("owner/none").commit({"c.txt": b"text"})
    with pytest.raises(UserError, match="owner/none holds no file of weights at http"):
        Fetch(HubName("owner/none")).run()
    with pytest.raises(UserError, match=r"owner/none/c.txt is no file of weights, which end in .safetensors"):
        Fetch(HubName("owner/none", None, "c.txt")).run()


def test_a_file_that_is_no_model(server: hub_server.Hub) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 10502089164\n"
    files = {
        "other.safetensors": (
            save({"transformer.wte": np.zeros(600, np.float16)}),
            "holds no (ToonCrafter tensors|component)",
        ),
        "cut.safetensors": (part(PROJECTOR)[:-9], "cut.safetensors .*(truncated|cut off|ends|longer)"),
        "pointer.safetensors": (pointer, "is a pointer of Git LFS and not the weights"),
        "empty.ckpt": (b"", "is empty"),
    }
    server.repository("owner/bad").commit({name: data for name, (data, _) in files.items()})
    for name, (_, sentence) in files.items():
        with pytest.raises(UserError, match=sentence):
            Fetch(HubName("owner/bad", None, name)).run()
    assert not list((models_cache() / "owner--bad").glob("*"))


def test_a_large_file_is_looked_at_before_it_comes(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_sources, "LARGE", 1000)
    other = save({"transformer.wte": np.zeros(2**23, np.float16)})
    server.repository("owner/bad").commit({"other.safetensors": other, "cut.safetensors": other[:-9]})
    sent = []
    server.on_bytes = sent.append
    for file, sentence in {"other": "holds no", "cut": "cut off|truncated|ends|longer"}.items():
        with pytest.raises(UserError, match=f"owner/bad@main/{file}.safetensors.*({sentence})"):
            Fetch(HubName("owner/bad", None, f"{file}.safetensors")).run()
    assert max(sent) < len(other) and not (models_cache() / "owner--bad").exists()
    assert is_rule(Fetch(NAME).ready())


def directory_of_text(path: Path, *, safetensors: bool, shift: float = 0.0) -> dict[str, bytes]:
    """The files of a checkpoint directory with one component of the tiny model, as `save_pretrained` writes it."""
    shapes = tiny().networks()["clip_text"].abstract_params
    with CheckpointWriter(path, tiny(), {"made": "here"}, safetensors=safetensors, sampling={"steps": 7}) as writer:
        writer.write("clip_text", {name: np.full(leaf.shape, shift, np.float32) for name, leaf in shapes.items()})
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("safetensors", [True, False], ids=["a file a component", "trees"])
def test_a_checkpoint_directory_in_a_repository(server: hub_server.Hub, tmp_path: Path, safetensors: bool) -> None:
    files = directory_of_text(tmp_path / "mine", safetensors=safetensors, shift=2.0)
    server.repository("owner/mine").commit({**files, "README.md": b"text", "extra.safetensors": b"1"})
    name, network = HubName("owner/mine"), tiny().networks()["clip_text"]
    directory = Fetch(name).ready()
    found = Checkpoint(directory)
    assert found.components == ("clip_text",) and found.config == tiny() and found.sampling == {"steps": 7}
    assert found.provenance == {"made": "here"} and found.weights == Checkpoint(tmp_path / "mine").weights
    value = found.restore_on_host("clip_text", network)["norm_final.bias"]
    assert value.dtype == np.float32 and (value == 2.0).all()
    half = Checkpoint(Fetch(name, tmp_path / "half", "float16").run().directory)
    assert half.restore_on_host("clip_text", network)["norm_final.bias"].dtype == np.float16
    assert (half.directory / "clip_text.safetensors").exists() == safetensors and half.sampling == {"steps": 7}
    assert not Fetch(name).run().made and not Fetch(name, tmp_path / "half", "float16").run().made
    server.repository("owner/mine").commit(
        directory_of_text(tmp_path / "newer", safetensors=safetensors, shift=3.0), "main"
    )
    with pytest.raises(UserError, match="half exists already: name another directory, or add --overwrite"):
        Fetch(name, tmp_path / "half", "float16").run()
    count = len(server.of_store())
    server.stop()
    assert not Fetch(name).run().made and len(server.of_store()) == count  # as it was when it was fetched


def test_a_checkpoint_directory_that_is_not_whole(server: hub_server.Hub, tmp_path: Path) -> None:
    files = directory_of_text(tmp_path / "mine", safetensors=True)
    two = files["model.json"].replace(b'"clip_text"', b'"clip_text", "unet"', 1)
    cases = {
        "owner/lacking": ({**files, "model.json": two}, "lacks unet, which its model.json names: upload all of the"),
        "owner/other": ({**files, "model.json": b'{"format": "layers-model"}'}, "has a model.json that describes no m"),
        "owner/cut": ({**files, "model.json": files["model.json"][:-9]}, "model.json is damaged"),
    }
    for name, (content, sentence) in cases.items():
        server.repository(name).commit(content)
        with pytest.raises(UserError, match=sentence):
            Fetch(HubName(name)).ready()
    server.repository("owner/alone").commit({"model.json": b"{}", "a.safetensors": part(PROJECTOR)})
    assert is_rule(Fetch(HubName("owner/alone")).ready())  # another program's


def test_a_known_model_of_several_files(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = server.repository("owner/known").commit({"model.safetensors": part(PROJECTOR)}, "old")
    server.repository("owner/known").commit({"model.safetensors": part(PROJECTOR, 1.0)})
    server.repository("owner/text").commit({"folder/text.safetensors": part(TEXT)})
    sha256 = hashlib.sha256(part(PROJECTOR)).hexdigest()
    first = PublishedFile("owner/known", "model.safetensors", commit, sha256)
    model = KnownModel("owner/known", (first, PublishedFile("owner/text", "folder/text.safetensors")), "MIT", "a test")
    monkeypatch.setattr(known_models, "KNOWN_MODELS", {model.name: model})
    directory = Fetch(HubName("owner/known")).ready()
    assert Checkpoint(directory).components == ("image_projector", "clip_text") and is_rule(directory)
    assert directory.name == f"{commit}+model.safetensors+folder--text.safetensors+as-published"
    assert (directory / RECORD).read_text().count('"commit"') == 2
    assert not Fetch(HubName("owner/known")).run().made
    # A name with a revision is another file, and the pinned one must be what it was.
    assert is_rule(Fetch(HubName("owner/known", "main", "model.safetensors")).ready(), 1.0)
    other = replace(first, revision="main")
    monkeypatch.setattr(known_models, "KNOWN_MODELS", {model.name: replace(model, files=(other,))})
    with pytest.raises(UserError, match="is not the published file .its sha256 is .*: check HF_ENDPOINT"):
        Fetch(HubName("owner/known")).run()


def test_a_model_without_clip_gets_its_towers(
    server: hub_server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repository("owner/clip").commit({"text.safetensors": part(TEXT), "image.safetensors": part(IMAGE)})
    towers = {f"clip_{name}": PublishedFile("owner/clip", f"{name}.safetensors") for name in ("text", "image")}
    monkeypatch.setattr(hub, "CLIP_TOWERS", towers)
    monkeypatch.setattr(hub, "ALWAYS_TOGETHER", {"image_projector"})
    with collected() as notes:
        directory = Fetch(NAME).ready()
    assert Checkpoint(directory).components == ("image_projector", "clip_text", "clip_image")
    sentence = "owner/name comes without CLIP, which is taken from owner/clip/text.safetensors and owner/clip/image."
    assert any(one.startswith(sentence) for one in notes)
    assert not Fetch(NAME).run().made
    target = tmp_path / "mine"
    assert Fetch(HubName("owner/clip", None, "text.safetensors"), target).run().made
    with collected() as notes:
        assert Fetch(NAME, target).run().made
    assert Checkpoint(target).components == ("image_projector", "clip_text", "clip_image")
    assert any("is taken from owner/clip/image.safetensors" in one for one in notes)
