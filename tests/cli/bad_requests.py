"""Mistakes in what `tooncrafter sample` is asked for: pictures, settings, paths, folders and manifests; and what fails
late.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.cli.world import (
    World,
    draw,
    draw_lines,
    write_folder,
)


class Case(NamedTuple):
    """One mistake.

    Attributes:
      id: what is wrong.
      argv: makes the files and returns the arguments.
      phrases: must all be in the sentence.
      command: of `tooncrafter`.
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
    Case(
        "pictures-of-two-shapes",
        lambda w: w.pair(f"--last={draw(w.path / 'tall.png', 0, 192, 108)}"),
        ("first.png'", "64 x 64", "tall.png'", "108 x 192", "fit"),
    ),
    Case("special-file", lambda w: w.pair("--last=/dev/null"), ("'/dev/null'", "not a regular file")),
]


# --- settings ---


def with_sketch(*sketches: str) -> Callable[[World], list[str]]:
    """A pair with sketches; `{}` stands for a good one's path."""

    def argv(world: World) -> list[str]:
        good = draw_lines(world.path / "sketch.png")
        draw_lines(world.path / "wide.png", width=128)
        draw(world.path / "grey.png", 120)
        draw_lines(world.path / "blank.png", ink=255)
        others = {name: world.path / f"{name}.png" for name in ("wide", "grey", "blank")}
        return world.pair(*(f"--sketch={s.format(good, **others)}" for s in sketches))

    return argv


def setting(*changes: str) -> Callable[[World], list[str]]:
    return lambda world: world.pair(*changes)


SETTINGS = [
    Case("height-beyond-every-memory", setting("--height=102400"), ("height must be at most 4096 pixels, not 102400",)),
    Case("width-beyond-every-number", setting(f"--width={2**40}"), ("width must be at most 4096 pixels",)),
    Case(
        "clip-beyond-every-memory",
        setting("--frames=1024", "--height=4096", "--width=4096"),
        ("too many for one clip",),
    ),
    Case("diffusers-name", setting("--num-inference-steps=5"), ("'--num-inference-steps=5'", "did you mean --steps?")),
    Case("published-name", setting("--ddim_steps=5"), ("'--ddim_steps=5'", "did you mean --steps?")),
    Case("published-name-of-another-word", setting("--savedir=x"), ("did you mean --out?",)),
    Case("strength-without-a-draft", setting("--strength=0.5"), ("a strength of 0.5", "there is none")),
    Case("strength-of-nothing", setting("--strength=0"), ("strength", "from 0.001 to 1", "not 0")),
    Case(
        "draft-that-is-no-folder",
        setting("--draft=nowhere"),
        ("nowhere", "a draft is a folder with a picture for each frame"),
    ),
    Case("height-not-a-multiple-of-64", setting("--height=100"), ("multiple of 64", "100", "try 128")),
    Case("negative-width", setting("--width=-64"), ("multiple of 64", "-64")),
    Case("negative-steps", setting("--steps=-1"), ("steps must be from 1 to 1000, not -1",)),
    Case("steps-over-1000", setting("--steps=1001"), ("steps must be from 1 to 1000, not 1001",)),
    Case("steps-not-a-number", setting("--steps=many"), ("--steps", "'many'")),
    Case("unknown-spacing", setting("--spacing=cosine"), ("--spacing", "'cosine'", "uniform_trailing")),
    Case("eta-out-of-range", setting("--eta=nan"), ("eta must be from 0 to 1",)),
    Case("unknown-fit", setting("--fit=stretch"), ("--fit", "'stretch'", "crop")),
    Case("unknown-dtype", setting("--dtype=int8"), ("--dtype", "'int8'")),
    Case("unknown-attention", setting("--attention=flash"), ("--attention", "'flash'", "splash")),
    Case(
        "attention-of-a-gpu",
        setting("--attention=cudnn"),
        ("--attention", "'cudnn'", "NVIDIA GPU", "this is a CPU", "'auto'"),
    ),
    Case("attention-of-a-tpu", setting("--attention=splash"), ("--attention", "'splash'", "needs a TPU", "'auto'")),
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
    Case("sketch-that-is-blank", with_sketch("7:{blank}"), ("frame 7", "blank.png'", "is blank")),
    Case("sketch-of-unclear-polarity", with_sketch("7:{grey}"), ("frame 7", "dark or bright lines", "--dark-sketches")),
    Case("two-polarities", setting("--dark-sketches", "--bright-sketches"), ("exclude each other",)),
    Case("polarity-of-no-sketch", setting("--dark-sketches"), ("--dark-sketches says", "there are none")),
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
    Case(
        "nothing-asked-for",
        lambda w: ["--out=a.mp4"],
        ("--first with --last, --keys, --timesheet, --reference with --sketches, --folder, or --manifest",),
    ),
    Case("two-things-asked-for", lambda w: w.pair("--folder=a"), ("not --first and --folder together",)),
    Case("no-out", lambda w: w.pair()[:2], ("--out",)),
    Case("first-without-last", lambda w: [*w.pair()[:1], "--out=a.mp4"], ("--first needs --last",)),
    Case("loop-with-last", setting("--loop"), ("leave out --last",)),
    Case(
        "unknown-format", setting("--format=mp4,avi"), ("unknown format 'avi'", "mp4, gif, webp, apng, webm, mov, png")
    ),
    Case("unknown-ending", setting("--out=ab.avi"), ("ends in .avi", "use .mp4, .gif")),
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
    Case("folder-and-polarity", folder_with("--bright-sketches"), ("--bright-sketches says", "there are none")),
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
