"""DPM-Solver++(2M) and its stochastic form: of second order, with one prediction a step and the last one remembered.

Lu et al. (2022, arXiv:2211.01095), algorithm 2 and section 5.2, in the midpoint form. A share eta of the noise of the
stochastic form is as in crowsonkb/k-diffusion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.levels import Number, Prediction, levels, weighted
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.typing import Latents


class DpmppCarry(NamedTuple):
    """The latents, and the clean ones predicted last."""

    x: Latents
    last: Latents


class DpmppRows(NamedTuple):
    """The numbers of an update; every column has one entry a step.

    Attributes:
      timestep: int32.
      prediction: of the clean latents.
      of_x, of_clean, of_last, of_noise: coefficients of the latents, of the clean ones predicted now and last, and of
        fresh noise.
    """

    timestep: Number
    prediction: Prediction
    of_x: Number
    of_clean: Number
    of_last: Number
    of_noise: Number


class Dpmpp2m:
    """See `solver.Solver`.

    Args:
      is_stochastic: whether it adds noise, as much as `eta` says, or follows the deterministic equation.
    """

    def __init__(self, is_stochastic: bool = False) -> None:
        self.is_stochastic = is_stochastic

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> DpmppRows:
        """The numbers of a run; see `levels`.

        Raises:
          UserError: eta is out of range.
        """
        run, eta = levels(schedule, options), options.eta if self.is_stochastic else 0.0
        lost = run.decay**eta  # exp(-eta·h); 1 for eta 0, from pure noise too
        gain, lead = run.signal[1:] * (1.0 - run.decay * lost), run.history / 2
        return DpmppRows(
            run.timestep,
            run.prediction,
            run.kept * lost,
            gain * (1.0 + lead),
            -gain * lead,
            run.noise[1:] * np.sqrt(1.0 - lost**2),
        )

    def init(self, x: Latents) -> DpmppCarry:
        """The noise, and nothing predicted."""
        return DpmppCarry(x, jnp.zeros_like(x))

    def latents(self, carry: DpmppCarry) -> Latents:
        """Those that are reached."""
        return carry.x

    def step(
        self, carry: DpmppCarry, v: Latents, row: DpmppRows, noise: Callable[[], Latents]
    ) -> tuple[DpmppCarry, Latents]:
        """One update."""
        clean = row.prediction.clean(carry.x, v)
        terms = [(row.of_x, carry.x), (row.of_clean, clean), (row.of_last, carry.last)]
        if self.is_stochastic:
            terms.append((row.of_noise, noise()))
        return DpmppCarry(weighted(*terms), clean), row.prediction.shown(clean)
