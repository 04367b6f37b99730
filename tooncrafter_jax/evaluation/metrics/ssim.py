"""SSIM, the structural similarity of each frame (Wang et al. 2004), in colour and of grey frames."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from tooncrafter_jax.evaluation.metrics.devices import OverLocalDevices
from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.io.sketches import LUMA, LUMA_BITS

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window (Wang et al. 2004, section III.B)."""
UNIFORM_WINDOW = 7
"""Side of the window with equal weights, scikit-image's default."""
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Constants for the data range 255 (likewise)."""
CENTRE = 127.5
"""Taken from the pixels before they are squared: variances do not change and float32 has one bit more for them."""


class Ssim(FrameMetric):
    """The mean similarity over the windows that lie wholly in the frame, of each colour channel, then over the
    channels.

    With 8-bit RGB, data range 255, a Gaussian window of 11x11 and weighted (not sample) covariances: scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False, data_range=255, channel_axis=-1)`. Papers
    that measure on grey frames, or with the uniform window of 7x7 that is that function's default, have other numbers.
    """

    name = "ssim"
    title = "SSIM"
    least_side = WINDOW
    better: Literal["lower", "higher"] = "higher"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The similarity of each frame, at most 1."""
        return _of_clips(batch.videos, batch.truth)


class SsimGrey(FrameMetric):
    """The mean similarity of the frames' luma, as most papers on in-betweening measure it.

    With data range 255, a window of 7x7 with equal weights, and sample covariances: scikit-image's
    `structural_similarity(data_range=255)` of two grey pictures. The luma is that of `io.sketches.grey_of_rgb`.
    """

    name = "ssim_grey"
    title = "SSIM (grey)"
    least_side = UNIFORM_WINDOW
    better: Literal["lower", "higher"] = "higher"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The similarity of each frame, at most 1."""
        return _of_grey_clips(batch.videos, batch.truth)


@jax.jit
def ssim(
    images: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
    truth: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
) -> Float[Array, "*B"]:
    """The similarity of each picture to the true one, sides at least 11."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    return _similarity(images, truth, weights / weights.sum()).mean((-3, -2, -1))


@jax.jit
def ssim_grey(
    images: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
    truth: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
) -> Float[Array, "*B"]:
    """The similarity of each picture's luma to that of the true one, sides at least 7."""
    weights = np.full(UNIFORM_WINDOW, 1 / UNIFORM_WINDOW)
    pixels = UNIFORM_WINDOW**2
    found = _similarity(_luma(images), _luma(truth), weights, of_sample=pixels / (pixels - 1))
    return found.mean((-3, -2, -1))


def _luma(images: jax.Array | np.ndarray) -> jax.Array:
    """(..., H, W, 1) uint8, by `grey_of_rgb`'s integers."""
    sums = (jnp.asarray(images).astype(jnp.int32) * jnp.asarray(LUMA, jnp.int32)).sum(-1, keepdims=True)
    return ((sums + (1 << (LUMA_BITS - 1))) >> LUMA_BITS).astype(jnp.uint8)


def _similarity(
    images: jax.Array | np.ndarray, truth: jax.Array | np.ndarray, weights: np.ndarray, of_sample: float = 1.0
) -> jax.Array:
    """The map (..., H', W', C) of similarities under a window whose weights are products of these.

    `of_sample` is what variances are multiplied by: 1, or n / (n - 1) for those of a sample.
    """
    x, y = (jnp.asarray(pixels).astype(jnp.float32) - CENTRE for pixels in (images, truth))
    mean_x, mean_y, xx, yy, xy = _windowed(jnp.stack([x, y, x * x, y * y, x * y]), weights)
    variances = of_sample * (xx - mean_x * mean_x + yy - mean_y * mean_y)
    covariance = of_sample * (xy - mean_x * mean_y)
    level_x, level_y = mean_x + CENTRE, mean_y + CENTRE
    luminance = (2 * level_x * level_y + C1) / (level_x * level_x + level_y * level_y + C1)
    return luminance * (2 * covariance + C2) / (variances + C2)


def _windowed(x: jax.Array, weights: np.ndarray) -> jax.Array:
    """Means under the window: (..., H, W, C) to (..., H - n + 1, W - n + 1, C); by sums, which no accelerator
    shortens.
    """
    for axis in (-3, -2):
        length = x.shape[axis] - len(weights) + 1
        parts = [jax.lax.slice_in_dim(x, i, i + length, axis=x.ndim + axis) for i in range(len(weights))]
        x = functools.reduce(jnp.add, (np.float32(w) * part for w, part in zip(weights, parts, strict=True)))
    return x


def _over_clips(measure: Callable[[jax.Array, jax.Array], jax.Array]) -> OverLocalDevices:
    def step(params: tuple[()], videos: jax.Array, truth: jax.Array) -> jax.Array:
        """A clip at a time: the maps of a whole batch need not be in memory together."""
        del params
        return jax.lax.map(lambda pair: measure(*pair), (videos, truth))

    return OverLocalDevices(step)


_of_clips, _of_grey_clips = _over_clips(ssim), _over_clips(ssim_grey)
