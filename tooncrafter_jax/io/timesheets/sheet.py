"""A time sheet as all formats have it: which drawing of which layer is shown from which frame on.

Frames count from 0, layers from the bottom. An exposure holds until the next one, and the last until the sheet ends.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.json_files import is_text
from tooncrafter_jax.io.timesheets.cel_files import CelFile
from tooncrafter_jax.io.timesheets.levels import drawing_name, is_sign
from tooncrafter_jax.notes import note

DEFAULT_FPS = 24.0
"""Frames a second of a sheet that does not say: as OCA's specification and Krita have it."""
MAX_FRAMES = 100_000
"""More than an hour at 24 frames a second; a longer sheet is a mistake, or somebody's joke."""
MAX_LAYERS = 1000
LONGEST_NAME = 200
"""Characters of a name of a sheet, a layer or a drawing; names of files have no room for more."""
SHOWN = 60
"""Characters of a foreign name that messages repeat."""

Role = Literal["key", "reference"]
"""Of a drawing: a key (its number is circled on paper), or a reference (in a triangle)."""
MarkKind = Literal["in-between", "reverse"]
"""What is asked for at a frame without changing the drawing that is shown: an in-between (a circle on paper), or an
in-between of before again, in reverse order (a dot).
"""


class Exposure(NamedTuple):
    """From a frame on, a drawing is shown.

    Attributes:
      frame: the first one.
      drawing: its name; None: nothing is shown.
      role: what the sheet says of the drawing, if it does.
    """

    frame: int
    drawing: str | None
    role: Role | None = None


class Mark(NamedTuple):
    """What a sheet asks for at a frame.

    Attributes:
      frame: where.
      kind: see `MarkKind`.
    """

    frame: int
    kind: MarkKind


class Run(NamedTuple):
    """Frames of a layer without an empty one between: what can be animated as one.

    Attributes:
      start: the first frame.
      end: the frame after the last.
      drawings: frame -> the drawing that is shown from there on, ascending.
      in_betweens: frames between two drawings where one more is asked for, ascending.
    """

    start: int
    end: int
    drawings: dict[int, str]
    in_betweens: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A column of a sheet. Layers of one name share their drawings.

    Attributes:
      name: of the layer, and of its level (its set of drawings).
      exposures: ascending; the first has a drawing, and neighbours differ. `exposures_of` brings any list to that form.
      marks: ascending, at frames where no exposure begins.
      visible: whether it is shown.
      opacity: 0 to 1.
      cels: drawing -> its picture, of those that were found beside the sheet; plays no part in comparisons.

    Raises:
      UserError: it is not so.
    """

    name: str
    exposures: tuple[Exposure, ...] = ()
    marks: tuple[Mark, ...] = ()
    visible: bool = True
    opacity: int | float = 1.0
    cels: Mapping[str, CelFile] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, "a layer's name")
        place = f"the layer '{printable(self.name, SHOWN)}'"
        if not 0 <= self.opacity <= 1:
            raise UserError(f"{place} has the opacity {self.opacity}: choose a number from 0 to 1")
        _check_ascending([exposure.frame for exposure in self.exposures], place, "exposures")
        _check_ascending([mark.frame for mark in self.marks], place, "marks")
        for exposure in self.exposures:
            if exposure.drawing is not None:
                _check_drawing(exposure.drawing, place)
        drawings = [None, *(exposure.drawing for exposure in self.exposures)]
        for exposure, (before, after) in zip(self.exposures, itertools.pairwise(drawings), strict=True):
            if before == after:
                shown = "nothing" if after is None else f"'{printable(after, SHOWN)}'"
                raise UserError(f"{place} begins to show {shown} at frame {exposure.frame}, which it does already")
        if both := {mark.frame for mark in self.marks} & {exposure.frame for exposure in self.exposures}:
            raise UserError(f"{place} has a mark at frame {min(both)}, where a drawing begins: leave one out")

    def held(self, duration: int) -> list[tuple[Exposure, int]]:
        """The exposures that begin in the first `duration` frames, each with the frame after its last."""
        ends = [*(exposure.frame for exposure in self.exposures[1:]), duration]
        pairs = zip(self.exposures, ends, strict=False)
        return [(exposure, min(end, duration)) for exposure, end in pairs if exposure.frame < duration]

    def shown(self, duration: int) -> list[str | None]:
        """The drawing at each of the first `duration` frames; None: nothing."""
        shown: list[str | None] = [None] * duration
        for exposure, end in self.held(duration):
            shown[exposure.frame : end] = [exposure.drawing] * (end - exposure.frame)
        return shown

    def drawings(self) -> tuple[str, ...]:
        """The names of all drawings, each once, in the order in which they appear."""
        return tuple(dict.fromkeys(drawing for _, drawing, _ in self.exposures if drawing is not None))

    def keys(self) -> dict[int, str]:
        """Frame -> drawing, ascending: those that the sheet marks as keys, or all if it marks none."""
        marked = any(exposure.role == "key" for exposure in self.exposures)
        return {
            frame: drawing
            for frame, drawing, role in self.exposures
            if drawing is not None and (role == "key" or not marked)
        }

    def runs(self, duration: int) -> tuple[Run, ...]:
        """The parts of the first `duration` frames that show something without a gap, in their order."""
        parts: list[dict[int, str]] = []
        ends: list[int] = []
        for exposure, end in self.held(duration):
            if exposure.drawing is None:
                continue
            if ends and ends[-1] == exposure.frame:
                ends[-1] = end
            else:
                parts.append({})
                ends.append(end)
            parts[-1][exposure.frame] = exposure.drawing
        wanted = [mark.frame for mark in self.marks if mark.kind == "in-between"]
        return tuple(_run(drawings, end, wanted) for drawings, end in zip(parts, ends, strict=True))

    def in_betweens(self) -> tuple[int, ...]:
        """Frames between two drawings where one more is asked for, ascending.

        A mark before the first drawing, after the last of a run, or where nothing is shown, is none of them.
        """
        end = 1 + max((frame for frame, *_ in (*self.exposures, *self.marks)), default=0)
        return tuple(frame for run in self.runs(end) for frame in run.in_betweens)


def _run(drawings: dict[int, str], end: int, wanted: list[int]) -> Run:
    """A run of these drawings; `wanted` is where in-betweens are asked for anywhere in the layer, ascending."""
    start, last = next(iter(drawings)), next(reversed(drawings))
    return Run(start, end, drawings, tuple(wanted[bisect_right(wanted, start) : bisect_left(wanted, last)]))


@dataclass(frozen=True)
class TimeSheet:
    """A shot's timing.

    Attributes:
      name: of the shot.
      duration: frames, 1 to `MAX_FRAMES`.
      layers: from the bottom to the top.
      fps: frames a second; None: the format does not say.
      size: width and height in pixels; None: the format does not say.
      scene: number of the scene, as text; empty: none.
      cut: number of the cut (shot), as text; empty: none.

    Raises:
      UserError: a number is out of its range, or an exposure begins after the end.
    """

    name: str
    duration: int
    layers: tuple[Layer, ...] = ()
    fps: int | float | None = None
    size: tuple[int, int] | None = None
    scene: str = ""
    cut: str = ""

    def __post_init__(self) -> None:
        for text, what in ((self.name, "sheet's"), (self.scene, "scene's"), (self.cut, "cut's")):
            check_name(text, f"the {what} name", may_be_empty=True)
        if not 1 <= self.duration <= MAX_FRAMES:
            raise UserError(f"the sheet has {self.duration} frames: it must have 1 to {MAX_FRAMES:,}")
        if len(self.layers) > MAX_LAYERS:
            raise UserError(f"the sheet has {len(self.layers):,} layers: it can have up to {MAX_LAYERS:,}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UserError(f"the sheet has {self.fps} frames a second: choose a number up to 1000")
        if self.size is not None and not all(0 < side <= 2**16 for side in self.size):
            raise UserError(f"the sheet is {' x '.join(map(str, self.size))} pixels: choose sides from 1 to {2**16:,}")
        for layer in self.layers:
            last = max((frame for frame, *_ in (*layer.exposures, *layer.marks)), default=0)
            if last >= self.duration:
                raise UserError(
                    f"the layer '{printable(layer.name, SHOWN)}' says something at frame {last}, but the sheet ends "
                    f"after frame {self.duration - 1}"
                )

    def layer(self, name: str) -> Layer:
        """The layer of that name, with a note if there are several: the lowest is taken.

        Raises:
          UserError: there is none.
        """
        found = [layer for layer in self.layers if layer.name == name]
        if not found:
            names = ", ".join(dict.fromkeys(f"'{printable(layer.name, SHOWN)}'" for layer in self.layers)) or "none"
            raise UserError(f"the sheet has no layer '{printable(name, SHOWN)}': it has {names}")
        if len(found) > 1:
            note(f"the sheet has {len(found)} layers '{printable(name, SHOWN)}': the lowest is taken")
        return found[0]

    def levels(self) -> dict[str, tuple[str, ...]]:
        """Level -> its drawings: of all layers of that name, from the bottom, in the order in which they appear."""
        found: dict[str, dict[str, None]] = {}
        for layer in self.layers:
            found.setdefault(layer.name, {}).update(dict.fromkeys(layer.drawings()))
        return {name: tuple(drawings) for name, drawings in found.items()}


def unique_levels(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Layers that share a name share their drawings: one that does not is given a name of its own, with a note."""
    known: dict[str, dict[str, CelFile]] = {}
    found = []
    for layer in layers:
        name, number = layer.name, 1
        while any(known.get(name, {}).get(drawing, cel) != cel for drawing, cel in layer.cels.items()):
            number += 1
            name = f"{layer.name[: LONGEST_NAME - 5]}~{number}"
        if name != layer.name:
            note(f"two layers '{printable(layer.name, SHOWN)}' have other drawings: the upper one is called '{name}'")
        known.setdefault(name, {}).update(layer.cels)
        found.append(replace(layer, name=name))
    return tuple(found)


def exposures_of(entries: Iterable[Exposure]) -> tuple[Exposure, ...]:
    """Exposures as a `Layer` has them: what changes nothing is left out.

    Args:
      entries: ascending; neighbours may repeat a drawing, and the first may be empty.
    """
    kept: list[Exposure] = []
    for entry in entries:
        before = kept[-1] if kept else None
        if entry.drawing == (before.drawing if before else None):
            if before is not None and before.role is None and entry.role is not None:
                kept[-1] = before._replace(role=entry.role)
            continue
        kept.append(entry)
    return tuple(kept)


def layer_of_drawings(name: str, drawings: Sequence[str | None]) -> Layer:
    """A layer from what it shows at each frame.

    Args:
      name: of the layer.
      drawings: the drawing of each frame; None: nothing.

    Raises:
      UserError: as of `Layer`.
    """
    return Layer(name, exposures_of(Exposure(frame, drawing) for frame, drawing in enumerate(drawings)))


def check_name(name: str, what: str, may_be_empty: bool = False) -> None:
    """Raises UserError for a name that is empty, too long or no text; `what` is what the message calls it."""
    if not name and not may_be_empty:
        raise UserError(f"{what} is empty: give it one")
    if len(name) > LONGEST_NAME:
        raise UserError(f"{what} has {len(name):,} characters: it can have up to {LONGEST_NAME}")
    if name != name.strip():
        raise UserError(f"{what}, '{printable(name, SHOWN)}', has blanks around it: take them away")
    if not is_text(name) or any(character < " " or character == "\x7f" for character in name):
        raise UserError(f"{what}, '{printable(name, SHOWN)}', has characters that are no text: give it another")


def _check_drawing(drawing: str, place: str) -> None:
    check_name(drawing, f"a drawing's name in {place}")
    if is_sign(drawing):
        raise UserError(
            f"{place} has a drawing '{printable(drawing, SHOWN)}', which is a sign of time sheets: rename it"
        )
    if drawing != (plain := drawing_name(drawing)):
        raise UserError(f"{place} has a drawing '{printable(drawing, SHOWN)}': call it '{printable(plain, SHOWN)}'")


def _check_ascending(frames: list[int], place: str, what: str) -> None:
    if frames and frames[0] < 0:
        raise UserError(f"{place} has {what} before frame 0")
    for before, after in itertools.pairwise(frames):
        if after <= before:
            raise UserError(f"{place} has {what} that are not in the order of their frames: {after} follows {before}")
