"""Colours that keep to the way from the first key frame to the last.

What a model draws drifts: a tint comes up and goes, slowly over the picture and over time. The keys say what should be
there. With k_0 and k_1 the keys in CIE L*a*b* and f_t frame t, the correction is a low-frequency part of

    r_t = (1 - s) k_0 + s k_1 - f_t,   s = t / (T - 1)

over those pixels that tell of a drift: whose keys differ as most of the picture does, so that nothing moves there from
one to the other, and whose r_t is near that of their surroundings, so that nothing passes by. What moves and what is
drawn in lines has no say, and gets the correction of what lies around it. A frame that is a key stays as it is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.io.cells import blurred, cell_means, enlarged
from tooncrafter_jax.io.cielab import lab_of_srgb, srgb_of_lab
from tooncrafter_jax.io.frames import Frames, each_made

STILL = 6.0
"""Difference of the keys in L*a*b*, beyond that of most of the picture, at which something moves there."""
SAME = 6.0
"""Difference of a pixel's r_t from that of its surroundings at which something passes by."""
_ROUNDS = (3.0, 2.0, 1.0)
"""Times `SAME`: from no correction on, the surroundings are found by taking ever less for a drift."""
_OF_WHOLE = 0.03
"""Share of telling pixels around, at which a place and the whole picture have equal say."""
_NOTHING = 1e-3
"""Correction in L*a*b* that leaves every byte as it is."""
_OF_NOTHING = 0.01
"""Share of telling pixels in the picture, at which they and no correction have equal say."""


def locked_colours(frames: Frames, first: UInt8[np.ndarray, "H W 3"], last: UInt8[np.ndarray, "H W 3"]) -> Frames:
    """A clip without the slow drift of its colours.

    Args:
      frames: uint8 (T, H, W, 3), those of the keys among them; at least 2.
      first: the first key as it was given.
      last: the last key.
    """
    keys = lab_of_srgb(np.stack([first, last]))
    moved = keys[0] - keys[1]
    moved = np.sqrt(((moved - np.median(moved, axis=(0, 1))) ** 2).sum(-1))
    still = np.exp(-((moved / STILL) ** 2)).astype(np.float32)
    result = np.empty_like(frames)

    def locked(index: int) -> np.ndarray:
        lab = lab_of_srgb(frames[index])
        drift = _drift(lab, keys, index / (len(frames) - 1), still)
        changed = srgb_of_lab(lab + drift)
        return np.where(np.abs(drift).max(-1, keepdims=True) < _NOTHING, frames[index], changed)

    for index, frame in each_made(locked, range(len(frames))):
        result[index] = frame
    return result


def _drift(lab: np.ndarray, keys: np.ndarray, share: float, still: np.ndarray) -> Float32[np.ndarray, "H W 3"]:
    """What a frame at this share of the way lacks, in L*a*b*."""
    r = (1 - share) * keys[0] + share * keys[1] - lab
    around = np.zeros_like(r)
    for wider in _ROUNDS:
        weight = still / (1 + ((r - around) ** 2).sum(-1) / (wider * SAME) ** 2) ** 2
        sums = cell_means(weight[..., None] * r), cell_means(weight[..., None])
        around = enlarged(_around(*sums), *lab.shape[:2])
    return around


def _around(r: np.ndarray, told: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    """The drift at each cell, from what is told around it, and else in the whole picture."""
    whole = r.mean((0, 1)) / (told.mean() + _OF_NOTHING)
    near, weight = blurred(r), blurred(told)
    return ((near + _OF_WHOLE * whole) / (weight + _OF_WHOLE)).astype(np.float32)
