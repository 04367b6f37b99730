"""What changes slowly over a picture, in cells of a few pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

CELL = 8
"""Pixels of a side."""
REACH = 1 / 6
"""Standard deviation of what is around a place, of the picture's shorter side."""


def cell_means(values: Float32[np.ndarray, "H W C"]) -> Float32[np.ndarray, "h w C"]:
    """Means of cells; those at the border may be of fewer pixels."""
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], CELL)
        counts = np.diff(np.append(starts, values.shape[axis]))
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / counts.reshape([-1 if axis == 0 else 1, -1 if axis == 1 else 1, 1])
    return values.astype(np.float32)


def cell_quantiles(values: Float32[np.ndarray, "H W"], share: float) -> Float32[np.ndarray, "h w"]:
    """A quantile of each cell; at the border, what there is of a cell is repeated."""
    height, width = values.shape
    wide = np.pad(values, [(0, -height % CELL), (0, -width % CELL)], mode="edge")
    rows, columns = wide.shape[0] // CELL, wide.shape[1] // CELL
    cells = wide.reshape(rows, CELL, columns, CELL).transpose(0, 2, 1, 3).reshape(rows, columns, CELL * CELL)
    rank = round(share * (CELL * CELL - 1))
    return np.partition(cells, rank, axis=-1)[..., rank].astype(np.float32)


def blurred(cells: Float32[np.ndarray, "h w C"]) -> Float32[np.ndarray, "h w C"]:
    """Cells blurred with a Gaussian of `REACH`, and nothing beyond the border."""
    sigma = REACH * min(cells.shape[:2])
    for axis in (0, 1):
        place = np.arange(cells.shape[axis])
        matrix = np.exp(-0.5 * ((place[:, None] - place) / max(sigma, 0.5)) ** 2)
        matrix = (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
        cells = np.moveaxis(np.tensordot(matrix, cells, (1, axis)), 0, axis)
    return cells


def enlarged(cells: Float32[np.ndarray, "h w C"], height: int, width: int) -> Float32[np.ndarray, "{height} {width} C"]:
    """Pixels from cells, linearly between the middles of cells."""
    for axis, length in ((0, height), (1, width)):
        place = np.clip((np.arange(length) + 0.5) / CELL - 0.5, 0, cells.shape[axis] - 1)
        before = np.floor(place).astype(int)
        after = np.minimum(before + 1, cells.shape[axis] - 1)
        part = (place - before).astype(np.float32).reshape([-1 if axis == 0 else 1, -1 if axis == 1 else 1, 1])
        cells = (1 - part) * np.take(cells, before, axis) + part * np.take(cells, after, axis)
    return cells.astype(np.float32)
