"""Filling the holes of a picture from what is around them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

_FULL = 1e-3
"""Weight from which on a cell of the pyramid speaks for itself."""


def filled(values: Float32[np.ndarray, "H W C"], weights: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W C"]:
    """Values everywhere, smooth where none are known, by the pull-push pyramid.

    Each level has the weighted means of 2 x 2 cells of the one below, and holes are filled from the level above.

    Args:
      values: of each pixel; those of weight 0 are not looked at.
      weights: 0 to 1: how well each is known. Where none is, all is 0.

    Returns:
      Where a weight is 1, the value itself; elsewhere a mean of those around.

    Source: Grossman and Dally, "Point sample rendering" (1998), section 6.
    """
    height, width, _ = values.shape
    known = np.clip(weights, 0, 1)[..., None]
    if min(height, width) == 1 or height * width <= 4:
        total = float(known.sum())
        mean = (values * known).sum((0, 1)) / total if total > _FULL else np.zeros(values.shape[2], np.float32)
        return (known * values + (1 - known) * mean).astype(np.float32)
    pad = [(0, height % 2), (0, width % 2), (0, 0)]
    weighted, weight = np.pad(values * known, pad), np.pad(known, pad)
    sums, total = _of_four(weighted), _of_four(weight)
    above = filled(sums / np.maximum(total, 1e-6), np.minimum(total, 1)[..., 0])
    larger = _doubled(above)[:height, :width]
    return (known * values + (1 - known) * larger).astype(np.float32)


def _of_four(cells: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 cells."""
    rows = cells[0::2] + cells[1::2]
    return rows[:, 0::2] + rows[:, 1::2]


def _doubled(cells: np.ndarray) -> np.ndarray:
    """Twice as high and wide, between neighbours linearly."""
    for axis in (0, 1):
        before = np.concatenate([np.take(cells, [0], axis), np.delete(cells, -1, axis)], axis)
        after = np.concatenate([np.delete(cells, 0, axis), np.take(cells, [-1], axis)], axis)
        pairs = np.stack([0.75 * cells + 0.25 * before, 0.75 * cells + 0.25 * after], axis + 1)
        cells = pairs.reshape(*cells.shape[:axis], 2 * cells.shape[axis], *cells.shape[axis + 1 :])
    return cells
