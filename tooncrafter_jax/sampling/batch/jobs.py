"""Which clips `tooncrafter sample` is asked for, and what they are called: pairs, and the lines of a JSON-lines
manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.ordering import by_last_number, pictures_in
from tooncrafter_jax.io.owned_files import shortened
from tooncrafter_jax.sampling.batch.entries import Entry
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


def pair_of_entry(entry: Entry, template: Pair, *, loop: bool = False, dark_lines: bool | None = None) -> Job:
    """The pair of a manifest's line: `first`, `last` and, if wanted, `prompt`, `sketches` ({"7": "path.png"}), `draft`
    (a folder of frames), `negative_prompt`, `seed`, `fps` and `name`; or `references` (one or two) and `sketches` (a
    folder).

    Args:
      entry: the line.
      template: what a line that does not say gets.
      loop: whether the line has only `first`, which is the last frame too.
      dark_lines: whether the sketches have dark lines on bright paper; None: as each shows.

    Raises:
      UserError: it is none.
    """
    where = entry.where
    if (unknown := entry.unknown(MANIFEST_KEYS)) is not None:
        raise UserError(f"{where} has the unknown key '{unknown}': known are {', '.join(sorted(MANIFEST_KEYS))}")
    if "references" in entry:
        return _colouring(entry, template, loop, dark_lines)
    required = ("first",) if loop else ("first", "last")
    lacking = [key for key in required if key not in entry]
    if lacking:
        raise UserError(f"{where} has no '{lacking[0]}': every line needs {' and '.join(required)}")
    if loop and "last" in entry:
        raise UserError(f"{where} has 'last', but with --loop a clip ends with its first picture: leave it out")

    first = entry.path("first")
    last = first if loop else entry.path("last")
    sketches = sketches_of_entry(entry, dark_lines)
    return _job(entry, template, template._replace(first=first, last=last, sketches=sketches))


def sketches_of_entry(entry: Entry, dark_lines: bool | None) -> dict[int, Sketch] | None:
    """The sketches of single frames that a manifest's line has.

    Raises:
      UserError: they have another form.
    """
    sketches = entry.texts("sketches", '{"7": "sketch.png"}')
    values = [f"{frame}:{entry.base / path}" for frame, path in sketches.items()]
    return parse_sketches(values, dark_lines=dark_lines, where=entry.where)


def name_of_entry(entry: Entry, file: Path) -> str:
    """What a manifest's line calls its clip; without a name, as a file.

    Raises:
      UserError: no file can be called so.
    """
    return checked_name(entry.text("name"), entry.where) if "name" in entry else default_name(file)


def _colouring(entry: Entry, template: Pair, loop: bool, dark_lines: bool | None) -> Job:
    """The sketches of a manifest's line, to be coloured by references."""
    where = entry.where
    for key in ("first", "last"):
        if key in entry:
            raise UserError(
                f"{where} has references and '{key}': the references are the first and the last picture, so leave it "
                "out"
            )
    if loop:
        raise UserError(f"{where} has references, which no loop has: leave --loop out")
    given = entry.values["references"]
    references = [given] if isinstance(given, str) else entry.listed("references", '["first.png"] or a list of two')
    if not isinstance(entry.values.get("sketches"), str):
        raise UserError(f"{where} has references, and needs sketches: a folder with a drawing for each frame")
    first, last = references_of([entry.base / one for one in references])
    sketches = sketches_in(entry.path("sketches"), dark_lines, where)
    return _job(entry, template, template._replace(first=first, last=last, sketches=sketches))


def _job(entry: Entry, template: Pair, pair: Pair) -> Job:
    """A pair with what a line says beside its pictures."""
    pair = pair._replace(
        prompt=entry.text("prompt", template.prompt),
        seed=entry.whole("seed", template.seed),
        fps=entry.whole("fps", template.fps),
        negative_prompt=entry.text("negative_prompt", template.negative_prompt),
        draft=frames_in(entry.path("draft"), entry.where) if "draft" in entry else None,
    )
    return Job(name_of_entry(entry, Path(str(pair.first))), pair)


def sketches_in(directory: Path, dark_lines: bool | None, where: str = "--sketches") -> list[Sketch]:
    """The sketches of all frames, in the order of the last number in their names.

    Raises:
      UserError: there is no such folder.
    """
    return [Sketch(path, dark_lines=dark_lines) for path in frames_in(directory, where, "sketches are")]


def frames_in(directory: Path, where: str = "--draft", what: str = "a draft is") -> list[Path]:
    """The pictures of a draft, in the order of the last number in their names.

    Args:
      directory: that they are in.
      where: names it in sentences.
      what: it holds, for sentences.

    Raises:
      UserError: there is no such folder.
    """
    try:
        return sorted(pictures_in(directory), key=by_last_number)
    except UserError as error:
        raise UserError(f"{where}: {error}; {what} a folder with a picture for each frame") from error


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
            raise UserError(f"{where}: there are two sketches for frame {int(frame)}: keep one of them")
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
