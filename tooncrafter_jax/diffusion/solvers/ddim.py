"""DDIM for a v-predicting model with the dynamic rescale, the published sampler (spec section 6.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.diffusion.solvers.visits import visits
from tooncrafter_jax.typing import HostArray, Latents


class DdimRows(NamedTuple):
    """The numbers of an update; every column has one entry a step.

    Attributes:
      timestep: int32.
      alpha_next: share of signal variance at the next time.
      sigma: standard deviation of the noise added.
      rescale: dynamic scale at the next time over that at this one.
      sqrt_alpha, sqrt_one_minus_alpha: the schedule's entries at this time.
      direction: coefficient of the noise estimate, sqrt(1 - alpha_next - sigma²).
    """

    timestep: jax.Array | np.ndarray
    alpha_next: jax.Array | np.ndarray
    sigma: jax.Array | np.ndarray
    rescale: jax.Array | np.ndarray
    sqrt_alpha: jax.Array | np.ndarray
    sqrt_one_minus_alpha: jax.Array | np.ndarray
    direction: jax.Array | np.ndarray


class Ddim:
    """See `solver.Solver`; the carry is the latents alone."""

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> DdimRows:
        """The numbers of a run.

        Raises:
          UserError: an option is out of range.
        """
        run = visits(schedule, options)
        a, a_next = run.alpha.astype(np.float64), run.alpha_next.astype(np.float64)
        sigma = (options.eta * np.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))).astype(np.float32)
        return DdimRows(
            timestep=run.timestep,
            alpha_next=run.alpha_next,
            sigma=sigma,
            rescale=run.scale_next / run.scale,
            sqrt_alpha=schedule.sqrt_alphas_cumprod[run.timestep],
            sqrt_one_minus_alpha=schedule.sqrt_one_minus_alphas_cumprod[run.timestep],
            direction=_direction(run.alpha_next, sigma),
        )

    def init(self, x: Latents) -> Latents:
        """The noise itself."""
        return x

    def latents(self, carry: Latents) -> Latents:
        """The carry itself."""
        return carry

    def step(self, carry: Latents, v: Latents, row: DdimRows, noise: Callable[[], Latents]) -> tuple[Latents, Latents]:
        """One update; the noise counts even in the last step, as published."""
        noise_estimate = row.sqrt_alpha * v + row.sqrt_one_minus_alpha * carry
        clean = (row.sqrt_alpha * carry - row.sqrt_one_minus_alpha * v) * row.rescale
        following = jnp.sqrt(row.alpha_next) * clean + row.direction * noise_estimate + row.sigma * noise()
        return jnp.asarray(following), jnp.asarray(clean)


def _direction(alpha_next: np.ndarray, sigma: np.ndarray) -> HostArray:
    """sqrt(1 - alpha_next - sigma²) in float32, rounded after every operation as in the published code.

    At the last time with eta 1 the radicand is 0 in exact arithmetic. A compiler that fuses multiplication and
    subtraction leaves a residue of 1e-8 there, whose root moves the latents by 2e-4; so this is done on the host.
    Rounding must not make it negative either.
    """
    return np.sqrt(np.maximum(np.float32(1.0) - alpha_next - np.square(sigma), np.float32(0.0)))
