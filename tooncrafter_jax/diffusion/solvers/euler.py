"""Euler's method, of first order: each step goes straight to where the clean latents now predicted lie.

In the noise level sigma / a it is the `Euler` of Karras et al. (2022, arXiv:2206.00364) and of other programs. The
same numbers come of DDIM with eta 0, and of DPM-Solver++ of first order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.levels import Number, Prediction, levels, weighted
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.typing import Latents


class EulerRows(NamedTuple):
    """The numbers of an update; every column has one entry a step.

    Attributes:
      timestep: int32.
      prediction: of the clean latents.
      of_x, of_clean: coefficients of the latents and of the clean ones.
    """

    timestep: Number
    prediction: Prediction
    of_x: Number
    of_clean: Number


class Euler:
    """See `solver.Solver`; the carry is the latents alone."""

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> EulerRows:
        """The numbers of a run; see `levels`."""
        run = levels(schedule, options)
        return EulerRows(run.timestep, run.prediction, run.kept, run.gain)

    def init(self, x: Latents) -> Latents:
        """The noise itself."""
        return x

    def latents(self, carry: Latents) -> Latents:
        """The carry itself."""
        return carry

    def step(self, carry: Latents, v: Latents, row: EulerRows, noise: Callable[[], Latents]) -> tuple[Latents, Latents]:
        """One update, without noise."""
        clean = row.prediction.clean(carry, v)
        return weighted((row.of_x, carry), (row.of_clean, clean)), row.prediction.shown(clean)
