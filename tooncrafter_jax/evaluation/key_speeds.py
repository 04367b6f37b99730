"""How motion passes the keys of a shot: the speed from drawing to drawing before and after each, and that inside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tooncrafter_jax.curation.motion import OpticalFlow
from tooncrafter_jax.evaluation.rivals.flow_warp import measured
from tooncrafter_jax.typing import Uint8Video

NEAR = 2
"""Steps on each side of a key that are not counted as inside."""


class KeySpeed(NamedTuple):
    """The motion at one key.

    Attributes:
      frame: of the key.
      before, after: mean length of the optical flow to the key and from it, in pixels a frame.
      inside: the median of the steps that lead neither to a key nor from one, in the two gaps around it.
      turn: the angle between the mean flow before and after, in degrees; NaN where nothing moves.
    """

    frame: int
    before: float
    after: float
    inside: float
    turn: float

    @property
    def stall(self) -> float:
        """The slower of both steps, as a share of the speed inside: 1 is even, 0 stands still."""
        return self._of_inside(min(self.before, self.after))

    @property
    def jump(self) -> float:
        """The faster of both steps, as a multiple of the speed inside: 1 is even."""
        return self._of_inside(max(self.before, self.after))

    def _of_inside(self, speed: float) -> float:
        """A speed as a multiple of that inside; NaN where nothing moves there."""
        return speed / self.inside if self.inside else float("nan")


def key_speeds(video: Uint8Video, keys: Sequence[int], flow: OpticalFlow) -> list[KeySpeed]:
    """The motion at the keys of a shot that have a gap on both sides.

    A drawing that is held is one drawing: its step is divided by the frames that it lasts. A key has no speeds, and is
    left out, where its drawing was held before it already or is held to the end of the gap.

    Args:
      video: the shot; its first frame is that of the first key.
      keys: frames of the keys, counted from the video's first.
      flow: measures the motion.
    """
    steps = _steps(video, flow)
    found = []
    for left, key, right in zip(keys, keys[1:], keys[2:], strict=False):
        around = [step for step in steps if left <= step[0] and step[1] <= right]
        before = next((step for step in around if step[1] == key), None)
        after = next((step for step in around if step[0] == key), None)
        if before is None or after is None:
            continue
        place = around.index(after)
        inside = [
            steps[step][0]
            for number, step in enumerate(around)
            if abs(number - place + 0.5) > NEAR and min(number, len(around) - 1 - number) >= NEAR
        ] or [steps[step][0] for step in around]
        found.append(
            KeySpeed(
                key,
                steps[before][0],
                steps[after][0],
                float(np.median(inside)),
                _angle(steps[before][1], steps[after][1]),
            )
        )
    return found


def speeds_along(video: Uint8Video, flow: OpticalFlow) -> Float[np.ndarray, "steps"]:
    """The mean length of the optical flow from each frame to the next, in pixels a frame.

    A drawing that is held is one drawing, as in `key_speeds`; at the end of a video it has no speed.

    Args:
      video: the shot.
      flow: measures the motion.
    """
    speeds = np.zeros(len(video) - 1)
    for (before, after), (speed, _) in _steps(video, flow).items():
        speeds[before:after] = speed
    return speeds


def _steps(video: Uint8Video, flow: OpticalFlow) -> dict[tuple[int, int], tuple[float, np.ndarray]]:
    """First frames of two drawings -> mean length and mean of the flow between them, both a frame."""
    starts = [0, *(frame for frame in range(1, len(video)) if not np.array_equal(video[frame], video[frame - 1]))]
    steps: dict[tuple[int, int], tuple[float, np.ndarray]] = {}
    for before, after in pairwise(starts):
        moved = measured(flow, video[before], video[after]) / (after - before)
        steps[before, after] = float(np.linalg.norm(moved, axis=-1).mean()), moved.mean(axis=(0, 1))
    return steps


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float("nan") if lengths == 0 else float(np.degrees(np.arccos(np.clip(one @ other / lengths, -1, 1))))
