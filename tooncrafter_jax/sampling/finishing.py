"""What is done with sampled frames before a user gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from tooncrafter_jax.io import WHITE, Colour, to_uint8
from tooncrafter_jax.io.cels import CelKeys
from tooncrafter_jax.io.colour_lock import locked_colours
from tooncrafter_jax.io.frames import Cels, Frames, as_bytes
from tooncrafter_jax.io.line_drawings import grey_cels, kept_lines
from tooncrafter_jax.io.palettes import snapped_to_palette
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.typing import HostVideos

Sample = Callable[[Sequence[PreparedPair], SamplingOptions, Callable[[Progress], None] | None], HostVideos]
"""`ToonCrafter.sample_prepared`."""


class Sampled(NamedTuple):
    """A clip as it was sampled.

    Attributes:
      video: (T, H, W, 3) in about [-1, 1].
      again: the same over the second background of its cels; None where there is none.
    """

    video: Float[np.ndarray, "T H W 3"]
    again: Float[np.ndarray, "T H W 3"] | None = None


def sample_all(
    sample: Sample,
    pairs: Sequence[PreparedPair],
    options: SamplingOptions,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Sampled]:
    """Samples clips of one size, twice where they are drawn over two backgrounds; progress is that of both together."""
    again = [pair for pair in map(over_second, pairs) if pair is not None]
    if len(again) < len(pairs):
        return [Sampled(video) for video in sample(pairs, options, on_progress)]

    def half(number: int) -> Callable[[Progress], None] | None:
        if (tell := on_progress) is None:
            return None
        return lambda one: tell(Progress(number * one.total + one.done, 2 * one.total, one.preview))

    videos = sample(pairs, options, half(0)), sample(again, options, half(1))
    return [Sampled(*both) for both in zip(*videos, strict=True)]


def over_second(pair: PreparedPair) -> PreparedPair | None:
    """A pair with its ends over the second background; None if it has none."""
    if pair.cels is None or pair.cels.second is None:
        return None
    return pair._replace(ends=pair.cels.over(pair.cels.second))


def finished(sampled: Sampled, pair: PreparedPair, options: SamplingOptions) -> UInt8[np.ndarray, "T H W C"]:
    """The frames that a user gets, (T, H, W, 3), or (T, H, W, 4) of a pair whose opacity is kept.

    Raises:
      UserError: there are NaN among the frames.
    """
    cels = pair.cels
    if cels is None:
        return corrected(to_uint8(sampled.video), pair.ends, options)
    frames = corrected(to_uint8(sampled.video), pair.ends, options, cels.background)
    again, second = None, over_second(pair)
    if sampled.again is not None and second is not None and cels.second is not None:
        again = corrected(to_uint8(sampled.again), second.ends, options, cels.second)
    return with_opacity(cels, frames, options, again, {0: 0} if pair.open_end else None)


def with_opacity(
    cels: CelKeys,
    frames: Frames,
    options: SamplingOptions,
    again: Frames | None = None,
    places: Mapping[int, int] | None = None,
) -> Cels:
    """`CelKeys.recovered`, and grey where lines are drawn."""
    found = cels.recovered(frames, again, places)
    return grey_cels(found) if options.lines else found


def corrected(
    frames: Frames, ends: Float[np.ndarray, "2 H W 3"], options: SamplingOptions, background: Colour = WHITE
) -> Frames:
    """Frames in the colours of their ends, as far as that is asked for.

    Args:
      frames: of a clip.
      ends: its key frames, in [-1, 1].
      options: that ask for it.
      background: what cels lie on, which is paper if it is white.
    """
    lines = options.lines and background == WHITE
    if not (lines or options.lock_colours or options.palette):
        return frames
    keys = as_bytes(ends)
    if lines:
        frames = kept_lines(frames, list(keys))
    if options.lock_colours:
        frames = locked_colours(frames, keys[0], keys[1])
    return snapped_to_palette(frames, list(keys)) if options.palette else frames
