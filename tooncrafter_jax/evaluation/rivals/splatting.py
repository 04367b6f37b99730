"""Forward warping: pixels thrown to where they move, added up by importance (Niklaus and Liu, "Softmax Splatting", CVPR
2020).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32


class Splat(NamedTuple):
    """What arrives at each pixel.

    Attributes:
      sums: values times importance.
      importance: the importance of all that arrives.
      cover: how many pixels arrive, 0 in a hole; each counts with the share of its area that falls on the pixel.
    """

    sums: Float[np.ndarray, "H W C"]
    importance: Float[np.ndarray, "H W"]
    cover: Float[np.ndarray, "H W"]


def splat(
    values: Float32[np.ndarray, "H W C"], importance: Float32[np.ndarray, "H W"], flow: Float32[np.ndarray, "H W 2"]
) -> Splat:
    """Throws each pixel to where its flow ends, onto the four pixels around that place; what leaves the picture is
    lost.

    Args:
      values: (H, W, C) what is thrown.
      importance: (H, W), positive; where several pixels arrive at one place, their mean by importance is seen.
      flow: (H, W, 2), pixels to the right and down.

    Returns:
      Sums in float64, added in the order of the pixels: the same on every machine.
    """
    height, width, channels = values.shape
    x = np.arange(width) + flow[..., 0].astype(np.float64)
    y = np.arange(height)[:, None] + flow[..., 1].astype(np.float64)
    left, top = np.floor(x), np.floor(y)
    places, shares = [], []
    for row in (top, top + 1):
        for column in (left, left + 1):
            share = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            places.append(np.where(inside, row * width + column, 0).astype(np.int64))
            shares.append(np.where(inside, share, 0))
    place, share = np.stack(places).reshape(-1), np.stack(shares)
    weighted = share * importance

    def added(what: Float[np.ndarray, "4 H W"]) -> Float[np.ndarray, "H W"]:
        return np.bincount(place, what.reshape(-1), height * width).reshape(height, width)

    sums = np.stack([added(weighted * values[..., channel]) for channel in range(channels)], axis=-1)
    return Splat(sums, added(weighted), added(share))


def sampled(image: Float32[np.ndarray, "H W C"], flow: Float32[np.ndarray, "H W 2"]) -> Float32[np.ndarray, "H W C"]:
    """Each pixel taken from where its flow points to, bilinearly; beyond the border from the border.

    Args:
      image: (H, W, C).
      flow: (H, W, 2), pixels to the right and down.
    """
    height, width = image.shape[:2]
    x = np.clip(np.arange(width, dtype=np.float32) + flow[..., 0], 0, width - 1)
    y = np.clip(np.arange(height, dtype=np.float32)[:, None] + flow[..., 1], 0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    to_right, to_bottom = ((x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32))
    upper = (1 - to_right) * image[top, left] + to_right * image[top, right]
    lower = (1 - to_right) * image[bottom, left] + to_right * image[bottom, right]
    return (1 - to_bottom) * upper + to_bottom * lower
