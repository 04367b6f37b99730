"""Pictures and features moved along flows, and resampled, as PyTorch does both."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def resized(x: Float[Array, "N H W C"], height: int, width: int) -> Float[Array, "N {height} {width} C"]:
    """Bilinear resampling between neighbours, pixel centres at half-integers, without antialiasing, as in PyTorch."""
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[-1]), "linear", antialias=False)


def resized_frames(x: Float[Array, "B T H W C"], height: int, width: int) -> Float[Array, "B T {height} {width} C"]:
    """`resized` of every frame of clips."""
    frames = resized(x.reshape(-1, *x.shape[2:]), height, width)
    return frames.reshape(*x.shape[:2], height, width, x.shape[-1])


def warped(image: Float[Array, "N H W C"], flow: Float[Array, "N H W 2"]) -> Float[Array, "N H W C"]:
    """Each pixel taken from where its flow points to, bilinearly; beyond the border from the border.

    Args:
      image: (N, H, W, C).
      flow: (N, H, W, 2), pixels to the right and down.
    """
    count, height, width, channels = image.shape
    x = jnp.clip(jnp.arange(width) + flow[..., 0], 0, width - 1)
    y = jnp.clip(jnp.arange(height)[:, None] + flow[..., 1], 0, height - 1)
    left, top = jnp.floor(x), jnp.floor(y)
    to_right, to_bottom = (x - left)[..., None], (y - top)[..., None]
    columns = [left.astype(jnp.int32), jnp.minimum(left.astype(jnp.int32) + 1, width - 1)]
    rows = [top.astype(jnp.int32), jnp.minimum(top.astype(jnp.int32) + 1, height - 1)]
    flat = image.reshape(count, height * width, channels)

    def at(row: Int[Array, "N H W"], column: Int[Array, "N H W"]) -> Float[Array, "N H W C"]:
        index = (row * width + column).reshape(count, -1, 1)
        return jnp.take_along_axis(flat, index, axis=1).reshape(image.shape)

    upper, lower = ((1 - to_right) * at(row, columns[0]) + to_right * at(row, columns[1]) for row in rows)
    return (1 - to_bottom) * upper + to_bottom * lower
