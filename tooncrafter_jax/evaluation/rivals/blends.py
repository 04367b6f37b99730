"""The simplest rivals, which know nothing of motion: what a method must beat to be worth anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest, end_frames
from tooncrafter_jax.io.blending import cross_fade
from tooncrafter_jax.typing import JsonObject


class Still:
    """The first picture held for the whole clip.

    As is customary for this floor ("copy the last frame that is known"), it does not look at the other end: frame T-1
    is the first picture too. It has perfect sharpness and no motion at all.
    """

    name, title = "still", "first frame held"

    def require(self, ids: Sequence[str]) -> None:
        """Nothing is needed."""

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """The clips; see `InBetweener`."""
        first, _, frames = end_frames(requests)
        return np.repeat(first[:, None], frames, axis=1)

    def settings(self) -> JsonObject:
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

    def settings(self) -> JsonObject:
        """None."""
        return {}
