"""A denoiser that knows the answer, for whole runs of a solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.loop import chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import Solver

SCHEDULE = NoiseSchedule()
SHAPE = (1, 2, 4, 4, 4)


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def row_noise(index: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(jax.random.key(1), index), SHAPE)


def oracle(clean: np.ndarray) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The v of a model that always knows the clean latents; the rescaled ones, since it was trained on these."""
    tables = (SCHEDULE.sqrt_alphas_cumprod, SCHEDULE.sqrt_one_minus_alphas_cumprod, SCHEDULE.dynamic_scale[:1000])
    signal, sigma, scale = (jnp.asarray(table) for table in tables)

    def denoise(x: jax.Array, time: jax.Array) -> jax.Array:
        # x = signal·clean + sigma·eps and v = signal·eps - sigma·clean, solved for v without dividing by the signal.
        scaled = scale[time] * clean
        eps = (x - signal[time] * scaled) / sigma[time]
        return signal[time] * eps - sigma[time] * scaled

    return denoise


def run(solver: Solver, rows: Any, denoise: Any, size: int, x: np.ndarray) -> np.ndarray:
    """The result of a run in chunks of `size` rows."""
    compiled = jax.jit(lambda carry, chunk: run_chunk(solver, denoise, carry, chunk, row_noise)[0])
    carry = solver.init(jnp.asarray(x))
    for chunk in chunks(rows, size):
        carry = compiled(carry, chunk)
    return np.asarray(solver.latents(carry))
