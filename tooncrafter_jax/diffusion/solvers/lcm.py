"""The sampler of consistency models: each step goes to clean latents, and back to the next time with fresh noise.

Multistep consistency sampling of Song et al. (2023, arXiv:2303.01469, algorithm 1), as latent consistency models sample
(Luo et al. 2023, arXiv:2310.04378). It is for students that the stage `distill` has trained (`diffusion.consistency`);
a model that predicts the mean of what is possible, not one sample of it, loses its detail so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.levels import Number, Prediction, levels, weighted
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.typing import Latents


class LcmRows(NamedTuple):
    """The numbers of an update; every column has one entry a step.

    Attributes:
      timestep: int32.
      prediction: of the clean latents.
      of_clean, of_noise: coefficients of the clean latents and of fresh noise; 1 and 0 in the last step.
    """

    timestep: Number
    prediction: Prediction
    of_clean: Number
    of_noise: Number


class Lcm:
    """See `solver.Solver`; the carry is the latents alone. A run ends with clean latents, whatever `exact_last_step`
    says.
    """

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> LcmRows:
        """The numbers of a run; see `levels`."""
        run = levels(schedule, replace(options, exact_last_step=True))
        return LcmRows(run.timestep, run.prediction, run.signal[1:], run.noise[1:])

    def init(self, x: Latents) -> Latents:
        """The noise itself."""
        return x

    def latents(self, carry: Latents) -> Latents:
        """The carry itself."""
        return carry

    def step(self, carry: Latents, v: Latents, row: LcmRows, noise: Callable[[], Latents]) -> tuple[Latents, Latents]:
        """One update; nothing is left of the noise before it."""
        clean = row.prediction.clean(carry, v)
        return weighted((row.of_clean, clean), (row.of_noise, noise())), row.prediction.shown(clean)
