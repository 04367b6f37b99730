"""Names of a level's drawings: OpenToonz's `A.0001.png` and `A_0001.png`, Harmony's `A-1.png`, and their like.

A level is a set of drawings; a layer of that name shows them. Sources: OpenToonz's `TFilePath` (a name, a dot or an
underscore, four digits, perhaps a letter); Toon Boom, Harmony 24, "Importing images" (layer, hyphen, drawing); Clip
Studio Paint, "Export cels" (a prefix and a serial number).
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.images import SUPPORTED_EXTENSIONS
from tooncrafter_jax.io.ordering import by_numbers
from tooncrafter_jax.notes import note

MAX_FILES = 100_000
"""Entries of a folder that are looked through."""
DIGITS = 4
"""Of a number in a file's name, at least."""
BLANK_FRAMES = ("_blank", "_blank_")
"""Names of OCA's frames that show nothing; its specification has both."""
LONGEST_FILE_NAME = 200
"""Bytes, which leaves room for an ending; file systems allow 255."""

Style = Literal["underscore", "opentoonz", "harmony"]
"""`A_0001.png`, which every program takes; `A.0001.png`; `A-1.png`."""
STYLES: Mapping[Style, tuple[str, int]] = {"underscore": ("_", DIGITS), "opentoonz": (".", DIGITS), "harmony": ("-", 1)}
"""Style -> what stands between level and number, and the digits of a number at least."""

_NUMBER = re.compile(r"([0-9]+)([A-Za-z]?)")
_NUMBERED = re.compile(r"(?P<level>.*?[^._-])(?P<separator>[._-]?)(?P<drawing>[0-9]+[A-Za-z]?)", re.S)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
"""What names of files cannot have on some system."""
_EDGES = re.compile(r"^[\s.]+|[\s.]+$")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.I)
"""Names that Windows has for devices."""


class DrawingFile(NamedTuple):
    """What a file's name says.

    Attributes:
      level: the set of drawings that it belongs to; empty where the name is a number alone.
      drawing: as `drawing_name` has it.
    """

    level: str
    drawing: str


def drawing_name(text: str) -> str:
    """A drawing's name in its one form: of a number, perhaps with a letter, without zeros in front: 0012a is 12a."""
    text = text.strip()
    number = _NUMBER.fullmatch(text)
    return (number[1].lstrip("0") or "0") + number[2] if number else text


def is_sign(text: str) -> bool:
    """Whether a sheet means something else by it than a drawing: a sign of XDTS, or an empty frame of OCA."""
    return text.startswith("SYMBOL_") or text in BLANK_FRAMES


def is_numbered(drawing: str) -> bool:
    """Whether a drawing's name is a number, perhaps with a letter, which is what OpenToonz takes."""
    return _NUMBER.fullmatch(drawing) is not None


def parse_drawing_file(name: str, level: str | None = None) -> DrawingFile | None:
    """What a file's name says of its drawing; None if it is no name of a drawing (of that level).

    Args:
      name: of a picture, with its ending.
      level: which the drawing must belong to. With it, `A-smile.png` is the drawing `smile` of the level `A`, as
        Harmony names it, and a number alone is one of any level's.
    """
    stem = unicodedata.normalize("NFC", os.path.splitext(name)[0])  # macOS takes letters and their marks apart
    own = _NUMBERED.fullmatch(stem)
    if _NUMBER.fullmatch(stem):
        return DrawingFile(level or "", drawing_name(stem))
    if level is None:
        return own and DrawingFile(own["level"], drawing_name(own["drawing"]))
    start = unicodedata.normalize("NFC", safe_name(level))
    if not stem.startswith(start):
        return None
    rest = stem[len(start) :]
    number = rest[1:] if rest[:1] in ("_", ".", "-") else "" if start[-1].isdigit() else rest
    if _NUMBER.fullmatch(number):
        return DrawingFile(level, drawing_name(number))
    if rest[:1] == "-" and len(rest) > 1 and not (own and own["separator"]):  # else it is of the level before that
        return DrawingFile(level, rest[1:])
    return None


def drawing_file_name(level: str, drawing: str, style: Style = "underscore", ending: str = "png") -> str:
    """The name of a drawing's file, which every system can have.

    A drawing whose name is no number stands behind a hyphen in every style: `A-smile.png`.

    Args:
      level: the set of drawings.
      drawing: its name in it.
      style: see `Style`.
      ending: of the file, without the dot.

    Raises:
      UserError: the style is unknown.
    """
    if style not in STYLES:
        raise UserError(f"unknown style of names '{printable(style, 60)}': choose of {', '.join(STYLES)}")
    separator, digits = STYLES[style]
    number = _NUMBER.fullmatch(drawing)
    tail = f"{separator}{number[1].zfill(digits)}{number[2]}" if number else f"-{drawing}"
    return f"{safe_name(level, room=len(tail.encode()))}{safe_name(tail, alone=False)}.{ending}"


def safe_name(text: str, *, room: int = 0, alone: bool = True) -> str:
    """A text as a name that files and folders can have on every system: forbidden characters become underscores.

    Args:
      text: any.
      room: bytes that must be left for what follows.
      alone: whether it is a name or the beginning of one, which may be none that a system has reserved.
    """
    name = _FORBIDDEN.sub("_", text.encode(errors="replace").decode())
    if alone:
        name = _EDGES.sub("", name) or "_"
        if _RESERVED.fullmatch(name):
            name = f"_{name}"
    name = name.encode()[: max(LONGEST_FILE_NAME - room, 16)].decode(errors="ignore")
    return _EDGES.sub("", name) if alone else name


def unique_names(wanted: Iterable[str]) -> list[str]:
    """Names of files, none twice, on systems too that take upper and lower case for the same.

    Args:
      wanted: names with their endings.

    Returns:
      As many: each name, or with ~2, ~3, ... before its ending where one before has it.
    """
    taken: dict[str, int] = {}
    found = []
    for name in wanted:
        stem, ending = os.path.splitext(name)
        free = name
        while free.casefold() in taken:
            taken[name.casefold()] += 1
            free = f"{stem}~{taken[name.casefold()]}{ending}"
        taken[free.casefold()] = 1
        found.append(free)
    return found


def level_paths(levels: Mapping[str, Iterable[str]], folders: bool = True) -> dict[str, dict[str, str]]:
    """Where the drawings of levels are written: level -> drawing -> path, none twice.

    Args:
      levels: level -> its drawings.
      folders: whether each level has a folder of its name: `A/A_0001.png`.
    """
    names = [(level, drawing) for level, drawings in levels.items() for drawing in drawings]
    homes = dict(zip(levels, unique_names(safe_name(level) for level in levels), strict=True))
    files = unique_names(
        f"{homes[level]}/{drawing_file_name(level, drawing)}" if folders else drawing_file_name(level, drawing)
        for level, drawing in names
    )
    found: dict[str, dict[str, str]] = {level: {} for level in levels}
    for (level, drawing), file in zip(names, files, strict=True):
        found[level][drawing] = file
    return found


def level_files(
    directory: str | os.PathLike[str],
    level: str,
    drawings: Iterable[str] = (),
    beside: Sequence[Path] | None = None,
) -> dict[str, Path]:
    """Finds a level's drawings: in the folder of its name, and if there are none, beside it.

    Args:
      directory: where the sheet is.
      level: its name.
      drawings: names that are looked for too where they are no numbers, whatever they are.
      beside: the pictures of `directory`, as `pictures_in` gives them, where they are known.

    Returns:
      Drawing -> its file, in the order of their numbers; none where there is no such directory.

    Raises:
      UserError: a folder has more than `MAX_FILES` entries.
    """
    directory, drawings = Path(directory), tuple(drawings)
    folder = directory / safe_name(level)
    if _leads_out(folder, directory):
        note(f"'{folder}' is a link that leads out of its folder: it is left out")
    elif found := _drawings(pictures_in(folder), level, drawings):
        return found
    beside = pictures_in(directory) if beside is None else beside
    return _drawings([path for path in beside if not _NUMBER.fullmatch(path.stem)], level, drawings)


def find_levels(directory: str | os.PathLike[str]) -> dict[str, dict[str, Path]]:
    """All levels whose drawings lie in a directory, by their names: level -> drawing -> file, each in order.

    Raises:
      UserError: there are more than `MAX_FILES` entries.
    """
    levels: dict[str, list[tuple[str, Path]]] = {}
    for path in pictures_in(Path(directory)):
        if parsed := parse_drawing_file(path.name):
            levels.setdefault(parsed.level, []).append((parsed.drawing, path))
    return {level: _each_once(files) for level, files in sorted(levels.items())}


def _drawings(pictures: Sequence[Path], level: str, wanted: Iterable[str]) -> dict[str, Path]:
    parsed = ((parse_drawing_file(path.name, level), path) for path in pictures)
    found = _each_once([(drawing.drawing, path) for drawing, path in parsed if drawing])
    stems = {unicodedata.normalize("NFC", path.stem): path for path in reversed(pictures)}
    for drawing in wanted:
        stem = unicodedata.normalize("NFC", os.path.splitext(drawing_file_name(level, drawing))[0])
        if drawing not in found and stem in stems:
            found[drawing] = stems[stem]
    return found


def _each_once(files: list[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for drawing, path in files:
        if drawing in found:
            note(
                f"'{found[drawing]}' and '{path.name}' are both called the drawing '{printable(drawing, 60)}': "
                "the first is taken"
            )
        found.setdefault(drawing, path)
    return found


def pictures_in(directory: Path) -> list[Path]:
    """Pictures in a directory, by the numbers in their names; none where it cannot be read.

    Raises:
      UserError: it has more than `MAX_FILES` entries.
    """
    found: list[Path] = []
    try:
        with os.scandir(directory) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_FILES:
                    raise UserError(f"'{directory}' has more than {MAX_FILES:,} entries: move the drawings into one")
                if os.path.splitext(entry.name)[1].lower() in SUPPORTED_EXTENSIONS and entry.is_file():
                    if entry.is_symlink() and _leads_out(Path(entry.path), directory):
                        note(f"'{entry.path}' is a link that leads out of its folder: it is left out")
                    else:
                        found.append(directory / entry.name)
    except (OSError, ValueError):
        return []
    return sorted(found, key=by_numbers)


def _leads_out(path: Path, directory: Path) -> bool:
    """Whether a path leaves a directory when links are followed."""
    try:
        return not path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):
        return True
