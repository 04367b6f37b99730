"""Noise that depends on a clip's own seed and frame, never on the batch, its position, the devices or the user's
settings.
"""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from tooncrafter_jax.typing import Latents

GENERATOR = "threefry2x32"
"""Always this one: JAX's default generator is a setting, and some accelerators are run with one whose draws differ by
device.
"""


class Stream(enum.IntEnum):
    """What a draw is for; different streams of one seed are independent."""

    INITIAL = 0
    POSTERIOR = 1
    STEP = 2
    TIMESTEP = 3
    LAST_TIME = 4
    MOTION = 5
    GUIDANCE = 6


def _key(seed: jax.Array) -> jax.Array:
    return jax.random.key(seed, impl=GENERATOR)


def clip_noise(
    seeds: UInt32[Array, "B"],
    stream: Stream,
    frames: Int[Array, "T"],
    frame_shape: tuple[int, ...],
    step: Int[Array, ""] | int = 0,
) -> Latents:
    """Standard normal noise (B, T, h, w, C), float32.

    Args:
      seeds: one seed a clip.
      stream: what it is for.
      frames: frame numbers (T,).
      frame_shape: (h, w, C).
      step: number of the sampling step, for `Stream.STEP`.
    """

    def one_frame(seed: UInt32[Array, ""], frame: Int[Array, ""]) -> Float[Array, "..."]:
        key = jax.random.fold_in(_key(seed), stream)
        key = jax.random.fold_in(jax.random.fold_in(key, step), frame)
        return jax.random.normal(key, frame_shape, jnp.float32)

    return jax.vmap(lambda seed: jax.vmap(lambda frame: one_frame(seed, frame))(frames))(seeds)


def clip_timesteps(seeds: UInt32[Array, "B"], timesteps: int, last_share: float = 0.0) -> Int[Array, "B"]:
    """A diffusion time (B,) for each clip, drawn uniformly from 0 to `timesteps` - 1 by its seed.

    Args:
      seeds: one seed a clip.
      timesteps: number of diffusion times.
      last_share: probability in [0, 1] that a clip has the last time instead.
    """

    def one(seed: UInt32[Array, ""]) -> Int[Array, ""]:
        time = jax.random.randint(jax.random.fold_in(_key(seed), Stream.TIMESTEP), (), 0, timesteps)
        if not last_share:
            return time
        is_last = jax.random.bernoulli(jax.random.fold_in(_key(seed), Stream.LAST_TIME), last_share)
        return jnp.where(is_last, timesteps - 1, time)

    return jax.vmap(one)(seeds)


def clips_with_motion(seeds: UInt32[Array, "B"], share: float) -> Bool[Array, "B"]:
    """Which clips are guided by motion while training, each with the probability `share`, by its seed."""

    def one(seed: UInt32[Array, ""]) -> Bool[Array, ""]:
        return jax.random.bernoulli(jax.random.fold_in(_key(seed), Stream.MOTION), share)

    return jax.vmap(one)(seeds)


def clip_guidance(seeds: UInt32[Array, "B"], least: float, most: float) -> Float[Array, "B"]:
    """A guidance scale (B,) for each clip, drawn uniformly from a range by its seed."""

    def one(seed: UInt32[Array, ""]) -> Float[Array, ""]:
        return jax.random.uniform(jax.random.fold_in(_key(seed), Stream.GUIDANCE), (), jnp.float32, least, most)

    return jax.vmap(one)(seeds)
