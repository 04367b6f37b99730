"""Animated PNG: lossless, with opacity."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
from PIL import Image

from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.encoding import encode_animation
from tooncrafter_jax.io.formats.output_format import OneFile
from tooncrafter_jax.io.frames import (
    PUBLISHED_FPS,
    AnyFrames,
    Path,
    Rate,
    check_frames,
    check_playback_rate,
    durations,
)

_MOST_TICKS = 65535
"""Of a delay."""


def write_apng(path: Path, frames: AnyFrames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes an endless animated PNG, which keeps every pixel; equal neighbours are stored as one longer frame.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity.
      fps: playback rate; delays are rounded to milliseconds, long ones more, so that the whole lasts as long as it
        should.

    Raises:
      UserError: not such frames, an impossible `fps`, a drawing that is shown for more than 65,535 seconds, or a path
        that cannot be written.
    """
    check_frames(frames, has_alpha=True)
    rate = check_playback_rate(fps)
    ticks = _ticks_per_second(frames, rate)
    delays = [1000 // ticks * count for count in durations(len(frames), rate, ticks)]
    pictures = [Image.fromarray(frame) for frame in frames]
    write_atomically(path, encode_animation(pictures, "PNG", delays))


class Apng(OneFile):
    """See `OutputFormat`."""

    name = "apng"
    endings = ("apng",)
    has_alpha = True
    encode = staticmethod(write_apng)


def _ticks_per_second(frames: AnyFrames, rate: Fraction) -> int:
    """In what part of a second delays are counted: a delay has 16 bits for their number, and equal neighbours have one
    delay together.
    """
    if len(frames) / rate * 1000 < _MOST_TICKS:
        return 1000
    longest = run = 1
    for before, after in itertools.pairwise(frames):
        run = run + 1 if np.array_equal(before, after) else 1
        longest = max(longest, run)
    return next((ticks for ticks in (1000, 500, 250, 100, 50, 20, 10, 5, 2) if longest / rate * ticks < _MOST_TICKS), 1)
