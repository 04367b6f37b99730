"""Mistakes with models: checkpoint directories to sample from, and weight files to convert."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.cli.bad_requests import Case, setting, with_sketch
from tests.cli.world import (
    World,
    link_checkpoint,
    write_hollow_file,
)
from tests.reference import GOLDEN, key_list
from tooncrafter_jax.models.configuration import COMPONENTS

# --- models ---


def model(**changes: object) -> Callable[[World], list[str]]:
    """A pair with a model whose model.json is changed."""
    return lambda world: world.pair(f"--model={link_checkpoint(world.checkpoint, world.path / 'model', **changes)}")


def model_directory(change: Callable[[Path], object]) -> Callable[[World], list[str]]:
    """A pair with a model whose directory is changed, really loaded."""

    def argv(world: World) -> list[str]:
        world.monkeypatch.undo()
        directory = link_checkpoint(world.checkpoint, world.path / "model")
        change(directory)
        return world.pair(f"--model={directory}")

    return argv


def cut_component(directory: Path) -> None:
    """Cuts the largest file of the first component."""
    source = (directory / "unet").resolve()
    (directory / "unet").unlink()
    shutil.copytree(source, directory / "unet")
    largest = max((f for f in (directory / "unet").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)


def no_sketch_encoder(world: World) -> list[str]:
    components = [name for name in COMPONENTS if name != "sketch_encoder"]
    return [*model(components=components)(world), *with_sketch("7:{}")(world)[-1:]]


MODELS = [
    Case("model-missing", setting("--model=/nowhere/model"), ("no checkpoint directory /nowhere/model",)),
    Case("model-of-unknown-name", setting("--model=medium"), ("no model 'medium'", "convert")),
    Case("model-is-no-checkpoint", lambda w: w.pair(f"--model={w.out}"), ("not a checkpoint directory", "model.json")),
    Case("model-is-a-file", lambda w: w.pair(f"--model={w.path / 'first.png'}"), ("not a checkpoint directory",)),
    Case(
        "model-json-damaged",
        model_directory(lambda d: (d / "model.json").write_text('{"format_version": 1, ')),
        ("model.json is damaged", "convert the model again"),
    ),
    Case(
        "model-json-incomplete",
        model_directory(lambda d: (d / "model.json").write_text('{"format_version": 1}')),
        ("model.json is damaged", "'components'"),
    ),
    Case("model-of-a-newer-format", model(format_version=2), ("has format 2", "update tooncrafter-jax")),
    Case("model-with-an-unknown-key", model(config={"unet": {"widht": 64}}), ("no key 'widht'", "'width'")),
    Case("model-with-an-unknown-component", model(components=["unet", "tail"]), ("component 'tail'",)),
    Case("model-without-a-component", model(components=["unet"]), ("holds no", "clip_text", "decoder")),
    Case("model-of-another-architecture", model_directory(lambda d: _narrow(d)), ("unet in", "another shape")),
    Case("component-deleted", model_directory(lambda d: (d / "unet").unlink()), ("unet in", "damaged or incomplete")),
    Case("component-cut", model_directory(cut_component), ("unet in", "damaged or incomplete")),
    Case("sketch-without-a-sketch-encoder", no_sketch_encoder, ("no sketch encoder", "convert")),
    Case("unknown-preset", setting("--random-weights=huge"), ("unknown preset 'huge'", "tiny")),
]


def _narrow(directory: Path) -> None:
    description = json.loads((directory / "model.json").read_text())
    description["config"]["unet"]["width"] = 32
    (directory / "model.json").write_text(json.dumps(description))


# --- conversion ---


def converting(
    write: Callable[[Path], object], *changes: str, name: str = "weights.safetensors", preset: str = "tiny"
) -> Callable[[World], list[str]]:
    """A conversion of a file written by `write`."""

    def argv(world: World) -> list[str]:
        write(world.path / name)
        return [str(world.path / name), str(world.path / "converted"), f"--architecture={preset}", *changes]

    return argv


def hollow(file: str = "tiny/sketch_keys.tsv", **changes: tuple[int, ...] | None) -> Callable[[Path], object]:
    """Writes a file of the right tensors, but for `changes`: name (`__` for a dot) -> shape, or None for without."""

    def write(path: Path) -> None:
        shapes = dict(key_list(file))
        for key, shape in changes.items():
            name = key.replace("__", ".")
            if shape is None:
                del shapes[name]
            else:
                shapes[name] = shape
        write_hollow_file(path, shapes)

    return write


def truncated_safetensors(path: Path) -> None:
    hollow()(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1000)


def lying_safetensors(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, (f"touch '{self.trace}'",)


def malicious_checkpoint(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Malicious(path.with_name("code-was-run"))}))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def onto_a_checkpoint(world: World) -> list[str]:
    link_checkpoint(world.checkpoint, world.path / "converted")
    return converting(hollow())(world)


def onto_something_else(world: World) -> list[str]:
    (world.path / "converted").mkdir()
    (world.path / "converted" / "thesis.tex").write_text("years of work")
    return converting(hollow(), "--overwrite")(world)


def onto_another_architecture(world: World) -> list[str]:
    link_checkpoint(world.checkpoint, world.path / "converted")
    return converting(hollow("keys/sketch_encoder.tsv"), preset="tooncrafter_512")(world)


def with_config(text: str) -> Callable[[World], list[str]]:
    def argv(world: World) -> list[str]:
        (world.path / "config.json").write_text(text)
        return converting(hollow(), f"--architecture={world.path / 'config.json'}")(world)

    return argv


def flat_config() -> str:
    config = json.loads((GOLDEN / "tiny" / "config.json").read_text())
    config["unet"]["channel_mult"] = 4
    return json.dumps(config)


GONE = "time_embed__0__bias"
NEW = "input_blocks__99__0__weight"

CONVERSIONS = [
    Case("weights-missing", converting(lambda p: None), ("no file", "weights.safetensors"), "convert"),
    Case("weights-a-directory", converting(Path.mkdir), ("is a directory",), "convert"),
    Case("weights-empty", converting(Path.touch), ("is empty",), "convert"),
    Case("weights-of-unknown-kind", converting(hollow(), name="a.h5"), ("unknown kind", ".safetensors"), "convert"),
    Case("weights-garbage", converting(lambda p: p.write_bytes(b"\xff" * 99)), ("not a safetensors file",), "convert"),
    Case("weights-lying", converting(lying_safetensors), ("is damaged", "size of a"), "convert"),
    Case("weights-truncated", converting(truncated_safetensors), ("is cut off", "copy it again"), "convert"),
    Case(
        "weights-of-another-model",
        converting(lambda p: write_hollow_file(p, {"bert.embeddings": (2, 2)})),
        ("no ToonCrafter tensors", "bert.embeddings"),
        "convert",
    ),
    Case(
        "checkpoint-of-another-architecture",
        converting(hollow("keys/sketch_encoder.tsv")),
        ("does not fit this architecture", "of another shape", "input_blocks.0.0.weight is"),
        "convert",
    ),
    Case(
        "checkpoint-with-missing-extra-and-misshaped-tensors",
        converting(hollow(**{GONE: None, NEW: (1, 2), "time_embed__2__bias": (3,)})),
        (
            "1 missing: ",
            "1 unexpected: control_model.input_blocks.99.0.weight",
            "1 of another shape: ",
            "time_embed.2.bias",
        ),
        "convert",
    ),
    Case(
        "checkpoint-with-three-missing-tensors",
        converting(
            hollow("tiny/sketch_keys.tsv", **{GONE: None, "time_embed__2__bias": None, "time_embed__2__weight": None})
        ),
        ("3 missing: sketch_encoder.", "bias, sketch_encoder.", "kernel"),
        "convert",
    ),
    Case(
        "ckpt-malicious",
        converting(malicious_checkpoint, name="weights.ckpt"),
        ("was refused", "run code"),
        "convert",
    ),
    Case(
        "ckpt-not-zip",
        converting(lambda p: p.write_bytes(pickle.dumps({})), name="weights.ckpt"),
        ("was refused", "not of a PyTorch checkpoint"),
        "convert",
    ),
    Case(
        "ckpt-of-letters",
        converting(lambda p: p.write_text("weights"), name="weights.ckpt"),
        ("zip format",),
        "convert",
    ),
    Case(
        "weights-a-pointer",
        converting(lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")),
        ("pointer of Git LFS", "git lfs pull"),
        "convert",
    ),
    Case("weights-a-page", converting(lambda p: p.write_text("<!DOCTYPE html>\n<title>x")), ("a web page",), "convert"),
    Case(
        "weights-half-fetched",
        converting(hollow(), name="weights.safetensors.part"),
        ("a download that is not finished",),
        "convert",
    ),
    Case("destination-exists", onto_a_checkpoint, ("holds sketch_encoder already", "--overwrite"), "convert"),
    Case("destination-is-something-else", onto_something_else, ("not a checkpoint directory",), "convert"),
    Case("destination-of-another-architecture", onto_another_architecture, ("another architecture (tiny)",), "convert"),
    Case("convert-unknown-preset", converting(hollow(), preset="huge"), ("unknown preset 'huge'",), "convert"),
    Case("convert-unknown-dtype", converting(hollow(), "--stored-dtype=int8"), ("--stored-dtype", "'int8'"), "convert"),
    Case("convert-without-destination", lambda w: ["a.safetensors"], ("required: destination",), "convert"),
    Case(
        "config-missing",
        converting(hollow(), "--architecture=no.json"),
        ("cannot read the architecture no.json",),
        "convert",
    ),
    Case("config-not-json", with_config("width: 64"), ("cannot read the architecture",), "convert"),
    Case("config-empty", with_config("{}"), ("has no section 'diffusion'",), "convert"),
    Case("config-of-wrong-types", with_config(flat_config()), ("a value of another kind", "has no len()"), "convert"),
]
