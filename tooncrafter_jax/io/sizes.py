"""What every picture must be: its size, its colours, its kind of array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tooncrafter_jax.errors import UserError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
MIN_SIDE = 8
MAX_PIXELS = 100_000_000
MAX_ASPECT = 32
"""Resizing by the short side multiplies the long one: a longer strip than this would not fit in memory."""


def check_size(height: int, width: int, name: str) -> None:
    """Raises UserError for a picture that is too small, too large or too long; `name` is what messages call it."""
    if min(height, width) < MIN_SIDE:
        raise UserError(f"{name} is {width} x {height} pixels: use a picture with at least {MIN_SIDE} on each side")
    if height * width > MAX_PIXELS:
        raise UserError(too_many_pixels(name, f" ({width} x {height})"))
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise UserError(
            f"{name} is a strip of {width} x {height} pixels: crop it until one side is at most {MAX_ASPECT} times the "
            "other"
        )


def check_picture(image: object, may_be_grey: bool = False) -> None:
    """Raises UserError unless this is a uint8 array of one picture and of a size that `check_size` accepts."""
    wanted = "uint8 (height, width, 3)" + (" or (height, width)" if may_be_grey else "")
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"a picture must be a numpy array, {wanted}, not {type(image).__name__}: read it with read_image"
        )
    has_shape = (image.ndim == 3 and image.shape[2] == 3) or (may_be_grey and image.ndim == 2)
    if image.dtype != np.uint8 or not has_shape:
        raise UserError(f"a picture must be {wanted}, not {image.dtype} {image.shape}: convert it, or use read_image")
    check_size(*image.shape[:2], name="a picture")


def checked_colour(colour: Sequence[int]) -> Colour:
    """A colour as Python's integers.

    Raises:
      UserError: it is not three whole numbers from 0 to 255.
    """
    numbers = tuple(colour)
    if len(numbers) != 3 or not all(isinstance(n, int | np.integer) and 0 <= n <= 255 for n in numbers):
        raise UserError(f"the background colour is {colour}: give red, green and blue as whole numbers from 0 to 255")
    return (int(numbers[0]), int(numbers[1]), int(numbers[2]))


def too_many_pixels(name: str, size: str = "") -> str:
    """The sentence that refuses a picture for its number of pixels."""
    return f"{name} has more than {MAX_PIXELS // 1_000_000} megapixels{size}: scale it down first"
