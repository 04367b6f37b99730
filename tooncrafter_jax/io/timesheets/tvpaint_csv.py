"""TVPaint's CSV, which Krita reads and writes too: a table with a row a frame, and a folder of pictures.

Version 1.0 has the pictures of all layers in `NAME.frames` beside `NAME.csv`; 1.1 names a folder for each layer. The
top layer comes first. Sources: Krita's manual, "*.csv", and how its loader reads a file; TVPaint's manual, "Clip layers
structure".
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tooncrafter_jax.errors import printable
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.json_files import read_at_most
from tooncrafter_jax.io.srgb_profile import srgb_profile
from tooncrafter_jax.io.timesheets.cel_files import CelFile, CelWriter, Pictures, inside, parts_of, written_together
from tooncrafter_jax.io.timesheets.fields import LARGEST_SHEET, MAX_ENTRIES
from tooncrafter_jax.io.timesheets.levels import (
    drawing_name,
    is_sign,
    level_paths,
    parse_drawing_file,
    safe_name,
)
from tooncrafter_jax.io.timesheets.sheet import (
    DEFAULT_FPS,
    MAX_FRAMES,
    MAX_LAYERS,
    SHOWN,
    Layer,
    TimeSheet,
    layer_of_drawings,
    unique_levels,
)
from tooncrafter_jax.notes import note

_TITLES = (
    "Project Name",
    "Width",
    "Height",
    "Frame Count",
    "Layer Count",
    "Frame Rate",
    "Pixel Aspect Ratio",
    "Field Mode",
)
_ROW = re.compile(r"#([0-9]{1,9})")
_TVPAINT = re.compile(r"\[([0-9]{1,6})\]\s*\[([0-9]{1,6})\]\s*(.*)", re.S)
"""A file as TVPaint calls it: number of the layer, number of the first frame, label."""
_LONGEST_CELL = 1000
"""Characters; a longer one is no name of a file."""
_DRIVE = re.compile(r"[A-Za-z]:")


class TvpaintCsv:
    """See `TimeSheetFormat`."""

    name = "csv"
    title = "TVPaint CSV"
    endings = ("csv",)
    is_folder = False
    needs_pictures = True
    has_marks = False
    has_rate = True

    def read(self, path: Path) -> TimeSheet:
        """See `TimeSheetFormat`."""
        return parse_csv(read_at_most(path, LARGEST_SHEET), path)

    def write(self, path: Path, sheet: TimeSheet, pictures: Pictures | None) -> list[Path]:
        """See `TimeSheetFormat`. Version 1.0 is written, which Krita reads too.

        Pictures have a profile, as Krita's own: its loader (5.1.5) opens one after another, and crashes where that is
        done before a job of the picture before has ended. A profile whose curve is a table takes it long enough.
        """
        cels = CelWriter(pictures or {}, sheet.size, srgb_profile())
        files = level_paths(sheet.levels(), folders=False)
        contents: dict[str, Callable[[], bytes]] = {
            file: partial(cels.png, level, drawing)
            for level, drawings in files.items()
            for drawing, file in drawings.items()
        }
        with written_together(path.parent, {f"{path.stem}.frames": contents}) as written:
            write_atomically(path, csv_bytes(replace(sheet, size=cels.size), files))
        return [*written, path]


def parse_csv(data: bytes, path: Path) -> TimeSheet:
    """The sheet in a file's bytes, with the pictures that are found beside it.

    Args:
      data: of the file.
      path: of the file.

    Raises:
      ValueError: it is none; the message says what is wrong in which place.
      UserError: a number is out of its range.
    """
    rows = _rows(data)
    head = next(rows, (0, []))[1]
    if len(head) < 2 or head[1].strip().lower() != "tvpaint":
        raise ValueError(f"its first line is '{printable(','.join(head), SHOWN)}' instead of 'UTF-8, TVPaint, ...'")
    titles, values = next(rows, (0, []))[1], next(rows, (0, []))[1]
    scene = dict(zip((title.strip() for title in titles), values, strict=False))
    columns: dict[str, list[str]] = {}
    frames: list[list[str]] = []
    first = None
    for line, row in rows:
        key = row[0].strip()
        if number := _ROW.fullmatch(key):
            first = int(number[1]) if first is None else first
            if int(number[1]) != first + len(frames):
                raise ValueError(f"line {line} is of frame {key}, where #{first + len(frames):05} should be")
            if len(frames) >= MAX_FRAMES:
                raise ValueError(f"it has more than {MAX_FRAMES:,} frames")
            frames.append(row[1:])
        elif key.startswith("#") and first is None:
            columns.setdefault(key, row[1:])
        elif key:
            raise ValueError(
                f"line {line} begins with '{printable(key, SHOWN)}', where a frame such as #00000 should be"
            )
    layers = columns.get("#Layers")
    if layers is None or not frames:
        raise ValueError(f"it has no {'row of #Layers' if layers is None else 'row of a frame, such as #00000'}")
    while len(layers) > _whole(scene.get("Layer Count", ""), "Layer Count", 0) and layers[-1:] == [""]:
        layers.pop()  # of a comma at the end
    if len(layers) > MAX_LAYERS or len(layers) * len(frames) > 10 * MAX_ENTRIES:
        raise ValueError(f"it has {len(layers):,} layers and {len(frames):,} frames, which is too much")
    count = max(len(frames), _whole(scene.get("Frame Count", ""), "Frame Count", 1))
    cells = _cells(frames, len(layers))
    found = [_layer(columns, index, [row[index] for row in cells], path) for index in range(len(layers))]
    return TimeSheet(
        scene.get("Project Name", "").strip() or safe_name(path.stem),
        count,
        unique_levels(reversed(found)),  # the top one comes first
        fps=_number(scene.get("Frame Rate", ""), "Frame Rate", 0) or None,
        size=_size(scene),
    )


def csv_bytes(sheet: TimeSheet, files: dict[str, dict[str, str]]) -> bytes:
    """A file's bytes.

    Args:
      sheet: with a size and a rate.
      files: layer -> drawing -> name of its picture.
    """
    width, height = sheet.size or (1, 1)
    layers = sheet.layers[::-1]
    rate = sheet.fps or DEFAULT_FPS
    lines = [
        'UTF-8, TVPaint, "CSV 1.0"',
        ", ".join(_TITLES),
        f"{_quoted(sheet.name)}, {width}, {height}, {sheet.duration}, {len(layers)}, {rate:.6f}, 1.000000, Progressive",
        ", ".join(["#Layers", *(_quoted(layer.name) for layer in layers)]),
        ", ".join(["#Density", *(f"{layer.opacity:.6f}" for layer in layers)]),
        ", ".join(["#Blending", *('"Color"' for _ in layers)]),
        ", ".join(["#Visible", *(f"{layer.visible:d}" for layer in layers)]),
    ]
    names = [[_quoted(files[layer.name][d] if d else "") for d in layer.shown(sheet.duration)] for layer in layers]
    for frame in range(sheet.duration):
        lines.append(", ".join([f"#{frame:05}", *(column[frame] for column in names)]))
    return "\r\n".join([*lines, ""]).encode()


# --- reading ---


def _bounded(line: str, separator: str) -> str:
    if line.count(separator) > 4 * MAX_LAYERS:
        raise ValueError(f"a line has {line.count(separator):,} cells: at most {MAX_LAYERS + 1:,} are read")
    return line


def _rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Rows with something in them, each with the number of its line."""
    text = data.decode("utf-8-sig")
    separator = ";" if text[5:6] == ";" else ","  # as Krita tells them apart
    lines = (_bounded(line, separator) for line in io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            if len(row) > MAX_LAYERS + 1:
                raise ValueError(f"line {reader.line_num} has {len(row):,} cells: at most {MAX_LAYERS + 1:,} are read")
            if (longest := max(map(len, row), default=0)) > _LONGEST_CELL:
                raise ValueError(
                    f"line {reader.line_num} has a cell of {longest:,} characters: at most {_LONGEST_CELL:,} are read"
                )
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _cells(frames: list[list[str]], count: int) -> list[list[str]]:
    """A cell for each layer and frame. TVPaint leaves out layers that are empty: then a file says which is its own."""
    found = []
    for number, row in enumerate(frames):
        if len(row) > count and any(cell.strip() for cell in row[count:]):
            raise ValueError(f"row {number} of the frames has {len(row)} cells for {count} layers")
        cells = [cell.strip() for cell in row[:count]]
        if len(cells) < count and any(cells):
            filled, cells = [cell for cell in cells if cell], [""] * count
            for cell in filled:
                named = _TVPAINT.match(cell)
                if not named or not 1 <= int(named[1]) <= count:
                    raise ValueError(
                        f"row {number} of the frames has {len(row)} cells for {count} layers, and "
                        f"'{printable(cell, SHOWN)}' does not say which is its own"
                    )
                cells[int(named[1]) - 1] = cell
        found.append(cells + [""] * (count - len(cells)))
    return found


def _layer(columns: dict[str, list[str]], index: int, cells: list[str], path: Path) -> Layer:
    def cell(key: str) -> str:
        row = columns.get(key, [])
        return row[index].strip() if index < len(row) else ""

    name = cell("#Layers") or f"{index + 1}"
    if cell("#Blending").lower() not in ("", "color"):
        note(f"the layer '{printable(name, SHOWN)}' of the TVPaint CSV has a blending mode, which is not read")
    density, visible = _number(cell("#Density"), "#Density", 1), _number(cell("#Visible"), "#Visible", 1)
    names = _drawing_names(tuple(dict.fromkeys(file for file in cells if file)), name)
    layer = layer_of_drawings(name, [names[file] if file else None for file in cells])
    folder = _folder(cell("#Folder"), path)
    cels = {}
    for file, drawing in names.items():
        parts_of(file)  # names that lead out are refused, whether there is a folder or not
        found = inside(folder, file) if folder else None
        if found is not None and found.is_file():
            cels[drawing] = CelFile(found)
    return replace(layer, visible=visible != 0, opacity=min(max(density, 0.0), 1.0), cels=cels)


def _drawing_names(files: Sequence[str], layer: str) -> dict[str, str]:
    """File -> the drawing's name: as short as it can be while all differ."""
    stems = [os.path.splitext(file.replace("\\", "/"))[0] for file in files]
    short = []
    for file, stem in zip(files, stems, strict=True):
        parsed = parse_drawing_file(os.path.basename(file.replace("\\", "/")), layer)
        labelled = _TVPAINT.fullmatch(stem)
        start = f"{safe_name(layer)}-"
        if parsed:
            short.append(parsed.drawing)
        elif labelled:
            short.append(drawing_name(labelled[3]))
        else:
            short.append(drawing_name(stem[len(start) :] if stem.startswith(start) else stem))
    numbers = [labelled and drawing_name(labelled[2]) for labelled in map(_TVPAINT.fullmatch, stems)]
    for names in (short, numbers, [drawing_name(stem) for stem in stems]):
        if all(names) and len(set(names)) == len(names) and not any(map(is_sign, map(str, names))):
            return dict(zip(files, map(str, names), strict=True))
    return {file: f"{number}" for number, file in enumerate(files, 1)}


def _folder(named: str, path: Path) -> Path | None:
    """Where a layer's pictures are: in the folder that it names, however that was called where the file was written."""
    if not named:
        places = (inside(path.parent, f"{path.stem}{ending}") for ending in (".frames", ".layers"))
        return next((place for place in places if place is not None and place.is_dir()), None)
    parts = parts_of(_DRIVE.sub("", named.replace("\\", "/"), count=1).lstrip("/"))[-64:]
    for start in range(len(parts)):
        found = inside(path.parent, "/".join(parts[start:]))
        if found is not None and found.is_dir():
            return found
    return None


def _size(scene: dict[str, str]) -> tuple[int, int] | None:
    width, height = (_whole(scene.get(key, ""), key, 0) for key in ("Width", "Height"))
    return (width, height) if width > 0 and height > 0 else None


def _whole(text: str, what: str, default: int) -> int:
    value = _number(text, what, default)
    if value != int(value):
        raise ValueError(f"its '{what}' is {value:g}, where a whole number should be")
    return int(value)


def _number(text: str, what: str, default: int | float) -> float:
    text = text.strip()
    if text and not re.fullmatch(r"[+-]?[0-9]{1,12}([.,][0-9]{0,12})?", text):
        raise ValueError(f"its '{what}' is '{printable(text, SHOWN)}', where a number should be")
    return float(text.replace(",", ".")) if text else float(default)


# --- writing ---


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
