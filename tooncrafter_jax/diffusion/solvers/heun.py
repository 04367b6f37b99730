"""Heun's method, of second order: a step is predicted, looked at from its end, and made again with both predictions.

Karras et al. (2022, arXiv:2206.00364), algorithm 1: the trapezoid in the noise level sigma / a, and one prediction in
the last step, at whose end the network is not asked. From pure noise that level is infinite, and the trapezoid's
correction with it; but the equation in a / sigma (`levels`) starts from 0 there, and its trapezoid is a plain mean of
both predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.levels import Number, Prediction, levels, weighted
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.typing import Latents


class HeunCarry(NamedTuple):
    """The latents of the next prediction, those that the step began from, and the clean ones predicted there."""

    x: Latents
    begun: Latents
    last: Latents


class HeunRows(NamedTuple):
    """The numbers of two predictions a step, of the last step one; every column has one entry a prediction.

    Attributes:
      timestep: int32.
      prediction: of the clean latents.
      of_x, of_begun: coefficients of the latents, and of those that the step began from.
      of_clean, of_last: coefficients of the clean latents predicted now and last.
    """

    timestep: Number
    prediction: Prediction
    of_x: Number
    of_begun: Number
    of_clean: Number
    of_last: Number


class Heun:
    """See `solver.Solver`: for S steps 2·S - 1 rows, and as many calls of the network."""

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> HeunRows:
        """The numbers of a run; see `levels`."""
        run = levels(schedule, options)
        nothing = np.zeros(len(run.timestep))
        share = 0.5 / np.where(run.decay > 0, run.decay, 1.0)  # of the second prediction, in the difference of both
        predicting = HeunRows(run.timestep, run.prediction, run.kept, nothing, run.gain, nothing)
        correcting = HeunRows(
            np.append(run.timestep[1:], run.timestep[-1]),
            jax.tree.map(lambda column: np.append(column[1:], column[-1]), run.prediction),
            nothing,
            run.kept,
            run.gain * share,
            run.gain * (1.0 - share),
        )
        both: Any = jax.tree.map(lambda one, other: np.stack([one, other], 1).reshape(-1)[:-1], predicting, correcting)
        return both

    def init(self, x: Latents) -> HeunCarry:
        """The noise, and no step begun."""
        return HeunCarry(x, jnp.zeros_like(x), jnp.zeros_like(x))

    def latents(self, carry: HeunCarry) -> Latents:
        """Those that are reached, or tried."""
        return carry.x

    def step(
        self, carry: HeunCarry, v: Latents, row: HeunRows, noise: Callable[[], Latents]
    ) -> tuple[HeunCarry, Latents]:
        """Half an update: the first row of a step tries it, the second makes it."""
        clean = row.prediction.clean(carry.x, v)
        following = weighted(
            (row.of_x, carry.x), (row.of_begun, carry.begun), (row.of_clean, clean), (row.of_last, carry.last)
        )
        return HeunCarry(following, carry.x, clean), row.prediction.shown(clean)
