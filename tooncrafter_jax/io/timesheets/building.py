"""Sheets from what was drawn, and for what will be: cels and their timing, wanted in-betweens, numbers of drawings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.timesheets.cel_files import CelPicture
from tooncrafter_jax.io.timesheets.sheet import SHOWN, Exposure, Layer, TimeSheet, exposures_of, layer_of_drawings
from tooncrafter_jax.notes import note

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class DrawnSheet(NamedTuple):
    """A sheet and its drawings, as `write_timesheet` takes them.

    Attributes:
      sheet: see `TimeSheet`.
      pictures: layer -> drawing -> uint8 (H, W, 3) or (H, W, 4).
    """

    sheet: TimeSheet
    pictures: dict[str, dict[str, CelPicture]]


def sheet_of_frames(
    layers: Mapping[str, UInt8[np.ndarray, "T H W C"]], fps: int | float | None = None, name: str = "shot"
) -> DrawnSheet:
    """A sheet from the frames of each layer: equal frames are one drawing, wherever they are.

    Drawings are called 1, 2, 3, ... in the order in which they appear. A frame that is wholly transparent is empty.

    Args:
      layers: from the bottom to the top, name -> uint8 (T, H, W, 3), or (T, H, W, 4) with opacity; of one length and
        size.
      fps: frames a second.
      name: of the sheet.

    Raises:
      UserError: there are no layers or frames, they are of several lengths or sizes, or no such arrays.
    """
    if not layers:
        raise UserError("a sheet needs a layer: give frames for one at least")
    found: list[Layer] = []
    pictures: dict[str, dict[str, CelPicture]] = {}
    lengths: dict[str, int] = {}
    for layer, frames in layers.items():
        place = f"the layer '{printable(layer, SHOWN)}'"
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or 0 in frames.shape:
            raise UserError(
                f"{place} is no uint8 array (frames, height, width, 3 or 4): convert its frames with to_uint8"
            )
        if frames.shape[3] not in (3, 4):
            raise UserError(f"{place} has {frames.shape[3]} channels: give 3, or 4 with opacity")
        numbers: dict[bytes, str] = {}
        drawings: list[str | None] = []
        pictures[layer] = {}
        for frame in frames:
            if frame.shape[2] == 4 and not frame[..., 3].any():
                drawings.append(None)
                continue
            digest = hashlib.sha256(frame.tobytes()).digest()
            drawing = numbers.setdefault(digest, str(len(numbers) + 1))
            pictures[layer].setdefault(drawing, frame)
            drawings.append(drawing)
        found.append(layer_of_drawings(layer, drawings))
        lengths[layer] = len(frames)
    sizes = {(frames.shape[2], frames.shape[1]) for frames in layers.values()}
    if len(sizes) > 1 or len(set(lengths.values())) > 1:
        shapes = ", ".join(
            f"'{printable(layer, SHOWN)}' {len(frames)} of {frames.shape[2]} x {frames.shape[1]}"
            for layer, frames in layers.items()
        )
        raise UserError(f"all layers of a sheet must have as many frames, of one size: {shapes}")
    sheet = TimeSheet(name, next(iter(lengths.values())), tuple(found), fps=fps, size=sizes.pop())
    return DrawnSheet(sheet, pictures)


def with_in_betweens(layer: Layer) -> tuple[Layer, dict[int, str]]:
    """The layer with a drawing at each frame where an in-between is asked for.

    The drawings that are there keep their names, and the new ones get letters after the one before: 1, 1a, 1b, 2, which
    OpenToonz reads. `numbered` gives all whole numbers.

    Args:
      layer: its keys have whole numbers.

    Returns:
      The layer without those marks, and frame -> name of each new drawing. Other marks stay, with a note.

    Raises:
      UserError: more in-betweens follow a drawing than there are letters, or it is called something that can have none.
    """
    wanted = set(layer.in_betweens())
    taken = set(layer.drawings())
    new: dict[int, str] = {}
    entries = {exposure.frame: exposure for exposure in layer.exposures}
    before = ""
    for frame in sorted({*wanted, *entries}):
        if frame in entries:
            before = entries[frame].drawing or ""
            continue
        free = next((f"{before}{letter}" for letter in _LETTERS if f"{before}{letter}" not in taken), None)
        if free is None or not before.isdigit():
            raise UserError(
                f"the in-between at frame {frame} of the layer '{printable(layer.name, SHOWN)}' gets no letter after "
                f"the drawing '{printable(before, SHOWN)}': number the layer's drawings anew first (numbered)"
                if not before.isdigit()
                else f"more than {len(_LETTERS)} in-betweens follow the drawing '{before}' of the layer "
                f"'{printable(layer.name, SHOWN)}': ask for fewer, or draw a key between"
            )
        taken.add(free)
        new[frame] = free
    marks = tuple(mark for mark in layer.marks if mark.frame not in wanted)
    if marks:
        note(
            f"the layer '{printable(layer.name, SHOWN)}' keeps its mark at frame {marks[0].frame}, which is between no "
            "two drawings or asks for something else than a new one"
        )
    added = [Exposure(frame, drawing) for frame, drawing in new.items()]
    exposures = exposures_of(sorted([*layer.exposures, *added], key=lambda exposure: exposure.frame))
    return replace(layer, exposures=exposures, marks=marks), new


def numbered(layer: Layer) -> tuple[Layer, dict[str, str]]:
    """The layer with its drawings called 1, 2, 3, ... in the order in which they appear.

    Returns:
      The layer, and former name -> new name of each drawing.
    """
    names = {drawing: str(number) for number, drawing in enumerate(layer.drawings(), 1)}
    exposures = tuple(
        exposure._replace(drawing=names[exposure.drawing]) if exposure.drawing is not None else exposure
        for exposure in layer.exposures
    )
    cels = {names[drawing]: cel for drawing, cel in layer.cels.items() if drawing in names}
    return replace(layer, exposures=exposures, cels=cels), names
