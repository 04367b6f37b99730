"""Motion across a key: the clips before and after it are drawn apart, so speed and direction may jump there.

A bridge is a clip from a drawing before the key to one after it. What was drawn on both sides, with the key in the
middle, is its draft; a part of the steps draws it anew, by a network that sees both sides at once, so the motion is
matched and the drawings stay nearly where they are. The frames beside the key are taken from it; the key stays as it
was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.sequence import Gap, Layout

REDRAWN_SHARE = 0.6
"""Of the steps, that a bridge is drawn anew by: the noise that they begin with covers how drawings move, but not where
they are.
"""
LEAST_STEPS = 5
"""Of which that share is run: a model that draws in one step would begin with noise alone, and never see the draft."""
MOST_REDRAWN = 2
"""Drawings on each side of a key."""

Drawn = UInt8[np.ndarray, "H W 3"]


class DrawnFrame(NamedTuple):
    """A frame of a clip, shown or not.

    Attributes:
      gap: number of the gap.
      position: between its keys.
      picture: uint8 (H, W, 3).
    """

    gap: int
    position: float
    picture: Drawn


class Bridge(NamedTuple):
    """A clip through a key.

    Attributes:
      key: its frame.
      draft: uint8 (T, H, W, 3), what was drawn, with the key in the middle.
      middle: the key's frame in the clip.
      shown: (gap, number of a drawing) -> the clip's frame that takes its place.
    """

    key: int
    draft: UInt8[np.ndarray, "T H W 3"]
    middle: int
    shown: Mapping[tuple[int, int], int]


class _Side(NamedTuple):
    """One side of a bridge, counted away from the key.

    Attributes:
      gap: number of the gap.
      numbers: of the drawings that are drawn again, from the key on.
      end: number of the drawing that the bridge ends with.
    """

    gap: int
    numbers: tuple[int, ...]
    end: int


def bridges(
    layout: Layout,
    keys: Mapping[int, Drawn],
    drawings: Mapping[tuple[int, int], Drawn],
    frames: Sequence[DrawnFrame],
    length: int,
    *,
    loop: bool,
) -> list[Bridge]:
    """The bridges of a shot; says on one line at which keys there is no room for one.

    Args:
      layout: of the shot.
      keys: frame -> picture.
      drawings: (gap, number) -> picture.
      frames: all that were drawn.
      length: of a clip, in frames.
      loop: whether the last key is the first, with a bridge from the end of the shot to its beginning.
    """
    found, without = [], []
    for before, after in joints(len(layout.gaps), loop=loop):
        key = layout.gaps[after].first
        sides = _side(layout.gaps[before], before, backwards=True), _side(layout.gaps[after], after, backwards=False)
        if sides[0] is None or sides[1] is None:
            without.append(key)
            continue
        found.append(_bridge(layout, key, keys, drawings, frames, length, sides[0], sides[1]))
    if without:
        several = len(without) > 1
        note(
            f"the key{'s' * several} on frame{'s' * several} {', '.join(map(str, without))} "
            f"{'are' if several else 'is'} not drawn through: that takes three drawings in the gap on either side"
        )
    return found


def joints(gaps: int, *, loop: bool) -> list[tuple[int, int]]:
    """The gaps before and after each key that has both."""
    return [((after - 1) % gaps, after) for after in range(0 if loop else 1, gaps)]


def has_room(gap: Gap) -> bool:
    """Whether a gap has drawings enough for a bridge to end in it."""
    return len(gap.offsets) >= 3


def _side(gap: Gap, number: int, *, backwards: bool) -> _Side | None:
    """What is drawn again of a gap: less than half of it, so that two bridges of one gap do not meet."""
    count = len(gap.offsets)
    if not has_room(gap):
        return None
    redrawn = min(MOST_REDRAWN, (count - 1) // 2)
    order = range(count)[::-1] if backwards else range(count)
    return _Side(number, tuple(order[:redrawn]), order[redrawn])


def _bridge(
    layout: Layout,
    key: int,
    keys: Mapping[int, Drawn],
    drawings: Mapping[tuple[int, int], Drawn],
    frames: Sequence[DrawnFrame],
    length: int,
    before: _Side,
    after: _Side,
) -> Bridge:
    middle = (length - 1) // 2
    draft = {0: drawings[before.gap, before.end], middle: keys[key], length - 1: drawings[after.gap, after.end]}
    shown: dict[tuple[int, int], int] = {}
    for side, steps, sign in ((before, middle, -1), (after, length - 1 - middle, 1)):
        gap = layout.gaps[side.gap]
        whole = gap.last - gap.first
        places, times = [0.0, *gap.positions, 1.0], [0, *gap.offsets, whole]
        key_time = whole if sign < 0 else 0
        reach = abs(gap.offsets[side.end] - key_time)  # in frames of the shot
        pool = [one for one in frames if one.gap == side.gap]
        away = [abs(np.interp(one.position, places, times) - key_time) for one in pool]
        for step in range(1, steps):
            draft[middle + sign * step] = pool[int(np.argmin(np.abs(np.asarray(away) - reach * step / steps)))].picture
        for number in side.numbers:
            share = abs(gap.offsets[number] - key_time) / reach
            step = min(max(floor(share * steps + 0.5), 1), steps - 1)
            shown[side.gap, number] = middle + sign * step
    return Bridge(key, np.stack([draft[frame] for frame in range(length)]), middle, shown)
