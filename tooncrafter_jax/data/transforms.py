"""From a clip to a training example: which frames, at what size, and which conditions are left out (spec section 8).

Every function is pure: what is random comes from a generator that the caller makes of the run's seed and the example's
number.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.io.fitting import kept_and_padded, short_side_size
from tooncrafter_jax.typing import Uint8Video

STRIDES = (1, 6)
"""Smallest and largest step between two frames of an example, each between as likely as another (spec section 8.4)."""
DROPOUT = 0.05
"""Probability p of the condition dropout (spec section 8.3)."""

_ROWS_AT_A_TIME = 32  # so that what is interpolated stays in the processor's cache
_UINT64 = 2**64


class Draw(enum.IntEnum):
    """What a random draw of an example is for; the draws are independent of each other."""

    WINDOW = 0
    DROPOUT = 1
    SKETCH = 2
    SEED = 3
    REPLACEMENT = 4
    CROP = 5


def generator(seed: int, example: int, draw: Draw) -> np.random.Generator:
    """The generator of one draw of one example: a function of its arguments alone.

    Args:
      seed: of the run, 0 to 2**64 - 1.
      example: number of the example in the run, counted over all epochs and processes.
      draw: what for.
    """
    # A counter-based generator: the example's number is the counter's upper half, so no two examples overlap.
    return np.random.Generator(np.random.Philox(key=seed + draw * _UINT64, counter=example * _UINT64**2))


# --------------------------------------------------------------------------------------------------------- which frames


@dataclass(frozen=True)
class Window:
    """The frames of a clip that make an example.

    Attributes:
      start: index of the first.
      stride: step from one to the next.
      length: how many.
    """

    start: int
    stride: int
    length: int

    @property
    def frames(self) -> range:
        """Their indices in the clip."""
        return range(self.start, self.start + self.length * self.stride, self.stride)


def choose_window(
    rng: np.random.Generator,
    clip_length: int,
    length: int = 16,
    strides: tuple[int, int] = STRIDES,
    start_multiple: int = 1,
) -> Window:
    """Draws the frames of an example (spec section 8.4).

    The stride is uniform. Where the clip is too short for it, it becomes the largest one that cuts the clip into
    `length` parts, clip_length // length. The start is uniform over the places where the window fits.

    Differs from the published code: a stride that was reduced for a short clip has no effect on another clip.

    Args:
      rng: where the numbers come from.
      clip_length: frames of the clip, at least `length`.
      length: frames of the example.
      strides: smallest and largest stride.
      start_multiple: the start is rounded down to a multiple of this; not in the published code, for which it is 1.

    Raises:
      ValueError: if the clip has fewer frames than the example.
    """
    if clip_length < length:
        raise ValueError(f"a clip of {clip_length} frames has no window of {length}")
    stride = int(rng.integers(strides[0], strides[1], endpoint=True))
    if (length - 1) * stride + 1 > clip_length:
        stride = clip_length // length
    start = int(rng.integers(0, clip_length - (length - 1) * stride))
    return Window(start - start % start_multiple, stride, length)


def frame_rate(source_fps: float, stride: int) -> int:
    """The integer frame rate that the denoiser is conditioned on: floor(source fps / stride) (spec section 8.3)."""
    return int(source_fps // stride)


# ----------------------------------------------------------------------------------------------------- which conditions


def choose_dropout(rng: np.random.Generator, probability: float = DROPOUT) -> tuple[bool, bool]:
    """Draws which conditions of an example are left out (spec section 8.3).

    One uniform u decides: the text is dropped if u < 2p, the image if p <= u < 3p. So text alone, both, and image alone
    are each dropped with probability p.

    Args:
      rng: where the number comes from.
      probability: p, at most 1/3.

    Returns:
      Whether the text becomes the empty prompt, and whether the picture given to CLIP becomes all zero.
    """
    u = rng.random()
    return u < 2 * probability, probability <= u < 3 * probability


# ------------------------------------------------------------------------------------------------------------ what size


def resize_and_crop(
    pictures: Uint8Video, height: int, width: int, antialias: bool = False
) -> UInt8[np.ndarray, "T {height} {width} 3"]:
    """Brings frames to a size: the short side becomes min(height, width), bilinear, then the centre is cut out.

    Where the result is too small (narrower in shape than height x width), it is padded with black.

    The published loader resizes float tensors with a library that did not antialias them, so the default here does not
    either: a model that goes on from published weights sees in training what those saw. Pictures much larger than the
    result then alias, thin lines above all; `antialias` gives what the published command line does with a user's
    pictures. Differs from the published code: the result is rounded to 8 bits, by which it changes by 1/510 of the
    range at most.

    Args:
      pictures: (T, H, W, 3), 0 to 255.
      height: of the result, in pixels.
      width: of the result, in pixels.
      antialias: whether downscaling averages over all source pixels.

    Returns:
      (T, height, width, 3), 0 to 255.

    Source: spec section 8.4; the size rules are torchvision's Resize and CenterCrop.
    """
    source_height, source_width = pictures.shape[1:3]
    resized_height, resized_width = short_side_size(source_height, source_width, short_side=min(height, width))
    kept_rows, *pad_rows = kept_and_padded(resized_height, height)
    kept_columns, *pad_columns = kept_and_padded(resized_width, width)
    result = np.zeros((len(pictures), height, width, 3), np.uint8)
    inner = result[:, pad_rows[0] : height - pad_rows[1] or None, pad_columns[0] : width - pad_columns[1] or None]
    shrinks = resized_height < source_height or resized_width < source_width
    if (resized_height, resized_width) == (source_height, source_width):
        inner[:] = pictures[:, kept_rows, kept_columns]
    elif antialias and shrinks:
        for picture, into in zip(pictures, inner, strict=True):
            resized = Image.fromarray(picture).resize((resized_width, resized_height), Image.Resampling.BILINEAR)
            into[:] = np.asarray(resized)[kept_rows, kept_columns]
    else:
        rows = _taps(source_height, resized_height, kept_rows.start, kept_rows.stop)
        columns = _taps(source_width, resized_width, kept_columns.start, kept_columns.stop)
        for picture, into in zip(pictures, inner, strict=True):
            _interpolate(picture, rows, columns, into)
    return result


def random_crop(
    rng: np.random.Generator, pictures: Uint8Video, height: int, width: int
) -> UInt8[np.ndarray, "T {height} {width} 3"]:
    """Cuts a window of height x width out of frames (T, H, W, 3), at the same place in all; every place is as likely.

    Not in the published loader. It lets layers that see no more than a neighbourhood learn on frames of full resolution
    at the cost of small ones.

    Args:
      rng: where the place comes from.
      pictures: frames at least as large as the window.
      height: of the window, in pixels.
      width: of the window, in pixels.

    Raises:
      ValueError: the frames are smaller than the window.
    """
    top = int(rng.integers(0, pictures.shape[1] - height, endpoint=True))
    left = int(rng.integers(0, pictures.shape[2] - width, endpoint=True))
    return pictures[:, top : top + height, left : left + width]


@dataclass(frozen=True)
class _Taps:
    """For each pixel of a resized axis, the two source pixels between which it lies, and the share of the second."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray


@lru_cache(maxsize=256)
def _taps(source: int, target: int, first: int, stop: int) -> _Taps:
    centres = np.maximum((np.arange(first, stop) + 0.5) * (source / target) - 0.5, 0)  # half-integer pixel centres
    low = np.minimum(centres.astype(np.intp), source - 1)
    return _Taps(low, np.minimum(low + 1, source - 1), (centres - low).astype(np.float32))


def _interpolate(picture: np.ndarray, rows: _Taps, columns: _Taps, into: np.ndarray) -> None:
    """Bilinear interpolation of uint8 (H, W, 3) without antialiasing, written to uint8 (H', W', 3)."""
    first, stop = columns.low[0], columns.high[-1] + 1
    flat = picture[:, first:stop].reshape(len(picture), -1)
    low, high = (((taps - first)[:, None] * 3 + np.arange(3)).ravel() for taps in (columns.low, columns.high))
    share = np.repeat(columns.share, 3)
    for start in range(0, len(rows.low), _ROWS_AT_A_TIME):
        block = slice(start, start + _ROWS_AT_A_TIME)
        above = flat[rows.low[block]].astype(np.float32)
        difference = flat[rows.high[block]] - above
        difference *= rows.share[block, None]
        above += difference
        left, right = above.take(low, axis=1), above.take(high, axis=1)
        right -= left
        right *= share
        left += right
        left += 0.5  # the conversion to integers cuts
        into[block] = left.reshape(-1, len(columns.low), 3)
