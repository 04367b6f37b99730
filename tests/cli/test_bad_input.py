"""Everything that a user can get wrong ends in one sentence, and costs nothing that was there before."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.cli.world import (
    Command,
    World,
    draw,
    link_checkpoint,
    write_folder,
    write_hollow_file,
    write_manifest,
)
from tests.reference import GOLDEN, key_list
from tooncrafter_jax.models.configuration import COMPONENTS
from tooncrafter_jax.models.tokenizer import tokenizer

REPOSITORY = Path(__file__).parents[2]


class Case(NamedTuple):
    """One mistake.

    Attributes:
      id: what is wrong.
      argv: makes the files and returns the arguments.
      phrases: must all be in the sentence.
      command: `sample`, or one of `python -m tooncrafter_jax`.
      code: exit code.
    """

    id: str
    argv: Callable[[World], list[str]]
    phrases: tuple[str, ...]
    command: str = "sample"
    code: int = 2


# --- pictures ---


def with_first(write: Callable[[Path], object], name: str = "bad.png") -> Callable[[World], list[str]]:
    """A pair whose first picture is written by `write`."""

    def argv(world: World) -> list[str]:
        write(world.path / name)
        return world.pair(f"--first={world.path / name}")

    return argv


def truncated_png(path: Path) -> None:
    draw(path, height=256, width=256)
    path.write_bytes(path.read_bytes()[:200])


def huge_png(path: Path) -> None:
    """20,000 x 20,000 pixels of one bit, in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(bytes((20_000 // 8 + 1) * 20_000), 9)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


PICTURES = [
    Case("missing-file", lambda w: w.pair("--first=nowhere.png"), ("'nowhere.png'", "does not exist")),
    Case("directory-for-a-file", with_first(Path.mkdir), ("bad.png'", "is a directory")),
    Case("truncated-png", with_first(truncated_png), ("bad.png'", "damaged or cut short")),
    Case("zero-byte-file", with_first(Path.touch), ("bad.png'", "is empty")),
    Case(
        "text-renamed-to-png", with_first(lambda p: p.write_text("hello")), ("bad.png'", "does not contain a picture")
    ),
    Case("one-pixel-image", with_first(lambda p: draw(p, 0, 1, 1)), ("1 x 1 pixels", "at least 8")),
    Case("20000-pixel-image", with_first(huge_png), ("bad.png'", "more than 100 megapixels", "scale it down")),
    Case("strip", with_first(lambda p: draw(p, 0, 10, 2000)), ("2000 x 10", "at most 32 times")),
    Case("special-file", lambda w: w.pair("--last=/dev/null"), ("'/dev/null'", "not a regular file")),
]


# --- settings ---


def with_sketch(*sketches: str) -> Callable[[World], list[str]]:
    """A pair with sketches; `{}` stands for a good one's path."""

    def argv(world: World) -> list[str]:
        good = draw(world.path / "sketch.png", 120)
        draw(world.path / "wide.png", 120, width=128)
        return world.pair(*(f"--sketch={s.format(good, wide=world.path / 'wide.png')}" for s in sketches))

    return argv


def setting(*changes: str) -> Callable[[World], list[str]]:
    return lambda world: world.pair(*changes)


SETTINGS = [
    Case("height-not-a-multiple-of-64", setting("--height=100"), ("multiple of 64", "100", "try 128")),
    Case("negative-width", setting("--width=-64"), ("multiple of 64", "-64")),
    Case("negative-steps", setting("--steps=-1"), ("steps must be from 1 to 1000, not -1",)),
    Case("steps-over-1000", setting("--steps=1001"), ("steps must be from 1 to 1000, not 1001",)),
    Case("steps-not-a-number", setting("--steps=many"), ("--steps", "'many'")),
    Case("unknown-spacing", setting("--spacing=cosine"), ("--spacing", "'cosine'", "uniform_trailing")),
    Case("eta-out-of-range", setting("--eta=nan"), ("eta must be from 0 to 1",)),
    Case("unknown-fit", setting("--fit=stretch"), ("--fit", "'stretch'", "crop")),
    Case("unknown-dtype", setting("--dtype=int8"), ("--dtype", "'int8'")),
    Case("seed-negative", setting("--seed=-1"), ("seed must be from 0 to 4294967295, not -1",)),
    Case("seed-too-large", setting("--seed=4294967296"), ("seed must be from 0 to 4294967295",)),
    Case(
        "last-of-several-seeds-too-large",
        setting("--seed=4294967294", "--samples-per-pair=3"),
        ("seed must be from 0 to 4294967295, not 4294967296",),
    ),
    Case("fps-0", setting("--fps=0"), ("fps must be from 1 to 1000, not 0",)),
    Case("playback-fps-0", setting("--playback-fps=0"), ("playback fps is 0", "0.01 to 1000")),
    Case("playback-fps-too-fast-for-gif", setting("--format=gif", "--playback-fps=60"), ("GIF", "at most 50")),
    Case("two-frames", setting("--frames=2"), ("number of frames must be from 3 to 1024, not 2",)),
    Case("batch-size-0", setting("--batch-size=0"), ("--batch-size must be at least 1, not 0",)),
    Case("misspelt-option", setting("--setps=3"), ("unknown argument '--setps=3'", "did you mean --steps?")),
    Case("shortened-option", setting("--guidance=3"), ("unknown argument '--guidance=3'",)),
    Case("prompt-that-is-no-text", setting("--prompt=caf\udce9"), ("prompt", "not text in UTF-8")),
    Case("prompt-of-a-million-characters", setting("--prompt=" + "a" * 1_000_000), ("1,000,000 characters",)),
    Case("sketch-index-out-of-range", with_sketch("16:{}"), ("no frame 16", "0 to 15")),
    Case("sketch-index-negative", with_sketch("-1:{}"), ("no frame -1", "0 to 15")),
    Case("two-sketches-for-one-frame", with_sketch("7:{}", "07:{}"), ("two sketches for frame 7",)),
    Case("sketch-of-another-size", with_sketch("7:{wide}"), ("128 x 64", "64 x 64", "cannot line up")),
    Case("sketch-without-a-frame", with_sketch("{}"), ("FRAME:PATH",)),
    Case("sketch-with-an-odd-digit", with_sketch("²:{}"), ("FRAME:PATH",)),
    Case("sketch-missing", with_sketch("7:nowhere.png"), ("'nowhere.png'", "does not exist")),
]


# --- what is asked for, and where it goes ---


def out_in_the_way(world: World) -> list[str]:
    (world.path / "file").write_text("in the way")
    return world.pair(f"--out={world.path / 'file' / 'ab.mp4'}")


def out_over_an_input(world: World) -> list[str]:
    draw(world.out / "ab.webp")
    return world.pair(f"--first={world.out / 'ab.webp'}", f"--out={world.out / 'ab.webp'}")


def frames_over_an_input(world: World) -> list[str]:
    return world.pair(f"--out={world.path}", "--format=png")


REQUESTS = [
    Case("nothing-asked-for", lambda w: ["--out=a.mp4"], ("--first with --last, --folder, or --manifest",)),
    Case("two-things-asked-for", lambda w: w.pair("--folder=a"), ("not --first and --folder together",)),
    Case("no-out", lambda w: w.pair()[:2], ("--out",)),
    Case("first-without-last", lambda w: w.pair()[:1] + ["--out=a.mp4"], ("--first needs --last",)),
    Case("loop-with-last", setting("--loop"), ("leave out --last",)),
    Case("unknown-format", setting("--format=mp4,avi"), ("unknown format 'avi'", "mp4, gif, webp, png")),
    Case("unknown-ending", setting("--out=ab.mov"), ("ends in .mov", ".mp4, .gif or .webp")),
    Case("out-is-a-directory", lambda w: w.pair(f"--out={w.out}"), ("is a directory", "clip.mp4")),
    Case("out-below-a-file", out_in_the_way, ("file'", "cannot be written", "a file is in the way")),
    Case("out-not-writable", setting("--out=/proc/ab/ab.mp4"), ("'/proc/ab'", "cannot be written")),
    Case("out-would-replace-an-input", out_over_an_input, ("ab.webp", "inputs are there", "another --out")),
    Case("frames-among-the-inputs", frames_over_an_input, ("inputs are there", "another --out")),
    Case("missing-folder", lambda w: w.folder(w.path / "no"), ("is not a folder",)),
]


def odd_folder(world: World) -> list[str]:
    folder = write_folder(world.path / "folder", 2)
    (folder / "1_b.png").unlink()
    return world.folder(folder)


def folder_without_prompts(world: World) -> list[str]:
    folder = write_folder(world.path / "folder", 2)
    (folder / "prompts.txt").unlink()
    return world.folder(folder)


def folder_with(*changes: str) -> Callable[[World], list[str]]:
    return lambda world: world.folder(write_folder(world.path / "folder", 1), *changes)


def manifest(*lines: object) -> Callable[[World], list[str]]:
    good = {"first": "first.png", "last": "last.png"}
    return lambda world: world.manifest(good, *lines)  # pyright: ignore[reportArgumentType]


def binary_manifest(world: World) -> list[str]:
    world.manifest()
    (world.path / "shots.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    return [f"--manifest={world.path / 'shots.jsonl'}", f"--out={world.out}", *world.common]


LISTS = [
    Case("folder-with-an-odd-number-of-pictures", odd_folder, ("3 pictures for the 2 prompts", "4 are needed")),
    Case("folder-without-prompts", folder_without_prompts, ("has no prompts", ".txt")),
    Case("folder-and-prompt", folder_with("--prompt=hello"), ("--prompt goes with --first",)),
    Case("folder-and-sketch", folder_with("--sketch=7:a.png"), ("--sketch goes with --first",)),
    Case("folder-into-one-file", folder_with("--out=a.mp4"), ("the name of one file", "give a directory")),
    Case(
        "folder-into-itself",
        lambda w: w.folder(write_folder(w.path / "folder", 1), f"--out={w.path / 'folder'}"),
        ("the folder of the pictures",),
    ),
    Case("missing-manifest", lambda w: ["--manifest=no.jsonl", "--out=out"], ("no file no.jsonl",)),
    Case("empty-manifest", lambda w: w.manifest(), ("has no lines",)),
    Case("binary-manifest", binary_manifest, ("not a text file in UTF-8",)),
    Case("bad-manifest-line", manifest('{"first": '), ("line 2", "not JSON")),
    Case("nested-manifest-line", manifest("[" * 100_000), ("line 2", "not JSON")),
    Case("manifest-line-no-object", manifest('["a.png", "b.png"]'), ("line 2", "not an object")),
    Case(
        "unknown-manifest-key", manifest({"first": "a", "last": "b", "promt": "c"}), ("line 2", "unknown key 'promt'")
    ),
    Case("manifest-line-without-last", manifest({"first": "a.png"}), ("line 2", "has no 'last'")),
    Case("manifest-value-of-another-type", manifest({"first": 1, "last": "b"}), ("line 2", "first = 1", "text")),
    Case(
        "manifest-with-two-sketches-for-a-frame",
        manifest('{"first": "a", "last": "b", "sketches": {"7": "c", "7": "d"}}'),
        ("line 2", "'7' twice"),
    ),
    Case("manifest-name-with-a-slash", manifest({"first": "a", "last": "b", "name": "../c"}), ("'../c'", "file name")),
    Case("manifest-name-too-long", manifest({"first": "a", "last": "b", "name": "x" * 300}), ("300", "200 bytes")),
    Case(
        "manifest-name-that-no-file-can-have",
        manifest({"first": "a", "last": "b", "name": "\0"}),
        ("'\\x00'", "file name"),
    ),
]


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
        return [str(world.path / name), str(world.path / "converted"), f"--preset={preset}", *changes]

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


def needs_torch(argv: Callable[[World], list[str]]) -> Callable[[World], list[str]]:
    def checked(world: World) -> list[str]:
        pytest.importorskip("torch", reason="needs the extra 'convert'")
        return argv(world)

    return checked


def without_torch(world: World) -> list[str]:
    world.monkeypatch.setitem(sys.modules, "torch", None)
    return converting(malicious_checkpoint, name="weights.ckpt")(world)


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
        return converting(hollow(), f"--config={world.path / 'config.json'}")(world)

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
        converting(hollow(**{GONE: None, "time_embed__2__bias": None, "time_embed__2__weight": None})),
        ("3 missing: sketch_encoder.", "bias, sketch_encoder.", "kernel"),
        "convert",
    ),
    Case(
        "ckpt-malicious",
        needs_torch(converting(malicious_checkpoint, name="weights.ckpt")),
        ("was refused", "run code"),
        "convert",
    ),
    Case(
        "ckpt-not-zip",
        needs_torch(converting(lambda p: p.write_bytes(pickle.dumps({})), name="weights.ckpt")),
        ("zip format",),
        "convert",
    ),
    Case("ckpt-without-torch", without_torch, ("'torch'", "pip install 'tooncrafter-jax[convert]'"), "convert"),
    Case("destination-exists", onto_a_checkpoint, ("holds sketch_encoder already", "--overwrite"), "convert"),
    Case("destination-is-something-else", onto_something_else, ("not a checkpoint directory",), "convert"),
    Case("destination-of-another-architecture", onto_another_architecture, ("another architecture (tiny)",), "convert"),
    Case("convert-unknown-preset", converting(hollow(), preset="huge"), ("unknown preset 'huge'",), "convert"),
    Case("convert-unknown-dtype", converting(hollow(), "--dtype=int8"), ("--dtype", "'int8'"), "convert"),
    Case("convert-without-destination", lambda w: ["a.safetensors"], ("required: destination",), "convert"),
    Case(
        "config-missing", converting(hollow(), "--config=no.json"), ("cannot read the architecture no.json",), "convert"
    ),
    Case("config-not-json", with_config("width: 64"), ("cannot read the architecture",), "convert"),
    Case("config-empty", with_config("{}"), ("has no section 'diffusion'",), "convert"),
    Case("config-of-wrong-types", with_config(flat_config()), ("published code's keys", "has no len()"), "convert"),
]

OTHERS = [
    Case("unknown-command", lambda w: [], ("unknown command 'covnert'", "convert, verify"), "covnert"),
    Case("verify-no-folder", lambda w: [str(w.path / "no")], ("no",), "verify"),
    Case("verify-unknown-option", lambda w: ["--dytpe=x", "a"], ("did you mean --dtype?",), "verify"),
]


# --- what goes wrong late ---


def disk_full(world: World) -> list[str]:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.model.before = lambda number: world.monkeypatch.setattr(os, "fsync", fail)
    return world.pair()


def disk_full_in_a_folder(world: World) -> list[str]:
    disk_full(world)
    return world.folder(write_folder(world.path / "folder", 2))


def nan_frames(world: World) -> list[str]:
    world.model.broken_seed = 5
    return world.pair("--seed=5")


LATE = [
    Case("disk-full", disk_full, ("ab.mp4' cannot be written", "No space left on device", "free some space")),
    Case("disk-full-in-a-folder", disk_full_in_a_folder, ("No space left on device", "free some space")),
    Case("nan-frames", nan_frames, ("contain NaN", "float32")),
]


# --- pairs of a list that fail ---


def folder_with_a_broken_picture(world: World) -> list[str]:
    folder = write_folder(world.path / "folder", 3)
    truncated_png(folder / "1_b.png")
    return world.folder(folder, "--batch-size=2")


def nan_in_a_batch(world: World) -> list[str]:
    world.model.broken_seed = 5
    good = {"first": "first.png", "last": "last.png"}
    return world.manifest(good, good | {"seed": 5, "name": "b"}, good, changes=["--batch-size=3"])


def one_name_in_the_way(world: World) -> list[str]:
    (world.out / "1_a.mp4" / "x").mkdir(parents=True)
    return world.folder(write_folder(world.path / "folder", 3), "--batch-size=3")


FAILED_PAIRS = [
    Case("folder-with-a-broken-picture", folder_with_a_broken_picture, ("1_a failed:", "damaged or cut short")),
    Case(
        "manifest-picture-missing", manifest({"first": "no.png", "last": "last.png"}), ("no failed:", "does not exist")
    ),
    Case(
        "manifest-seed-out-of-range",
        manifest({"first": "first.png", "last": "last.png", "seed": -1, "name": "x"}),
        ("x failed:", "seed must be from 0"),
    ),
    Case(
        "manifest-path-that-no-file-can-have",
        manifest({"first": "a\0.png", "last": "last.png", "name": "x"}),
        ("x failed:", "cannot be read"),
    ),
    Case(
        "manifest-sketch-of-no-frame",
        manifest({"first": "first.png", "last": "last.png", "sketches": {"99": "first.png"}, "name": "x"}),
        ("x failed:", "no frame 99"),
    ),
    Case("nan-in-a-batch", nan_in_a_batch, ("b failed:", "contain NaN")),
    Case("one-name-in-the-way", one_name_in_the_way, ("1_a failed:", "1_a.mp4", "cannot be written")),
]


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id)
        for case in (*PICTURES, *SETTINGS, *REQUESTS, *LISTS, *MODELS, *CONVERSIONS, *OTHERS, *LATE)
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(case: Case, world: World, command: Command):
    argv = case.argv(world)
    before = snapshot(world.path)
    result = command(case.command, *argv)
    assert result.code == case.code, result
    assert len(result.err.splitlines()) == 1 and result.err.startswith("error: "), result.err
    for phrase in case.phrases:
        assert phrase in result.err
    assert not result.err.rstrip().endswith(".")
    assert snapshot(world.path) == before, "files were changed, lost or left behind"
    assert not any(path.name.startswith(".") for path in world.path.rglob("*"))
    assert case in LATE or not world.model.batches, "sampled before the mistake was found"


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in FAILED_PAIRS])
def test_a_broken_pair_does_not_stop_the_others(case: Case, world: World, command: Command):
    argv = case.argv(world)
    result = command("sample", *argv)
    assert result.code == 1
    assert len(result.err.splitlines()) == len(result.errors) == 1, result.err
    for phrase in case.phrases:
        assert phrase in result.err
    made = sorted(path.stem for path in world.out.glob("*.json") if path.stem != "ab")
    count = 1 if case.id.startswith("manifest") else 2
    assert len(made) == count and all((world.out / f"{name}.mp4").is_file() for name in made)
    assert f"{count} made, 0 done before, 1 failed" in result.out
    assert (world.out / "ab.mp4").read_text() == "ab.mp4 of an earlier run"


def test_there_is_a_case_for_every_kind_of_mistake():
    cases = [*PICTURES, *SETTINGS, *REQUESTS, *LISTS, *MODELS, *CONVERSIONS, *OTHERS, *LATE, *FAILED_PAIRS]
    assert len(cases) == len({case.id for case in cases}) >= 100


def test_no_code_of_a_malicious_checkpoint_is_run(world: World, command: Command):
    command("convert", *needs_torch(converting(malicious_checkpoint, name="weights.ckpt"))(world))
    assert not (world.path / "code-was-run").exists()
    # The trap works: whoever unpickles it runs its code.
    with zipfile.ZipFile(world.path / "weights.ckpt") as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert (world.path / "code-was-run").exists()


def test_a_prompt_of_ten_thousand_characters_is_cut(world: World, command: Command):
    prompt = "a cat jumps, " * 800
    assert command("sample", *world.pair(f"--prompt={prompt}")).code == 0
    tokens = tokenizer()([prompt])
    assert tokens.shape == (1, 77) and np.array_equal(tokens, tokenizer()([prompt[:2000]]))
    assert json.loads((world.out / "ab.json").read_text())["request"]["prompt"] == prompt


def test_ctrl_c_in_a_folder_run_and_resuming_it(world: World, command: Command):
    argv = world.folder(write_folder(world.path / "folder", 4))

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    world.model.before = interrupt
    result = command("sample", *argv)
    assert result.code == 130
    assert "Traceback" not in result.err and "interrupted" in result.err
    assert "2 made, 0 done before, 0 failed, 2 left" in result.out
    first_half = snapshot(world.out)

    world.model.before = lambda number: None
    world.model.batches.clear()
    result = command("sample", *argv)
    assert result.code == 0 and result.err == ""
    assert "2 made, 2 done before, 0 failed" in result.out
    assert world.model.batches == [1, 1]
    assert snapshot(world.out).items() >= first_half.items()
    assert len(list(world.out.glob("?_a.mp4"))) == 4


# --- as real processes ---

SLOW_RUN = """
import sys, time
import pytest
from tests.cli.world import FakeModel
from tooncrafter_jax.cli.common import run
from tooncrafter_jax.cli.sample import main
model = FakeModel(before=lambda number: time.sleep(0 if number < 1 else 60))
model.install(pytest.MonkeyPatch())
sys.exit(run(main))
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}


def test_ctrl_c_as_the_terminal_sends_it(world: World):
    folder = write_folder(world.path / "folder", 3)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, *world.folder(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while not (world.out / "0_a.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.split() and "Traceback" not in err
    assert "1 made" in out and "2 left" in out
    assert not list(world.out.glob(".*"))


@pytest.mark.parametrize(
    ("argv", "phrase"),
    [
        (["sample.py", "--first=no.png", "--last=no.png", "--out=a.mp4", "--random-weights=tiny"], "'no.png' does not"),
        (["-m", "tooncrafter_jax", "convert", "no.ckpt", "model"], "no file no.ckpt"),
        (["-m", "tooncrafter_jax", "convert", "malicious.ckpt", "model"], "malicious.ckpt was refused"),
    ],
    ids=["sample", "convert", "malicious"],
)
def test_the_real_commands_end_in_one_line(argv: list[str], phrase: str, tmp_path: Path):
    if argv[0] == "sample.py":
        argv = [str(REPOSITORY / "sample.py"), *argv[1:]]
    if "malicious.ckpt" in argv:
        pytest.importorskip("torch", reason="needs the extra 'convert'")
    malicious_checkpoint(tmp_path / "malicious.ckpt")
    process = subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1
    assert process.stderr.startswith("error: ") and phrase in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["malicious.ckpt"]


def test_a_manifest_is_not_replaced_by_a_record(world: World, command: Command):
    world.manifest()
    manifest = write_manifest(world.path / "first.json", {"first": "first.png", "last": "last.png"})
    result = command("sample", f"--manifest={manifest}", f"--out={world.path}", *world.common)
    assert result.code == 2 and "the inputs are there" in result.err
    assert json.loads(manifest.read_text())["last"] == "last.png"
