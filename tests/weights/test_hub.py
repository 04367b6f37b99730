"""A model of the hub becomes a checkpoint directory, once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import hub_server
from tests.weights.hub_models import NAME, PROJECTOR, TEXT, is_rule, part, values
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.notes import collected, heard_by
from tooncrafter_jax.sampling.model_loading import find_checkpoint
from tooncrafter_jax.weights import known_models
from tooncrafter_jax.weights.convert import convert
from tooncrafter_jax.weights.hub import Fetch, Fetched, fetched_model, models_cache
from tooncrafter_jax.weights.hub_download import Access
from tooncrafter_jax.weights.hub_names import HubName, with_revision
from tooncrafter_jax.weights.known_models import KnownModel, PublishedFile
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")


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
