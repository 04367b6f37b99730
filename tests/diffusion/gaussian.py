"""Normal data: the denoiser is known exactly, and so is the solution of the sampling equation; in double precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.loop import Chunk, chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.diffusion.solvers.levels import levels

MEAN, DEVIATION = 0.4, 0.6
"""Of the data, which is normal in every entry; of about the size of the latents of drawings."""
LONGEST = 400
"""Times of the longest schedule."""


def schedule_of(signal_share: np.ndarray, *, dynamic_rescale: bool = False) -> NoiseSchedule:
    """A schedule whose times have these shares of signal variance, ascending in time.

    As many steps as it has times visit each, and the published end is time 0 too, so that the last step does nothing.
    """
    times = len(signal_share)
    schedule = NoiseSchedule(
        ScheduleConfig(timesteps=times, dynamic_rescale=dynamic_rescale, turning_step=max(2, times * 2 // 5))
    )
    schedule.alphas_cumprod_f64 = signal_share
    return schedule


def log_snr_schedule(steps: int, *, dynamic_rescale: bool = False) -> NoiseSchedule:
    """Half log-SNR from 3 to -3, in equal steps."""
    half_log_snr = np.linspace(3.0, -3.0, steps + 1)
    return schedule_of(1.0 / (1.0 + np.exp(-2.0 * half_log_snr)), dynamic_rescale=dynamic_rescale)


def cosine_schedule(steps: int, last: float = 0.0) -> NoiseSchedule:
    """Equal steps of the angle whose cosine is the signal, from little noise to no signal, or to a last share of it."""
    share = np.cos(np.pi / 2 * np.linspace(0.05, 1.0, steps + 1)) ** 2
    return schedule_of(np.append(share[:-1], last))


def clean(x: Any, signal: Any, noise: Any) -> Any:
    """The posterior mean of the data z, of x = signal·z + noise·e."""
    return MEAN + signal * DEVIATION**2 / spread(signal, noise) ** 2 * (x - signal * MEAN)


def spread(signal: Any, noise: Any) -> Any:
    """The standard deviation of noisy data."""
    return ((signal * DEVIATION) ** 2 + noise**2) ** 0.5


def run(name: str, schedule: NoiseSchedule, x: np.ndarray, noise: Callable[[Any], Any] | None = None) -> np.ndarray:
    """What a run through all times ends with, whose model has learnt the data with the dynamic rescale.

    Args:
      name: of the solver.
      schedule: at most `LONGEST` times.
      x: (B, 1, 1, 1, 1) what it starts from.
      noise: index -> what is added in a step; by default that makes the tests fail.
    """
    options = SolverOptions(steps=schedule.config.timesteps)
    solver, scale = SOLVERS[name], levels(schedule, options).scale[-2::-1]
    alpha = np.sqrt(schedule.alphas_cumprod_f64)
    tables = tuple(
        np.pad(table, (0, LONGEST - len(table)), mode="edge")
        for table in (alpha, np.sqrt(1.0 - schedule.alphas_cumprod_f64), scale)
    )
    with jax.enable_x64(True):
        carry = solver.init(jnp.asarray(x, jnp.float64))
        for chunk in chunks(solver.rows(schedule, options), 50):
            carry = _compiled(name, noise)(carry, chunk, tables)
        return np.asarray(solver.latents(carry))


@functools.cache
def _compiled(name: str, noise: Callable[[Any], Any] | None) -> Any:
    def part(carry: Any, chunk: Chunk, tables: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        def denoise(x: jax.Array, time: jax.Array) -> jax.Array:
            alpha, sigma, scale = (table[time] for table in tables)
            scaled = scale * clean(x, alpha * scale, sigma)
            return alpha * (x - alpha * scaled) / sigma - sigma * scaled

        drawn = noise or (lambda index: jnp.full_like(SOLVERS[name].latents(carry), jnp.nan))
        return run_chunk(SOLVERS[name], denoise, carry, chunk, drawn)[0]

    return jax.jit(part)


def followed(schedule: NoiseSchedule, x: np.ndarray) -> np.ndarray:
    """Where the deterministic equation leads x from the last time to time 0: it keeps its place among the standard
    deviations.
    """
    run = levels(schedule, SolverOptions(steps=schedule.config.timesteps))
    (first, last), (noisy, clear) = run.signal[[0, -1]], run.noise[[0, -1]]
    return last * MEAN + spread(last, clear) / spread(first, noisy) * (x - first * MEAN)
