"""Pairs of pictures that the packaged RIFE was run on; made from formulas, so they need not be stored."""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH = 128, 192
TIMES = (0.2, 0.5, 14 / 15)
"""Near the first picture, in the middle, and the last one that is drawn of 16."""


def ground(shift: float, coarseness: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Waves of colour moved to the left, (height, width, 3) in [0, 1]."""
    y, x = np.mgrid[0:height, 0:width] / coarseness
    x = x + shift / coarseness
    waves = [np.sin(y * (1 + 0.3 * c) + np.cos(x * (1.7 - 0.4 * c)) + 2 * np.sin(0.6 * x) + c) for c in range(3)]
    return np.stack(waves, axis=-1) / 2 + 0.5


def disc(position: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A striped disc on waves of colour; at 1 it is 40 pixels right of where it is at 0, and lower."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = x - 60 - 40 * position, y - 55 - 12 * position
    cover = 1 / (1 + np.exp(np.hypot(x, y) - 28))[..., None]
    stripes = np.stack([np.sin(x / 5), np.cos(y / 4), np.sin((x + y) / 7)], axis=-1) / 2 + 0.5
    return (1 - cover) * ground(0, 13, height, width) + cover * stripes


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> first and last, (HEIGHT, WIDTH, 3) float32 in [0, 1]; "far" moves too much for the first block's
    scale.
    """
    found = {
        "disc": (disc(0), disc(1)),
        "pan": (ground(0, 16), ground(10, 16)),
        "far": (ground(0, 40), ground(110, 40)),
    }
    return {name: (a.astype(np.float32), b.astype(np.float32)) for name, (a, b) in found.items()}
