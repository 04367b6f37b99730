"""Gaussian noise that depends on a clip's own seed and frame, never on the batch, its position or the devices."""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from tooncrafter_jax.typing import Latents


class Stream(enum.IntEnum):
    """What a draw is for; different streams of one seed are independent."""

    INITIAL = 0
    POSTERIOR = 1
    STEP = 2


def clip_noise(
    seeds: UInt32[Array, "B"],
    stream: Stream,
    frames: Int[Array, "T"],
    frame_shape: tuple[int, ...],
    step: jax.Array | int = 0,
) -> Latents:
    """Standard normal noise (B, T, h, w, C), float32.

    Args:
      seeds: one seed a clip.
      stream: what it is for.
      frames: frame numbers (T,).
      frame_shape: (h, w, C).
      step: number of the sampling step, for `Stream.STEP`.
    """

    def one_frame(seed: jax.Array, frame: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), stream)
        key = jax.random.fold_in(jax.random.fold_in(key, step), frame)
        return jax.random.normal(key, frame_shape, jnp.float32)

    return jax.vmap(lambda seed: jax.vmap(lambda frame: one_frame(seed, frame))(frames))(seeds)
