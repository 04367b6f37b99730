"""Frames between two pictures by blending alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8


def cross_fade(
    first: UInt8[np.ndarray, "B H W 3"], last: UInt8[np.ndarray, "B H W 3"], frames: int
) -> UInt8[np.ndarray, "B T H W 3"]:
    """Blends from `first` to `last` in so many frames, at least 2.

    Values are blended as they are stored, in gamma-encoded sRGB, as video editors fade, and rounded, halves upwards.
    """
    steps = frames - 1
    index = np.arange(frames, dtype=np.uint32)[:, None, None, None]
    wide_first, wide_last = first[:, None].astype(np.uint32), last[:, None].astype(np.uint32)
    return (((steps - index) * wide_first + index * wide_last + steps // 2) // steps).astype(np.uint8)
