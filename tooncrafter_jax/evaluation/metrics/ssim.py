"""SSIM, the structural similarity of each frame (Wang et al. 2004)."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.devices import OverLocalDevices
from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window (Wang et al. 2004, section III.B)."""
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
    better: Literal["lower", "higher"] = "higher"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The similarity of each frame, at most 1.

        Raises:
          UserError: the frames are smaller than the window.
        """
        height, width = batch.videos.shape[2:4]
        if min(height, width) < WINDOW:
            raise UserError(
                f"SSIM needs frames of at least {WINDOW}x{WINDOW} pixels, not {height}x{width}: leave it out "
                "or evaluate larger clips"
            )
        return _of_clips(batch.videos, batch.truth)


@jax.jit
def ssim(
    images: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
    truth: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
) -> Float[Array, "*B"]:
    """The similarity of each picture to the true one, sides at least 11."""
    x, y = (jnp.asarray(pixels).astype(jnp.float32) - CENTRE for pixels in (images, truth))
    mean_x, mean_y, xx, yy, xy = _windowed(jnp.stack([x, y, x * x, y * y, x * y]))
    variances = xx - mean_x * mean_x + yy - mean_y * mean_y
    covariance = xy - mean_x * mean_y
    level_x, level_y = mean_x + CENTRE, mean_y + CENTRE
    luminance = (2 * level_x * level_y + C1) / (level_x * level_x + level_y * level_y + C1)
    return (luminance * (2 * covariance + C2) / (variances + C2)).mean((-3, -2, -1))


def _windowed(x: jax.Array) -> jax.Array:
    """Means under the window: (..., H, W, C) to (..., H - 10, W - 10, C); by sums, which no accelerator shortens."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (-3, -2):
        length = x.shape[axis] - WINDOW + 1
        parts = [jax.lax.slice_in_dim(x, i, i + length, axis=x.ndim + axis) for i in range(WINDOW)]
        x = functools.reduce(jnp.add, (weight * part for weight, part in zip(weights, parts, strict=True)))
    return x


def _step(params: tuple[()], videos: jax.Array, truth: jax.Array) -> jax.Array:
    """A clip at a time: the maps of a whole batch need not be in memory together."""
    del params
    return jax.lax.map(lambda pair: ssim(*pair), (videos, truth))


_of_clips = OverLocalDevices(_step)
