"""The times that a run visits, and what the schedule says about each and the one after it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.diffusion.spacing import given_timesteps, run_timesteps
from tooncrafter_jax.options import check_ranges


class Visits(NamedTuple):
    """One entry a step, in the order in which a run makes them: the first is the noisiest.

    Attributes:
      timestep: (S,) int32.
      alpha, alpha_next: (S,) float32 share of signal variance at the time, and at the next one, which is less noisy.
      scale, scale_next: (S,) float32 of the dynamic rescale there.
    """

    timestep: np.ndarray
    alpha: np.ndarray
    alpha_next: np.ndarray
    scale: np.ndarray
    scale_next: np.ndarray


def visits(schedule: NoiseSchedule, options: SolverOptions) -> Visits:
    """The times of a run (spec section 6.3); `uniform` spacing may round the number of steps up.

    A strength below 1 leaves the noisiest times out, but at least one remains.

    Raises:
      UserError: an option is out of range; or see `spacing.run_timesteps` and `spacing.given_timesteps`.
    """
    check_ranges(options)
    if options.timesteps is None:
        times = run_timesteps(schedule, options.spacing, options.steps)[::-1]
    else:
        times = given_timesteps(options.timesteps, schedule.config.timesteps)[::-1]
    times = times[len(times) - max(1, round(options.strength * len(times))) :]
    alpha = schedule.alphas_cumprod[times]
    scale = schedule.dynamic_scale[times] if schedule.config.dynamic_rescale else np.ones(len(times), np.float32)
    if options.exact_last_step:
        last_alpha = last_scale = np.ones(1, np.float32)
    else:  # the published sampler ends at time 0, with the rescale of the last time visited
        last_alpha, last_scale = schedule.alphas_cumprod[:1], scale[-1:]
    return Visits(times, alpha, np.append(alpha[1:], last_alpha), scale, np.append(scale[1:], last_scale))
