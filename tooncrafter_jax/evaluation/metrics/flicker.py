"""Whether the brightness of the picture jumps where the truth's does not."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32

from tooncrafter_jax.evaluation.metrics.cielab import mean_lab
from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch


class Flicker(FrameMetric):
    """The change of lightness from frame to frame, so far as it is beyond the truth's.

    With l_t the mean over the pixels of CIE L* of frame t, and l'_t that of the true frame,

        flicker_t = max(0, |l_t - l_(t-1)| - |l'_t - l'_(t-1)|)   for t = 1 ... T - 1

    in units of L* (0 black, 100 white). It is one of the whole picture: what moves within it hardly counts. A still
    picture has 0, and a steady fade that is as fast as the truth's has 0.
    """

    name = "flicker"
    title = "flicker (ΔL*)"
    better: Literal["lower", "higher"] = "lower"
    first_frame = 1

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B frames"]:
        """The flicker of the frames 1 to T - 1."""
        made, true = (
            np.abs(np.diff(np.asarray(mean_lab(videos))[..., 0], axis=1)) for videos in (batch.videos, batch.truth)
        )
        return np.maximum(made - true, 0)
