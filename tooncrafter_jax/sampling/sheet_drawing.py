"""Draws a time sheet: its layers one after another, which then lie over one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.fitting import fit_cel
from tooncrafter_jax.io.frames import Cels
from tooncrafter_jax.io.timesheets import (
    DrawnSheet,
    Exposure,
    Layer,
    Mark,
    TimeSheet,
    exposures_of,
    numbered,
    with_in_betweens,
)
from tooncrafter_jax.io.transparency import composite, over
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.frame_room import Room, memory
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.request_pictures import Picture, as_picture, name_of
from tooncrafter_jax.sampling.sequence import Shot, lay_out
from tooncrafter_jax.sampling.sheet_shots import SheetLayer, SheetRun
from tooncrafter_jax.typing import Uint8Clip

Draw = Callable[[Shot, SamplingOptions], Uint8Clip]
"""Draws a shot, as `ToonCrafter.draw_shot`."""


class DrawnScene(NamedTuple):
    """A clip, and what it is made of.

    Attributes:
      video: uint8 (frames, H, W, 3), or (frames, H, W, 4) if opacity is kept.
      drawn: gives its drawings, layer by layer, and their timing.
    """

    video: Uint8Clip
    drawn: Callable[[], DrawnSheet]


def options_of_layers(
    layers: Sequence[SheetLayer], options: SamplingOptions
) -> list[tuple[SheetLayer, SamplingOptions]]:
    """Each layer with the options of its shots: of several, those with transparency keep it.

    Raises:
      UserError: a picture cannot be read.
    """
    if len(layers) == 1:
        return [(layers[0], options)]
    below = options.background if options.alpha else None
    keeping, opaque = replace(options, alpha=True, background=below), replace(options, alpha=False)
    return [(layer, keeping if layer.is_transparent else opaque) for layer in layers]


def draw_sheet(
    sheet: TimeSheet,
    layers: Sequence[tuple[SheetLayer, SamplingOptions]],
    options: SamplingOptions,
    size: tuple[int, int],
    draw: Draw,
    room: Room = memory,
) -> DrawnScene:
    """Draws a sheet, layer by layer from the bottom.

    Args:
      sheet: the whole.
      layers: as of `options_of_layers`.
      options: of the result.
      size: height and width of the result.
      draw: draws a shot.
      room: where the frames lie.

    Raises:
      UserError: as of `draw`, or there is no room.
    """
    result = _empty((sheet.duration, *size, 4), room)
    found: list[Layer] = []
    pictures: dict[str, dict[str, np.ndarray]] = {}
    for layer, how in layers:
        cels = _empty(result.shape, room)
        for run in layer.runs:
            _draw_run(cels, run, how, draw)
        drawn = _drawn_layer(layer, how, sheet.duration)
        if drawn.name in pictures:
            other = next(f"{drawn.name}~{n}" for n in range(2, 10**6) if f"{drawn.name}~{n}" not in pictures)
            note(f"two layers are called '{printable(drawn.name, 60)}': the upper one is written as '{other}'")
            drawn = replace(drawn, name=other)
        found.append(drawn)
        firsts = {e.drawing: e.frame for e in reversed(drawn.exposures) if e.drawing is not None}
        pictures[drawn.name] = {drawing: cels[frame] for drawing, frame in firsts.items()}
        composite(result, cels, layer.layer.opacity)
    written = DrawnSheet(replace(sheet, layers=tuple(found), size=(size[1], size[0])), pictures)
    if options.alpha:
        return DrawnScene(result, lambda: written)
    opaque = room((*result.shape[:3], 3))
    for frame, shown in enumerate(result):
        opaque[frame] = over(shown, options.paper)
    return DrawnScene(opaque, lambda: written)


def _read(picture: Picture) -> np.ndarray:
    return as_picture(picture, name_of(picture, "a drawing of the sheet"))


def _draw_run(cels: Cels, run: SheetRun, options: SamplingOptions, draw: Draw) -> None:
    """Draws a run into its frames."""
    if run.shot is None:
        picture = _opaque(_read(run.picture))
        if not options.alpha:
            picture = _opaque(over(picture, options.paper))
        cels[run.start : run.end] = fit_cel(picture, cels.shape[1], cels.shape[2], options.chosen_fit)
        return
    frames = draw(run.shot, options)
    end = run.start + len(frames)
    cels[run.start : end, ..., : frames.shape[3]] = frames
    if frames.shape[3] == 3:
        cels[run.start : end, ..., 3] = 255
    cels[end : run.end] = cels[end - 1]


def _empty(shape: tuple[int, ...], room: Room) -> Cels:
    """Frames that are transparent everywhere."""
    frames = room(shape)
    frames[...] = 0
    return frames


def _opaque(picture: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W 4"]:
    if picture.shape[2] == 4:
        return picture
    return np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=2)


def _drawn_layer(layer: SheetLayer, options: SamplingOptions, duration: int) -> Layer:
    """The layer with its keys marked, and a name for each drawing that is new."""
    entries: list[Exposure] = []
    unnamed: list[int] = []
    for run in layer.runs:
        entries += [Exposure(frame, drawing, "key") for frame, drawing in run.keys.items()]
        if run.shot is not None:
            begins = [gap.first + offset for gap in lay_out(run.shot, options).gaps for offset in gap.offsets]
            entries += [Exposure(frame, run.named[frame]) for frame in begins if frame in run.named]
            unnamed += [frame for frame in begins if frame not in run.named]
        if run.end < duration:
            entries.append(Exposure(run.end, None))
    entries.sort(key=lambda entry: entry.frame)
    begun = {entry.frame for entry in entries if entry.drawing is not None}
    entries = [entry for entry in entries if entry.drawing is not None or entry.frame not in begun]
    base = Layer(layer.layer.name, exposures_of(entries), (), True, layer.layer.opacity)
    try:
        return with_in_betweens(replace(base, marks=tuple(Mark(frame, "in-between") for frame in unnamed)))[0]
    except UserError:  # no letters are left, or names have none
        new = [Exposure(frame, f"new at {frame}") for frame in unnamed]
        ordered = sorted([*base.exposures, *new], key=lambda entry: entry.frame)
        note(f"the drawings of the layer '{printable(layer.layer.name, 60)}' are numbered anew, by their order")
        return numbered(replace(base, exposures=tuple(ordered)))[0]
