"""Reading drawings: any file or Pillow image as 8-bit sRGB, upright, with or without transparency.

Nothing here needs JAX. Pictures are numpy arrays with channels last; what a user can get wrong is a `UserError`.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.colour import to_srgb
from tooncrafter_jax.io.recent_pictures import learn_stamp, remembered
from tooncrafter_jax.io.repairs import DECODING_ERRORS, repaired
from tooncrafter_jax.io.sizes import WHITE, Colour, check_size, checked_colour, too_many_pixels
from tooncrafter_jax.io.transparency import bit_depth, over, split
from tooncrafter_jax.notes import note

SUPPORTED_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Extensions that pictures are looked for under in a folder; of a named file, the contents count."""

_DECODERS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
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
    """Reads one picture, upright and opaque: `read_picture` over a background.

    Args:
      path: a picture in one of the formats of `SUPPORTED_EXTENSIONS`, whatever its name.
      background: RGB, 0 to 255, which transparent pixels show.

    Returns:
      uint8 (H, W, 3).

    Raises:
      UserError: as of `read_picture`.
    """
    background = checked_colour(background)
    return over(read_picture(path), background)


@remembered
def read_picture(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "H W C"]:
    """Reads one picture, upright, in sRGB, with its transparency if it has any.

    The EXIF orientation is applied. Palette, grey, CMYK and 16-bit pictures become 8-bit RGB; 16-bit values are scaled,
    not clipped. Colours with a profile or PNG's gAMA and cHRM are converted to sRGB, with a note. Of an animation the
    first frame is read.

    Args:
      path: a picture in one of the formats of `SUPPORTED_EXTENSIONS`, whatever its name.

    Returns:
      uint8 (H, W, 3), or (H, W, 4) with opacity, not premultiplied.

    Raises:
      UserError: the file is missing, a directory, empty, not a picture, damaged, below `MIN_SIDE` pixels on a side,
        above `MAX_PIXELS` pixels (found from its header, before decoding) or longer than `MAX_ASPECT` times its width.
    """
    path = os.fspath(path)
    check_is_picture_file(path)
    name = f"'{path}'"
    try:
        image, depth = _decoded(path, name)
    except (Image.DecompressionBombError, MemoryError, *DECODING_ERRORS) as error:
        image, depth = _repaired(path, name, error)
    return _upright_srgb(image, depth, name)


def rgb_of_image(
    image: Image.Image, background: Colour = WHITE, name: str = "the picture"
) -> UInt8[np.ndarray, "H W 3"]:
    """A Pillow image as `read_image` reads a file: upright, opaque, 8 bits, sRGB.

    Args:
      image: of any mode; need not be loaded yet.
      background: RGB, 0 to 255, shown by transparent pixels.
      name: of the image, for messages.

    Returns:
      uint8 (H, W, 3).

    Raises:
      UserError: the image is damaged, closed, too small, too large, too long, or of a mode that stands for no picture.
    """
    return over(picture_of_image(image, name), checked_colour(background))


def picture_of_image(image: Image.Image, name: str = "the picture") -> UInt8[np.ndarray, "H W C"]:
    """A Pillow image as `read_picture` reads a file.

    Args:
      image: of any mode; need not be loaded yet.
      name: of the image, for messages.

    Returns:
      uint8 (H, W, 3), or (H, W, 4) with opacity, not premultiplied.

    Raises:
      UserError: as of `rgb_of_image`.
    """
    check_size(image.height, image.width, name)
    depth = bit_depth(image)
    try:
        with _quietly():
            image.load()
    except (Image.DecompressionBombError, MemoryError, *DECODING_ERRORS) as error:
        if "closed image" in str(error):
            raise UserError(f"{name} is a closed Pillow image: open it again, or give its path") from error
        path = getattr(image, "filename", "")
        if not os.path.isfile(path):
            raise refusal(name, error) from error
        image, depth = _repaired(path, name, error)
    return _upright_srgb(image, depth, name)


def _upright_srgb(image: Image.Image, depth: int | None, name: str) -> np.ndarray:
    if image.mode in ("F", "LAB"):
        raise UserError(f"{name} stores {image.mode} pixels, which are not supported: save it as 8-bit RGB")
    exif = _exif(image)
    colours, alpha = split(image, depth, name)
    picture = to_srgb(colours, image.info, exif, name)
    if alpha is not None:
        picture.putalpha(alpha)
    upright = _UPRIGHT.get(exif.get(ExifTags.Base.Orientation, 1))
    return np.array(picture if upright is None else picture.transpose(upright))


def _decoded(source: str | io.BytesIO, name: str) -> tuple[Image.Image, int | None]:
    """A picture in memory, and the bits of each of its values in the file if they are known.

    Raises:
      UserError: its header says that it is too small, too large or too long.
    """
    with contextlib.nullcontext(source) if isinstance(source, io.BytesIO) else open(source, "rb") as file:
        with _quietly(), Image.open(file, formats=_DECODERS) as image:
            check_size(image.height, image.width, name)
            depth = bit_depth(image)
            image.load()
        if not isinstance(file, io.BytesIO):
            learn_stamp(file)
        return image, depth


def _repaired(path: str, name: str, error: BaseException) -> tuple[Image.Image, int | None]:
    """The picture of a file that Pillow refuses although every pixel is there.

    Raises:
      UserError: the pixels are not there, or the file is none of a picture.
    """
    if isinstance(error, UnidentifiedImageError | PermissionError | Image.DecompressionBombError | MemoryError):
        raise refusal(name, error) from error
    found = repaired(path, lambda data: _decoded(io.BytesIO(data), name))
    if found is None:
        raise refusal(name, error) from error
    (image, depth), sentence = found
    note(f"{name} {sentence}")
    return image, depth


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Damaged metadata is no concern of the user's, and Pillow warns of large pictures below MAX_PIXELS already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_is_picture_file(path: str) -> None:
    """Finds out, without opening a file, whether it could hold a picture.

    Raises:
      UserError: it is missing, a directory, no regular file, or empty.
    """
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


def refusal(name: str, error: BaseException) -> UserError:
    """The sentence for a file that Pillow does not decode."""
    if isinstance(error, UnidentifiedImageError):
        return UserError(
            f"{name} does not contain a picture that can be read: "
            f"save it again in one of the formats {', '.join(SUPPORTED_EXTENSIONS)}"
        )
    if isinstance(error, Image.DecompressionBombError):
        return UserError(too_many_pixels(name))
    if isinstance(error, PermissionError):
        return UserError(f"{name} may not be read by this user: change its permissions")
    if isinstance(error, MemoryError):
        return UserError(f"{name} does not fit into memory: scale it down first")
    reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return UserError(f"{name} is damaged or cut short ({reason}): copy or export the picture again")


def _exif(image: Image.Image) -> Image.Exif:
    """The EXIF tags; unreadable ones are no reason to refuse a good picture."""
    try:
        with _quietly():
            return image.getexif()
    except DECODING_ERRORS:
        return Image.Exif()
