"""Reading animated pictures with transparency: at a constant frame rate, with what composing needs to know of them."""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.images import check_is_picture_file, refusal

SAME_DRAWING = 0.1
"""Mean difference of premultiplied values, of 255, up to which two frames are one drawing held; compression makes as
much.
"""

MOST_PIXELS = 2**28
"""Of all frames together, held ones counted as often as they are shown; the largest emoji has a tenth of it."""

_FORMATS = ("WEBP", "PNG", "GIF")
_VISIBLE = 48  # of 255: softer edges may touch the border without looking cut
_CUT_PIXELS = 8  # that a drawing may have on the border: a thin antenna, not a hand
_FLAT_SHARE = 0.72  # of a drawing's width that a straight lower edge covers: busts and boats; feet and wheels do not


@dataclasses.dataclass(frozen=True)
class Animation:
    """Frames of a drawing that moves.

    Attributes:
      frames: (T, H, W, 4), colour multiplied by opacity, then opacity.
      fps: frames a second.
      drawings: number of different drawings: a drawing held for several frames counts once.
      start: index of the first frame in the file.
    """

    frames: UInt8[np.ndarray, "T H W 4"]
    fps: float
    drawings: int
    start: int = 0

    @property
    def effective_fps(self) -> float:
        """Drawings a second."""
        return self.fps * self.drawings / len(self.frames)

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what is visible in any frame; the whole picture if nothing is."""
        visible = self.frames[..., 3].max(axis=0) >= _VISIBLE
        rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        if not len(rows):
            return 0, 0, self.frames.shape[2], self.frames.shape[1]
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def has_flat_bottom(self) -> bool:
        """Whether the drawing ends below in a straight cut, as a bust does, in most frames."""
        return (
            float(np.median([_bottom_share(frame[..., 3] >= 128) for frame in self.frames[:: _stride(self)]]))
            > _FLAT_SHARE
        )


def read_animation(path: str | os.PathLike[str]) -> Animation:
    """Reads an animated picture, held frames repeated so that all last the same time.

    Rates are stored as whole milliseconds a frame: 42 ms are taken for 24 frames a second.

    Raises:
      UserError: the file is missing or damaged.
    """
    frames: list[np.ndarray] = []
    milliseconds: list[float] = []
    check_is_picture_file(os.fspath(path))
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height * getattr(image, "n_frames", 1) > MOST_PIXELS:
                raise UserError(f"'{path}' has more than {MOST_PIXELS // 10**6} megapixels in all: leave it out")
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                frames.append(np.asarray(image.convert("RGBa")))
                milliseconds.append(float(image.info.get("duration", 0)))
    except UserError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise refusal(f"'{path}'", error) from error
    usual = statistics.mode(milliseconds) or 100.0
    repeats = [max(1, round(duration / usual)) for duration in milliseconds]
    if sum(repeats) * frames[0].shape[0] * frames[0].shape[1] > MOST_PIXELS:
        raise UserError(f"'{path}' holds a frame for {max(milliseconds) / 1000:g} seconds: leave it out")
    return _animation(np.repeat(np.stack(frames), repeats, axis=0), _rate(usual), 0)


def longest_whole_run(animation: Animation) -> Animation:
    """The longest run of frames in which the drawing is not cut by the border of the picture; may be empty."""
    opaque = animation.frames[..., 3] >= _VISIBLE
    borders = (opaque[:, 0], opaque[:, -1], opaque[:, :, 0], opaque[:, :, -1])
    cut = np.max([border.sum(axis=1) for border in borders], axis=0) > _CUT_PIXELS
    length = len(animation.frames)
    ends = [-1, *np.flatnonzero(cut).tolist(), length]
    before, after = max(itertools.pairwise(ends), key=lambda run: run[1] - run[0])
    if after - before > length:
        return animation
    return _animation(animation.frames[before + 1 : after], animation.fps, animation.start + before + 1)


def first_frames(animation: Animation, length: int) -> Animation:
    """The animation's beginning."""
    if length >= len(animation.frames):
        return animation
    return _animation(animation.frames[:length], animation.fps, animation.start)


def _animation(frames: np.ndarray, fps: float, start: int) -> Animation:
    changes = sum(
        float(np.abs(after[::2, ::2].astype(np.int16) - before[::2, ::2]).mean()) > SAME_DRAWING
        for before, after in itertools.pairwise(frames)
    )
    return Animation(frames, fps, min(len(frames), 1 + changes), start)


def _rate(milliseconds: float) -> float:
    whole = max(1, round(1000 / milliseconds))
    return float(whole) if abs(1000 / whole - milliseconds) < 1 else 1000 / milliseconds


def _stride(animation: Animation) -> int:
    return max(1, len(animation.frames) // 8)


def _bottom_share(opaque: np.ndarray) -> float:
    rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
    if len(rows) < 3:
        return 0.0
    return float(opaque[rows[-1] - 2].sum() / (columns[-1] - columns[0] + 1))
