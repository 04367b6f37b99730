"""The timing of a shot: on which frames of a gap between two keys there is a new drawing, and which phase it shows.

Exposure says how long a drawing is held, in frames: 1 is "on ones", 2 "on twos"; a list is repeated until the gap is
full. Timing says where the drawings stand between the two keys, from 0, the first, to 1, the last: by a curve of
time, as in style sheets (a CSS Easing Function), or by a chart, which lists the positions themselves, as on the edge
of an animator's key drawing. Nothing here needs JAX.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from tooncrafter_jax.config_codec import plain
from tooncrafter_jax.errors import UserError, printable

LONGEST_HOLD = 10_000
"""Frames; a shot has no more."""
MOST_POSITIONS = 10_000
"""Of a chart."""
LEAST_STEP = 1e-3
"""Between the positions of two drawings: what is nearer is the drawing before, held."""

Curve = tuple[float, float, float, float]
"""The two inner points of a cubic Bezier curve, x1, y1, x2, y2, whose ends are (0, 0) and (1, 1)."""
CURVES: Mapping[str, Curve | None] = {
    "linear": None,
    "ease": (0.25, 0.1, 0.25, 1.0),
    "ease-in": (0.42, 0.0, 1.0, 1.0),
    "ease-out": (0.0, 0.0, 0.58, 1.0),
    "ease-in-out": (0.42, 0.0, 0.58, 1.0),
}
"""Name -> curve of the position over time, by the CSS Easing Functions (W3C): "ease-in" begins slowly."""
CHARTS: Mapping[str, tuple[float, ...]] = {
    "halves": (1 / 2,),
    "thirds": (1 / 3, 2 / 3),
    "quarters": (1 / 4, 2 / 4, 3 / 4),
    "favour-first": (1 / 3,),
    "favour-last": (2 / 3,),
}
"""Name -> positions. One in-between that favours a key stands at a third of the way from it."""
EXPOSURES: Mapping[str, tuple[int, ...]] = {"ones": (1,), "twos": (2,), "threes": (3,), "fours": (4,)}
"""Name -> holds in frames."""
_FORMS = f"{', '.join((*CURVES, *CHARTS))}, cubic-bezier(x1,y1,x2,y2), or a list of positions such as 0.2,0.5,0.9"


@dataclass(frozen=True)
class Timing:
    """Where the drawings of a gap stand.

    Attributes:
      text: how it is written, in one way for each timing.
      curve: of the position over time; None for a straight one, or a chart.
      chart: positions, ascending between 0 and 1; None for a curve.
    """

    text: str = "linear"
    curve: Curve | None = None
    chart: tuple[float, ...] | None = None

    def position(self, time: float) -> float:
        """The position at a time, both from 0 to 1, on the curve."""
        return time if self.curve is None else _on_curve(self.curve, time)


class Drawing(NamedTuple):
    """A drawing of a gap.

    Attributes:
      offset: frames from the gap's first key to the first frame that shows it.
      position: between the two keys, above 0 and below 1.
    """

    offset: int
    position: float


class GapDrawings(NamedTuple):
    """The drawings of a gap.

    Attributes:
      drawings: in order.
      held: how many more there were, less than `LEAST_STEP` from their neighbours, in whose place the drawing before is
        held.
    """

    drawings: tuple[Drawing, ...]
    held: int


TimingLike = str | Sequence[float] | Timing
"""A name, "cubic-bezier(...)" or a list as text; or the positions of a chart."""
ExposureLike = str | int | Sequence[int]
"""Frames that a drawing is held, a list of those, or either as text."""


def timing_of(value: object, where: str = "the timing") -> Timing:
    """What a user asks for.

    Args:
      value: see `TimingLike`.
      where: names it in sentences.

    Raises:
      UserError: it is no timing.
    """
    if isinstance(value, Timing):
        return value
    if isinstance(value, str):
        return _timing_of_text(value, where)
    values = _listed(value)
    if values is None or not values or any(isinstance(one, bool) or not isinstance(one, int | float) for one in values):
        raise UserError(f"{where} is {_shown(value)}, which is none of {_FORMS}")
    return _chart([float(one) for one in values], where)  # type: ignore[arg-type]


def exposure_of(value: object, where: str = "the exposure") -> tuple[int, ...]:
    """Holds in frames, to be repeated.

    Args:
      value: see `ExposureLike`.
      where: names it in sentences.

    Raises:
      UserError: it is no exposure.
    """
    problem = f"{where} is {_shown(value)}: say how many frames a drawing is held, such as 2, or a list such as 2,2,3"
    if isinstance(value, str):
        if (named := EXPOSURES.get(value.strip().lower())) is not None:
            return named
        parts = [part.strip() for part in value.split(",")]
        if not all(re.fullmatch(r"-?[0-9]{1,9}", part) for part in parts):
            raise UserError(problem)
        holds: list[object] = [int(part) for part in parts]
    else:
        single = plain(value)
        holds = [single] if isinstance(single, int) else _listed(value) or []
    if not holds or len(holds) > MOST_POSITIONS:
        raise UserError(problem)
    for hold in holds:
        if isinstance(hold, bool) or not isinstance(hold, int):
            raise UserError(problem)
        if not 1 <= hold <= LONGEST_HOLD:
            raise UserError(f"{where} holds a drawing for {hold} frames: choose 1 to {LONGEST_HOLD}")
    return tuple(hold for hold in holds if isinstance(hold, int))


def drawings_between(gap: int, timing: Timing, exposure: Sequence[int], where: str = "the gap") -> GapDrawings:
    """The drawings between two keys that are `gap` frames apart.

    The first key is held as long as the exposure says, then come the drawings, of which the last is held until the last
    key. The drawings of a chart are spread evenly over the frames that the exposure gives new drawings.

    Args:
      gap: frames from the first key to the last, at least 1; with 1 there are none between.
      timing: where they stand.
      exposure: how long each is held, repeated; see `exposure_of`.
      where: names the gap in sentences.

    Raises:
      UserError: the chart has more drawings than the exposure leaves room for.
    """
    starts, offset, number = [], exposure[0], 1
    while offset < gap:
        starts.append(offset)
        offset += exposure[number % len(exposure)]
        number += 1
    if timing.chart is None:
        return _distinct([Drawing(start, timing.position(start / gap)) for start in starts])
    count, room = len(timing.chart), len(starts)
    if count > room:
        raise UserError(
            f"{where} has {gap} frames, in which an exposure of {','.join(map(str, exposure))} leaves room for {room} "
            f"drawing{'' if room == 1 else 's'}, but its chart {printable(timing.text, 60)} has {count}: move the keys "
            "apart, hold drawings for fewer frames, or take some out of the chart"
        )
    chosen = [starts[ceil((number + 1) * (room + 1) / (count + 1) - 0.5) - 1] for number in range(count)]
    return GapDrawings(tuple(map(Drawing, chosen, timing.chart)), 0)


def _timing_of_text(text: str, where: str) -> Timing:
    name = re.sub(r"\s+", "", text).lower().replace("favor", "favour")
    if name in CURVES:
        return Timing(name, CURVES[name])
    if name in CHARTS:
        return Timing(name, chart=CHARTS[name])
    bezier = re.fullmatch(r"cubic-bezier\((.*)\)", name)
    numbers = [_number(part) for part in (bezier[1] if bezier else name).split(",")]
    values = [number for number in numbers if number is not None]
    if len(values) < len(numbers):
        raise UserError(f"{where} is {_shown(text)}, which is none of {_FORMS}")
    if bezier is None:
        return _chart(values, where)
    if len(values) != 4:
        raise UserError(f"{where} is {_shown(text)}, but cubic-bezier takes four numbers: x1,y1,x2,y2")
    if not all(0 <= value <= 1 for value in values):
        raise UserError(
            f"{where} is {_shown(text)}, which leads past a key: a drawing stands between two keys, so each number "
            "must be from 0 to 1"
        )
    x1, y1, x2, y2 = values
    curve = (x1, y1, x2, y2)
    straight = x1 == y1 and x2 == y2
    return Timing() if straight else Timing(f"cubic-bezier({','.join(f'{value:g}' for value in curve)})", curve)


def _chart(positions: Sequence[float], where: str) -> Timing:
    """A chart of these positions.

    Raises:
      UserError: they do not ascend between the keys.
    """
    if len(positions) > MOST_POSITIONS:
        raise UserError(f"{where} has {len(positions)} positions: at most {MOST_POSITIONS} are taken")
    outside = next((position for position in positions if not LEAST_STEP <= position <= 1 - LEAST_STEP), None)
    if outside is not None:
        raise UserError(
            f"{where} has a drawing at {outside:g}: positions lie between the keys, from {LEAST_STEP} to "
            f"{1 - LEAST_STEP}, as the keys themselves are 0 and 1"
        )
    for before, after in pairwise(positions):
        if after - before < LEAST_STEP:
            raise UserError(
                f"{where} has a drawing at {before:g} before one at {after:g}: positions must ascend, by {LEAST_STEP} "
                "at least"
            )
    return Timing(",".join(f"{position:.6g}" for position in positions), chart=tuple(positions))


def _number(text: str) -> float | None:
    """A number, or a fraction such as 1/3; None for anything else."""
    if not re.fullmatch(r"[-+]?([0-9]{1,12}(\.[0-9]{0,18})?|\.[0-9]{1,18})(/[0-9]{1,9})?", text):
        return None
    try:
        above, _, below = text.partition("/")
        return float(Fraction(above.removesuffix(".")) / int(below or 1))
    except (ValueError, ZeroDivisionError):
        return None


def _on_curve(curve: Curve, time: float) -> float:
    """The curve's y where its x is the time: x never falls, as its points lie from 0 to 1."""
    x1, y1, x2, y2 = curve

    def along(first: float, second: float, share: float) -> float:
        return 3 * (1 - share) ** 2 * share * first + 3 * (1 - share) * share**2 * second + share**3

    low, high = 0.0, 1.0
    for _ in range(60):  # halving: to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if along(x1, x2, middle) < time else (low, middle)
    return along(y1, y2, (low + high) / 2)


def _distinct(drawings: Sequence[Drawing]) -> GapDrawings:
    """The drawings that are new: at least `LEAST_STEP` from the one before, and from the last key."""
    kept: list[Drawing] = []
    for drawing in drawings:
        before = kept[-1].position if kept else 0.0
        if drawing.position - before >= LEAST_STEP and 1 - drawing.position >= LEAST_STEP:
            kept.append(drawing)
    return GapDrawings(tuple(kept), len(drawings) - len(kept))


def _listed(value: object) -> list[object] | None:
    """The items of a list, a tuple or an array of one axis, as Python's own numbers; None for anything else."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # type: ignore[attr-defined]
    return [plain(one) for one in value] if isinstance(value, list | tuple) else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def held_at(starts: Sequence[int], frame: int) -> int:
    """The number of the drawing that a frame shows, of drawings with these first frames in ascending order."""
    return bisect_right(starts, frame) - 1
