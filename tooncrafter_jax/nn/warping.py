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
    height, width = image.shape[1:3]
    x = jnp.clip(jnp.arange(width) + flow[..., 0], 0, width - 1)
    y = jnp.clip(jnp.arange(height)[:, None] + flow[..., 1], 0, height - 1)
    return _sampled(image, x, y)


def _blended(
    image: Float[Array, "N H W C"], x: Float[Array, "N H W"], y: Float[Array, "N H W"]
) -> Float[Array, "N H W C"]:
    """The picture at positions within it."""
    (upper_left, upper_right, lower_left, lower_right), right, down = _neighbours(image, x, y)
    upper = (1 - right) * upper_left + right * upper_right
    lower = (1 - right) * lower_left + right * lower_right
    return (1 - down) * upper + down * lower


def _neighbours(
    image: Float[Array, "N H W C"], x: Float[Array, "N H W"], y: Float[Array, "N H W"]
) -> tuple[tuple[Float[Array, "N H W C"], ...], Float[Array, "N H W 1"], Float[Array, "N H W 1"]]:
    """The four pixels around each position, row by row, and how far it is to the right and down among them."""
    count, height, width, channels = image.shape
    left, top = jnp.floor(x), jnp.floor(y)
    column, row = left.astype(jnp.int32), top.astype(jnp.int32)
    flat = image.reshape(count, height * width, channels)

    def at(row: Int[Array, "N H W"], column: Int[Array, "N H W"]) -> Float[Array, "N H W C"]:
        # "clip", as a position that is no number has any index.
        index = (row * width + column).reshape(count, -1, 1)
        return jnp.take_along_axis(flat, index, axis=1, mode="clip").reshape(image.shape)

    rows, columns = (row, jnp.minimum(row + 1, height - 1)), (column, jnp.minimum(column + 1, width - 1))
    return tuple(at(r, c) for r in rows for c in columns), (x - left)[..., None], (y - top)[..., None]


_sampled = jax.custom_vjp(_blended)
"""With the gradients with respect to the positions written out: left to itself, XLA for CPUs computes every neighbour
anew for each channel that it sums over, at seven times the cost.
"""
_Given = tuple[Float[Array, "N H W C"], Float[Array, "N H W"], Float[Array, "N H W"]]


def _sampled_forward(
    image: Float[Array, "N H W C"], x: Float[Array, "N H W"], y: Float[Array, "N H W"]
) -> tuple[Float[Array, "N H W C"], _Given]:
    return _blended(image, x, y), (image, x, y)


def _sampled_backward(given: _Given, of_pixels: Float[Array, "N H W C"]) -> _Given:
    image, x, y = given
    (upper_left, upper_right, lower_left, lower_right), right, down = _neighbours(image, x, y)
    along_x = (1 - down) * (upper_right - upper_left) + down * (lower_right - lower_left)
    along_y = (1 - right) * (lower_left - upper_left) + right * (lower_right - upper_right)
    (of_image,) = jax.vjp(lambda image: _blended(image, x, y), image)[1](of_pixels)
    return of_image, _over_channels(of_pixels * along_x), _over_channels(of_pixels * along_y)


def _over_channels(x: Float[Array, "N H W C"]) -> Float[Array, "N H W"]:
    """The sum; of a picture's few channels written out, which is one pass over the pixels."""
    if x.shape[-1] > 4:
        return jnp.sum(x, axis=-1)
    return sum((x[..., channel] for channel in range(1, x.shape[-1])), start=x[..., 0])


_sampled.defvjp(_sampled_forward, _sampled_backward)
