"""The simplest rivals, which know nothing of motion: what a method must beat to be worth anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.evaluation.baselines.in_betweener import ClipRequest, end_frames


def cross_fade(
    first: UInt8[np.ndarray, "B H W 3"], last: UInt8[np.ndarray, "B H W 3"], frames: int
) -> UInt8[np.ndarray, "B T H W 3"]:
    """Blends from `first` to `last` in so many frames, at least 2; see `CrossFade`."""
    steps = frames - 1
    index = np.arange(frames, dtype=np.uint32)[:, None, None, None]
    wide_first, wide_last = first[:, None].astype(np.uint32), last[:, None].astype(np.uint32)
    return (((steps - index) * wide_first + index * wide_last + steps // 2) // steps).astype(np.uint8)


class Still:
    """The first picture held for the whole clip.

    As is customary for this floor ("copy the last frame that is known"), it does not look at the other end: frame T-1 is the first
    picture too. It has perfect sharpness and no motion at all.
    """

    name, title = "still", "first frame held"

    def require(self, ids: Sequence[str]) -> None:
        """Nothing is needed."""

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """The clips; see `InBetweener`."""
        first, _, frames = end_frames(requests)
        return np.repeat(first[:, None], frames, axis=1)

    def settings(self) -> Mapping[str, Any]:
        """None."""
        return {}


class CrossFade:
    """A linear blend of the 8-bit RGB values as they are stored, that is in gamma-encoded sRGB, as video editors fade.

    Values are rounded, halves upwards. Frames 0 and T-1 are the pictures themselves.
    """

    name, title = "cross_fade", "cross-fade"

    def require(self, ids: Sequence[str]) -> None:
        """Nothing is needed."""

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """The clips; see `InBetweener`."""
        return cross_fade(*end_frames(requests))

    def settings(self) -> Mapping[str, Any]:
        """None."""
        return {}
