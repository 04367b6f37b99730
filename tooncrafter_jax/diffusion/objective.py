"""The v-prediction objective with the dynamic rescale (spec sections 6.1, 6.2 and 8.3)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.typing import Latents, Timesteps


class NoisyTarget(NamedTuple):
    """What a training step feeds to the model and asks of it.

    Attributes:
      scaled: the clean latents after the dynamic rescale.
      noisy: the model's input.
      v: the model's target.
    """

    scaled: Latents
    noisy: Latents
    v: Latents


def _at(table: object, timesteps: Timesteps, ndim: int) -> jax.Array:
    return jnp.asarray(table)[timesteps].reshape(-1, *(1,) * (ndim - 1))


def noisy_target(schedule: NoiseSchedule, latents: Latents, noise: Latents, timesteps: Timesteps) -> NoisyTarget:
    """Noises clean latents; the target is built from the rescaled latents too.

    Args:
      schedule: the noise schedule; its config says whether the dynamic rescale is on.
      latents: clean latents times the scale factor.
      noise: standard normal of the same shape.
      timesteps: (B,) diffusion times.
    """
    signal = _at(schedule.sqrt_alphas_cumprod, timesteps, latents.ndim)
    sigma = _at(schedule.sqrt_one_minus_alphas_cumprod, timesteps, latents.ndim)
    if schedule.config.dynamic_rescale:
        latents = latents * _at(schedule.dynamic_scale, timesteps, latents.ndim)
    return NoisyTarget(latents, signal * latents + sigma * noise, signal * noise - sigma * latents)


def clean_from_v(schedule: NoiseSchedule, noisy: Latents, v: Latents, timesteps: Timesteps) -> Latents:
    """The (rescaled) clean latents that a prediction v stands for."""
    signal = _at(schedule.sqrt_alphas_cumprod, timesteps, noisy.ndim)
    return signal * noisy - _at(schedule.sqrt_one_minus_alphas_cumprod, timesteps, noisy.ndim) * v


def without_rescale(schedule: NoiseSchedule, scaled: Latents, timesteps: Timesteps) -> Latents:
    """The clean latents (B, T, h, w, C) that are `scaled` after the dynamic rescale of times (B,) (spec section
    6.2).
    """
    if not schedule.config.dynamic_rescale:
        return scaled
    return scaled / _at(schedule.dynamic_scale, timesteps, scaled.ndim)


def noise_from_v(schedule: NoiseSchedule, noisy: Latents, v: Latents, timesteps: Timesteps) -> Latents:
    """The noise that a prediction v stands for."""
    signal = _at(schedule.sqrt_alphas_cumprod, timesteps, noisy.ndim)
    return signal * v + _at(schedule.sqrt_one_minus_alphas_cumprod, timesteps, noisy.ndim) * noisy


def loss_per_sample(prediction: Latents, target: Latents) -> Float[Array, "B"]:
    """Mean squared error of each clip; the training loss is its mean, without weights (spec section 8.3)."""
    return jnp.mean(jnp.square(prediction - target), axis=tuple(range(1, prediction.ndim)))
