"""Consistency distillation: the teacher's steps, the function that a student learns, and the distance that it is
trained by.

A consistency function leads from any noisy latents straight to where the deterministic sampling equation ends (Song et
al. 2023, arXiv:2303.01469). It is written f = c_skip·x + c_out·F with c_skip = 1 and c_out = 0 where there is no noise.
The clean latents of a v-prediction are such a function as they stand: with the signal alpha, the noise sigma and the
dynamic scale r,

    f(x, t) = (alpha / r)·x - (sigma / r)·v(x, t),

whose coefficients are 1 and 0 at clean latents, where r is 1; Lu and Song (2024, arXiv:2410.11081) arrive at the same
form. So a student is a denoiser like any other, and starts as its teacher. Latent consistency models (Luo et al. 2023,
arXiv:2310.04378) blend a prediction with coefficients of their own instead, which at time 19, the lowest of 50, differ
from those of the prediction itself by 1e-5.

Times lie on a ladder of N teacher steps, as there; the last one leads to clean latents exactly. Zero terminal SNR and
the dynamic rescale are those of `solvers.levels`: nothing is infinite, and no epsilon stands anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tooncrafter_jax.diffusion.objective import clean_from_v, without_rescale
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.levels import levels
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.typing import Latents, Timesteps


class TeacherSteps(NamedTuple):
    """A ladder of DDIM steps without noise; entry n leads from `time[n]` to `time[n - 1]`, entry 0 to clean latents.

    Attributes:
      time: (N,) int32, ascending; the last is that of pure noise.
      following: (N,) int32, where each step leads; entry 0, which leads to no time, has its own.
      kept, gain: (N,) float32 coefficients of the noisy latents and of the clean ones; 0 and 1 in entry 0.
    """

    time: np.ndarray
    following: np.ndarray
    kept: np.ndarray
    gain: np.ndarray

    def led(self, noisy: Latents, clean: Latents, index: Int[Array, "B"]) -> Latents:
        """The latents (B, T, h, w, C) that one step of each clip leads to.

        Args:
          noisy: at `time[index]`.
          clean: that are predicted there.
          index: of the steps.
        """
        return _column(self.kept, index, noisy) * noisy + _column(self.gain, index, noisy) * clean


def teacher_steps(schedule: NoiseSchedule, count: int) -> TeacherSteps:
    """The ladder of so many steps, in `uniform_trailing` spacing (spec section 6.3).

    Raises:
      UserError: the schedule has fewer times.
    """
    run = levels(schedule, SolverOptions(steps=count, exact_last_step=True))
    time = run.timestep[::-1]
    kept, gain = (column[::-1].astype(np.float32) for column in (run.kept, run.gain))
    return TeacherSteps(time, np.append(time[:1], time[:-1]), kept, gain)


def consistency(schedule: NoiseSchedule, noisy: Latents, v: Latents, times: Timesteps) -> Latents:
    """The consistency function: the clean latents (B, T, h, w, C) of a prediction, without the dynamic rescale.

    Args:
      schedule: of the noise.
      noisy: latents with noise.
      v: what the network predicts for them.
      times: (B,) diffusion times.
    """
    return without_rescale(schedule, clean_from_v(schedule, noisy, v, times), times)


def pseudo_huber(prediction: Latents, target: Latents, constant: float) -> Float[Array, "B"]:
    """The distance of each clip: sqrt(m + c²) - c, where m is the mean squared error.

    It is the pseudo-Huber metric of Song and Dhariwal (2023, arXiv:2310.14189), sqrt(|d|² + (c·sqrt(D))²) - c·sqrt(D),
    over sqrt(D), for D numbers a clip: it means the same at every size of a clip. Errors far above c count by their
    root mean square, so that clips of large error do not rule a batch, and those far below by their square.

    Args:
      prediction: of the student.
      target: of the same shape.
      constant: c, above 0.
    """
    error = jnp.mean(jnp.square(prediction - target), axis=tuple(range(1, prediction.ndim)))
    return error / (jnp.sqrt(error + constant**2) + constant)  # the same, without cancellation


def _column(table: np.ndarray, index: Int[Array, "B"], like: Latents) -> jax.Array:
    return jnp.asarray(table)[index].reshape(-1, *(1,) * (like.ndim - 1))
