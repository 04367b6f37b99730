"""The noise levels of a run in double precision, and what solvers of the deterministic equation need of them.

Latents of time t are a·z + sigma·e, of clean latents z and noise e, where the signal a is sqrt(alphas_cumprod) times
the dynamic scale: the rescale is a part of the process that the network has learnt, not a correction of its
predictions. With it the theory of Lu et al. (2022, arXiv:2211.01095) holds as it stands, for which a² + sigma² need
not be 1:

    d(x / sigma) = D(x, t) d(a / sigma),    D: the clean latents that the network predicts,

and with lambda = log(a / sigma) a step from s to t with a constant D is

    x_t = sigma_t / sigma_s · x_s + a_t · (1 - exp(-h)) · D,    h = lambda_t - lambda_s.

At zero terminal SNR a is 0 and lambda minus infinity, at the exact end sigma is 0 and lambda infinity. exp(-h) is
then a quotient whose value is 0, not a limit that must be approached: no epsilon stands anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.diffusion.solvers.visits import visits
from tooncrafter_jax.typing import HostArray, Latents

Number = jax.Array | np.ndarray
"""A column of a run, or one entry of it."""


class Prediction(NamedTuple):
    """How the clean latents follow from what the network is given and says; every column has one entry a prediction.

    Attributes:
      of_x, of_v: coefficients of the noisy latents and of v: D = of_x·x + of_v·v.
      shown_scale: dynamic scale of the next time, for previews.
    """

    of_x: Number
    of_v: Number
    shown_scale: Number

    def clean(self, x: Latents, v: Latents) -> Latents:
        """The clean latents D, without the dynamic rescale."""
        return weighted((self.of_x, x), (self.of_v, v))

    def shown(self, clean: Latents) -> Latents:
        """The same as `Solver.step` returns them."""
        return weighted((self.shown_scale, clean))


class Levels(NamedTuple):
    """One entry a step, in the order in which a run makes them; all float64 but the times.

    Attributes:
      timestep: (S,) int32.
      signal, noise: (S + 1,) a and sigma of the times, and of the end.
      scale: (S + 1,) the dynamic scale, a part of the signal.
    """

    timestep: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    scale: np.ndarray

    @property
    def prediction(self) -> Prediction:
        """Of each step."""
        alpha, scale = self.signal[:-1] / self.scale[:-1], self.scale[:-1]
        return Prediction(alpha / scale, -self.noise[:-1] / scale, self.scale[1:])

    @property
    def kept(self) -> HostArray:
        """(S,) sigma_t / sigma_s: what is left of the noisy latents after a step."""
        return self.noise[1:] / self.noise[:-1]

    @property
    def decay(self) -> HostArray:
        """(S,) exp(-h) of each step, from 0 to 1; 0 from pure noise and to no noise."""
        return self.signal[:-1] * self.noise[1:] / (self.noise[:-1] * self.signal[1:])

    @property
    def gain(self) -> HostArray:
        """(S,) a_t · (1 - exp(-h)): what a step takes of the clean latents."""
        return self.signal[1:] * (1.0 - self.decay)

    @property
    def width(self) -> HostArray:
        """(S,) h of each step; infinite from pure noise and to no noise."""
        with np.errstate(divide="ignore"):
            return -np.log(self.decay)

    @property
    def history(self) -> HostArray:
        """(S,) h of each step over that of the one before it, for extrapolation; 0 where there is nothing to lead on.

        That is the first step, which has no past, and the last one, whose h is far larger than any before it, if not
        infinite: extrapolated so far, predictions leave the pictures. Other implementations do the same for few steps.

        After a step from pure noise the quotient would be 0 too. But there lambda is the wrong variable: clean
        latents are smooth functions of a / sigma = exp(lambda), which is 0 at pure noise, and along a line in it the
        quotient is (exp(lambda_t) - exp(lambda_s)) / exp(lambda_s).
        """
        widths, ratio = self.width, np.zeros(len(self.timestep))
        inner = slice(1, len(ratio) - 1)
        before, here = widths[:-2], widths[inner]
        ratio[inner] = np.where(np.isinf(before), np.expm1(here), here / before)
        return ratio


def levels(schedule: NoiseSchedule, options: SolverOptions) -> Levels:
    """The levels of a run; the end is that of the published sampler, or clean latents (`exact_last_step`).

    Raises:
      UserError: see `visits`.
    """
    run = visits(schedule, options)
    last = 1.0 if options.exact_last_step else schedule.alphas_cumprod_f64[0]
    alpha = np.append(schedule.alphas_cumprod_f64[run.timestep], last)
    scale = np.append(run.scale, run.scale_next[-1]).astype(np.float64)
    return Levels(run.timestep, np.sqrt(alpha) * scale, np.sqrt(1.0 - alpha), scale)


def weighted(*terms: tuple[Number, Latents]) -> Latents:
    """The sum of latents times numbers of a row, each in the latents' own precision."""
    total, *others = (jnp.asarray(weight, part.dtype) * part for weight, part in terms)
    for one in others:
        total = total + one
    return total
