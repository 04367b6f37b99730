"""Classifier-free guidance with rescaling, for two and for three branches (spec section 6.4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tooncrafter_jax.typing import Latents

Scalar = jax.Array | float


def guide(cond: Latents, uncond: Latents, scale: Scalar, rescale: Scalar = 0.0) -> Latents:
    """v_u + s·(v_c - v_u), then rescaled.

    Args:
      cond: (B, T, h, w, C) prediction with the prompt and the image tokens.
      uncond: the same with an empty prompt and the tokens of the all-zero picture.
      scale: guidance scale s, 0 or more; 1 is no guidance.
      rescale: share of the result that is brought to the standard deviation of `cond`, 0 to 1.

    Returns:
      (B, T, h, w, C).
    """
    return rescale_to(cond, uncond + scale * (cond - uncond), rescale)


def guide_in_two_stages(
    cond: Latents, image: Latents, uncond: Latents, scale: Scalar, image_scale: Scalar, rescale: Scalar = 0.0
) -> Latents:
    """v_u + s_img·(v_i - v_u) + s·(v_c - v_i), then rescaled.

    Args:
      cond: (B, T, h, w, C) prediction with the prompt and the image tokens.
      image: the same with an empty prompt and the image tokens.
      uncond: the same with an empty prompt and the tokens of the all-zero picture.
      scale: guidance scale s of the prompt, 0 or more.
      image_scale: guidance scale s_img of the image tokens, 0 or more.
      rescale: share of the result that is brought to the standard deviation of `cond`, 0 to 1.

    Returns:
      (B, T, h, w, C).
    """
    return rescale_to(cond, uncond + image_scale * (image - uncond) + scale * (cond - image), rescale)


def rescale_to(cond: Latents, guided: Latents, rescale: Scalar) -> Latents:
    """Mixes `guided` with itself at the standard deviation of `cond` (unbiased, over all axes but the batch).

    Args:
      cond: (B, T, h, w, C) conditional prediction.
      guided: (B, T, h, w, C) guided prediction.
      rescale: share of the rescaled one, 0 to 1.

    Returns:
      (B, T, h, w, C).
    """
    # A prediction without any deviation, as of a network that starts from zeros, has no other size to be brought to.
    factor = _std(cond) / jnp.maximum(_std(guided), jnp.finfo(guided.dtype).tiny)
    return rescale * (guided * factor) + (1 - rescale) * guided


def _std(x: jax.Array) -> jax.Array:
    return jnp.std(x, axis=tuple(range(1, x.ndim)), keepdims=True, ddof=1)
