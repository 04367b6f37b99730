"""Cells have the means and quantiles of their pixels, and pixels what lies between the middles of cells."""

from __future__ import annotations

import numpy as np

from tooncrafter_jax.io.cells import CELL, blurred, cell_means, cell_quantiles, enlarged


def test_means_and_quantiles_of_whole_cells():
    values = np.arange(CELL * CELL, dtype=np.float32).reshape(CELL, CELL)
    assert cell_quantiles(values, 0.75).tolist() == [[47]]  # of 0 to 63
    assert cell_quantiles(values, 1.0).tolist() == [[63]]
    assert cell_means(values[..., None]).tolist() == [[[31.5]]]


def test_cells_at_the_border_are_of_what_there_is():
    values = np.zeros((CELL + 3, CELL + 1), np.float32)
    values[CELL:], values[:, CELL:] = 6, 9
    means = cell_means(values[..., None])[..., 0]
    np.testing.assert_allclose(means, [[0, 9], [6, 9]])
    np.testing.assert_allclose(cell_quantiles(values, 0.5), [[0, 9], [6, 9]])


def test_what_is_the_same_everywhere_stays_so():
    cells = np.full((3, 5, 2), 7, np.float32)
    np.testing.assert_allclose(blurred(cells), 7, rtol=1e-6)
    np.testing.assert_allclose(enlarged(cells, 20, 39), 7, rtol=1e-6)


def test_pixels_lie_between_the_middles_of_cells():
    cells = np.array([[[0.0], [8.0]]], np.float32)
    row = enlarged(cells, CELL, 2 * CELL)[0, :, 0]
    np.testing.assert_allclose(row[3:13], [0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8], atol=1e-5)
    assert (row[:4] == 0).all() and (row[12:] == 8).all()
