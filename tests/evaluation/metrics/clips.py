"""Clips that metrics are tried on; made from formulas, so they need not be stored."""

from __future__ import annotations

import numpy as np

from tests.zoo.metric_inputs import changed, pictures
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch

CANNY_THRESHOLDS = (40.0, 120.0)
"""That scikit-image found the edges of the drawing with."""


def clips(count: int = 2, frames: int = 3, height: int = 47, width: int = 56) -> np.ndarray:
    """Smooth colours with noise and a black bar, uint8 (count, frames, height, width, 3), of odd height."""
    return _bytes(pictures(count * frames, height, width)).reshape(count, frames, height, width, 3)


def changed_clips(count: int = 2, frames: int = 3, height: int = 47, width: int = 56) -> np.ndarray:
    """The same moved by three pixels and noisier."""
    return _bytes(changed(pictures(count * frames, height, width))).reshape(count, frames, height, width, 3)


def batch(videos: np.ndarray, truth: np.ndarray, prompts: tuple[str, ...] | None = None) -> ClipBatch:
    """A batch, by default without prompts."""
    return ClipBatch(videos, truth, ("",) * len(videos) if prompts is None else prompts)


def drawing(height: int = 150, width: int = 200) -> np.ndarray:
    """A cartoon of discs and bars in flat colours with lines of one pixel around them and faint noise, uint8 (H, W,
    3).
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    picture = np.full((height, width, 3), (200.0, 220.0, 240.0))
    for centre_y, centre_x, radius, colour in (
        (40, 50, 30, (230, 90, 60)),
        (90, 120, 44, (60, 120, 200)),
        (110, 40, 25, (90, 180, 90)),
    ):
        distance = np.hypot(y - centre_y, x - centre_x)
        picture[distance < radius] = colour
        picture[np.abs(distance - radius) < 1] = 20
    picture[:, 150:170] = (250, 240, 120)
    picture[20:30, 100:] = (40, 40, 60)
    return np.clip(picture + np.random.default_rng(0).normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint((values + 1) * 127.5).astype(np.uint8)
