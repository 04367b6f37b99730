"""From PyTorch's layout, in which reference numbers are stored, to channels last, and back."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Shaped


def channels_last(x: Shaped[np.ndarray, "B C *sides"]) -> Shaped[np.ndarray, "B *sides C"]:
    """(B, C, T, H, W) to (B, T, H, W, C), or (B, C, H, W) to (B, H, W, C)."""
    return np.moveaxis(x, 1, -1)


def channels_first(
    x: Shaped[Array, "B *sides C"] | Shaped[np.ndarray, "B *sides C"],
) -> Float32[np.ndarray, "B C *sides"]:
    """(B, T, H, W, C) to (B, C, T, H, W), or (B, H, W, C) to (B, C, H, W), in float32."""
    return np.moveaxis(as_float32(x), -1, 1)


def images_as_clip(images: Shaped[np.ndarray, "N C H W"]) -> Shaped[np.ndarray, "1 N H W C"]:
    """Pictures (N, C, H, W) as one clip (1, N, H, W, C); for networks that treat every frame by itself."""
    return channels_last(images)[None]


def frames_in_batch(
    clip: Shaped[Array, "B T H W C"] | Shaped[np.ndarray, "B T H W C"],
) -> Float32[np.ndarray, "frames C H W"]:
    """Clips (B, T, H, W, C) as pictures (B·T, C, H, W), frames varying fastest, in float32."""
    frames = as_float32(clip)
    return np.moveaxis(frames.reshape(-1, *frames.shape[2:]), -1, 1)


def as_float32(x: ArrayLike) -> Float32[np.ndarray, "..."]:
    """Any array on the host, in float32."""
    return np.asarray(jnp.asarray(x, jnp.float32))
