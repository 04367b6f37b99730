"""Which clips must be drawn so that every wanted position between two keys is a drawn frame.

A clip of T frames gives T - 2 positions between its ends, T - 1 equal steps. Where the wanted drawings can be chosen
from those, one clip is enough. Else the clip between two of its frames is drawn, and so on: level by level, with as
few clips as a search finds. Nothing is ever blended.

A drawing may stand a little off its place. What the eye sees is an uneven step, so that is what is bounded: from one
drawn frame to the next that is used, the motion is between 1 - `unevenness` and 1 / (1 - `unevenness`) times what the
timing wants. At a half, any even gap of at most T - 1 frames is chosen from one clip. Nothing here needs JAX.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from math import ceil, floor, log
from typing import Any, NamedTuple

import numpy as np

Steps = Any
"""A number, or an array of them."""
_SAME = 1e-9
"""Between positions that are equal but for rounding."""
_MOST_NODES = 1000
"""Frames, each for some drawing, that a search goes through: its time grows with their square."""


@dataclass(frozen=True)
class PlannedClip:
    """A clip between two keys or two drawn frames.

    Attributes:
      places: number of each drawing that the clip is for -> its position in the clip, above 0 and below 1.
      shown: number of a drawing -> the clip's frame that is used for it.
      parts: clips between two frames of this one.
    """

    places: Mapping[int, float]
    shown: Mapping[int, int]
    parts: tuple[Part, ...] = ()

    def by_level(self) -> list[int]:
        """How many clips are drawn at a time: this one, then those between its frames, and so on."""
        below = zip_longest(*(part.clip.by_level() for part in self.parts), fillvalue=0)
        return [1, *(sum(counts) for counts in below)]

    def drawn(self, frames: int) -> list[DrawnFrame]:
        """The frames between the ends of this clip, then those of its parts, and so on, level by level.

        Args:
          frames: of a clip.
        """
        found, level = [], [(self, (), (0.0, 1.0))]
        while level:
            following = []
            for plan, path, (first, last) in level:
                places = [first + (last - first) * frame / (frames - 1) for frame in range(frames)]
                numbers = {frame: number for number, frame in plan.shown.items()}
                found += [DrawnFrame(path, frame, places[frame], numbers.get(frame)) for frame in range(1, frames - 1)]
                following += [
                    (part.clip, part.path(path), (places[part.first], places[part.last])) for part in plan.parts
                ]
            level = following
        return found


class DrawnFrame(NamedTuple):
    """A frame of a clip that is drawn, shown or not.

    Attributes:
      path: of the clip; see `Part.path`.
      frame: its number in the clip.
      position: between the keys, as the clips' frames divide their clips evenly.
      number: of the drawing that it is shown for, or None.
    """

    path: tuple[int, ...]
    frame: int
    position: float
    number: int | None


class Part(NamedTuple):
    """A clip between two frames of another.

    Attributes:
      first, last: the frames.
      clip: what is drawn between them.
    """

    first: int
    last: int
    clip: PlannedClip

    def path(self, around: tuple[int, ...]) -> tuple[int, ...]:
        """Which clip it is: the frames that it lies between, after those of the clips around it from the outermost."""
        return (*around, self.first, self.last)


class _Node(NamedTuple):
    """A frame that may be used, on the way from a clip's first to its last.

    Attributes:
      frame: its number.
      position: where it is to stand: the place of the drawing that it is used for, or the frame's own.
      number: of the drawing; None if it is only the end of a part.
    """

    frame: int
    position: float
    number: int | None


def planned(places: Mapping[int, float], frames: int, unevenness: float) -> PlannedClip:
    """The clips for some drawings between two pictures.

    Args:
      places: number -> position, above 0 and below 1, ascending.
      frames: of a clip, at least 3.
      unevenness: above 0, at most a half.
    """
    numbers, wanted = list(places), list(places.values())
    chosen = _chosen(wanted, frames, unevenness)
    if chosen is not None:
        return PlannedClip(places, dict(zip(numbers, chosen, strict=True)))
    way = _shortest(_nodes(numbers, wanted, frames), wanted, frames, unevenness)
    shown, parts = {node.number: node.frame for node in way if node.number is not None}, []
    for before, after in pairwise(way):
        inside = {
            number: (position - before.position) / (after.position - before.position)
            for number, position in places.items()
            if before.position < position < after.position and number not in (before.number, after.number)
        }
        if inside:
            parts.append(Part(before.frame, after.frame, planned(inside, frames, unevenness)))
    return PlannedClip(places, shown, tuple(parts))


def _chosen(wanted: Sequence[float], frames: int, unevenness: float) -> list[int] | None:
    """The frames of one clip for all positions; None if some would be too far off."""
    if len(wanted) > frames - 2:
        return None
    found = [floor(position * (frames - 1) + 0.5) for position in wanted]
    steps = zip(pairwise([0, *found, frames - 1]), pairwise([0.0, *wanted, 1.0]), strict=True)
    for (before, after), (start, end) in steps:
        if not _is_even((after - before) / (frames - 1), end - start, unevenness):
            return None
    return found


def _is_even(step: Steps, wanted: Steps, unevenness: float) -> Steps:
    """Whether steps, or one of them, are as long as they should be, more or less."""
    least = 1 - unevenness
    return (step > 0) & (least - _SAME <= step / wanted) & (step / wanted <= 1 / least + _SAME)


def _nodes(numbers: Sequence[int], wanted: Sequence[float], frames: int) -> list[_Node]:
    """The frames that may be used, each for any drawing whose nearest frame it is, and for none."""
    steps = frames - 1
    # Where parts will be divided again, there is nothing to choose.
    most = 1 if len(wanted) > steps**2 else max(1, _MOST_NODES // steps)
    nodes = [_Node(0, 0.0, None)]
    for frame in range(1, steps):
        low = bisect_left(wanted, (frame - 0.5) / steps - _SAME)
        high = bisect_right(wanted, (frame + 0.5) / steps + _SAME)
        near = [_Node(frame, wanted[index], numbers[index]) for index in range(low, high)]
        if len(near) > most:
            nearest = sorted(near, key=lambda node: abs(node.position - node.frame / steps))[:most]
            near = sorted(nearest, key=lambda node: node.position)
        nodes += near
        if not any(abs(node.position - frame / steps) < _SAME for node in near):
            nodes.append(_Node(frame, frame / steps, None))
    return [*nodes, _Node(steps, 1.0, None)]


def _shortest(nodes: Sequence[_Node], wanted: Sequence[float], frames: int, unevenness: float) -> list[_Node]:
    """The way from the first to the last node that needs the fewest clips, and of those the most even one."""
    best: list[tuple[float, float, int]] = [(0.0, 0.0, -1)]
    after = [bisect_right(wanted, node.position + _SAME) for node in nodes]
    before = [bisect_left(wanted, node.position - _SAME) for node in nodes]
    reached = np.asarray([node.frame / (frames - 1) for node in nodes])
    meant = np.asarray([node.position for node in nodes])
    costs, behind = np.zeros(len(nodes)), np.asarray(after)
    for index in range(1, len(nodes)):
        node, found = nodes[index], (float("inf"), float("inf"), -1)
        steps, motion = reached[index] - reached[:index], meant[index] - meant[:index]
        moves = motion > _SAME
        even = _is_even(steps, np.where(moves, motion, 1.0), unevenness) & moves & (steps < 1 - _SAME)
        least = costs[:index] + (before[index] > behind[:index])  # what no way by that node is cheaper than
        starts = np.flatnonzero(even)
        for start in starts[np.argsort(least[starts], kind="stable")].tolist():
            if least[start] > found[0]:
                break
            origin, cost = nodes[start], float(least[start])
            step, way = (node.frame - origin.frame) / (frames - 1), node.position - origin.position
            count = before[index] - after[start]
            if count > 0:
                inside = wanted[after[start] : before[index]] if count <= frames - 2 else []
                places = [(position - origin.position) / way for position in inside]
                if not places or _chosen(places, frames, unevenness) is None:
                    cost += ceil(count / (frames - 2)) + step  # of equal ones, what is smaller is nearer its end
            found = min(found, (cost, best[start][1] + log(step / way) ** 2, start))
        best.append(found)
        costs[index] = found[0]
    way, index = [], len(nodes) - 1
    while index >= 0:
        way.append(nodes[index])
        index = best[index][2]
    return way[::-1]
