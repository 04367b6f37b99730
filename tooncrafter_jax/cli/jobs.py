"""Which clips `sample.py` is asked for: a pair, a folder laid out as the published code expects, or a JSON-lines manifest."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.media import SUPPORTED_EXTENSIONS
from tooncrafter_jax.requests import Pair, Sketch

MANIFEST_KEYS = {"first", "last", "prompt", "sketches", "seed", "fps", "name"}
MAX_NAME_BYTES = 200
"""Of a clip's name; file systems allow 255 bytes, endings included."""


@dataclass(frozen=True)
class Job:
    """One clip and the name of its files.

    Attributes:
      name: stem of the output files.
      pair: what to make.
    """

    name: str
    pair: Pair


def read_text(path: Path) -> str:
    """A text file's content, its lines ended by line feeds.

    Raises:
      UserError: if it cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # editors may put a byte-order mark in front
    except FileNotFoundError as error:
        raise UserError(f"no file {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8") from error


def folder_jobs(directory: Path, template: Pair, *, loop: bool = False) -> list[Job]:
    """The pairs of a folder: the first *.txt holds a prompt a line, all pictures sorted by path go two to a prompt.

    Args:
      directory: the folder (spec section 11.1).
      template: seed and fps of every pair.
      loop: whether each prompt has one picture, which is both first and last frame.

    Raises:
      UserError: if the folder, its prompts or enough pictures are missing.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a folder")
    try:
        files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {directory}: {error.strerror}") from error
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    prompts = [line.strip() for line in read_text(texts[0]).split("\n") if line.strip()] if texts else []
    if not prompts:
        raise UserError(f"{directory} has no prompts: put a .txt file with one prompt a line beside the pictures")
    images = [path for path in files if path.suffix.lower() in SUPPORTED_EXTENSIONS]
    each = 1 if loop else 2
    if len(images) != each * len(prompts):
        raise UserError(
            f"{directory} has {len(images)} pictures for the {len(prompts)} prompts of {texts[0].name}: "
            f"{each * len(prompts)} are needed, {each} for each, in the order of their names"
        )
    jobs = []
    for i, prompt in enumerate(prompts):
        first, last = images[each * i], images[each * i + each - 1]
        jobs.append(Job(default_name(first), template._replace(first=first, last=last, prompt=prompt)))
    return with_unique_names(jobs)


def manifest_jobs(path: Path, template: Pair, *, loop: bool = False, bright_sketches: bool = False) -> list[Job]:
    """The pairs of a manifest: one JSON object a line with `first`, `last` and, if wanted, `prompt`, `sketches`
    ({"7": "path.png"}), `seed`, `fps` and `name`. Paths are relative to the manifest.

    Args:
      path: the manifest.
      template: what lines without a prompt, seed or fps get.
      loop: whether each line has only `first`, which is the last frame too.
      bright_sketches: whether the sketches have bright lines on black.

    Raises:
      UserError: naming the first line that is not such an object.
    """
    jobs = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            jobs.append(_manifest_job(line, f"line {number} of {path}", path.parent, template, loop, bright_sketches))
    if not jobs:
        raise UserError(f"{path} has no lines")
    return with_unique_names(jobs)


def _manifest_job(line: str, where: str, base: Path, template: Pair, loop: bool, bright_sketches: bool) -> Job:
    def without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in items).items():
            if count > 1:
                raise UserError(f"{where} has '{key}' twice: keep one of them")
        return dict(items)

    try:
        entry = json.loads(line, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise UserError(f'{where} is not an object like {{"first": "a.png", "last": "b.png"}}')
    unknown = sorted(set(entry) - MANIFEST_KEYS)
    if unknown:
        raise UserError(f"{where} has the unknown key '{unknown[0]}': known are {', '.join(sorted(MANIFEST_KEYS))}")

    required = ("first",) if loop else ("first", "last")
    lacking = [key for key in required if key not in entry]
    if lacking:
        raise UserError(f"{where} has no '{lacking[0]}': every line needs {' and '.join(required)}")
    if loop and "last" in entry:
        raise UserError(f"{where} has 'last', but with --loop a clip ends with its first picture: leave it out")

    def field(key: str, kind: type, default: Any = None) -> Any:
        value = entry.get(key, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"{where} has {key} = {value!r}, which should be {'text' if kind is str else 'a whole number'}"
            )
        return value

    sketches = entry.get("sketches") or {}
    if not isinstance(sketches, Mapping) or not all(isinstance(p, str) for p in sketches.values()):
        raise UserError(f'{where} has sketches = {sketches!r}, which should be like {{"7": "sketch.png"}}')
    first = base / field("first", str)
    last = first if loop else base / field("last", str)
    pair = Pair(
        first=first,
        last=last,
        prompt=field("prompt", str, template.prompt),
        sketches=parse_sketches([f"{f}:{base / p}" for f, p in sketches.items()], bright=bright_sketches, where=where),
        seed=field("seed", int, template.seed),
        fps=field("fps", int, template.fps),
    )
    return Job(checked_name(field("name", str, default_name(first)), where), pair)


def default_name(picture: Path) -> str:
    """A picture's file name up to its first dot, as the published script names clips."""
    return picture.name.split(".")[0] or picture.stem.lstrip(".") or "clip"


def checked_name(name: str, where: str) -> str:
    """A clip's name, if files can be called by it.

    Raises:
      UserError: if not; `where` says where it was given.
    """
    if name.startswith(".") or "/" in name or "\\" in name or not name.isprintable() or not name.strip():
        raise UserError(f"{where} has the name {name!r}, which cannot be a file name")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise UserError(f"{where} has a name of {len(name)} characters: shorten it to {MAX_NAME_BYTES} bytes")
    return name


def parse_sketches(values: Iterable[str], *, bright: bool, where: str = "--sketch") -> dict[int, Sketch] | None:
    """Sketches given as "FRAME:PATH"; None if there are none.

    Raises:
      UserError: for another form, or two sketches for one frame.
    """
    sketches: dict[int, Sketch] = {}
    for value in values:
        frame, _, path = value.partition(":")
        if not path or not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", frame):
            raise UserError(f"{where}: '{value}' is not of the form FRAME:PATH, e.g. 7:middle.png")
        if int(frame) in sketches:
            raise UserError(f"{where}: there are two sketches for frame {int(frame)}")
        sketches[int(frame)] = Sketch(Path(path), dark_lines=not bright)
    return sketches or None


def with_unique_names(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with "_2", "_3", ... after names that came before."""
    taken: set[str] = set()
    result = []
    for job in jobs:
        name, number = job.name, 1
        while name in taken:
            number += 1
            name = f"{job.name}_{number}"
        taken.add(name)
        result.append(replace(job, name=name))
    return result


def with_variations(jobs: Sequence[Job], count: int) -> list[Job]:
    """Each job `count` times with seeds counting up, named as the published script names samples."""
    if count == 1:
        return list(jobs)
    return [
        Job(f"{job.name}_sample{i}", job.pair._replace(seed=job.pair.seed + i)) for job in jobs for i in range(count)
    ]
