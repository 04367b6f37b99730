"""Which clips `sample.py` is asked for: a pair, a folder laid out as the published code expects, or a JSON-lines manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.requests import Pair, Sketch

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Pictures that a folder run picks up, in any case; the published script knows the first three."""
MANIFEST_KEYS = {"first", "last", "prompt", "sketches", "seed", "fps", "name"}


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
    """A text file's content.

    Raises:
      UserError: if it cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
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
    texts = sorted(directory.glob("*.txt"))
    if not texts:
        raise UserError(f"{directory} has no prompts: put a .txt file with one prompt a line beside the pictures")
    prompts = [line.strip() for line in read_text(texts[0]).splitlines() if line.strip()]
    images = sorted(path for path in directory.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS)
    each = 1 if loop else 2
    if len(images) != each * len(prompts):
        raise UserError(
            f"{directory} has {len(images)} pictures for the {len(prompts)} prompts of {texts[0].name}: "
            f"{each * len(prompts)} are needed, {each} for each, in the order of their names"
        )
    jobs = []
    for i, prompt in enumerate(prompts):
        first, last = images[each * i], images[each * i + each - 1]
        jobs.append(Job(first.name.split(".")[0], template._replace(first=first, last=last, prompt=prompt)))
    return with_unique_names(jobs)


def manifest_jobs(path: Path, template: Pair, *, bright_sketches: bool = False) -> list[Job]:
    """The pairs of a manifest: one JSON object a line with `first`, `last` and, if wanted, `prompt`, `sketches`
    ({"7": "path.png"}), `seed`, `fps` and `name`. Paths are relative to the manifest.

    Raises:
      UserError: naming the first line that is not such an object.
    """
    jobs = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            jobs.append(_manifest_job(line, f"line {number} of {path}", path.parent, template, bright_sketches))
    if not jobs:
        raise UserError(f"{path} has no lines")
    return with_unique_names(jobs)


def _manifest_job(line: str, where: str, base: Path, template: Pair, bright_sketches: bool) -> Job:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise UserError(f'{where} is not an object like {{"first": "a.png", "last": "b.png"}}')
    unknown = sorted(set(entry) - MANIFEST_KEYS)
    if unknown:
        raise UserError(f"{where} has the unknown key '{unknown[0]}': known are {', '.join(sorted(MANIFEST_KEYS))}")

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
    first, last = base / field("first", str), base / field("last", str)
    pair = Pair(
        first=first,
        last=last,
        prompt=field("prompt", str, template.prompt),
        sketches=parse_sketches([f"{f}:{base / p}" for f, p in sketches.items()], bright=bright_sketches, where=where),
        seed=field("seed", int, template.seed),
        fps=field("fps", int, template.fps),
    )
    name = field("name", str, first.name.split(".")[0])
    if not name or "/" in name or name.startswith("."):
        raise UserError(f"{where} has the name '{name}', which cannot be a file name")
    return Job(name, pair)


def parse_sketches(values: Iterable[str], *, bright: bool, where: str = "--sketch") -> dict[int, Sketch] | None:
    """Sketches given as "FRAME:PATH"; None if there are none.

    Raises:
      UserError: for another form, or two sketches for one frame.
    """
    sketches: dict[int, Sketch] = {}
    for value in values:
        frame, colon, path = value.partition(":")
        if not colon or not path or not frame.strip().lstrip("-").isdigit():
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
