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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log
from typing import NamedTuple

_SAME = 1e-9
"""Between positions that are equal but for rounding."""


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

    def levels(self) -> int:
        """How many clips must be drawn one after another."""
        return 1 + max((part.clip.levels() for part in self.parts), default=0)

    def clips(self) -> int:
        """How many clips must be drawn in all."""
        return 1 + sum(part.clip.clips() for part in self.parts)

    def reached(self, frames: int, first: float = 0.0, last: float = 1.0) -> Iterator[tuple[int, float]]:
        """Number of each drawing, and where it stands between the keys, as the clips' frames divide their clips evenly.

        Args:
          frames: of a clip.
          first: where the clip's first frame stands.
          last: where its last frame stands.
        """

        def at(frame: int) -> float:
            return first + (last - first) * frame / (frames - 1)

        for number, frame in self.shown.items():
            yield number, at(frame)
        for part in self.parts:
            yield from part.clip.reached(frames, at(part.first), at(part.last))


class Part(NamedTuple):
    """A clip between two frames of another.

    Attributes:
      first, last: the frames.
      clip: what is drawn between them.
    """

    first: int
    last: int
    clip: PlannedClip


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


def _is_even(step: float, wanted: float, unevenness: float) -> bool:
    least = 1 - unevenness
    return step > 0 and least - _SAME <= step / wanted <= 1 / least + _SAME


def _nodes(numbers: Sequence[int], wanted: Sequence[float], frames: int) -> list[_Node]:
    """The frames that may be used, each for any drawing whose nearest frame it is, and for none."""
    steps = frames - 1
    nodes = [_Node(0, 0.0, None)]
    for frame in range(1, steps):
        low = bisect_left(wanted, (frame - 0.5) / steps - _SAME)
        high = bisect_right(wanted, (frame + 0.5) / steps + _SAME)
        near = [_Node(frame, wanted[index], numbers[index]) for index in range(low, high)]
        if len(wanted) > steps**2:  # parts will be divided again, so there is nothing to choose
            near = sorted(near, key=lambda node: abs(node.position - node.frame / steps))[:1]
        nodes += near
        if not any(abs(node.position - frame / steps) < _SAME for node in near):
            nodes.append(_Node(frame, frame / steps, None))
    return [*nodes, _Node(steps, 1.0, None)]


def _shortest(nodes: Sequence[_Node], wanted: Sequence[float], frames: int, unevenness: float) -> list[_Node]:
    """The way from the first to the last node that needs the fewest clips, and of those the most even one."""
    best: list[tuple[float, float, int]] = [(0.0, 0.0, -1)]
    after = [bisect_right(wanted, node.position + _SAME) for node in nodes]
    before = [bisect_left(wanted, node.position - _SAME) for node in nodes]
    for index, node in enumerate(nodes[1:], 1):
        found = (float("inf"), float("inf"), -1)
        for start in range(index):
            origin = nodes[start]
            step, meant = (node.frame - origin.frame) / (frames - 1), node.position - origin.position
            if step == 1 or meant <= _SAME or not _is_even(step, meant, unevenness):
                continue
            cost = best[start][0]
            if cost > found[0]:
                continue
            inside = wanted[after[start] : before[index]]
            if inside:
                places = [(position - origin.position) / meant for position in inside]
                cost += 1
                if _chosen(places, frames, unevenness) is None:
                    cost += ceil(len(inside) / (frames - 2)) + step  # of equal ones, what is smaller is nearer its end
            reached = (cost, best[start][1] + log(step / meant) ** 2, start)
            found = min(found, reached)
        best.append(found)
    way, index = [], len(nodes) - 1
    while index >= 0:
        way.append(nodes[index])
        index = best[index][2]
    return way[::-1]
