"""Reading drawings, and bringing them and their sketches to the size that the model works at.

Nothing here needs JAX. Pictures are numpy arrays with channels last; what a user can get wrong is a `UserError`.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from tooncrafter_jax.errors import UserError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
SUPPORTED_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Extensions that pictures are looked for under in a folder; a named file is judged by its contents."""
MIN_SIDE = 8
MAX_PIXELS = 100_000_000
MAX_ASPECT = 32
"""Resizing by the short side multiplies the long one: a longer strip than this would not fit in memory."""

_DECODERS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of the EXIF orientation tag (Exif 2.32, section 4.6.4)."""


def read_image(path: str | os.PathLike[str], background: Colour = WHITE) -> UInt8[np.ndarray, "H W 3"]:
    """Reads one picture, upright and opaque.

    The EXIF orientation is applied. Palette, grey, CMYK and 16-bit pictures become 8-bit RGB; 16-bit values are scaled,
    not clipped. Transparent pixels show `background`. Of an animation the first frame is read. Colour profiles are
    ignored.

    Args:
      path: a picture in one of the formats of `SUPPORTED_EXTENSIONS`, whatever its name.
      background: RGB, 0 to 255.

    Returns:
      uint8 (H, W, 3).

    Raises:
      UserError: the file is missing, a directory, empty, not a picture, damaged, below `MIN_SIDE` pixels on a side,
        above `MAX_PIXELS` pixels (found from its header, before decoding) or longer than `MAX_ASPECT` times its width.
    """
    path = os.fspath(path)
    background = _checked_colour(background)
    _check_is_file_with_contents(path)
    with warnings.catch_warnings():
        # Damaged metadata is no concern of the user's, and Pillow warns of large pictures below MAX_PIXELS already.
        warnings.simplefilter("ignore")
        with _open(path) as image:
            return rgb_of_image(image, background, f"'{path}'")


def rgb_of_image(
    image: Image.Image, background: Colour = WHITE, name: str = "the picture"
) -> UInt8[np.ndarray, "H W 3"]:
    """A Pillow image as `read_image` reads a file: upright, opaque, 8 bits.

    Args:
      image: of any mode; need not be loaded yet.
      background: RGB, 0 to 255, shown by transparent pixels.
      name: of the image, for messages.

    Returns:
      uint8 (H, W, 3).

    Raises:
      UserError: the image is damaged, too small, too large, too long, or of a mode that stands for no picture.
    """
    _check_size(image.height, image.width, name)
    try:
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        opaque = _opaque_rgb(image, background, name)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise UserError(_damaged(name)) from error
    return np.array(opaque if upright is None else opaque.transpose(upright))


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
    _check_picture(image)
    source = Image.fromarray(np.ascontiguousarray(image))
    if fit == "crop":
        resized_height, resized_width = _short_side_size(*image.shape[:2], short_side=min(height, width))
        resized = np.asarray(source.resize((resized_width, resized_height), Image.Resampling.BILINEAR))
        rows, *pad_rows = _centre(resized_height, height)
        columns, *pad_columns = _centre(resized_width, width)
        fitted = np.pad(resized[rows, columns], [pad_rows, pad_columns, (0, 0)])
    elif fit == "pad":
        scale = min(height / image.shape[0], width / image.shape[1])
        inner_height = min(height, max(1, round(image.shape[0] * scale)))
        inner_width = min(width, max(1, round(image.shape[1] * scale)))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        fitted = np.empty((height, width, 3), np.uint8)
        fitted[:] = _checked_colour(background)
        resized = np.asarray(source.resize((inner_width, inner_height), Image.Resampling.BILINEAR))
        fitted[top : top + inner_height, left : left + inner_width] = resized
    else:
        raise UserError(f"fit is '{fit}', but only 'crop' and 'pad' exist: choose one of these")
    return fitted.astype(np.float32) / 255 * 2 - 1


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
    resized_height, resized_width = _short_side_size(source_height, source_width, short_side=min(height, width))
    kept_rows, *pad_rows = _centre(resized_height, height)
    kept_columns, *pad_columns = _centre(resized_width, width)
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


def grey_of_rgb(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """The luma of a picture, in the 15-bit fixed-point arithmetic of OpenCV's RGB-to-grey conversion.

    Args:
      image: uint8 (H, W, 3), RGB.

    Returns:
      uint8 (H, W): (9798 R + 19235 G + 3735 B) / 2**15, rounded.
    """
    red, green, blue = (image[..., channel].astype(np.uint32) for channel in range(3))
    return ((9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15).astype(np.uint8)


def sketch_to_hint(
    sketch: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W"], height: int, width: int, dark_lines: bool = True
) -> Float32[np.ndarray, "{height} {width} 1"]:
    """Turns a drawn sketch into what the sketch encoder receives.

    Args:
      sketch: uint8 (H, W, 3) RGB, or (H, W) grey.
      height: of the result, in pixels.
      width: of the result, in pixels.
      dark_lines: whether lines are darker than the paper; then they are inverted, as the encoder wants bright ones.

    Returns:
      float32 (height, width, 1) in [0, 1]; blank paper is all zero.

    Raises:
      UserError: `sketch` is not such an array.

    Source: spec sections 7 and 13.
    """
    _check_picture(sketch, may_be_grey=True)
    grey = grey_of_rgb(sketch) if sketch.ndim == 3 else sketch
    lines = 255 - grey if dark_lines else grey
    hint = resize_tensor_like_app(lines[..., None].astype(np.float32) / 255, height, width)
    return np.clip(hint, 0, 1)  # float32 weights sum to 1 only nearly


def _check_is_file_with_contents(path: str) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise UserError(f"'{path}' does not exist: check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"'{path}' cannot be read ({reason}): check the path and its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"'{path}' is a directory: name one picture in it")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"'{path}' is not a regular file: copy the picture to one")
    if status.st_size == 0:
        raise UserError(f"'{path}' is empty (0 bytes): copy or export the picture again")


def _open(path: str) -> Image.Image:
    """Reads a picture's header."""
    try:
        return Image.open(path, formats=_DECODERS)
    except UnidentifiedImageError as error:
        raise UserError(
            f"'{path}' does not contain a picture that can be read: "
            f"save it again in one of the formats {', '.join(SUPPORTED_EXTENSIONS)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise UserError(_too_many_pixels(f"'{path}'")) from error
    except PermissionError as error:
        raise UserError(f"'{path}' may not be read by this user: change its permissions") from error
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise UserError(_damaged(f"'{path}'")) from error


def _check_size(height: int, width: int, name: str) -> None:
    if min(height, width) < MIN_SIDE:
        raise UserError(f"{name} is {width} x {height} pixels: use a picture with at least {MIN_SIDE} on each side")
    if height * width > MAX_PIXELS:
        raise UserError(_too_many_pixels(name, f" ({width} x {height})"))
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise UserError(
            f"{name} is a strip of {width} x {height} pixels: crop it until one side is at most {MAX_ASPECT} times the "
            "other"
        )


def _check_picture(image: Any, may_be_grey: bool = False) -> None:
    wanted = "uint8 (height, width, 3)" + (" or (height, width)" if may_be_grey else "")
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"a picture must be a numpy array, {wanted}, not {type(image).__name__}: read it with read_image"
        )
    has_shape = (image.ndim == 3 and image.shape[2] == 3) or (may_be_grey and image.ndim == 2)
    if image.dtype != np.uint8 or not has_shape:
        raise UserError(f"a picture must be {wanted}, not {image.dtype} {image.shape}: convert it, or use read_image")
    _check_size(*image.shape[:2], name="a picture")


def _checked_colour(colour: Sequence[int]) -> Colour:
    numbers = tuple(colour)
    if len(numbers) != 3 or not all(isinstance(n, int | np.integer) and 0 <= n <= 255 for n in numbers):
        raise UserError(f"the background colour is {colour}: give red, green and blue as whole numbers from 0 to 255")
    return (int(numbers[0]), int(numbers[1]), int(numbers[2]))


def _too_many_pixels(name: str, size: str = "") -> str:
    return f"{name} has more than {MAX_PIXELS // 1_000_000} megapixels{size}: scale it down first"


def _damaged(name: str) -> str:
    return f"{name} is damaged or cut short: copy or export the picture again"


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # unreadable metadata is no reason to refuse a good picture
        return 1


def _opaque_rgb(image: Image.Image, background: Colour, name: str) -> Image.Image:
    """Any mode of Pillow's as 8-bit RGB over the background."""
    if image.mode in _SIXTEEN_BIT_MODES:
        image = _eight_bit_grey(image, name)
    elif image.mode in ("F", "LAB"):
        raise UserError(f"{name} stores {image.mode} pixels, which are not supported: save it as 8-bit RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _eight_bit_grey(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{name} has more than 16 bits a pixel: save it with 8 or 16")
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is None:
        return Image.fromarray(grey)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, alpha], axis=-1))


def _short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size (height, width) after scaling the short side to the given length; the long one is cut to an integer."""
    if width <= height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)


def _centre(length: int, wanted: int) -> tuple[slice, int, int]:
    """Which part of an axis the centre crop keeps, and what it pads before and after; the odd pixel goes at the end."""
    missing = wanted - length
    if missing > 0:
        return slice(0, length), missing // 2, (missing + 1) // 2
    first = round((length - wanted) / 2)  # halves are rounded to even, as by the published code
    return slice(first, first + wanted), 0, 0
