"""Reading sketches: which of paper and lines is dark, how much ink there is, and what the sketch encoder receives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.fitting import resize_tensor_like_app
from tooncrafter_jax.io.sizes import BLACK, WHITE, check_picture
from tooncrafter_jax.io.transparency import over

LEAST_CONTRAST = 24
"""Levels of 255 from the paper to a line; less is noise of a scan or a JPEG."""
LEAST_INK = 5e-5
"""Share of a sheet that has lines: 8 pixels of 512 x 320."""
SURELY_LINES = 0.25
"""Lines cover less than this share of a sheet."""
PERHAPS_LINES = 0.4
"""So much may be ink, with filled shapes, if the sheet's edge agrees on what is paper."""
LUMA, LUMA_BITS = (9798, 19235, 3735), 15
"""Parts of red, green and blue in the luma (ITU-R BT.601) in fixed-point numbers, and their bits."""
_EDGE = 0.02
_EDGE_AGREES = 0.8
_TRANSPARENT = 0.02
"""Share of transparent pixels from which on the paper is the transparent part."""
_ONE_COLOUR = 0.95


class SketchSheet(NamedTuple):
    """A sketch as it was read.

    Attributes:
      grey: uint8 (H, W), on paper of the colour that its lines are not.
      dark_lines: whether its lines are darker than the paper.
      ink: share of the sheet that is lines, 0 to 1.
      recognised: the polarity that the picture itself shows; None if it shows none.
    """

    grey: np.ndarray
    dark_lines: bool
    ink: float
    recognised: bool | None


def read_sheet(
    picture: UInt8[np.ndarray, "H W C"],
    dark_lines: bool | None = None,
    name: str = "the sketch",
    *,
    may_be_blank: bool = False,
) -> SketchSheet:
    """Finds lines and paper of a sketch.

    Lines are the smaller part of a sheet, and the sheet's edge is paper. On transparent paper all that is drawn is
    lines: bright ones are put on black, dark ones on white.

    Args:
      picture: uint8 (H, W, 3), or (H, W, 4) with opacity.
      dark_lines: whether lines are darker than the paper; None: as the picture shows.
      name: of the sketch, for messages.
      may_be_blank: whether a sheet without lines is read too; where no polarity is said, it becomes white paper.

    Raises:
      UserError: the sheet is blank, or it is unclear what is line and what is paper.
    """
    if may_be_blank and dark_lines is not None:
        grey = grey_of_rgb(over(picture, WHITE if dark_lines else BLACK))
        return SketchSheet(grey, dark_lines, float(((grey < 128) == dark_lines).mean()), None)
    if may_be_blank and picture.shape[2] == 4 and picture[..., 3].max() <= LEAST_CONTRAST:
        return _blank(picture)
    on_transparency = _lines_on_transparency(picture, name)
    shown = on_transparency if dark_lines is None else dark_lines
    if shown is None:
        shown = _drawn_luma(picture) >= 128  # its transparent margin is given the colour of most of the sheet
    grey = grey_of_rgb(over(picture, WHITE if shown else BLACK))
    paper = int(np.median(grey))
    differs = np.abs(grey.astype(np.int16) - paper) > LEAST_CONTRAST
    if differs.mean() < LEAST_INK:
        if may_be_blank:
            return _blank(picture)
        raise UserError(
            f"{name} is blank: no line is more than {LEAST_CONTRAST} of 255 levels "
            f"{'darker' if shown else 'brighter'} than its paper, so leave it out, or draw darker"
            if on_transparency is None or on_transparency == shown
            else f"{name} is blank with {'dark' if shown else 'bright'} lines: it has "
            f"{'bright' if shown else 'dark'} lines on transparent paper"
        )
    middle = (int(grey.min()) + int(grey.max())) / 2
    dark = grey <= middle
    recognised = _polarity(dark) if on_transparency is None else on_transparency
    if dark_lines is None and recognised is None:
        share = 100 * float(dark.mean())
        raise UserError(
            f"{name} could have dark or bright lines, {share:.0f} % of it is dark: say which (dark_lines, or "
            "--dark-sketches and --bright-sketches), or draw lines on an empty sheet"
        )
    decided = bool(recognised if dark_lines is None else dark_lines)
    return SketchSheet(grey, decided, float((dark if decided else ~dark).mean()), recognised)


def grey_of_rgb(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """The luma of a picture, in the 15-bit fixed-point arithmetic of OpenCV's RGB-to-grey conversion.

    Args:
      image: uint8 (H, W, 3), RGB.

    Returns:
      uint8 (H, W): (9798 R + 19235 G + 3735 B) / 2**15, rounded.
    """
    sums = (image * np.asarray(LUMA, np.uint32)).sum(-1, dtype=np.uint32)
    return ((sums + (1 << (LUMA_BITS - 1))) >> LUMA_BITS).astype(np.uint8)


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
    check_picture(sketch, may_be_grey=True)
    grey = grey_of_rgb(sketch) if sketch.ndim == 3 else sketch
    lines = 255 - grey if dark_lines else grey
    hint = resize_tensor_like_app(lines[..., None].astype(np.float32) / 255, height, width)
    return np.clip(hint, 0, 1)  # float32 weights sum to 1 only nearly


def _blank(picture: np.ndarray) -> SketchSheet:
    return SketchSheet(np.full(picture.shape[:2], 255, np.uint8), dark_lines=True, ink=0.0, recognised=None)


def _polarity(dark: np.ndarray) -> bool | None:
    """Whether lines are dark, by how much of the sheet and of its edge is; None if they do not agree."""
    share = float(dark.mean())
    if min(share, 1 - share) > PERHAPS_LINES:
        return None
    height, width = dark.shape
    edge = np.ones_like(dark)
    rows, columns = max(1, round(height * _EDGE)), max(1, round(width * _EDGE))
    edge[rows : height - rows, columns : width - columns] = False
    at_edge = float(dark[edge].mean())
    if share < 0.5:
        return True if share < SURELY_LINES or at_edge <= 1 - _EDGE_AGREES else None
    return False if share > 1 - SURELY_LINES or at_edge >= _EDGE_AGREES else None


def _lines_on_transparency(picture: np.ndarray, name: str) -> bool | None:
    """Whether a sketch has dark lines on transparent paper (True), bright ones (False), or opaque paper (None)."""
    if picture.shape[2] == 3:
        return None
    alpha = picture[..., 3]
    if alpha.max() <= LEAST_CONTRAST:
        raise UserError(f"{name} is blank: all of it is transparent, so leave it out")
    if (alpha < 128).mean() < _TRANSPARENT:
        return None
    values = grey_of_rgb(picture[..., :3])[_drawn(alpha)]
    bright = float((values >= 128).mean())
    if bright >= _ONE_COLOUR:
        return False
    return True if bright <= 1 - _ONE_COLOUR else None


def _drawn_luma(picture: np.ndarray) -> float:
    """The median brightness of what is not transparent."""
    grey = grey_of_rgb(np.ascontiguousarray(picture[..., :3]))
    return float(np.median(grey if picture.shape[2] == 3 else grey[_drawn(picture[..., 3])]))


def _drawn(alpha: np.ndarray) -> np.ndarray:
    """What is rather opaque than transparent, or where nothing is, all that is not wholly transparent."""
    drawn = alpha >= 128
    return drawn if drawn.any() else alpha > 0
