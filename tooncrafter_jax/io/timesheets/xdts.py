"""XDTS, the exchange digital time sheet of Celsys and Toei Animation: timing alone, and drawings by their names.

Read and written by Clip Studio Paint, OpenToonz, Tahoma2D, TVPaint 12, Callipeg and others. Sources: "XDTS file format
specification", Celsys and Toei Animation, 2018; its extension `p1` for keys and reference frames, XDTS-uext, Studio
Ponoc; how a track is read follows OpenToonz, which most files are made for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tooncrafter_jax.errors import printable
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.json_files import parse_json, read_at_most
from tooncrafter_jax.io.timesheets.cel_files import CelFile, CelWriter, Pictures, written_together
from tooncrafter_jax.io.timesheets.fields import LARGEST_SHEET, MAX_ENTRIES, Fields, kind_of
from tooncrafter_jax.io.timesheets.levels import (
    drawing_file_name,
    drawing_name,
    is_numbered,
    level_files,
    level_paths,
    pictures_in,
    safe_name,
)
from tooncrafter_jax.io.timesheets.sheet import (
    MAX_FRAMES,
    MAX_LAYERS,
    SHOWN,
    Exposure,
    Layer,
    Mark,
    MarkKind,
    Role,
    TimeSheet,
    exposures_of,
)
from tooncrafter_jax.notes import note

IDENTIFIER = "exchangeDigitalTimeSheet Save Data"
"""The first line of a file."""
VERSION = 5
"""Of the only published specification."""
_TOEI = "toeiDigitalTimeSheet Save Data"
_CELS, _DIALOGUE, _CAMERA = 0, 3, 5
"""What a field is for, by its number."""
_EMPTY, _GOES_ON = "SYMBOL_NULL_CELL", "SYMBOL_HYPHEN"
_MARKS: dict[str, MarkKind] = {"SYMBOL_TICK_1": "in-between", "SYMBOL_TICK_2": "reverse"}
_ROLES: dict[str, Role] = {"OPTION_KEYFRAME": "key", "OPTION_REFERENCEFRAME": "reference"}
_SYMBOLS = {kind: symbol for symbol, kind in _MARKS.items()}
_OPTIONS = {role: option for option, role in _ROLES.items()}


class Xdts:
    """See `TimeSheetFormat`. Drawings lie beside the sheet, in a folder of their layer's name: `A/A_0001.png`."""

    name = "xdts"
    title = "XDTS time sheet"
    endings = ("xdts", "xtds")
    """The second is how some programs misspell it."""
    is_folder = False
    needs_pictures = False
    has_marks = True
    has_rate = False

    def read(self, path: Path) -> TimeSheet:
        """See `TimeSheetFormat`."""
        sheet = parse_xdts(read_at_most(path, LARGEST_SHEET), safe_name(path.stem))
        beside = pictures_in(path.parent)
        files = {level: level_files(path.parent, level, drawings, beside) for level, drawings in sheet.levels().items()}
        return replace(sheet, layers=tuple(_with_cels(layer, files[layer.name]) for layer in sheet.layers))

    def write(self, path: Path, sheet: TimeSheet, pictures: Pictures | None) -> list[Path]:
        """See `TimeSheetFormat`."""
        data = xdts_bytes(sheet)
        folders: dict[str, dict[str, Callable[[], bytes]]] = {}
        if pictures is not None:
            cels = CelWriter(pictures)
            paths = level_paths(sheet.levels())
            _note_other_paths(paths)
            for level, files in paths.items():
                for drawing, file in files.items():
                    folder, _, name = file.partition("/")
                    folders.setdefault(folder, {})[name] = partial(cels.png, level, drawing)
        with written_together(path.parent, folders) as written:
            write_atomically(path, data)
        return [*written, path]


def parse_xdts(data: bytes, name: str = "sheet") -> TimeSheet:
    """The sheet in a file's bytes.

    Of several time tables the first is read. A byte order mark, any line ends, later versions and unknown keys are
    taken. An entry before frame 0 says what is shown from the beginning; one after the last frame is left out.

    Args:
      data: of the file.
      name: of the sheet, where the file has none.

    Raises:
      ValueError: it is none; the message says what is wrong in which place.
      UserError: a number is out of its range.
    """
    root = Fields(parse_json(_json_of(data)), "the file")
    if (version := root.whole("version", VERSION)) < VERSION:
        raise ValueError(f"it is of version {version}, and there is none before {VERSION}")
    tables = root.items("timeTables")
    if not tables:
        raise ValueError("its 'timeTables' are empty")
    if len(tables) > 1:
        note(f"the XDTS time sheet has {len(tables)} time tables: the first is read")
    table = Fields(tables[0], "the first time table")
    duration = table.whole("duration")
    if not 1 <= duration <= MAX_FRAMES:
        raise ValueError(f"'duration' of {table.place} is {duration:,}, where 1 to {MAX_FRAMES:,} should be")
    header = Fields(root.value("header") or {}, "the header")
    return TimeSheet(
        table.text("name", name).strip() or name,
        duration,
        _layers(table, duration),
        fps=table.number("frameRate") if "frameRate" in table else None,
        scene=_header_text(header, "scene"),
        cut=_header_text(header, "cut"),
    )


def xdts_bytes(sheet: TimeSheet) -> bytes:
    """A sheet as a file's bytes: UTF-8 without a byte order mark, and lines that end as on Linux, as OpenToonz wants.

    Rate, size, opacity and what is hidden have no place in it. Scene and cut are written where they are numbers of up
    to four digits, as the format demands.
    """
    _note_what_is_lost(sheet)
    has_roles = any(exposure.role for layer in sheet.layers for exposure in layer.exposures)
    root: dict[str, Any] = {"version": VERSION}
    if has_roles:
        root["subversion"] = "p1"
    if _is_header_number(sheet.cut) and _is_header_number(sheet.scene):
        root["header"] = {"cut": sheet.cut, "scene": sheet.scene}
    tracks = [
        {"trackNo": number, "frames": _entries(layer, sheet.duration)} for number, layer in enumerate(sheet.layers)
    ]
    root["timeTables"] = [
        {
            "name": sheet.name,
            "duration": sheet.duration,
            "timeTableHeaders": [{"fieldId": _CELS, "names": [layer.name for layer in sheet.layers]}],
            "fields": [{"fieldId": _CELS, "tracks": tracks}],
        }
    ]
    text = json.dumps(root, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
    return f"{IDENTIFIER}\n{text}\n".encode()


# --- reading ---


def _json_of(data: bytes) -> str:
    """The text with blanks in the identifier's place, so that places in messages stay right."""
    text = data.decode("utf-8-sig")
    if text.startswith(IDENTIFIER):
        return " " * len(IDENTIFIER) + text[len(IDENTIFIER) :]
    first = text.partition("\n")[0].strip()
    if first.startswith(_TOEI):
        raise ValueError("it is a TDTS sheet of Toei's own program: export an XDTS there")
    raise ValueError(f"its first line is '{printable(first, SHOWN)}' instead of '{IDENTIFIER}'")


def _header_text(header: Fields, key: str) -> str:
    """A number of up to four digits in a text, says the specification; programs write other texts, and numbers."""
    value = header.value(key)
    return str(header.whole(key)) if isinstance(value, int | float) else header.text(key, "").strip()


def _layers(table: Fields, duration: int) -> tuple[Layer, ...]:
    names = _names(table)
    layers: list[tuple[int, Layer]] = []
    said_more, left = False, MAX_ENTRIES
    for value in table.items("fields"):
        group = Fields(value, f"a field of {table.place}")
        if group.whole("fieldId") != _CELS:
            said_more |= bool(group.items("tracks"))
            continue
        for item in group.items("tracks", MAX_LAYERS):
            track = Fields(item, "a track of the cels")
            number = track.whole("trackNo")
            if number < 0:
                raise ValueError(f"'trackNo' of {track.place} is {number}")
            place = f"track {number}"
            entries = track.items("frames", left)
            left -= len(entries)
            if not entries:
                continue
            name = names[number] if number < len(names) else ""
            if not name:
                name = f"{number + 1}"
                note(f"{place} of the XDTS time sheet has no name: it is called '{name}'")
            layers.append((number, _layer(name, entries, place, duration)))
    if said_more:
        note("the XDTS time sheet has dialogue or camera work, which are not read: the cels are")
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"it has {len(layers):,} tracks: at most {MAX_LAYERS:,} are read")
    return tuple(layer for _, layer in sorted(layers, key=lambda pair: pair[0]))


def _names(table: Fields) -> list[str]:
    for value in table.items("timeTableHeaders"):
        header = Fields(value, f"a header of {table.place}")
        if header.whole("fieldId") == _CELS:
            names = header.items("names")
            if not all(isinstance(name, str) for name in names):
                raise ValueError(f"'names' of {header.place} are not all texts")
            return [name.strip() for name in names]
    return []


class _Entry(NamedTuple):
    """What is said at a frame."""

    frame: int
    text: str
    role: Role | None

    @property
    def is_mark(self) -> bool:
        return self.text in _MARKS


def _layer(name: str, values: list[Any], place: str, duration: int) -> Layer:
    """A track as OpenToonz reads it."""
    entries = _entries_of(values, place)
    within = [entry for entry in entries if 0 <= entry.frame < duration]
    said = {entry.frame: entry for entry in within}
    if len(said) < len(within):
        counts = Counter(entry.frame for entry in within)
        twice = min(frame for frame, count in counts.items() if count > 1)
        note(f"{place} of the XDTS time sheet has two entries at frame {twice}: the later one counts")
    if late := [entry.frame for entry in entries if entry.frame >= duration and entry.text != _EMPTY]:
        note(f"{place} of the XDTS time sheet goes on at frame {min(late)}, after its end: that is left out")
    before = [entry for entry in entries if entry.frame < 0 and not entry.is_mark]
    if before and (0 not in said or said[0].is_mark):
        if 0 in said:
            note(f"{place} of the XDTS time sheet has a mark at frame 0, where its drawing begins: it is left out")
        said[0] = max(reversed(before), key=lambda entry: entry.frame)._replace(frame=0)
    ordered = sorted(said.values())
    return Layer(
        name,
        exposures_of(
            Exposure(frame, None) if text == _EMPTY else Exposure(frame, text, role)
            for frame, text, role in ordered
            if text not in _MARKS
        ),
        tuple(Mark(entry.frame, _MARKS[entry.text]) for entry in ordered if entry.is_mark),
    )


def _entries_of(values: list[Any], place: str) -> list[_Entry]:
    """All entries that say something, in the order of the file."""
    found, unknown = [], []
    for value in values:
        entry = Fields(value, f"an entry of {place}")
        frame = entry.whole("frame")
        text, role = _value(entry, f"frame {frame} of {place}")
        if text.startswith("SYMBOL_") and text not in (_EMPTY, _GOES_ON, *_MARKS):
            unknown.append((frame, text))
        elif text != _GOES_ON:
            found.append(_Entry(frame, text, role))
    if unknown:
        where, sign = f"frame {unknown[0][0]} of {place}", printable(unknown[0][1], SHOWN)
        note(f"{where} of the XDTS time sheet has the unknown sign '{sign}': such are left out")
    return found


def _value(entry: Fields, place: str) -> tuple[str, Role | None]:
    """What an entry says: of its data the first, and of that the first value; nothing new where it has none."""
    for item in entry.items("data")[:1]:
        data = Fields(item, f"what is said at {place}")
        for value in data.items("values")[:1]:
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise ValueError(f"the value at {place} is {kind_of(value)}, where a text should be")
            roles: list[Role] = [
                _ROLES[option] for option in data.items("options") if isinstance(option, str) and option in _ROLES
            ]
            return drawing_name(str(value)) or _EMPTY, roles[0] if roles else None
    return _GOES_ON, None


def _with_cels(layer: Layer, files: dict[str, Path]) -> Layer:
    return replace(layer, cels={drawing: CelFile(files[drawing]) for drawing in layer.drawings() if drawing in files})


# --- writing ---


def _entries(layer: Layer, duration: int) -> list[dict[str, Any]]:
    """An entry where something changes; a layer that begins later begins empty, and each ends so after the sheet."""
    said: dict[int, dict[str, Any]] = {mark.frame: {"values": [_SYMBOLS[mark.kind]]} for mark in layer.marks}
    for frame, drawing, role in layer.exposures:
        said[frame] = {"values": [_EMPTY if drawing is None else drawing]}
        if role is not None:
            said[frame]["options"] = [_OPTIONS[role]]
    said.setdefault(0, {"values": [_EMPTY]})
    said[duration] = {"values": [_EMPTY]}
    return [{"frame": frame, "data": [{"id": 0, **said[frame]}]} for frame in sorted(said)]


def _note_what_is_lost(sheet: TimeSheet) -> None:
    odd = [drawing for layer in sheet.layers for drawing in layer.drawings() if not is_numbered(drawing)]
    if odd:
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        note(
            f"the drawing '{printable(odd[0], SHOWN)}'{more} is no number with at most one letter: OpenToonz shows an "
            "empty cell there"
        )
    if any(not layer.visible or layer.opacity != 1 for layer in sheet.layers):
        note("an XDTS time sheet says nothing of hidden or half-transparent layers: they are written as all others")


def _note_other_paths(paths: Mapping[str, Mapping[str, str]]) -> None:
    """Says which drawings have no file of their name, and so are not found where the sheet is read."""
    odd = [
        (level, file)
        for level, files in paths.items()
        for drawing, file in files.items()
        if file != f"{safe_name(level)}/{drawing_file_name(level, drawing)}"
    ]
    if odd:
        level, file = odd[0]
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        note(
            f"a drawing of the layer '{printable(level, SHOWN)}' is written to '{file}'{more}, as another layer or "
            "drawing has its name but for capitals or signs: programs do not find it there, so give one another name"
        )


def _is_header_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4
