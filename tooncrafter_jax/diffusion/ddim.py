"""DDIM sampling of a v-predicting model with the dynamic rescale, as a jittable scan over a chunk of steps (spec 6.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.diffusion.schedule import DdimTables
from tooncrafter_jax.typing import Latents, Trajectory

Denoise = Callable[[Latents, jax.Array], Latents]
"""Predicts v from the noisy latents and the time (a scalar)."""


class Steps(NamedTuple):
    """A chunk of sampling steps in the order in which they run; every field has one entry a step.

    Attributes:
      index: number of the step within the whole run, counted from 0; the source of its noise.
      active: False for the padding at the end of the last chunk, which costs no computation.
      timestep, alpha_prev, sigma, rescale, sqrt_alpha, sqrt_one_minus_alpha: rows of `DdimTables`; `rescale` is
        scale_prev / scale.
      direction: coefficient of the noise estimate, sqrt(1 - alpha_prev - sigma²).
    """

    index: jax.Array | np.ndarray
    active: jax.Array | np.ndarray
    timestep: jax.Array | np.ndarray
    alpha_prev: jax.Array | np.ndarray
    sigma: jax.Array | np.ndarray
    rescale: jax.Array | np.ndarray
    sqrt_alpha: jax.Array | np.ndarray
    sqrt_one_minus_alpha: jax.Array | np.ndarray
    direction: jax.Array | np.ndarray


def _direction(alphas_prev: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """sqrt(1 - alpha_prev - sigma²) in float32, rounded after every operation as in the published code.

    At the last time with eta 1 the radicand is 0 in exact arithmetic. A compiler that fuses multiplication and subtraction
    leaves a residue of 1e-8 there, whose root moves the latents by 2e-4; so this is done on the host. Rounding must not
    make it negative either.
    """
    one = np.float32(1.0)
    return np.sqrt(np.maximum(one - alphas_prev.astype(np.float32) - np.square(sigmas.astype(np.float32)), 0.0))


def step_chunks(tables: DdimTables, chunk: int) -> Iterator[Steps]:
    """The run of `tables` in chunks of exactly `chunk` steps, so that one compiled program serves any number of steps."""
    order = np.arange(tables.steps)[::-1]
    padded = -(-tables.steps // chunk) * chunk

    def rows(values: np.ndarray) -> np.ndarray:
        return np.pad(values[order], (0, padded - tables.steps), mode="edge").reshape(-1, chunk)

    columns = Steps(
        index=np.arange(padded, dtype=np.int32).reshape(-1, chunk),
        active=(np.arange(padded) < tables.steps).reshape(-1, chunk),
        timestep=rows(tables.timesteps),
        alpha_prev=rows(tables.alphas_prev),
        sigma=rows(tables.sigmas),
        rescale=rows(tables.scale_prev / tables.scale),
        sqrt_alpha=rows(tables.sqrt_alphas_cumprod),
        sqrt_one_minus_alpha=rows(tables.sqrt_one_minus_alphas_cumprod),
        direction=rows(_direction(tables.alphas_prev, tables.sigmas)),
    )
    for i in range(padded // chunk):
        yield Steps(*(column[i] for column in columns))


def ddim_step(x: Latents, v: Latents, noise: Latents, step: Steps) -> tuple[Latents, Latents]:
    """One update.

    Args:
      x: noisy latents.
      v: the model's prediction after guidance.
      noise: standard normal, of the shape of `x`; used even in the last step, as published.
      step: one row (scalars).

    Returns:
      The latents of the next time, and the clean latents predicted (after the dynamic rescale).
    """
    noise_estimate = step.sqrt_alpha * v + step.sqrt_one_minus_alpha * x
    clean = (step.sqrt_alpha * x - step.sqrt_one_minus_alpha * v) * step.rescale
    following = jnp.sqrt(step.alpha_prev) * clean + step.direction * noise_estimate + step.sigma * noise
    return jnp.asarray(following), jnp.asarray(clean)


def sample_chunk(
    denoise: Denoise,
    x: Latents,
    steps: Steps,
    noise_of_step: Callable[[jax.Array], Latents],
    *,
    with_predictions: bool = False,
) -> tuple[Latents, Trajectory | None]:
    """Runs a chunk of steps; only the latents are carried.

    Args:
      denoise: the guided model.
      x: latents before the chunk, float32.
      steps: the chunk's rows.
      noise_of_step: step index -> noise of the shape of `x`.
      with_predictions: whether the clean latents predicted at each step are returned too (for previews and checks).

    Returns:
      The latents after the chunk, and the predictions (chunk, *x.shape) or None.
    """

    def body(x: Latents, step: Steps) -> tuple[Latents, Latents | None]:
        def update(x: Latents) -> tuple[Latents, Latents]:
            v = denoise(x, jnp.asarray(step.timestep)).astype(jnp.float32)
            return ddim_step(x, v, noise_of_step(jnp.asarray(step.index)), step)

        x, clean = jax.lax.cond(step.active, update, lambda x: (x, x), x)
        return x, clean if with_predictions else None

    with jax.named_scope("ddim"):
        return jax.lax.scan(body, x, steps)
