"""How thick an extractor's lines are."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tooncrafter_jax.typing import HostArray, Images

PAPER, SHAPE = 0.8, -0.6
"""Grey of the measured picture's background and of the disc on it, in [-1, 1]."""
RAYS = 64
STEP = 0.125
"""Distance between samples along a ray, in pixels."""
FAINTEST_INK = 0.05
"""Ink below this on its darkest spot is no line."""


def measure_line_thickness(
    extract: Callable[[Images], Float[Array, "B H W 1"]], height: int = 256, width: int = 256
) -> float:
    """The thickness of the line that an extractor draws along a sharp edge between two flat colours.

    A picture of a dark disc on light ground is drawn. Along rays that cross the disc's edge, the width over which the
    ink (1 - sketch) is at least half of its darkest value on that ray is taken.

    Args:
      extract: pictures (B, H, W, 3) in [-1, 1] to sketches (B, H, W, 1) in [0, 1], dark lines on light paper.
      height: of the picture, in pixels; an extractor that resizes draws thinner or thicker lines at another size.
      width: of the picture, in pixels.

    Returns:
      The median of all rays, in pixels of the picture, resolved to 1/8 pixel; not a number if a ray meets no line.
      Lines along fainter edges may be thinner.
    """
    radius = 0.3 * min(height, width)
    row, column = (height - 1) / 2, (width - 1) / 2
    distance = np.hypot(*np.meshgrid(np.arange(height) - row, np.arange(width) - column, indexing="ij"))
    inside = np.clip(radius - distance + 0.5, 0, 1)[..., None]  # share of a pixel that the disc covers
    picture = np.repeat(PAPER + (SHAPE - PAPER) * inside, 3, axis=-1)
    ink = 1 - np.asarray(extract(jnp.asarray(picture[None], jnp.float32)), np.float32)[0, ..., 0]

    angles = 2 * np.pi * (np.arange(RAYS) + 0.5) / RAYS
    reach = np.arange(0.5 * radius, 1.5 * radius, STEP)
    profiles = _sample(ink, row + np.outer(np.sin(angles), reach), column + np.outer(np.cos(angles), reach))
    peaks = profiles.max(axis=1)
    widths = (profiles >= peaks[:, None] / 2).sum(axis=1) * STEP
    return float(np.median(np.where(peaks >= FAINTEST_INK, widths, nan)))


def _sample(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> HostArray:
    """Bilinear interpolation of (H, W) at positions inside it."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    upper = values[top, left] * (1 - right) + values[top, left + 1] * right
    lower = values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down
