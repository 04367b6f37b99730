"""Pixels as the networks take them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from jaxtyping import Array, Float, UInt8

_AnyArray = TypeVar("_AnyArray", np.ndarray, Array)


def to_pixels(video: UInt8[_AnyArray, "*shape"]) -> Float[_AnyArray, "*shape"]:
    """uint8 frames as the networks take them, float32 in [-1, 1]: x / 255 * 2 - 1.

    Batches hold uint8, a quarter of the bytes in the host's memory and on the way to the device; call this on the
    device, inside the jitted step.
    """
    return video.astype(np.float32) / 127.5 - 1
