"""Line drawings: grey lines on white paper, of what is given and of what is drawn.

Scans have paper of some tone, which changes over the sheet, and models draw tints and grey over large areas. Both are
taken out in the same way. A picture becomes grey. What its paper shows is known in most places, in cells of a few
pixels whose brighter part is paper, and changes slowly; each pixel v over paper p becomes 255 v / p, and what of the
paper's noise is left is white. A sheet whose paper is white everywhere stays as it is, value by value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.cells import blurred, cell_quantiles, enlarged
from tooncrafter_jax.io.frames import Frames, each_made
from tooncrafter_jax.io.sketches import LEAST_CONTRAST, LEAST_INK, grey_of_rgb
from tooncrafter_jax.notes import note
from tooncrafter_jax.typing import Picture

LEAST_PAPER = 0.5
"""Share of a line drawing that is paper, at least."""
MOST_COLOUR = 0.25
"""Share of a line drawing that has colours, at most."""
_UNEVEN = 48
"""Levels by which paper may differ over a sheet."""
_SURELY_PAPER, _BRIGHT = 0.6, 200
"""Share of paper, and its level, from which on a grey picture looks like a line drawing."""
_COLOURED = 40
"""Levels between the channels, beyond those of the paper, from which on a pixel has a colour."""
_SOME_COLOUR = 0.005
"""Share of coloured pixels from which on a picture is not grey."""
_OF_PAPER = 0.75
"""Quantile of a cell that is paper where lines cross it."""
_SAME = 8.0
"""Levels from the paper around at which a cell is another tone, or filled with lines."""
_ROUNDS = (4.0, 2.0, 1.0)
"""Times `_SAME`: the paper is found by taking ever less for it."""
_OF_WHOLE = 0.01
"""Share of telling cells around, at which a place and the whole sheet have equal say."""
_NOISE, _MOST_NOISE = 3.0, 12.0
"""Paper is white up to so many times its own spread, and at most so many levels."""


def as_line_drawing(picture: Picture, name: str) -> Picture:
    """A picture of lines on paper as grey lines on white; says on one line if colours are lost.

    Args:
      picture: uint8 (H, W, 3).
      name: what messages call it.

    Raises:
      UserError: it is no line drawing, as most of it is no paper or much of it has colours, or its paper is dark.
    """
    grey = grey_of_rgb(picture)
    level = float(np.median(grey))
    if level < 128:
        raise UserError(
            f"{name} has dark paper, but the option lines is for dark lines on bright paper: invert the picture, or "
            "leave lines out"
        )
    paper, coloured = float((np.abs(grey - level) <= _UNEVEN).mean()), _coloured_share(picture)
    if paper < LEAST_PAPER or coloured > MOST_COLOUR:
        what = (
            f"only {100 * paper:.0f} % of it is paper"
            if paper < LEAST_PAPER
            else f"{100 * coloured:.0f} % of it has colours"
        )
        raise UserError(f"{name} is no line drawing: {what}, so leave the option lines out")
    if coloured > _SOME_COLOUR:
        note(f"{name} has colours on {100 * coloured:.2g} % of it, which the option lines makes grey")
    return _three(_on_white(grey.astype(np.float32)))


def looks_like_lines(picture: Picture) -> bool:
    """Whether a picture (H, W, 3) has grey lines on bright paper and nothing else."""
    grey = grey_of_rgb(picture)
    level = float(np.median(grey))
    away = np.abs(grey - level) > LEAST_CONTRAST
    is_sheet = level >= _BRIGHT and LEAST_INK <= away.mean() <= 1 - _SURELY_PAPER
    return bool(is_sheet and _coloured_share(picture) <= _SOME_COLOUR)


def kept_lines(frames: Frames, keys: Sequence[Picture]) -> Frames:
    """A clip of line drawings with grey lines on white paper; a frame that is so already stays as it is.

    Args:
      frames: uint8 (T, H, W, 3).
      keys: its key frames as `as_line_drawing` gives them: where one of them has a tone, a frame says nothing of its
        paper.
    """
    tones = [cell_quantiles(key[..., 0].astype(np.float32), _OF_PAPER) for key in keys]
    is_paper = (np.min(tones, axis=0) >= 255 - _SAME).astype(np.float32)
    result = np.empty_like(frames)

    def made(index: int) -> np.ndarray:
        return _three(_on_white(grey_of_rgb(frames[index]).astype(np.float32), is_paper))

    for index, frame in each_made(made, range(len(frames))):
        result[index] = frame
    return result


def grey_cels(cels: UInt8[np.ndarray, "T H W 4"]) -> UInt8[np.ndarray, "T H W 4"]:
    """Cels whose colours are grey, with the same opacity."""
    greys = np.stack([grey_of_rgb(np.ascontiguousarray(cel[..., :3])) for cel in cels])
    return np.stack([greys, greys, greys, cels[..., 3]], axis=-1)


def _on_white(
    grey: Float32[np.ndarray, "H W"], is_paper: Float32[np.ndarray, "h w"] | None = None
) -> Float32[np.ndarray, "H W"]:
    """Grey values with paper at 255; `is_paper` says which cells may be paper, 0 to 1."""
    made = np.minimum(255, grey * (255 / np.maximum(_paper(grey, is_paper), 1)))
    near = made[made >= 255 - LEAST_CONTRAST]
    spread = 1.4826 * float(np.median(255 - near)) if len(near) else 0.0
    return np.minimum(255, made * (255 / (255 - min(_NOISE * spread, _MOST_NOISE))))


def _paper(grey: np.ndarray, is_paper: np.ndarray | None) -> Float32[np.ndarray, "H W"]:
    """The paper's level everywhere; 255 where nothing tells of it."""
    levels = cell_quantiles(grey, _OF_PAPER)
    may_be = np.ones_like(levels) if is_paper is None else is_paper
    if not may_be.any():
        return np.full(grey.shape, 255, np.float32)
    around = np.full(levels.shape, np.median(levels[may_be > 0]), np.float32)
    for wider in _ROUNDS:
        off = levels - around
        weight = may_be / (1 + (off / (wider * _SAME)) ** 2) ** 2
        whole = float((weight * off).sum() / max(weight.sum(), 1e-6))
        told, sums = (blurred(part[..., None])[..., 0] for part in (weight, weight * off))
        around = around + (sums + _OF_WHOLE * whole) / (told + _OF_WHOLE)
    return enlarged(around[..., None], *grey.shape)[..., 0]


def _coloured_share(picture: np.ndarray) -> float:
    """Share of pixels whose channels differ by more than the paper's."""
    cast = np.median(picture.reshape(-1, 3), axis=0)
    balanced = picture * (255 / np.maximum(cast, 1)).astype(np.float32)
    return float((balanced.max(-1) - balanced.min(-1) > _COLOURED).mean())


def _three(grey: np.ndarray) -> Picture:
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=-1)
