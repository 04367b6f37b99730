"""Guidance at some noise levels alone: at the others one pass of the network is enough.

Kynkäänniemi et al. (2024, arXiv:2404.07724) guide images in an interval of noise levels, in the middle; there the
level is the deviation of the noise over the signal, as here. An interval of levels means the same for every solver,
spacing and number of steps, which shares of the steps do not.
"""

from __future__ import annotations

import math

import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.errors import UserError


def guided_times(interval: str | None, schedule: NoiseSchedule) -> tuple[np.ndarray, np.ndarray] | None:
    """The first and the last diffusion time of an interval of noise levels, int32, both included.

    Returns:
      The times; the first is after the last where no time has such a level. None for all times.

    Raises:
      UserError: as `noise_interval`.
    """
    if interval is None:
        return None
    least, most = noise_interval(interval)
    levels = schedule.noise_levels  # they grow with the time
    first, last = np.searchsorted(levels, least, side="left"), np.searchsorted(levels, most, side="right") - 1
    return np.asarray(first, np.int32), np.asarray(last, np.int32)


def noise_interval(interval: str) -> tuple[float, float]:
    """The least and the greatest noise level of "FROM:TO", which may stand either way round; "inf" is pure noise.

    Raises:
      UserError: that is no interval.
    """
    try:
        one, other = (float(part) for part in interval.split(":"))
    except ValueError:
        one = other = math.nan
    if not (one >= 0 and other >= 0):  # NaN is neither
        raise UserError(
            f"the guidance interval must be two noise levels of 0 or more, such as 0.3:5 or 2:inf, not '{interval}'"
        )
    return min(one, other), max(one, other)
