"""Which clips `tooncrafter sample` is asked for, and what they are called: pairs, and the lines of a JSON-lines
manifest.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.json_files import read_at_most
from tooncrafter_jax.io.ordering import by_last_number, pictures_in
from tooncrafter_jax.io.owned_files import shortened
from tooncrafter_jax.sampling.request import Pair, Sketch, references_of
from tooncrafter_jax.sampling.request import with_variations as variations_of

MANIFEST_KEYS = {
    "first",
    "last",
    "references",
    "prompt",
    "negative_prompt",
    "sketches",
    "draft",
    "seed",
    "fps",
    "name",
}
MAX_NAME_BYTES = 200
"""Of a name that is given to a clip."""
MAX_FILE_NAME_BYTES = 255
"""Of a file's name on most file systems, ending included."""
LARGEST_TEXT = 2**26
"""Bytes of a manifest or a file of prompts; its lines grow tenfold in memory."""


@dataclass(frozen=True)
class NamedJob:
    """Something to make, and the name of its files.

    Attributes:
      name: stem of the output files.
    """

    name: str


@dataclass(frozen=True)
class Job(NamedJob):
    """One clip and the name of its files.

    Attributes:
      name: stem of the output files.
      pair: what to make.
    """

    pair: Pair


AnyJob = TypeVar("AnyJob", bound=NamedJob)


def read_text(path: Path) -> str:
    """A text file's content, its lines ended by line feeds.

    Raises:
      UserError: if it cannot be read, is no text or too long.
    """
    try:
        data = read_at_most(path, LARGEST_TEXT)
    except FileNotFoundError as error:
        raise UserError(f"no file {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is too long to read ({error}): split it into several") from error
    try:
        text = data.decode("utf-8-sig")  # editors may put a byte-order mark in front
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def manifest_jobs(path: Path, template: Pair, *, loop: bool = False, dark_lines: bool | None = None) -> list[Job]:
    """The pairs of a manifest: one JSON object a line with `first`, `last` and, if wanted, `prompt`, `sketches`
    ({"7": "path.png"}), `draft` (a folder of frames), `negative_prompt`, `seed`, `fps` and `name`; or `references` (one
    or two) and `sketches` (a folder). Paths are relative to the manifest.

    Args:
      path: the manifest.
      template: what lines without a prompt, negative prompt, seed or fps get.
      loop: whether each line has only `first`, which is the last frame too.
      dark_lines: whether the sketches have dark lines on bright paper; None: as each shows.

    Raises:
      UserError: naming the first line that is not such an object.
    """
    entries = manifest_entries(path)
    return with_unique_names([pair_of_entry(*one, path.parent, template, loop, dark_lines) for one in entries])


def manifest_entries(path: Path) -> list[tuple[dict[str, Any], str]]:
    """The objects of a manifest's lines, and what sentences call each line.

    Raises:
      UserError: naming the first line that is no object, or has a key twice.
    """
    lines = [(line, f"line {number} of {path}") for number, line in enumerate(read_text(path).split("\n"), 1)]
    entries = [(_entry(line, where), where) for line, where in lines if line.strip()]
    if not entries:
        raise UserError(f"{path} has no lines")
    return entries


Plain = TypeVar("Plain", str, int)


def _entry(line: str, where: str) -> dict[str, Any]:
    def without_repeats(items: list[tuple[str, object]]) -> dict[str, object]:
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
    return entry


def pair_of_entry(
    entry: Mapping[str, Any], where: str, base: Path, template: Pair, loop: bool, dark_lines: bool | None
) -> Job:
    """The pair of a manifest's line; see `manifest_jobs`.

    Args:
      entry: the line.
      where: names it in sentences.
      base: what its paths are relative to.
      template: as of `manifest_jobs`.
      loop: as of `manifest_jobs`.
      dark_lines: as of `manifest_jobs`.

    Raises:
      UserError: it is none.
    """
    unknown = sorted(set(entry) - MANIFEST_KEYS)
    if unknown:
        raise UserError(f"{where} has the unknown key '{unknown[0]}': known are {', '.join(sorted(MANIFEST_KEYS))}")

    if "references" in entry:
        return _colouring(entry, where, base, template, loop, dark_lines)
    required = ("first",) if loop else ("first", "last")
    lacking = [key for key in required if key not in entry]
    if lacking:
        raise UserError(f"{where} has no '{lacking[0]}': every line needs {' and '.join(required)}")
    if loop and "last" in entry:
        raise UserError(f"{where} has 'last', but with --loop a clip ends with its first picture: leave it out")

    sketches = entry.get("sketches") or {}
    if not isinstance(sketches, Mapping) or not all(isinstance(p, str) for p in sketches.values()):
        raise UserError(f'{where} has sketches = {sketches!r}, which should be like {{"7": "sketch.png"}}')
    first = base / _field(entry, "first", str, where)
    last = first if loop else base / _field(entry, "last", str, where)
    drawings = parse_sketches([f"{f}:{base / p}" for f, p in sketches.items()], dark_lines=dark_lines, where=where)
    return _job(entry, where, base, template, template._replace(first=first, last=last, sketches=drawings))


def _colouring(
    entry: Mapping[str, Any], where: str, base: Path, template: Pair, loop: bool, dark_lines: bool | None
) -> Job:
    """The sketches of a manifest's line, to be coloured by references."""
    for key in ("first", "last"):
        if key in entry:
            raise UserError(f"{where} has references and '{key}': the references are the first and the last picture")
    if loop:
        raise UserError(f"{where} has references, which no loop has: leave --loop out")
    given = entry["references"]
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise UserError(f'{where} has references = {given!r}, which should be like ["first.png"] or a list of two')
    if not isinstance(entry.get("sketches"), str):
        raise UserError(f"{where} has references, and needs sketches: a folder with a drawing for each frame")
    first, last = references_of([base / one for one in given])
    sketches = sketches_in(base / entry["sketches"], dark_lines)
    return _job(entry, where, base, template, template._replace(first=first, last=last, sketches=sketches))


def _job(entry: Mapping[str, Any], where: str, base: Path, template: Pair, pair: Pair) -> Job:
    """A pair with what a line says beside its pictures."""
    pair = pair._replace(
        prompt=_field(entry, "prompt", str, where, template.prompt),
        seed=_field(entry, "seed", int, where, template.seed),
        fps=_field(entry, "fps", int, where, template.fps),
        negative_prompt=_field(entry, "negative_prompt", str, where, template.negative_prompt),
        draft=frames_in(base / _field(entry, "draft", str, where)) if "draft" in entry else None,
    )
    name = _field(entry, "name", str, where, "")
    return Job(checked_name(name, where) if "name" in entry else default_name(Path(str(pair.first))), pair)


def _field(entry: Mapping[str, Any], key: str, kind: type[Plain], where: str, default: Plain | None = None) -> Plain:
    value = entry.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{where} has {key} = {value!r}, which should be {'text' if kind is str else 'a whole number'}")
    return value


def sketches_in(directory: Path, dark_lines: bool | None) -> list[Sketch]:
    """The sketches of all frames, in the order of the last number in their names.

    Raises:
      UserError: there is no such folder.
    """
    return [Sketch(path, dark_lines=dark_lines) for path in frames_in(directory, "sketches are")]


def frames_in(directory: Path, what: str = "a draft is") -> list[Path]:
    """The pictures of a draft, in the order of the last number in their names.

    Args:
      directory: that they are in.
      what: it holds, for messages.

    Raises:
      UserError: there is no such folder.
    """
    try:
        return sorted(pictures_in(directory), key=by_last_number)
    except UserError as error:
        raise UserError(f"{error}; {what} a folder with a picture for each frame") from error


def default_name(picture: Path) -> str:
    """A picture's file name up to its first dot, as the published script names clips.

    What no name of a file should have becomes "_"; of a path with backslashes the last part counts.
    """
    file = re.split(r"[/\\]", picture.name)[-1]
    name = file.split(".")[0] or file.rpartition(".")[0].strip(".") or "clip"
    name = "".join(character if character.isprintable() or _is_no_text(character) else "_" for character in name)
    return name if name.strip() else "clip"


def _is_no_text(character: str) -> bool:
    """Whether a character stands for a byte of a file name that is not text in UTF-8, which files may well have."""
    return "\udc80" <= character <= "\udcff"


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


def parse_sketches(
    values: Iterable[str], *, dark_lines: bool | None, where: str = "--sketch"
) -> dict[int, Sketch] | None:
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
        sketches[int(frame)] = Sketch(Path(path), dark_lines=dark_lines)
    return sketches or None


def with_unique_names(jobs: Sequence[AnyJob]) -> list[AnyJob]:
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


def with_fitting_names(jobs: Sequence[AnyJob], room: int) -> list[AnyJob]:
    """The jobs with names that leave `room` bytes of a file's name for what is added to them.

    A name that is too long keeps its beginning and gets digits that stand for the whole: they are the same in every
    run.
    """
    limit = MAX_FILE_NAME_BYTES - room
    return with_unique_names([replace(job, name=shortened(job.name, limit)) for job in jobs])


def with_variations(jobs: Sequence[Job], count: int) -> list[Job]:
    """Each job `count` times with seeds counting up, named as the published script names samples."""
    if count == 1:
        return list(jobs)
    return [Job(f"{job.name}_sample{i}", pair) for job in jobs for i, pair in enumerate(variations_of(job.pair, count))]
