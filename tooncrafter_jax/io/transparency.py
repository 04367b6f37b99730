"""What shows through: the opacity of pictures of any mode, and pictures over a background."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.sizes import Colour

CHECKS = (204, 153)
"""Greys of the checks that stand for transparency."""
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_DEPTHS = {"1": 1, "L;2": 2, "L;4": 4, "RGB;16B": 16, "I;16B": 16}
"""Raw mode of Pillow's PNG decoder -> bits of a value in the file."""


def bit_depth(image: Image.Image) -> int | None:
    """Bits of each value in a file that is opened but not loaded; None if Pillow has loaded it and forgotten them."""
    tiles = getattr(image, "tile", None)
    raw_mode = tiles[0].args if tiles else None
    return _DEPTHS.get(raw_mode, 8) if isinstance(raw_mode, str) else None


def split(image: Image.Image, depth: int | None, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours and opacity of a loaded image, as they were before they were mixed.

    Args:
      image: of any mode of Pillow's but F and LAB.
      depth: as of `bit_depth`.
      name: for messages.

    Returns:
      The colours as L, I;16, CMYK or RGB, and the opacity as L, or None where all is opaque.

    Raises:
      UserError: values have more than 16 bits.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        return _split_sixteen_bits(image, name)
    if image.mode in _PREMULTIPLIED:  # Pillow knows only one way out of these
        image = _unmultiplied(image)
    alpha = _opacity(image, depth) if image.has_transparency_data else None
    if image.mode in ("1", "L", "LA"):
        return image.convert("L"), alpha
    if image.mode == "CMYK":
        return image, alpha
    # By way of RGBA, Pillow applies a palette that has its own opacity.
    colours = image.convert("RGBA").convert("RGB") if alpha is not None else image.convert("RGB")
    return colours, alpha


def over(picture: UInt8[np.ndarray, "H W C"], background: Colour) -> UInt8[np.ndarray, "H W 3"]:
    """A picture with opacity (H, W, 4) over a colour; an opaque one (H, W, 3) as it is."""
    if picture.shape[2] == 3:
        return picture
    canvas = Image.new("RGBA", (picture.shape[1], picture.shape[0]), (*background, 255))
    return np.array(Image.alpha_composite(canvas, Image.fromarray(picture)).convert("RGB"))


def composite(
    below: UInt8[np.ndarray, "T H W 4"], above: UInt8[np.ndarray, "T H W 4"], opacity: int | float = 1
) -> None:
    """Puts frames over frames, both with straight opacity; exact where the upper one is opaque, or either transparent.

    Args:
      below: the lower frames, which are changed.
      above: the upper frames.
      opacity: of the upper frames as a whole, 0 to 1.
    """
    for number, frame in enumerate(above):
        if opacity != 1:
            frame = frame.copy()
            frame[..., 3] = np.rint(frame[..., 3] * np.float32(opacity))
        below[number] = np.asarray(Image.alpha_composite(Image.fromarray(below[number]), Image.fromarray(frame)))


def over_checks(frames: UInt8[np.ndarray, "T H W C"]) -> UInt8[np.ndarray, "T H W 3"]:
    """Frames with opacity (T, H, W, 4) over checks of two greys; opaque ones (T, H, W, 3) as they are."""
    if frames.shape[3] == 3:
        return frames
    height, width = frames.shape[1:3]
    side = max(4, min(height, width) // 16)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    is_dark = (rows[:, None] + columns) % 2 == 1
    light, dark = (np.stack([over(frame, (grey, grey, grey)) for frame in frames]) for grey in CHECKS)
    return np.where(is_dark[..., None], dark, light)


def _opacity(image: Image.Image, depth: int | None) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        values = np.asarray(image)
        return Image.fromarray(np.where(values == _grey_key(key, values, depth), 0, 255).astype(np.uint8))
    if image.mode == "RGB" and isinstance(key, tuple):
        if depth == 16 or max(key) > 255:  # the decoder keeps the high byte of each value
            key = tuple(value >> 8 for value in key)
        transparent = (np.asarray(image) == np.asarray(key)).all(axis=-1)
        return Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))
    return image.convert("RGBA").getchannel("A")


def _grey_key(key: int, values: np.ndarray, depth: int | None) -> int:
    """The transparent grey of a PNG, scaled from the file's bits to 8 as Pillow scales the pixels, but not the key.

    Where the depth is not known any more, the pixels tell: those of 4 bits are multiples of 17, those of 2 bits of 85.
    """
    if depth is None:
        seen = np.unique(values)
        if key <= 3 and not (seen % 85).any():
            depth = 2
        elif key <= 15 and not (seen % 17).any():
            depth = 4
    return key * {2: 85, 4: 17}.get(depth or 8, 1)


def _split_sixteen_bits(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{name} has more than 16 bits a pixel: save it with 8 or 16")
    grey, key = Image.fromarray(values.astype(np.uint16)), image.info.get("transparency")
    alpha = None if key is None else Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    return grey, alpha


def _unmultiplied(image: Image.Image) -> Image.Image:
    if image.mode == "RGBa":
        return image.convert("RGBA")
    grey, alpha = (np.asarray(band, np.float32) for band in image.split())
    plain = np.where(alpha > 0, np.minimum(np.round(grey * 255 / np.maximum(alpha, 1)), 255), 0)
    return Image.merge("LA", [Image.fromarray(plain.astype(np.uint8)), Image.fromarray(alpha.astype(np.uint8))])
