"""Generated frames on their way to a file: what they must be, and how long each is shown."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from tooncrafter_jax.errors import UserError

PUBLISHED_FPS = 8
"""Playback rate of the published commands (spec section 11.1); not the rate that the denoiser is conditioned on."""

Path = str | os.PathLike[str]
Frames = UInt8[np.ndarray, "T H W 3"]
Cels = UInt8[np.ndarray, "T H W 4"]
"""Frames with opacity in the fourth channel, by which colours are not multiplied ("straight" alpha)."""
AnyFrames = UInt8[np.ndarray, "T H W C"]
"""Frames, or cels where a format holds those."""
Rate = int | float | Fraction


def to_uint8(frames: Float[Array, "*shape"] | Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Pixel values in [-1, 1] as bytes.

    Args:
      frames: any shape and float dtype, numpy or JAX; values beyond [-1, 1] are clamped.

    Returns:
      uint8 of the same shape: (x + 1) / 2 * 255, truncated, not rounded, as by the published code (spec section 11.1).

    Raises:
      UserError: there are NaN among the values.
    """
    values = np.asarray(frames).astype(np.float32)
    if np.isnan(values).any():
        raise UserError("the frames contain NaN: check the weights, or compute in float32 instead of a narrower dtype")
    return ((np.clip(values, -1, 1) + 1) / 2 * 255).astype(np.uint8)


def in_range(pictures: UInt8[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Bytes as pixel values in [-1, 1], as networks see pictures."""
    return pictures.astype(np.float32) / 255 * 2 - 1


def as_bytes(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Pixel values in [-1, 1] as bytes, rounded: what `in_range` made of bytes comes back as it was."""
    return np.rint((values + 1) * 127.5).clip(0, 255).astype(np.uint8)


def check_frames(frames: object, has_alpha: bool = False) -> None:
    """Finds out whether something is a clip.

    Args:
      frames: what should be one.
      has_alpha: whether it may have opacity.

    Raises:
      UserError: it is no uint8 (T, H, W, 3) with at least one frame, nor, if it may be, (T, H, W, 4).
    """
    if not isinstance(frames, np.ndarray):
        raise UserError(f"frames must be a numpy array, not {type(frames).__name__}: convert them with to_uint8")
    is_clip = frames.dtype == np.uint8 and frames.ndim == 4 and 0 not in frames.shape
    if is_clip and frames.shape[3] == 4 and not has_alpha:
        raise UserError(
            f"frames must be uint8 (frames, height, width, 3) here, not {frames.shape}: this format holds no opacity, "
            "so put them over a colour, or write png, apng, webp, webm or mov"
        )
    if not is_clip or frames.shape[3] not in ((3, 4) if has_alpha else (3,)):
        raise UserError(
            f"frames must be uint8 (frames, height, width, 3){' or 4' if has_alpha else ''} and at least one, not "
            f"{frames.dtype} {frames.shape}: convert them with to_uint8"
        )


def each_made(make: Callable[[int], np.ndarray], indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Makes frames in threads, as numpy lets them run at once; in order, each with its index."""
    with ThreadPoolExecutor(max(1, min(len(indices), os.cpu_count() or 1))) as pool:
        yield from zip(indices, pool.map(make, indices), strict=True)


def check_playback_rate(fps: Rate) -> Fraction:
    """The playback rate that a file gets.

    Raises:
      UserError: no file can have this rate; a format may be stricter.
    """
    if not (math.isfinite(fps) and 0.01 <= fps <= 1000):
        raise UserError(f"the playback fps is {fps}: choose a number from 0.01 to 1000")
    return Fraction(fps).limit_denominator(1001)


def durations(count: int, rate: Fraction, ticks_per_second: int) -> list[int]:
    """How many ticks each frame lasts; rounding errors do not add up."""
    ends = [round(index * ticks_per_second / rate) for index in range(count + 1)]
    return [after - before for before, after in itertools.pairwise(ends)]
