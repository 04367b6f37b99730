"""PSNR, the peak signal-to-noise ratio of each frame."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch, Rows

PEAK = 255.0
CAP = 100.0
"""Of a frame, in dB: equal frames have no finite ratio. A single channel of one of 256x256 pixels that is off by one
gives 101.
"""


class Psnr(FrameMetric):
    """10 log10(255² / e), e the mean squared difference over the pixels and channels of an 8-bit RGB frame, at most 100
    dB.

    The number of a clip is the ratio of its mean error over all frames, that of a set the mean over clips. A mean over
    frames would mostly say how many frames were handed through: two equal ones of 16, at the cap, lift it by 8 dB.
    """

    name = "psnr"
    title = "PSNR (dB)"
    better: Literal["lower", "higher"] = "higher"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The ratio of each frame in dB."""
        return np.asarray(psnr(batch.videos, batch.truth))

    def summarise(self, rows: Rows) -> float:
        """The mean of the clips' ratios, in float64."""
        errors = np.power(10.0, -np.asarray(rows[self.name], np.float64) / 10)  # of a peak of 1
        return float(np.mean(-10 * np.log10(errors.mean(1))))


@jax.jit
def psnr(
    images: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
    truth: UInt8[Array, "*B H W 3"] | UInt8[np.ndarray, "*B H W 3"],
) -> Float[Array, "*B"]:
    """The ratio of each picture to the true one in dB, capped at 100.

    The squares of a row are added as integers, so that a single wrong pixel of a large picture is not rounded away.
    """
    height, width = images.shape[-3:-1]
    squares = jnp.square(images.astype(jnp.int32) - truth.astype(jnp.int32)).sum((-2, -1))  # *B H
    error = squares.astype(jnp.float32).sum(-1) / (height * width * 3)
    return jnp.minimum(20 * jnp.log10(PEAK) - 10 * jnp.log10(jnp.maximum(error, 1e-12)), CAP)
