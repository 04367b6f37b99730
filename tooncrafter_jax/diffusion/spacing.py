"""The times that a run visits, told by their noise levels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from tooncrafter_jax.diffusion.schedule import NoiseSchedule, Spacing, check_steps, spaced_timesteps

KARRAS_RHO = 7.0
"""Karras et al. (2022, arXiv:2206.00364), section 3: the exponent of their noise levels."""
KARRAS_TOP = 20.0
"""The noise level that the ladder begins at. From pure noise, whose level has no root, the first step leads to its
second rung. Theirs begins at 80; but from 80 down to 20 the clean latents that a network predicts hardly change, and
runs of few steps have none to spare: on mixtures of normal data 8 steps of `dpmpp_2m` err by 0.095 from 80, by 0.064
from 20.
"""


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
