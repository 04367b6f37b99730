"""The times that a run visits, told by their noise levels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from tooncrafter_jax.diffusion.schedule import NoiseSchedule, Spacing, check_steps, spaced_timesteps
from tooncrafter_jax.errors import UserError

KARRAS_RHO = 7.0
"""Karras et al. (2022, arXiv:2206.00364), section 3: the exponent of their noise levels."""
KARRAS_TOP = 20.0
"""The noise level that the ladder begins at. From pure noise, whose level has no root, the first step leads to its
second rung. Theirs begins at 80; but from 80 down to 20 the clean latents that a network predicts hardly change, and
runs of few steps have none to spare: on mixtures of normal data 8 steps of `dpmpp_2m` err by 0.095 from 80, by 0.064
from 20.
"""


def given_timesteps(text: str, timesteps: int) -> Int[np.ndarray, "visited"]:
    """Times as a user writes them, e.g. "999,600,300": from noise on; here ascending.

    Raises:
      UserError: they are no times of the schedule, do not begin with its last, or do not go down.
    """
    try:
        times = np.array([int(part) for part in text.split(",")], np.int64)[::-1]
    except (ValueError, OverflowError):
        times = np.array([-1])
    if times[0] < 0 or times[-1] != timesteps - 1 or (np.diff(times) <= 0).any():
        raise UserError(
            f"the timesteps must be whole numbers that begin with {timesteps - 1}, pure noise, and go down, such as "
            f"999,600,300, not '{text}'"
        )
    return times.astype(np.int32)


def refined_timesteps(
    times: Sequence[int], cost: Callable[[list[int]], float], stride: int = 64, least: int = 4
) -> tuple[list[int], float]:
    """Times of a run of few steps that cost less, by moving one of them at a time for as long as that helps.

    What Sabour et al. (2024, "Align Your Steps", arXiv:2404.14507) bound is measured here: let the cost be the
    distance from what a run of many steps ends with, over a few clips.

    Args:
      times: to begin with, from noise on; the first stays.
      cost: of times, the less the better.
      stride: how far a time is moved at first; halved as soon as no move helps.
      least: the last stride.

    Returns:
      The times, from noise on, and their cost.
    """
    best, lowest = list(times), cost(list(times))
    while stride >= least:
        has_moved = False
        for index in range(1, len(best)):
            for moved in (best[index] - stride, best[index] + stride):
                tried = [*best[:index], moved, *best[index + 1 :]]
                if all(one > other for one, other in itertools.pairwise([*tried, -1])):
                    found = cost(tried)
                    if found < lowest:
                        best, lowest, has_moved = tried, found, True
        stride = stride if has_moved else stride // 2
    return best, lowest


def run_timesteps(schedule: NoiseSchedule, spacing: Spacing, steps: int) -> Int[np.ndarray, "visited"]:
    """The times that a run visits, ascending.

    Raises:
      UserError: the spacing is unknown, or the number of steps does not fit.
    """
    if spacing == "karras":
        check_steps(steps, schedule.config.timesteps)
        return karras_timesteps(schedule.noise_levels, steps)
    return spaced_timesteps(schedule.config.timesteps, spacing, steps)


def karras_timesteps(levels: Float[np.ndarray, "times"], steps: int) -> Int[np.ndarray, "visited"]:
    """Times whose noise levels have equally spaced seventh roots, close where little noise is left; ascending.

    The last is the last of all, whatever its level; time 0 is where the run ends, one space below the first.

    Args:
      levels: of every time, ascending; the last may be infinite.
      steps: 1 to the number of times.
    """
    top, bottom = min(KARRAS_TOP, levels[-1]), levels[0]
    roots = np.linspace(bottom ** (1 / KARRAS_RHO), top ** (1 / KARRAS_RHO), steps + 1)[1:]
    return nearest_timesteps(levels, roots**KARRAS_RHO)


def nearest_timesteps(levels: Float[np.ndarray, "times"], wanted: Float[np.ndarray, "visited"]) -> np.ndarray:
    """Different times whose noise levels are next to the wanted ones; both ascend, and the last is the last time."""
    times, order = len(levels), np.arange(len(wanted))
    finite = np.log(levels[:-1])
    nearest = np.round(np.interp(np.log(wanted), finite, np.arange(times - 1))).astype(np.int64)
    nearest = np.maximum(nearest, 0 if len(wanted) == times else 1)  # a run ends at time 0
    distinct = np.maximum.accumulate(nearest - order) + order
    distinct[-1] = times - 1
    return np.minimum(distinct, times - len(wanted) + order).astype(np.int32)
