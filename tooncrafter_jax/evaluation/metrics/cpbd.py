"""CPBD, the cumulative probability of blur detection: how sharp a frame looks, without the true one (Narvekar & Karam
2011).

At each edge the width of its ramp is compared with the one that is just noticed as blurred; the metric is the share of
edges where no viewer would notice. What the paper leaves open is said beside the constants. It runs on the host in
float64: a pixel is an edge or is not, so that rounding would show.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8
from scipy import ndimage

from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.typing import HostArray

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey picture, which is rounded to whole numbers (ITU-R BT.601)."""
BLOCK = 64
"""Side of a block in pixels; what is left over on the right and below is not looked at (spec section 10)."""
EDGE_SHARE = 0.002
"""A block counts if more than this share of its pixels are edges (spec section 10)."""
LOW_CONTRAST, WIDE, NARROW = 50, 5, 3
"""Just noticeable widths of ramps in pixels: 5 up to this difference of the block's lightest and darkest grey, 3 beyond
(same).
"""
EXPONENT = 3.6
"""Of the probability 1 - exp(-(w / w_JNB)^3.6) that blur is noticed (likewise)."""
NOTICED = 63
"""Per cent, rounded, up to which blur counts as unnoticed: a ramp that is just noticeable, 1 - 1/e, still does
(likewise).
"""
SIGMA = 1.0
"""Of the smoothing before Canny's gradients (likewise)."""
QUIET_SHARE, LEVELS, LOW_TO_HIGH = 0.7, 64, 0.4
"""Canny's upper threshold is the first of 64 even steps of the largest gradient that 70 % of the pixels are below, the
lower one 0.4 of it; not stated in the paper, and the usual automatic choice.
"""
SOBEL_CUTOFF = 4.0
"""Edges to be measured have a squared horizontal gradient of more than 4 times the mean; likewise."""
STEEPEST = float(np.tan(np.pi / 8))
"""Only edges are measured whose gradient, of central differences, is nearer to the row than to a diagonal; likewise."""


class Cpbd(FrameMetric):
    """The share of a frame's edges at which blur is not noticed, in [0, 1]; frames without an edge are left out.

    It sees sharpness alone: noise and wrong outlines count as sharp. Compare it with the truth's own.
    """

    name = "cpbd"
    title = "CPBD"
    better: Literal["lower", "higher"] = "higher"

    def of_frames(self, batch: ClipBatch) -> Float32[np.ndarray, "B T"]:
        """The share of each frame; nan without an edge."""
        clips, frames = batch.videos.shape[:2]
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            found = list(pool.map(cpbd, batch.videos.reshape(-1, *batch.videos.shape[2:])))
        return np.asarray(found, np.float32).reshape(clips, frames)


def cpbd(frame: UInt8[np.ndarray, "H W 3"]) -> float:
    """The share of a picture's edges at which blur is not noticed; nan without an edge, as in all pictures of under
    64x64.
    """
    grey = np.rint(frame.astype(np.float64) @ np.array(LUMA))
    rows, columns = (length // BLOCK for length in grey.shape)
    if rows * columns == 0:
        return float("nan")
    grey_blocks, edge_blocks, width_blocks = (
        _blocks(values, rows, columns) for values in (grey, canny_edges(grey), edge_widths(grey))
    )
    contrast = grey_blocks.max(-1) - grey_blocks.min(-1)
    noticeable = np.where(contrast <= LOW_CONTRAST, WIDE, NARROW)[:, None]
    measured = (width_blocks > 0) & (edge_blocks.mean(-1) > EDGE_SHARE)[:, None]
    if not measured.any():
        return float("nan")
    probability = 1 - np.exp(-((width_blocks / noticeable) ** EXPONENT))
    return float((np.rint(100 * probability) <= NOTICED)[measured].mean())


def edge_widths(grey: Float64[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """The length of the ramp through each pixel of a vertical edge, along its row; 0 elsewhere (Marziliano et al.
    2002).

    Edges are the largest of their neighbours in the row of Sobel's horizontal gradient; those in the outermost rows and
    columns are left out. The ramp reaches to the pixels on both sides, and from there as far as the grey goes on
    rising, or falling: a step from one pixel to the next has 2.
    """
    gradient = ndimage.sobel(grey, 1, mode="nearest") ** 2
    down, across = np.gradient(grey)  # central differences
    edge = (gradient > SOBEL_CUTOFF * gradient.mean()) & (np.abs(down) <= STEEPEST * np.abs(across))
    edge[:, 1:] &= gradient[:, 1:] >= gradient[:, :-1]
    edge[:, :-1] &= gradient[:, :-1] > gradient[:, 1:]
    edge[[0, -1]] = False
    steps = np.diff(grey, axis=1)
    return np.where(edge, np.where(across >= 0, _ramps(steps > 0), _ramps(steps < 0)), 0)


def canny_edges(
    grey: Float64[np.ndarray, "H W"], thresholds: tuple[float, float] | None = None
) -> Bool[np.ndarray, "H W"]:
    """Canny's edges: largest gradients along their own direction, followed from strong to weak ones (Canny 1986).

    Args:
      grey: the picture.
      thresholds: the lower and the upper one, of the length of Sobel's gradient after smoothing; by default the
        automatic ones.
    """
    smooth = ndimage.gaussian_filter(grey, SIGMA, mode="nearest")
    across, down = ndimage.sobel(smooth, 1, mode="nearest"), ndimage.sobel(smooth, 0, mode="nearest")
    gradient = np.hypot(across, down)
    low, high = thresholds or _automatic_thresholds(gradient)
    ridge = _ridge(gradient, across, down, low)
    labels = np.zeros(ridge.shape, np.int32)
    ndimage.label(ridge, np.ones((3, 3)), output=labels)  # that hang together, also over corners
    strong = np.zeros(labels.max() + 1, bool)
    strong[labels[ridge & (gradient >= high)]] = True
    strong[0] = False
    return strong[labels]


def _automatic_thresholds(gradient: np.ndarray) -> tuple[float, float]:
    peak = gradient.max()
    if peak == 0:
        return np.inf, np.inf
    counts = np.histogram(gradient, LEVELS, (0, peak))[0]
    high = (np.searchsorted(counts.cumsum(), QUIET_SHARE * gradient.size, "right") + 1) / LEVELS * peak
    return LOW_TO_HIGH * high, high


def _ridge(gradient: np.ndarray, across: np.ndarray, down: np.ndarray, low: float) -> HostArray:
    """Pixels of at least `low` that no point a step away along the gradient exceeds; never the picture's own border."""
    y, x = (index + 1 for index in np.nonzero(gradient[1:-1, 1:-1] >= low))
    here, gx, gy = gradient[y, x], across[y, x], down[y, x]
    sx, sy = np.sign(gx).astype(int), np.sign(gy).astype(int)
    level = np.abs(gx) >= np.abs(gy)
    straight_y, straight_x = np.where(level, 0, sy), np.where(level, sx, 0)
    share = np.minimum(np.abs(gx), np.abs(gy)) / np.maximum(np.abs(gx), np.abs(gy))
    kept = np.ones(len(here), bool)
    for way in (1, -1):
        straight, diagonal = gradient[y + way * straight_y, x + way * straight_x], gradient[y + way * sy, x + way * sx]
        kept &= here >= (1 - share) * straight + share * diagonal
    ridge = np.zeros(gradient.shape, bool)
    ridge[y[kept], x[kept]] = True
    return ridge


def _ramps(step: np.ndarray) -> HostArray:
    """(H, W): the width of the ramp through each pixel, where (H, W - 1) says which steps in a row continue one; 0 at
    the ends.
    """
    before, after = _run_before(step), _run_before(step[:, ::-1])[:, ::-1]
    return np.pad(before[:, :-2] + 2 + after[:, 2:], ((0, 0), (1, 1)))


def _run_before(step: np.ndarray) -> HostArray:
    """(H, W): how many steps in a row are true up to each pixel."""
    position = np.arange(1, step.shape[1] + 1)
    broken = np.maximum.accumulate(np.where(step, 0, position), axis=1)
    return np.pad(position - broken, ((0, 0), (1, 0)))


def _blocks(values: np.ndarray, rows: int, columns: int) -> HostArray:
    """(blocks, 4096)."""
    whole = values[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return whole.swapaxes(1, 2).reshape(rows * columns, BLOCK * BLOCK)
