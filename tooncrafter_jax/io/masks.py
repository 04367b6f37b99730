"""Masks of pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool


def grown(mask: Bool[np.ndarray, "H W"], pixels: int) -> Bool[np.ndarray, "H W"]:
    """The mask and what is within so many pixels of it, by rows and columns."""
    for axis in (0, 1):
        result = mask.copy()
        for shift in range(1, min(pixels, mask.shape[axis] - 1) + 1):
            before, after = [slice(None)] * 2, [slice(None)] * 2
            before[axis], after[axis] = slice(None, -shift), slice(shift, None)
            result[tuple(after)] |= mask[tuple(before)]
            result[tuple(before)] |= mask[tuple(after)]
        mask = result
    return mask
