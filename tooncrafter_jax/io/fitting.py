"""Bringing pictures and sketches to the size that the model works at: the published rules, and what they cut off."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.frames import in_range
from tooncrafter_jax.io.sizes import WHITE, Colour, check_picture, check_size, checked_colour


class Cut(NamedTuple):
    """What the published rule, "crop", does to a picture of another shape; shares from 0 to 1.

    Attributes:
      height, width: share of the picture's rows and columns that are cut off.
      bars: share of the result that is black because the picture does not reach there.
    """

    height: float
    width: float
    bars: float


def fit_image(
    image: UInt8[np.ndarray, "H W 3"], height: int, width: int, fit: str = "crop", background: Colour = WHITE
) -> Float32[np.ndarray, "{height} {width} 3"]:
    """Brings a picture to the model's size and range.

    Args:
      image: uint8 (H, W, 3).
      height: of the result, in pixels.
      width: of the result, in pixels.
      fit: "crop" is what the published command line does: the short side becomes min(height, width) by bilinear
        resampling with antialiasing, then the centre is cut out, and where the picture is too small (narrower in shape
        than height x width) it is padded with black. "pad" keeps the whole picture: it is scaled until it just fits,
        and the rest is `background`.
      background: RGB, 0 to 255, for "pad".

    Returns:
      float32 (height, width, 3) in [-1, 1].

    Raises:
      UserError: `image` is not such an array, or `fit` is neither "crop" nor "pad".

    Source: spec sections 11.1 and 13; the size rules are torchvision's Resize and CenterCrop.
    """
    check_picture(image)
    fill = checked_colour(background) if fit == "pad" else (0, 0, 0)
    return in_range(_fitted(image, height, width, fit, fill))


def fit_cel(
    picture: UInt8[np.ndarray, "H W 4"], height: int, width: int, fit: str = "crop"
) -> UInt8[np.ndarray, "{height} {width} 4"]:
    """`fit_image` for a picture with opacity: what is added to it is transparent; one of this size stays as it is.

    Raises:
      UserError: the picture is too small, too large or too long, or `fit` is neither "crop" nor "pad".
    """
    check_size(*picture.shape[:2], name="a picture")
    return _fitted(picture, height, width, fit, (0, 0, 0, 0))


def _fitted(image: np.ndarray, height: int, width: int, fit: str, fill: tuple[int, ...]) -> np.ndarray:
    """A picture of any channels, at the size; Pillow multiplies colours by opacity where it resizes."""
    source = Image.fromarray(np.ascontiguousarray(image))
    if fit == "crop":
        resized_height, resized_width = short_side_size(*image.shape[:2], short_side=min(height, width))
        resized = np.asarray(source.resize((resized_width, resized_height), Image.Resampling.BILINEAR))
        rows, *pad_rows = kept_and_padded(resized_height, height)
        columns, *pad_columns = kept_and_padded(resized_width, width)
        return np.pad(resized[rows, columns], [pad_rows, pad_columns, (0, 0)])
    if fit == "pad":
        scale = min(height / image.shape[0], width / image.shape[1])
        inner_height = min(height, max(1, round(image.shape[0] * scale)))
        inner_width = min(width, max(1, round(image.shape[1] * scale)))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        fitted = np.empty((height, width, image.shape[2]), np.uint8)
        fitted[:] = fill
        resized = np.asarray(source.resize((inner_width, inner_height), Image.Resampling.BILINEAR))
        fitted[top : top + inner_height, left : left + inner_width] = resized
        return fitted
    raise UserError(f"fit is '{fit}', but only 'crop' and 'pad' exist: choose one of these")


def cut_of(source_height: int, source_width: int, height: int, width: int) -> Cut:
    """What `fit_image` with "crop" cuts off a picture, and how much of the result it leaves black.

    Args:
      source_height: of the picture, in pixels.
      source_width: of the picture, in pixels.
      height: of the result, in pixels.
      width: of the result, in pixels.
    """
    resized_height, resized_width = short_side_size(source_height, source_width, short_side=min(height, width))
    return Cut(
        height=max(0.0, 1 - height / resized_height),
        width=max(0.0, 1 - width / resized_width),
        bars=1 - min(1.0, resized_height / height) * min(1.0, resized_width / width),
    )


def resize_tensor_like_app(
    image: Float[np.ndarray, "H W C"], height: int, width: int, antialias: bool = True
) -> Float32[np.ndarray, "{height} {width} C"]:
    """Brings an array to the model's size as the published web application does.

    The short side becomes min(height, width), then the centre is cut out. Where the picture is too small it is padded
    with zeros, which for values in [-1, 1] is grey.

    Args:
      image: (H, W, C), any range.
      height: of the result, in pixels.
      width: of the result, in pixels.
      antialias: whether downscaling averages over all source pixels. torchvision did so for arrays from 0.17 on.

    Returns:
      float32 (height, width, C).

    Source: spec sections 11.2 and 13 (torchvision's Resize and CenterCrop on a float tensor).
    """
    source_height, source_width, channels = image.shape
    resized_height, resized_width = short_side_size(source_height, source_width, short_side=min(height, width))
    kept_rows, *pad_rows = kept_and_padded(resized_height, height)
    kept_columns, *pad_columns = kept_and_padded(resized_width, width)
    rows = bilinear_weights(source_height, resized_height, antialias, kept_rows)
    columns = bilinear_weights(source_width, resized_width, antialias, kept_columns)
    flat = np.ascontiguousarray(image, dtype=np.float32).reshape(source_height, source_width * channels)
    resized = np.matmul(columns, (rows @ flat).reshape(len(rows), source_width, channels))
    return np.pad(resized, [pad_rows, pad_columns, (0, 0)])


def bilinear_weights(
    source: int, target: int, antialias: bool, kept: slice = slice(None)
) -> Float32[np.ndarray, "kept {source}"]:
    """The matrix that resamples one axis with a triangle filter, pixel centres at half-integers.

    Args:
      source: length of the axis before.
      target: length of the axis after.
      antialias: whether the filter widens with the step when downscaling; without it two neighbours are interpolated.
      kept: which of the `target` rows are wanted.

    Returns:
      float32 (rows kept, source); each row sums to 1. Computed in float64.

    Source: bilinear resampling as PyTorch defines it for `align_corners=False`, and with antialiasing as Pillow does.
    """
    step = source / target
    centres = (np.arange(target)[kept] + 0.5) * step - 0.5
    reach = max(step, 1.0) if antialias else 1.0
    distance = np.abs(np.arange(source) - centres[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size (height, width) after scaling the short side to the given length; the long one is cut to an integer."""
    if width <= height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)


def kept_and_padded(length: int, wanted: int) -> tuple[slice, int, int]:
    """Which part of an axis the centre crop keeps, and what it pads before and after; the odd pixel goes at the end."""
    missing = wanted - length
    if missing > 0:
        return slice(0, length), missing // 2, (missing + 1) // 2
    first = round((length - wanted) / 2)  # halves are rounded to even, as by the published code
    return slice(first, first + wanted), 0, 0
