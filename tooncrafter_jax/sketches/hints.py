"""From drawn sketches to what the sketch encoder receives."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8

from tooncrafter_jax.io import sketch_to_hint


def hints_of_sketches(
    sketches: UInt8[np.ndarray, "T H W 1"] | Float[np.ndarray, "T H W 1"] | Float[Array, "T H W 1"],
    sketched: Bool[np.ndarray, "T"],
) -> Float32[np.ndarray, "T H W 1"]:
    """The hints of one training clip, by the same conversion (`sketch_to_hint`) that a user's sketches go through.

    Args:
      sketches: (T, H, W, 1), dark lines on light paper; floats in [0, 1], as extractors draw them, are rounded to 8
        bits like a user's files.
      sketched: (T,), which frames are guided, e.g. of `choose_sketched_frames`.

    Returns:
      float32 (T, H, W, 1) in [0, 1], bright lines on black; a frame that is not guided gets the empty image, which is
      all zero (spec section 7).
    """
    drawn = np.asarray(sketches)
    if drawn.dtype != np.uint8:
        drawn = np.round(np.clip(drawn.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    hints = np.zeros(drawn.shape, np.float32)
    for frame in np.flatnonzero(sketched):
        hints[frame] = sketch_to_hint(drawn[frame, ..., 0], *drawn.shape[1:3])
    return hints
