"""A model of the hub becomes a checkpoint directory, once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests import hub_server
from tests.reference import key_list
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.notes import collected, heard_by
from tooncrafter_jax.sampling.model_loading import find_checkpoint
from tooncrafter_jax.weights import hub, hub_download, hub_sources, known_models
from tooncrafter_jax.weights.convert import convert
from tooncrafter_jax.weights.hub import RECORD, Fetch, Fetched, fetched_model, models_cache
from tooncrafter_jax.weights.hub_download import Access
from tooncrafter_jax.weights.hub_names import HubName, with_revision
from tooncrafter_jax.weights.known_models import KnownModel, PublishedFile
from tooncrafter_jax.weights.rule import make
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")

NAME = HubName("owner/name")


@cache
def part(prefix: str, shift: float = 0.0) -> bytes:
    """A file with the tiny model's tensors of this prefix, in half precision."""
    return save(
        {
            name: np.asarray(make(name, shape) + shift, np.float16)
            for name, shape in key_list("tiny/keys.tsv").items()
            if name.startswith(prefix)
        }
    )


PROJECTOR = "image_proj_model."
TEXT = "cond_stage_model."
IMAGE = "embedder."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hub_server.Hub]:
    """A hub with one repository of one part of the tiny model, which this process uses."""
    with hub_server.Hub() as server, heard_by(lambda sentence: None):
        server.use(monkeypatch, str(tmp_path))
        monkeypatch.setattr(hub_download, "WAITS", (0.0, 0.0))
        monkeypatch.setattr(hub, "preset", lambda name: tiny())
        server.repository("owner/name").commit({"model.safetensors": part(PROJECTOR), "README.md": b"text"})
        yield server


def values(directory: Path) -> dict[str, np.ndarray]:
    """The image projector of a directory, as it is stored."""
    return Checkpoint(directory).restore_on_host("image_projector", tiny().networks()["image_projector"])


def is_rule(directory: Path, shift: float = 0.0) -> bool:
    """Whether it is the one of the file."""
    bias = values(directory)["norm_out.bias"]
    expected = np.asarray(make("image_proj_model.norm_out.bias", bias.shape) + shift, np.float16)
    return bias.dtype == np.float16 and bool((bias == expected).all())


def test_a_model_is_fetched_once(server: hub_server.Hub) -> None:
    with collected() as notes:
        directory = Fetch(NAME).ready()
    assert directory == models_cache() / "owner--name" / "main+model+as-published"
    assert Checkpoint(directory).components == ("image_projector",) and is_rule(directory)
    assert len(notes) == 2 and notes[0].startswith("downloading owner/name@main/model.safetensors (0.00 GB) from http")
    assert notes[1] == f"converting owner/name into {directory}"
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]
    server.stop()
    count = len(server.log)
    assert Fetch(NAME).ready() == directory and len(server.log) == count


def test_a_model_that_is_here_needs_no_package(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Fetch(NAME).ready()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert Fetch(NAME).ready() == directory
    with pytest.raises(UserError, match=r"needs the package 'huggingface_hub'.* pip install 'tooncrafter-jax\[hub\]'"):
        Fetch(HubName("owner/other")).ready()


def test_fetching_again_follows_a_branch(server: hub_server.Hub) -> None:
    directory = Fetch(NAME).run().directory
    assert Fetch(NAME).run() == Fetched(directory, made=False)
    assert len(server.of_store()) == 1
    server.repository("owner/name").commit({"model.safetensors": part(PROJECTOR, 1.0)})
    assert Fetch(NAME).ready() == directory and is_rule(directory)  # drawing does not ask
    assert Fetch(NAME).run() == Fetched(directory, made=True)
    assert is_rule(directory, 1.0)
    assert Fetch(NAME).run() == Fetched(directory, made=False)


def test_any_dtype_that_was_fetched_is_found(server: hub_server.Hub) -> None:
    directory = Fetch(NAME, dtype="float32").run().directory
    assert values(directory)["norm_out.bias"].dtype == np.float32
    assert Fetch(NAME).ready() == directory
    assert Fetch(NAME, dtype="bfloat16").found() is None
    other = Fetch(NAME, dtype="bfloat16").ready()
    assert str(values(other)["norm_out.bias"].dtype) == "bfloat16"
    assert len(server.of_store()) == 1  # the file was here


def test_revisions_lie_beside_each_other(server: hub_server.Hub) -> None:
    commit = server.repository("owner/name").commit({"model.safetensors": part(PROJECTOR, 1.0)}, "refs/pr/4")
    names = [NAME, HubName("owner/name", "refs/pr/4", "model.safetensors"), HubName("owner/name", commit)]
    first, second, third = [Fetch(name).ready() for name in names]
    assert is_rule(first) and is_rule(second, 1.0) and is_rule(third, 1.0)
    assert second.name == "refs--pr--4+model.safetensors+as-published" and third.name.startswith(commit)
    count = len(server.asked())
    assert Fetch(HubName("owner/name", commit, "model.safetensors")).run().made  # all of it is here
    assert len(server.asked()) == count


def test_parts_are_added_to_a_directory(
    server: hub_server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repository("owner/text").commit({"text.safetensors": part(TEXT)})
    target = tmp_path / "weights" / "mine"
    assert Fetch(NAME, target).run() == Fetched(target, made=True)
    added = Fetch(HubName("owner/text"), target)
    assert added.run().made and Checkpoint(target).components == ("image_projector", "clip_text")
    assert not added.run().made and not Fetch(NAME, target).run().made  # both are there
    server.repository("owner/text").commit({"text.safetensors": part(TEXT, 1.0)})
    with pytest.raises(UserError, match="mine holds clip_text already: add --overwrite to replace it"):
        added.run()
    count = len(server.of_store())
    known = KnownModel("owner/text", (PublishedFile("owner/text", "text.safetensors"),), "MIT", "a whole model")
    monkeypatch.setattr(known_models, "KNOWN_MODELS", {known.name: known})
    with pytest.raises(UserError, match="mine holds image_projector, clip_text already: add --overwrite to replace it"):
        added.run()
    monkeypatch.setattr(known_models, "KNOWN_MODELS", {})
    assert len(server.of_store()) == count
    assert replace(added, overwrite=True).run().made and is_rule(target)
    assert not (models_cache() / "owner--name").exists()


def test_an_architecture_that_is_asked_for_is_not_ignored(server: hub_server.Hub, tmp_path: Path) -> None:
    """A directory of the cache that was made without it, or with another one, is not taken for what is asked for."""
    named = Fetch(NAME, architecture=replace(tiny(), name="named"))
    plain, asked = Fetch(NAME).ready(), named.ready()
    assert plain != asked and Checkpoint(asked).config.name == "named" != Checkpoint(plain).config.name
    assert named.found() == asked and Fetch(NAME).found() == plain and not named.run().made
    other = replace(named, architecture=replace(tiny(), name="other"))
    assert other.found() is None
    mine = replace(named, directory=tmp_path / "mine")
    assert mine.run().made and not mine.run().made and not Fetch(NAME, tmp_path / "mine").run().made
    with pytest.raises(
        UserError, match=r"mine has another architecture \(named\) than other: choose another directory"
    ):
        replace(other, directory=tmp_path / "mine").run()


def test_a_cache_that_cannot_be_written_does_not_matter_to_a_directory_elsewhere(
    server: hub_server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    target = tmp_path / "models" / "mine"
    assert Fetch(NAME, target).run() == Fetched(target, made=True)
    assert sorted(os.listdir(target.parent)) == [".mine.lock", "mine"]


def test_a_folder_of_something_else_is_left_alone(server: hub_server.Hub, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine is not a checkpoint directory and will not be overwritten"):
        Fetch(NAME, tmp_path / "mine").run()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Fetch(NAME, tmp_path / "file" / "mine").run()
    assert not server.log


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


def test_a_disk_that_is_too_small_is_found_before_the_download(server: hub_server.Hub, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(part(PROJECTOR)).hexdigest()
    server.announced[sha256] = 10**15
    with pytest.raises(UserError) as raised:
        Fetch(NAME).run()
    message = str(raised.value)
    assert message.startswith(f"owner/name needs 2000000.00 GB on the disk of {tmp_path}")
    assert "(1000000.00 GB to download and 1000000.00 GB to convert)" in message and "set HF_HUB_CACHE" in message
    assert not server.of_store()


def test_an_interruption_leaves_no_half_model(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Fetch(NAME).ready()
    assert Fetch(NAME).found() is None and not list((models_cache() / "owner--name").glob("*"))
    leftover = models_cache() / "owner--name" / ".main+model+as-published.fetching"
    leftover.mkdir(parents=True)  # of a process that was killed
    assert is_rule(Fetch(NAME).ready()) and not leftover.exists()
    assert len(server.of_store()) == 1


def test_a_model_that_was_damaged_is_made_anew_on_request(server: hub_server.Hub, tmp_path: Path) -> None:
    for target in (None, tmp_path / "mine"):
        directory = Fetch(NAME, target).run().directory
        shutil.rmtree(directory / "image_projector")
        with pytest.raises(UserError, match="is damaged or incomplete: convert it again"):
            values(directory)
        assert not Fetch(NAME, target).run().made
        assert Fetch(NAME, target, overwrite=True).run() == Fetched(directory, made=True) and is_rule(directory)
    assert len(server.of_store()) == 1


def test_what_was_converted_into_a_fetched_directory_is_not_taken_for_what_was_fetched(
    server: hub_server.Hub, tmp_path: Path
) -> None:
    target = tmp_path / "mine"
    Fetch(NAME, target).run()
    (tmp_path / "text.safetensors").write_bytes(part(TEXT))
    convert(tmp_path / "text.safetensors", target)
    assert not Fetch(NAME, target).run().made  # it is still there
    (tmp_path / "other.safetensors").write_bytes(part(PROJECTOR, 1.0))
    convert(tmp_path / "other.safetensors", target, dtype=None, overwrite=True)
    with pytest.raises(UserError, match="mine holds image_projector already: add --overwrite to replace it"):
        Fetch(NAME, target).run()
    assert is_rule(target, 1.0)
    assert Fetch(NAME, target, overwrite=True).run().made and is_rule(target)
    assert not Fetch(NAME, target).run().made


def test_a_sketch_encoder_that_would_be_lost_is_found_before_the_download(
    server: hub_server.Hub, tmp_path: Path
) -> None:
    with CheckpointWriter(tmp_path / "mine", tiny(), {}, safetensors=True) as writer:
        shapes = tiny().networks()["sketch_encoder"].abstract_params
        writer.write("sketch_encoder", {path: np.zeros(leaf.shape, np.float16) for path, leaf in shapes.items()})
    whole = known_models.KNOWN_MODELS["Doubiiu/ToonCrafter"]
    for file in whole.files:
        server.repository(file.repository).commits[file.revision] = {file.file: b"1" * 2000}
        server.repository(file.repository).commits[file.revision] |= {one.file: b"1" * 2000 for one in whole.files}
    files = tuple(replace(file, sha256=None) for file in whole.files)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(known_models, "KNOWN_MODELS", {whole.name: replace(whole, files=files)})
        with pytest.raises(UserError, match="mine holds sketch_encoder already: add --overwrite"):
            Fetch(HubName("Doubiiu/ToonCrafter"), tmp_path / "mine").run()
    assert not server.of_store()


def test_two_processes_at_once(server: hub_server.Hub, tmp_path: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        began.set()
        go_on.wait(60)

    server.on_bytes = hold
    code = (
        "from tooncrafter_jax.models.configuration import tiny\n"
        "from tooncrafter_jax.weights import hub\n"
        "hub.preset = lambda name: tiny()\n"
        "print(hub.Fetch(hub.HubName('owner/name')).run())"
    )
    environment = os.environ | server.environment(str(tmp_path)) | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert began.wait(120)
        heard = []

        def hear(sentence: str) -> None:
            heard.append(sentence)
            go_on.set()

        with heard_by(hear):
            fetched = Fetch(NAME).run()
        assert other.communicate()[0] == f"{Fetched(fetched.directory, made=True)}\n"
    assert not fetched.made and heard == ["another process is fetching owner/name: waiting for it"]
    assert len(server.of_store()) == 1 and is_rule(fetched.directory)


def test_without_a_network(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    name = HubName("owner/name", None, "model.safetensors")
    directory = Fetch(name).ready()
    server.stop()
    with collected() as notes:
        assert Fetch(name).run() == Fetched(directory, made=False)
    assert len(notes) == 1 and notes[0].startswith("there is no answer from http")
    assert notes[0].endswith("going on with owner/name@main/model.safetensors as it was when it was downloaded")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Fetch(name).run() == Fetched(directory, made=False)
    assert Fetch(name, dtype="float16").run().made  # from the file, which is here
    with pytest.raises(UserError, match="HF_HUB_OFFLINE or local_files_only forbids to fetch it"):
        Fetch(HubName("owner/name", "v2", "model.safetensors")).run()


def test_a_file_that_another_program_has_fetched_is_found_offline(
    server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    server.repository("owner/name").commit({"a.safetensors": part(PROJECTOR), "b.safetensors": part(TEXT)})
    hf_hub_download("owner/name", "a.safetensors", endpoint=server.endpoint, cache_dir=constants.HF_HUB_CACHE)
    count = len(server.log)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert is_rule(Fetch(NAME).ready()) and len(server.log) == count
    with pytest.raises(UserError, match="owner/other is not on this machine|owner/other@main is not on this machine"):
        Fetch(HubName("owner/other")).ready()


def test_every_name_has_a_place_of_its_own(server: hub_server.Hub) -> None:
    names = [
        HubName("owner/name", None, "a/b.safetensors"),
        HubName("owner/name", None, "a--b.safetensors"),
        HubName("owner/name", None, "a-/b.safetensors"),
        HubName("owner/name", None, "a/-b.safetensors"),
        HubName("owner/name", "v1+a", "b.safetensors"),
        HubName("owner/name", "v1", "a+b.safetensors"),
        HubName("owner/name", "v1", "a%2Bb.safetensors"),
        HubName("owner/name", "feature/x", "b.safetensors"),
        HubName("owner/name", "feature--x", "b.safetensors"),
    ]
    server.repository("owner/name").commit({name.file or "": part(PROJECTOR) for name in names}, "main", "v1", "v1+a")
    server.repository("owner/name").commit({"b.safetensors": part(PROJECTOR)}, "feature/x", "feature--x")
    assert len({Fetch(name).ready() for name in names}) == len(names)


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


def test_where_models_are_looked_for(server: hub_server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with collected() as notes:
        checkpoint = find_checkpoint("owner/name", ["image_projector"])
    assert notes[0] == ("'owner/name' is no directory here: taken as the name of a repository on the Hugging Face hub")
    assert checkpoint.directory == Fetch(NAME).found() and fetched_model("owner/name") == checkpoint.directory
    with pytest.raises(UserError, match="holds no unet"):
        find_checkpoint("hf://owner/name")
    os.symlink(checkpoint.directory, tmp_path / "mine")
    (tmp_path / "owner").mkdir()
    os.symlink(checkpoint.directory, tmp_path / "owner" / "name")
    assert find_checkpoint("owner/name", ["image_projector"]).directory == tmp_path / "owner" / "name"
    with pytest.raises(
        UserError, match="no checkpoint directory owner/nome: for a repository of that name write hf://owner/nome"
    ):
        find_checkpoint("owner/nome")
    assert find_checkpoint("small").components


def test_a_caller_can_name_cache_token_and_revision(server: hub_server.Hub, tmp_path: Path) -> None:
    """As for models of other libraries; the environment says something else."""
    repository = server.repositories["owner/name"]
    repository.commit({"model.safetensors": part(PROJECTOR, 1.0)}, "draft")
    repository.refuses = "RepoNotFound"
    places = Access(tmp_path / "elsewhere", hub_server.TOKEN)
    assert hub_server.TOKEN not in repr(places)
    with pytest.raises(UserError):
        find_checkpoint("owner/name", (), access=replace(places, token=None))
    found = find_checkpoint(with_revision("owner/name", "draft"), ("image_projector",), access=places)
    directory = Path(str(found.directory))
    assert directory.is_relative_to(tmp_path / "elsewhere") and is_rule(directory, 1.0)
    assert not models_cache().exists()
    offline = replace(places, offline=True)
    count = len(server.log)
    assert find_checkpoint(with_revision("owner/name", "draft"), (), access=offline).directory == found.directory
    with pytest.raises(UserError, match="local_files_only forbids to fetch it"):
        find_checkpoint("hf://owner/name", (), access=offline)
    assert len(server.log) == count
