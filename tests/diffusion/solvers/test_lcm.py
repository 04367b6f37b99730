"""The sampler of consistency models, on normal data (`tests.diffusion.gaussian`), in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.gaussian import DEVIATION, MEAN, clean, spread
from tooncrafter_jax.diffusion.loop import chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions

SCHEDULE = NoiseSchedule()
LCM = SOLVERS["lcm"]
Function = Callable[[Any, Any, Any], Any]
"""(noisy latents, signal, noise) -> clean latents."""


def followed(x: Any, signal: Any, noise: Any) -> Any:
    """Where the deterministic equation leads to: what a perfect student says."""
    return MEAN + DEVIATION / spread(signal, noise) * (x - signal * MEAN)


def drawn(says: Function, steps: int, x: np.ndarray, noise: Callable[[Any], Any], **options: Any) -> np.ndarray:
    """What a run ends with whose model says this of the clean latents."""
    alphas = SCHEDULE.alphas_cumprod_f64
    alpha, sigma, scale = np.sqrt(alphas), np.sqrt(1.0 - alphas), SCHEDULE.dynamic_scale[: len(alphas)]

    def denoise(x: jax.Array, time: jax.Array) -> jax.Array:
        a, s, r = (jnp.asarray(table, jnp.float64)[time] for table in (alpha, sigma, scale))
        return (a * x - r * says(x, a * r, s)) / s

    with jax.enable_x64(True):
        (chunk,) = chunks(LCM.rows(SCHEDULE, SolverOptions(steps=steps, **options)), steps)
        carry = LCM.init(jnp.asarray(x, jnp.float64))
        return np.asarray(LCM.latents(run_chunk(LCM, denoise, carry, chunk, noise)[0]))


def moments(says: Function, steps: int) -> tuple[float, float]:
    """Mean and deviation of what a linear model draws: the latter by what becomes of each source of noise."""
    start = np.zeros((steps + 2, 1, 1, 1, 1))
    start[steps] = 1.0  # the first time is pure noise

    def impulse(index: Any) -> Any:
        return (jnp.arange(steps + 2) == index).astype(jnp.float64).reshape(-1, 1, 1, 1, 1)

    ends = drawn(says, steps, start, impulse).reshape(-1)
    return ends[-1], float(np.sqrt(np.sum((ends[:-1] - ends[-1]) ** 2)))


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_a_perfect_student_draws_the_data_in_any_number_of_steps(steps: int) -> None:
    """With zero terminal SNR and the dynamic rescale; the coefficients are in double precision."""
    np.testing.assert_allclose(moments(followed, steps), (MEAN, DEVIATION), rtol=1e-6)


def test_a_denoiser_loses_what_it_cannot_know() -> None:
    """It says the mean of what is possible, of which one step draws nothing but the mean of all data."""
    np.testing.assert_allclose(moments(clean, 1), (MEAN, 0.0), atol=1e-6)
    of_steps = [moments(clean, steps)[1] for steps in (2, 8, 50)]
    assert of_steps == sorted(of_steps) and of_steps[-1] < 0.98 * DEVIATION


@pytest.mark.parametrize("is_exact", [False, True])
def test_a_run_goes_to_clean_latents_and_back(is_exact: bool) -> None:
    """The noise of each row is its own; nothing of the last one's is in the result."""
    x = np.linspace(-1.0, 2.0, 4).reshape(-1, 1, 1, 1, 1)
    rows = LCM.rows(SCHEDULE, SolverOptions(steps=2, exact_last_step=is_exact))
    assert (rows.of_clean[-1], rows.of_noise[-1]) == (1.0, 0.0)
    (time,) = rows.timestep[1:]
    signal, noise = rows.of_clean[0], rows.of_noise[0]
    a = SCHEDULE.alphas_cumprod_f64[time]
    np.testing.assert_allclose((signal, noise), (0.7 * np.sqrt(a), np.sqrt(1 - a)), rtol=1e-6)

    def drawn_noise(index: Any) -> Any:
        return jnp.where(index == 0, 0.3, 7.0) * jnp.ones_like(x)

    last = drawn(followed, 2, x, drawn_noise, exact_last_step=is_exact)
    first = followed(x, 0.0, 1.0)
    np.testing.assert_allclose(last, followed(signal * first + noise * 0.3, signal, noise), rtol=1e-6)
