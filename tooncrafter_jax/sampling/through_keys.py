"""Motion across a key: the clips before and after it are drawn apart, so speed and direction may jump there.

A bridge is a clip from a drawing before the key to one after it. What was drawn on both sides, with the key in the
middle, is its draft; a part of the steps draws it anew, by a network that sees both sides at once, so the motion is
matched and the drawings stay nearly where they are. The frames beside the key are taken from it; the key stays as it
was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import floor
from typing import NamedTuple

import numpy as np

from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.sequence import Gap, Layout, listed

REDRAWN_SHARE = 0.6
"""Of the steps, that a bridge is drawn anew by: the noise that they begin with covers how drawings move, but not where
they are.
"""
LEAST_STEPS = 5
"""Of which that share is run: a model that draws in one step would begin with noise alone, and never see the draft."""
MOST_REDRAWN = 2
"""Drawings on each side of a key."""


class Source(NamedTuple):
    """A frame of a clip that is drawn.

    Attributes:
      gap: number of the gap.
      path: of the clip in it.
      frame: its number in the clip.
    """

    gap: int
    path: tuple[int, ...]
    frame: int


class Bridge(NamedTuple):
    """A clip through a key.

    Attributes:
      key: its frame.
      middle: the key's frame in the clip.
      draft: every other frame of the clip -> what its draft has there.
      shown: (gap, number of a drawing) -> the clip's frame that takes its place.
    """

    key: int
    middle: int
    draft: Mapping[int, Source]
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


def options_of_bridges(options: SamplingOptions) -> SamplingOptions:
    """The options of clips through keys: fewer than `LEAST_STEPS` times that were chosen give way to evenly spaced
    ones.
    """
    redrawn = replace(options, strength=REDRAWN_SHARE)
    if options.timesteps is None:
        return replace(redrawn, steps=max(options.steps, LEAST_STEPS))
    if len(options.timesteps.split(",")) < LEAST_STEPS:
        return replace(redrawn, timesteps=None, steps=LEAST_STEPS)
    return redrawn


def bridges(layout: Layout, length: int, *, loop: bool) -> list[Bridge]:
    """The bridges of a shot; says on one line at which keys there is no room for one.

    Args:
      layout: of the shot.
      length: of a clip, in frames.
      loop: whether the last key is the first, with a bridge from the end of the shot to its beginning.
    """
    found, without, gaps = [], [], layout.gaps
    for after in range(0 if loop else 1, len(gaps)):
        before = (after - 1) % len(gaps)
        if _has_room(gaps[before]) and _has_room(gaps[after]):
            sides = _side(gaps[before], before, backwards=True), _side(gaps[after], after, backwards=False)
            found.append(_bridge(layout, gaps[after].first, length, *sides))
        else:
            without.append(gaps[after].first)
    if without:
        several = len(without) > 1
        note(
            f"the key{'s' * several} on frame{'s' * several} {listed(without)} "
            f"{'are' if several else 'is'} not drawn through: that takes three drawings in the gap on either side"
        )
    return found


def _has_room(gap: Gap) -> bool:
    """Whether a gap has drawings enough for a bridge to end in it."""
    return len(gap.offsets) >= 3


def _side(gap: Gap, number: int, *, backwards: bool) -> _Side:
    """What is drawn again of a gap: less than half of it, so that two bridges of one gap do not meet."""
    count = len(gap.offsets)
    redrawn = min(MOST_REDRAWN, (count - 1) // 2)
    order = range(count)[::-1] if backwards else range(count)
    return _Side(number, tuple(order[:redrawn]), order[redrawn])


def _bridge(layout: Layout, key: int, length: int, before: _Side, after: _Side) -> Bridge:
    middle = (length - 1) // 2
    draft: dict[int, Source] = {}
    shown: dict[tuple[int, int], int] = {}
    for side, steps, sign in ((before, middle, -1), (after, length - 1 - middle, 1)):
        gap = layout.gaps[side.gap]
        whole = gap.last - gap.first
        places, times = [0.0, *gap.positions, 1.0], [0, *gap.offsets, whole]
        key_time = whole if sign < 0 else 0
        reach = abs(gap.offsets[side.end] - key_time)  # in frames of the shot
        pool = [] if gap.clip is None else gap.clip.drawn(length)
        away = np.abs(np.interp([one.position for one in pool], places, times) - key_time)
        nearest = {step: pool[int(np.argmin(np.abs(away - reach * step / steps)))] for step in range(1, steps)}
        nearest[steps] = next(one for one in pool if one.number == side.end)
        for step, one in nearest.items():
            draft[middle + sign * step] = Source(side.gap, one.path, one.frame)
        for number in side.numbers:
            share = abs(gap.offsets[number] - key_time) / reach
            step = min(max(floor(share * steps + 0.5), 1), steps - 1)
            shown[side.gap, number] = middle + sign * step
    return Bridge(key, middle, draft, shown)
