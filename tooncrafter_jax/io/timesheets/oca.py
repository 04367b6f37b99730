"""OCA, Open Cel Animation 1.1: a folder with a description in JSON and the pictures of all layers.

Written by OCA for Krita; read by Duik and DuIO for After Effects, and by DuBLF for Blender. Source: the OCA
specification, RxLaboratory (GNU FDL), and its published example.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tooncrafter_jax.errors import printable
from tooncrafter_jax.io.json_files import parse_json, read_at_most
from tooncrafter_jax.io.timesheets.cel_files import CelFile, CelWriter, Pictures, inside, parts_of, written_together
from tooncrafter_jax.io.timesheets.fields import LARGEST_SHEET, MAX_ENTRIES, Fields
from tooncrafter_jax.io.timesheets.levels import BLANK_FRAMES, drawing_name, level_paths, safe_name
from tooncrafter_jax.io.timesheets.sheet import (
    DEFAULT_FPS,
    MAX_FRAMES,
    MAX_LAYERS,
    SHOWN,
    Exposure,
    Layer,
    TimeSheet,
    exposures_of,
    unique_levels,
)
from tooncrafter_jax.notes import note

OCA_VERSION = "1.1.0"
_DEFAULT_END = 240
_DEEPEST = 32
"""Groups in groups."""


class Oca:
    """See `TimeSheetFormat`. A path is the folder's, or the description's in it."""

    name = "oca"
    title = "OCA folder"
    endings = ("oca",)
    is_folder = True
    needs_pictures = True
    has_marks = False
    has_rate = True

    def read(self, path: Path) -> TimeSheet:
        """See `TimeSheetFormat`."""
        if path.is_dir():
            path = description_of(path)
        sheet = parse_oca(read_at_most(path, LARGEST_SHEET), safe_name(path.stem))
        return replace(sheet, layers=tuple(replace(layer, cels=_found(layer, path.parent)) for layer in sheet.layers))

    def write(self, path: Path, sheet: TimeSheet, pictures: Pictures | None) -> list[Path]:
        """See `TimeSheetFormat`."""
        cels = CelWriter(pictures or {}, sheet.size)
        files: dict[str, Callable[[], bytes]] = {}
        names = level_paths(sheet.levels())
        for level, drawings in names.items():
            files |= {file: partial(cels.png, level, drawing) for drawing, file in drawings.items()}
        description = f"{path.stem}.oca"
        # the description comes last: the size of its sheet may be known from the pictures alone
        files[description] = lambda: oca_bytes(replace(sheet, size=cels.size), names)
        with written_together(path.parent, {path.name: files}) as written:
            return written


def description_of(folder: Path) -> Path:
    """The description in an OCA folder.

    Raises:
      ValueError: there is none, or it is unclear which it is.
    """
    for ending in (".oca", ".json"):
        if (folder / f"{folder.stem}{ending}").is_file():
            return folder / f"{folder.stem}{ending}"
    found = sorted(path for ending in ("*.oca", "*.json") for path in folder.glob(ending) if path.is_file())
    if len(found) != 1:
        raise ValueError(f"it holds {len(found) or 'no'} files that end in .oca or .json, where one should be")
    return found[0]


def parse_oca(data: bytes, name: str = "sheet") -> TimeSheet:
    """The sheet in a description's bytes; its layers name their pictures by relative paths (`Layer.cels`).

    Groups are read as the layers in them, hidden and transparent as they are. Blending modes are not read; opacity of
    single frames neither, which the Krita plug-in writes as its layer's.

    Args:
      data: of the description.
      name: of the sheet, where the file has none.

    Raises:
      ValueError: it is none; the message says what is wrong in which place.
      UserError: a number is out of its range.
    """
    root = Fields(parse_json(data), "the file")
    if "layers" not in root or not ("ocaVersion" in root or "frameRate" in root):
        raise ValueError("it has no 'layers' and 'ocaVersion', as every OCA description")
    start, end = root.whole("startTime", 0), root.whole("endTime", _DEFAULT_END)
    if not 1 <= end - start <= MAX_FRAMES:
        raise ValueError(f"it lasts from frame {start:,} to frame {end:,}, where 1 to {MAX_FRAMES:,} frames should be")
    reader = _Layers(start, end)
    reader.add(root.items("layers", MAX_LAYERS), "the file")
    if reader.blends:
        note(f"the layer '{printable(reader.blends, SHOWN)}' of the OCA folder has a blending mode, which is not read")
    return TimeSheet(
        (root.text("name", name).strip() or name),
        end - start,
        unique_levels(reader.layers),
        fps=root.number("frameRate", DEFAULT_FPS),
        size=(root.whole("width", 1920), root.whole("height", 1080)),
    )


def oca_bytes(sheet: TimeSheet, files: Mapping[str, Mapping[str, str]]) -> bytes:
    """A description's bytes.

    Args:
      sheet: with a size and a rate.
      files: layer -> drawing -> its picture's path, relative to the folder.
    """
    width, height = sheet.size or (0, 0)
    box = {"position": [width // 2, height // 2], "width": width, "height": height}
    layers = []
    for layer in sheet.layers:
        frames: list[dict[str, Any]] = []
        for exposure, end in layer.held(sheet.duration):
            shown = exposure.drawing is not None
            frames.append(
                {
                    "name": exposure.drawing if shown else BLANK_FRAMES[0],
                    "fileName": "" if exposure.drawing is None else files[layer.name][exposure.drawing],
                    "frameNumber": exposure.frame,
                    "duration": end - exposure.frame,
                    "opacity": 1.0,
                    **(box if shown else {"position": [0, 0], "width": 0, "height": 0}),
                }
            )
        layers.append(
            {
                "name": layer.name,
                "type": "paintlayer",
                "fileType": "png",
                "blendingMode": "normal",
                "inheritAlpha": False,
                "animated": True,
                **box,
                "label": -1,
                "opacity": layer.opacity,
                "visible": layer.visible,
                "passThrough": False,
                "reference": False,
                "childLayers": [],
                "frames": frames,
            }
        )
    description = {
        "ocaVersion": OCA_VERSION,
        "originApp": "tooncrafter_jax",
        "name": sheet.name,
        "frameRate": sheet.fps or DEFAULT_FPS,
        "width": width,
        "height": height,
        "startTime": 0,
        "endTime": sheet.duration,
        "colorDepth": "U8",
        "backgroundColor": [1, 1, 1, 0],
        "layers": layers,
    }
    return (json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


class _Layers:
    """Reads layers and groups, in their order from the bottom."""

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end
        self._left = MAX_ENTRIES
        self.layers: list[Layer] = []
        self.blends = ""

    def add(self, values: list[Any], place: str, depth: int = 0, shown: bool = True, opacity: int | float = 1) -> None:
        """Reads the layers of a group, which is shown so."""
        if depth == _DEEPEST:
            raise ValueError(f"{place} is a group in {_DEEPEST} others, which is too deep")
        for number, value in enumerate(values):
            layer = Fields(value, f"layer {number} of {place}")
            name = layer.text("name", "").strip() or f"{len(self.layers) + 1}"
            layer.place = f"the layer '{printable(name, SHOWN)}'"
            visible, through = layer.flag("visible", True), layer.number("opacity", 1)
            if not 0 <= through <= 1:
                raise ValueError(f"'opacity' of {layer.place} is {through:g}, where 0 to 1 should be")
            visible, through = visible and shown, through * opacity
            children = layer.items("childLayers", MAX_LAYERS)
            self.add(children, layer.place, depth + 1, visible, through)
            if not layer.items("frames") and (children or layer.text("type", "paintlayer") == "grouplayer"):
                continue
            if layer.text("blendingMode", "normal").lower() != "normal":
                self.blends = self.blends or name
            self.layers.append(self._layer(layer, name, visible, through))
            if len(self.layers) > MAX_LAYERS:
                raise ValueError(f"it has more than {MAX_LAYERS:,} layers")

    def _layer(self, layer: Fields, name: str, visible: bool, opacity: float) -> Layer:
        frames = layer.items("frames", self._left)
        self._left -= len(frames)
        named = _Drawings()
        shown: list[tuple[int, int, str | None]] = []
        for number, value in enumerate(frames):
            frame = Fields(value, f"frame {number} of {layer.place}")
            first = frame.whole("frameNumber", 0) - self._start
            length = frame.whole("duration", 1)
            if length < 0:
                raise ValueError(f"'duration' of {frame.place} is {length}")
            shown.append((first, length, named.add(frame, layer, name)))
        if shown and not layer.flag("animated", True):
            shown = [(0, self._end - self._start, shown[0][2])]
        exposures = _exposures(shown, self._end - self._start, layer.place)
        return Layer(name, exposures, (), visible, opacity, named.cels)


class _Drawings:
    """The drawings of a layer: frames of one picture in one place are one."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[int, int] | None], str] = {}
        self._copies: Counter[str] = Counter()
        self.cels: dict[str, CelFile] = {}

    def add(self, frame: Fields, layer: Fields, layer_name: str) -> str | None:
        """The name of a frame's drawing; None if it shows nothing."""
        name = frame.text("name", "").strip()
        if name in BLANK_FRAMES:
            return None
        ending = layer.text("fileType", "png")
        file = frame.text("fileName", f"{layer_name}/{name}.{ending}")
        if not file:
            return None
        parts = parts_of(file)
        centre = _centre(frame)
        key = ("/".join(parts), centre)
        if key not in self._known:
            plain = drawing_name(name or Path(parts[-1] if parts else "").stem)[: SHOWN * 3].strip() or "drawing"
            free = plain
            while free in self.cels:
                self._copies[plain] += 1
                free = f"{plain}~{self._copies[plain] + 1}"
            self._known[key] = free
            self.cels[free] = CelFile(Path(*parts), centre)
        return self._known[key]


def _centre(frame: Fields) -> tuple[int, int] | None:
    position = frame.items("position", 2)
    if len(position) != 2:
        return None
    x, y = (Fields({"position": value}, frame.place).number("position") for value in position)
    if max(abs(x), abs(y)) >= 2**31:
        raise ValueError(f"'position' of {frame.place} is out of every range")
    return math.floor(x), math.floor(y)


def _exposures(shown: list[tuple[int, int, str | None]], duration: int, place: str) -> tuple[Exposure, ...]:
    """Frames with their lengths as exposures: where none reaches, nothing is shown."""
    entries: list[Exposure] = []
    end, cut = 0, False
    ordered = sorted(shown, key=lambda frame: frame[0])
    following = [first for first, _, _ in ordered[1:]] + [duration]
    for (first, length, drawing), following_first in zip(ordered, following, strict=False):
        cut |= following_first < min(first + length, duration)
        first, last = max(first, 0), min(first + length, following_first, duration)
        if last <= first:
            continue
        if first > end:
            entries.append(Exposure(end, None))
        entries.append(Exposure(first, drawing))
        end = last
    if entries and end < duration:
        entries.append(Exposure(end, None))
    if cut:
        note(f"{place} of the OCA folder shows two frames at once: each ends where the next begins")
    return exposures_of(entries)


def _found(layer: Layer, folder: Path) -> dict[str, CelFile]:
    """The cels whose pictures are there: paths begin with the folder itself, or in it."""
    cels = {}
    for drawing, cel in layer.cels.items():
        parts = cel.path.parts
        path = inside(folder, "/".join(parts))
        if path is None and len(parts) > 1 and (parts[0] == folder.name or parts[0].endswith(".oca")):
            path = inside(folder, "/".join(parts[1:]))
        if path is not None and path.is_file():
            cels[drawing] = cel._replace(path=path)
    return cels
