"""Whether colours stay on their way from the one key frame to the other."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32

from tooncrafter_jax.evaluation.metrics.cielab import mean_lab
from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch


class ColourDrift(FrameMetric):
    """How far the mean colour of a frame is from the straight line between those of the two key frames.

    With m_t the mean over the pixels of frame t in CIE L*a*b*, and k_0 and k_1 those of the truth's frames 0 and T - 1,

        drift_t = | m_t - (1 - s) k_0 - s k_1 |,   s = t / (T - 1)

    in units of L*a*b* (2.3 can just be noticed). A cross-fade in that space has 0. The truth has a drift of its own,
    where things come into view and go: measure it as a method to know what to compare with.
    """

    name = "colour_drift"
    title = "colour drift (ΔE)"
    better: Literal["lower", "higher"] = "lower"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The drift of each frame."""
        means, keys = np.asarray(mean_lab(batch.videos)), np.asarray(mean_lab(batch.truth[:, [0, -1]]))
        share = np.linspace(0, 1, means.shape[1], dtype=np.float32)[:, None]
        line = (1 - share) * keys[:, :1] + share * keys[:, 1:]
        return np.linalg.norm(means - line, axis=-1)
