"""What can be wrong with a published model, on the way to it or in its files: a sentence each, and nothing is left."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests import hub_server
from tests.cli.world import Command, write_hollow_file
from tests.reference import key_list
from tests.weights import layouts
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.weights import hub_download
from tooncrafter_jax.weights.hub import models_cache

pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")

TINY = "--architecture=tiny"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 10502089164\n"


@dataclass
class Place:
    """Where a case is played.

    Attributes:
      server: the hub that the environment names.
      path: a folder for files.
      monkeypatch: of the test.
    """

    server: hub_server.Hub
    path: Path
    monkeypatch: pytest.MonkeyPatch


@dataclass(frozen=True)
class Case:
    """Something wrong.

    Attributes:
      id: what.
      prepare: makes it so, and returns the arguments.
      sentence: what the command says, from its beginning; PATH stands for the folder, HUB for the hub's address.
    """

    id: str
    prepare: Callable[[Place], list[str]]
    sentence: str


def projector(schedule: NoiseSchedule | None = None) -> bytes:
    """A file with a part of the tiny model, and the schedule."""
    whole = layouts.model(schedule=schedule)
    kept = [name for name in whole.shapes if name.startswith("image_proj_model.") or name == "betas"]
    return save({name: np.asarray(whole.read(name), np.float16) for name in kept})


def fetching(*argv: str, **files: bytes) -> Callable[[Place], list[str]]:
    """A fetch from owner/name, which has these files (`__` for a dot)."""

    def prepare(place: Place) -> list[str]:
        content = {name.replace("__", "."): data for name, data in files.items()}
        place.server.repository("owner/name").commit(content or {"model.safetensors": projector()})
        return ["fetch", *(argv or ("owner/name",)), TINY]

    return prepare


def refused(code: str, status: int) -> Callable[[Place], list[str]]:
    """A fetch from a repository that does not open for everybody."""

    def prepare(place: Place) -> list[str]:
        argv = fetching()(place)
        repository = place.server.repository("owner/name")
        repository.refuses, repository.status = code, status
        return argv

    return prepare


def with_environment(**variables: str) -> Callable[[Place], list[str]]:
    def prepare(place: Place) -> list[str]:
        from huggingface_hub import close_session, constants

        for name, value in variables.items():
            place.monkeypatch.setenv(name, value)
        if "HF_HUB_OFFLINE" in variables:
            place.monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        if "HF_ENDPOINT" in variables:
            place.monkeypatch.setattr(constants, "ENDPOINT", variables["HF_ENDPOINT"])
            template = variables["HF_ENDPOINT"] + "/{repo_id}/resolve/{revision}/{filename}"
            place.monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        close_session()
        return fetching()(place)

    return prepare


def of_server(change: Callable[[hub_server.Hub, str], object]) -> Callable[[Place], list[str]]:
    """A fetch from a server on which something is changed, given the sha256 of the file."""

    def prepare(place: Place) -> list[str]:
        argv = fetching()(place)
        change(place.server, hashlib.sha256(projector()).hexdigest())
        return argv

    return prepare


def replaced_file(place: Place) -> list[str]:
    """A mirror that has another file under a published name."""
    place.server.repository("Doubiiu/ToonCrafter").commit({"model.ckpt": b"0" * 2000})
    commit = "7c56c5a23d9f8a9d99398e2a2491fff4bd6cffaf"
    place.server.repository("Doubiiu/ToonCrafter").commits[commit] = {"model.ckpt": b"0" * 2000}
    return ["fetch", "Doubiiu/ToonCrafter/model.ckpt"]


def converting(*tensors: Callable[[], layouts.Tensors], **changes: object) -> Callable[[Place], list[str]]:
    """A conversion of files of these tensors."""

    def prepare(place: Place) -> list[str]:
        files = [
            str(layouts.write_safetensors(place.path / f"{number}.safetensors", of(), "float16"))
            for number, of in enumerate(tensors)
        ]
        return ["convert", *files, str(place.path / "model"), TINY]

    return prepare


def written(name: str, data: bytes | Callable[[Path], object]) -> Callable[[Place], list[str]]:
    """A conversion of one file."""

    def prepare(place: Place) -> list[str]:
        file = place.path / name
        if callable(data):
            data(file)
        else:
            file.write_bytes(data)
        return ["convert", str(file), str(place.path / "model"), TINY]

    return prepare


class Command_:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("true",)


def with_code(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Command_()}, protocol=2))


def compressed(path: Path) -> None:
    layouts.write_checkpoint(path.with_suffix(".stored"), layouts.sketch_encoder())
    with (
        zipfile.ZipFile(path.with_suffix(".stored")) as stored,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    path.with_suffix(".stored").unlink()


def whole() -> layouts.Tensors:
    return layouts.model()


def pruned() -> layouts.Tensors:
    return layouts.without_clip(whole())


def wider_tower(name: str, width: int) -> Callable[[], layouts.Tensors]:
    """CLIP's towers, of which one has other features."""

    def make() -> layouts.Tensors:
        clip = layouts.open_clip(whole())
        shape = list(clip.shapes[name])
        shape[0 if name.startswith("visual.") else 1] = width
        return clip.with_({name: np.zeros(shape, np.float16)})

    return make


CASES = [
    # --- the name ---
    Case("no-name", fetching("model.ckpt"), "'model.ckpt' is no name of a published model, which are OWNER/NAME[@REVI"),
    Case("wrong-repository", fetching("owner/nome"), "there is no repository owner/nome at HUB, or it is private"),
    Case("wrong-revision", fetching("owner/name@v9"), "owner/name has no revision 'v9' at HUB: check the name behind"),
    Case("wrong-file", fetching("owner/name/x.ckpt"), "owner/name@main has no file 'x.ckpt' at HUB: see HUB/owner/na"),
    Case("no-weight-file", fetching("owner/name@main/a.txt"), "owner/name@main/a.txt is no file of weights, which end"),
    Case("no-weights-at-all", fetching(README__md=b"text"), "owner/name holds no file of weights at HUB (.safetensors"),
    Case(
        "several-files", fetching(a__ckpt=b"1", b__ckpt=b"2"), "owner/name holds 2 files of weights: name one of them"
    ),
    # --- who may read ---
    Case(
        "private", refused("RepoNotFound", 401), "there is no repository owner/name at HUB, or it is private: check i"
    ),
    Case(
        "gated", refused("GatedRepo", 403), "owner/name is gated: accept its conditions at HUB/owner/name, then set HF"
    ),
    Case("expired-token", with_environment(HF_TOKEN="hf_old"), "HUB does not know the token in HF_TOKEN: renew it, or"),
    Case(
        "token-of-no-letters", with_environment(HF_TOKEN="hf_\u00fc"), "the token in HF_TOKEN has characters that no to"
    ),
    # --- the way ---
    Case("no-network", of_server(lambda hub, _: hub.stop()), "there is no answer from HUB ("),
    Case("offline", with_environment(HF_HUB_OFFLINE="1"), "owner/name@main is not on this machine, and HF_HUB_OFFLINE"),
    Case("no-address", with_environment(HF_ENDPOINT="hub.example"), "'hub.example' is no address of a hub ("),
    Case("unknown-proxy", with_environment(ALL_PROXY="gopher://x"), "HUB cannot be asked by way of the proxy that the"),
    Case(
        "half-a-download", of_server(lambda hub, _: hub.cuts.append(9)), "the connection to HUB broke at 0.00 of 0.00"
    ),
    Case(
        "wrong-checksum",
        of_server(lambda hub, sha: hub.altered.update({sha: b"\0" * len(projector())})),
        "owner/name@main/model.safetensors did not arrive as HUB states it (another checksum): run the same again",
    ),
    Case(
        "full-disk",
        of_server(lambda hub, sha: hub.announced.update({sha: 10**15})),
        "owner/name needs 2000000.00 GB on the disk of PATH/home (1000000.00 GB to download and 1000000.00 G",
    ),
    Case(
        "replaced-file", replaced_file, "Doubiiu/ToonCrafter@7c56c5a23d9f8a9d99398e2a2491fff4bd6cffaf/model.ckpt at H"
    ),
    # --- what the hub's file is ---
    Case(
        "lfs-pointer", fetching(model__ckpt=POINTER), "owner/name@main/model.ckpt is a pointer of Git LFS and not the"
    ),
    Case("cut-upload", fetching(model__safetensors=projector()[:-9]), "PATH/home/hub/models--owner--name/snapshots/"),
    Case(
        "another-model",
        fetching(model__safetensors=save({"bert.embeddings": np.zeros((9, 99), np.float16)})),
        "PATH/home/hub/models--owner--name/snapshots/",
    ),
    # --- files of this machine ---
    Case("a-pointer", written("model.ckpt", POINTER), "PATH/model.ckpt is a pointer of Git LFS, not the file that it"),
    Case("a-page", written("model.ckpt", b"<!DOCTYPE html><p>"), "PATH/model.ckpt is a web page, not a weight file: d"),
    Case("unfinished", written("a.ckpt.crdownload", b"1"), "PATH/a.ckpt.crdownload is a download that is not finished"),
    Case("cut-file", written("a.safetensors", projector()[:-9]), "PATH/a.safetensors is cut off: it holds "),
    Case(
        "code", written("a.ckpt", with_code), "PATH/a.ckpt was refused: it names posix.system, which is no tensor and"
    ),
    Case(
        "compressed", written("a.ckpt", compressed), "PATH/a.ckpt was refused: files in it are compressed; copy it ag"
    ),
    Case(
        "no-clip", converting(pruned), "PATH/0.safetensors lacks CLIP (clip_text, clip_image), which a model needs: na"
    ),
    Case(
        "no-image-tower",
        converting(pruned, lambda: layouts.transformers_text(whole())),
        "PATH/0.safetensors and PATH/1.safetensors lack CLIP (clip_image), which a model needs: name a file with it",
    ),
    Case(
        "image-tower-of-another-size",
        converting(pruned, wider_tower("visual.conv1.weight", 128)),
        "PATH/1.safetensors holds a CLIP image tower of 128 features and 3 blocks, but this model needs one of 96",
    ),
    Case(
        "text-tower-of-another-size",
        converting(pruned, wider_tower("token_embedding.weight", 96)),
        "PATH/1.safetensors holds a CLIP text tower of 96 features and 3 blocks, but this model needs one of 64",
    ),
    Case(
        "the-same-twice",
        converting(pruned, pruned),
        "PATH/1.safetensors gives nothing that PATH/0.safetensors does not: leave it out, or name it first",
    ),
    Case(
        "dynamicrafter-256",
        converting(lambda: whole().with_({"model.diffusion_model.framestride_embed.0.bias": np.zeros(3)})),
        "PATH/0.safetensors is DynamiCrafter's model of 256x256 pixels, which predicts noise on another schedule",
    ),
    Case(
        "layeranimate",
        converting(lambda: layouts.u_net(whole()).with_({"masked_layer_fusion_norm_list.0.bias": np.zeros(3)})),
        "PATH/0.safetensors is a U-Net of LayerAnimate, whose layers have no place in ToonCrafter",
    ),
    Case(
        "diffusers-names",
        written("a.safetensors", lambda path: write_hollow_file(path, {"down_blocks.0.resnets.0.norm1.bias": (3,)})),
        "PATH/a.safetensors is another model's U-Net in diffusers' names: use ToonCrafter's or DynamiCrafter's model.c",
    ),
    Case(
        "bert",
        written("a.safetensors", lambda path: write_hollow_file(path, {"bert.embeddings": (3, 2)})),
        "PATH/a.safetensors holds no ToonCrafter tensors (its first name is 'bert.embeddings'); expected names like",
    ),
    Case(
        "another-architecture",
        written("a.safetensors", lambda path: write_hollow_file(path, key_list("keys/sketch_encoder.tsv"))),
        "PATH/a.safetensors does not fit this architecture; tensors ",
    ),
    Case(
        "another-schedule",
        written("a.safetensors", projector(NoiseSchedule(ScheduleConfig(linear_start=0.001)))),
        "the schedule buffer betas of PATH/a.safetensors differs from the schedule of the config by ",
    ),
]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    from huggingface_hub import close_session

    with hub_server.Hub() as server:
        server.use(monkeypatch, str(tmp_path / "home"))
        monkeypatch.setattr(hub_download, "WAITS", ())
        yield Place(server, tmp_path, monkeypatch)
    monkeypatch.undo()
    close_session()  # which may have been opened by way of a proxy


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_it_ends_in_a_sentence(case: Case, place: Place, command: Command) -> None:
    argv = case.prepare(place)
    before = sorted(place.path.iterdir())
    result = command(*argv)
    assert result.code == 2 and len(result.errors) == 1 and "Traceback" not in result.err, result.err
    sentence = result.errors[0].replace(str(place.path), "PATH").replace(place.server.endpoint, "HUB")
    assert sentence.startswith(f"error: {case.sentence}")
    assert len(sentence) < 1500 and not sentence.endswith(".") and "hf_" not in sentence
    assert not [path for path in models_cache().rglob("*") if path.name == "model.json"]
    assert [path for path in sorted(place.path.iterdir()) if path.name != "home"] == [
        path for path in before if path.name != "home"
    ]
