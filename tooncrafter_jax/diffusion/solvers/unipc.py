"""UniPC of second order: each prediction first corrects the step that led to it, then leads on; none is made twice.

Zhao et al. (2023, arXiv:2302.04867), algorithms 1 and 2 with B(h) = exp(h) - 1, for predictions of the clean latents.
The corrector of the step after pure noise has the limit of that B: a mean of the predictions at both of its ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.levels import Levels, Number, Prediction, levels, weighted
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.typing import HostArray, Latents


class UnipcCarry(NamedTuple):
    """The latents of the next prediction, the corrected ones before them, and clean ones predicted last and before."""

    x: Latents
    begun: Latents
    last: Latents
    before: Latents


class Correction(NamedTuple):
    """Coefficients of corrected latents.

    Attributes:
      of_x, of_begun: of the latents as they were predicted, and of the corrected ones that the step began from.
      of_clean, of_last, of_before: of the clean latents predicted now, last and before that.
    """

    of_x: Number
    of_begun: Number
    of_clean: Number
    of_last: Number
    of_before: Number


class UnipcRows(NamedTuple):
    """The numbers of an update; every column has one entry a step.

    Attributes:
      timestep: int32.
      prediction: of the clean latents.
      correction: of the step before.
      of_corrected, of_clean, of_last: coefficients of the corrected latents, and of the clean ones predicted now and
        last.
    """

    timestep: Number
    prediction: Prediction
    correction: Correction
    of_corrected: Number
    of_clean: Number
    of_last: Number


class Unipc:
    """See `solver.Solver`."""

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> UnipcRows:
        """The numbers of a run; see `levels`."""
        run = levels(schedule, options)
        lead = run.history / 2
        return UnipcRows(
            run.timestep, run.prediction, _correction(run), run.kept, run.gain * (1.0 + lead), -run.gain * lead
        )

    def init(self, x: Latents) -> UnipcCarry:
        """The noise, and nothing predicted."""
        return UnipcCarry(x, jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(x))

    def latents(self, carry: UnipcCarry) -> Latents:
        """As they were predicted; the last ones of a run have nothing to be corrected by."""
        return carry.x

    def step(
        self, carry: UnipcCarry, v: Latents, row: UnipcRows, noise: Callable[[], Latents]
    ) -> tuple[UnipcCarry, Latents]:
        """One update."""
        clean, weights = row.prediction.clean(carry.x, v), row.correction
        corrected = weighted(
            (weights.of_x, carry.x),
            (weights.of_begun, carry.begun),
            (weights.of_clean, clean),
            (weights.of_last, carry.last),
            (weights.of_before, carry.before),
        )
        following = weighted((row.of_corrected, corrected), (row.of_clean, clean), (row.of_last, carry.last))
        return UnipcCarry(following, corrected, clean, carry.last), row.prediction.shown(clean)


def _correction(run: Levels) -> Correction:
    """Of each step by the prediction at its end; the first row has no step before it to correct.

    With the ratio q of this h to the one before, the paper's equations R·rho = b for the two differences of
    predictions have the solution below; at q = 0 it is that of first order where there is no second difference (rho
    1/2), and else the exponential trapezoid.
    """
    steps = slice(0, len(run.timestep) - 1)  # each but the last, corrected in the row after it
    ratio, gain, kept = run.history[steps], run.gain[steps], run.kept[steps]
    now, before = _shares(run.width[steps], ratio)
    now[:1] = 0.5
    one, none = np.ones(1), np.zeros(1)

    def column(first: HostArray, rest: HostArray) -> HostArray:
        return np.append(first, rest)

    return Correction(
        column(one, np.zeros_like(kept)),
        column(none, kept),
        column(none, gain * now),
        column(none, gain * (1.0 - now - before)),
        column(none, gain * before),
    )


def _shares(width: HostArray, ratio: HostArray) -> tuple[HostArray, HostArray]:
    """Shares of the prediction at the end of a step, and of the one before its beginning, in the mean that it takes.

    Args:
      width: h of each step, finite but for the first.
      ratio: q of each step, 0 in the first.
    """
    h = np.where((width > 0) & np.isfinite(width), width, 1.0)
    total = np.expm1(-h)
    phi = -total / h - 1.0  # phi_2 of the paper at -h, times -h
    first, second = phi / total, 2.0 * (-phi / h - 0.5) / total
    now = first - (first - second) * ratio / (1.0 + ratio)
    before = -(first - second) * ratio**2 / (1.0 + ratio)
    return now, before
