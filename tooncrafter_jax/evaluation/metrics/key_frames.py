"""Whether the first and the last frame are the two that were given."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32, Shaped

from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch, Rows
from tooncrafter_jax.evaluation.metrics.psnr import psnr


class KeyFrames(FrameMetric):
    """The PSNR in dB of frames 0 and T - 1 against the truth's, which are the pictures that were given; 100 where they
    are equal.

    A method that hands its inputs through has 100, one that passes them through an autoencoder what that leaves of
    them.
    """

    name = "key_frames"
    title = "PSNR of the key frames (dB)"
    better: Literal["lower", "higher"] = "higher"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B 2"]:
        """The ratios of the first and of the last frame."""
        return np.asarray(psnr(batch.videos[:, [0, -1]], batch.truth[:, [0, -1]]))

    def by_frame(self, rows: Rows) -> Shaped[np.ndarray, "T"] | None:
        """None: there are two frames."""
        return None
