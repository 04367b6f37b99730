"""Forward warping equals a loop over pixels."""

from __future__ import annotations

import math

import numpy as np

from tooncrafter_jax.evaluation.rivals.splatting import sampled, splat
from tooncrafter_jax.weights.rule import unit_noise


def splat_by_loop(values: np.ndarray, importance: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, ...]:
    """The definition: each pixel's unit square, moved, covers parts of at most four pixels."""
    height, width, channels = values.shape
    sums, total, cover = np.zeros((height, width, channels)), np.zeros((height, width)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            to_x, to_y = x + float(flow[y, x, 0]), y + float(flow[y, x, 1])
            for row in range(height):
                for column in range(width):
                    overlap = max(0.0, 1 - abs(to_x - column)) * max(0.0, 1 - abs(to_y - row))
                    sums[row, column] += overlap * importance[y, x] * values[y, x]
                    total[row, column] += overlap * importance[y, x]
                    cover[row, column] += overlap
    return sums, total, cover


def test_splatting_equals_a_loop() -> None:
    """With pixels that meet, that leave the picture in every direction, and that land on whole places."""
    values = unit_noise("values", (6, 9, 2))
    importance = np.exp(unit_noise("importance", (6, 9)))
    flow = 3 * unit_noise("flow", (6, 9, 2))
    flow[2, 3] = (2, -1)
    flow[0, 0] = (-0.5, -0.5)
    for found, expected in zip(splat(values, importance, flow), splat_by_loop(values, importance, flow), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_is_lost_inside() -> None:
    flow = np.clip(unit_noise("flow", (20, 20, 2)), -1, 1)
    flow[[0, -1]], flow[:, [0, -1]] = 0, 0
    found = splat(np.ones((20, 20, 1), np.float32), np.full((20, 20), 2, np.float32), flow)
    assert math.isclose(found.cover.sum(), 400, rel_tol=1e-9)
    assert math.isclose(found.importance.sum(), 800, rel_tol=1e-9)


def test_sampling_undoes_a_shift() -> None:
    """Whole pixels exactly; half pixels as means; beyond the border from the border."""
    image = unit_noise("image", (5, 7, 3))
    moved = sampled(image, np.broadcast_to(np.asarray([2, -1], np.float32), (5, 7, 2)))
    np.testing.assert_array_equal(moved[1:, :5], image[:-1, 2:])
    np.testing.assert_array_equal(moved[0, 6], image[0, 6])
    between = sampled(image, np.broadcast_to(np.asarray([0.5, 0.5], np.float32), (5, 7, 2)))
    np.testing.assert_allclose(between[1, 2], image[1:3, 2:4].mean((0, 1)), atol=1e-6)
