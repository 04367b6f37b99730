"""From PyTorch's layout, in which reference numbers are stored, to channels last, and back."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def channels_last(x: np.ndarray) -> np.ndarray:
    """(B, C, T, H, W) to (B, T, H, W, C), or (B, C, H, W) to (B, H, W, C)."""
    return np.moveaxis(x, 1, -1)


def channels_first(x: Any) -> np.ndarray:
    """(B, T, H, W, C) to (B, C, T, H, W), or (B, H, W, C) to (B, C, H, W), in float32."""
    return np.moveaxis(as_float32(x), -1, 1)


def images_as_clip(images: np.ndarray) -> np.ndarray:
    """Pictures (N, C, H, W) as one clip (1, N, H, W, C); for networks that treat every frame by itself."""
    return channels_last(images)[None]


def frames_in_batch(clip: Any) -> np.ndarray:
    """Clips (B, T, H, W, C) as pictures (B·T, C, H, W), frames varying fastest, in float32."""
    clip = as_float32(clip)
    return np.moveaxis(clip.reshape(-1, *clip.shape[2:]), -1, 1)


def as_float32(x: Any) -> np.ndarray:
    """Any array on the host, in float32."""
    return np.asarray(jnp.asarray(x, jnp.float32))
