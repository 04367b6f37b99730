"""Decoding the middle of a clip a second time, among other neighbours (spec section 5.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.typing import Latents, Video


def second_pass_frames(frames: int) -> tuple[list[int], slice, slice]:
    """How the published code decodes the middle twice (spec section 5.5).

    Returns:
      The frames that the second pass decodes, the frames that it replaces, and where in the second pass they are found.
    """
    kept = list(range(frames))
    del kept[1], kept[-2]
    middle, of_kept = frames // 2, len(kept) // 2
    return kept, slice(middle - 1, middle + 1), slice(of_kept - 1, of_kept + 1)


class Passes(NamedTuple):
    """What comes of decoding a clip twice.

    Attributes:
      video: the frames.
      first: of all frames together.
      second: of all but frames 1 and T - 2, which has the middle of `video`; None without.
    """

    video: Video
    first: Video
    second: Video | None


def decode_twice(
    decode: Callable[..., Video],
    latents: Latents,
    motion: Motion | None = None,
    *,
    second_pass: bool = True,
) -> Passes:
    """Decodes a clip, and its middle once more among other neighbours (spec section 5.5).

    Args:
      decode: latents (B, T, h, w, C) of any number of frames, and their `motion` -> frames (B, T, H, W, 3).
      latents: of the clip, scaled.
      motion: of the clip; None without motion guidance.
      second_pass: whether the clip is decoded again without frames 1 and T-2, to take the two middle frames from that.
    """
    first = decode(latents, motion=motion)
    if not second_pass:
        return Passes(first, first, None)
    kept, replaced, found = second_pass_frames(latents.shape[1])
    of_kept = None if motion is None else motion.of_frames(np.asarray(kept))
    second = decode(latents[:, np.asarray(kept)], motion=of_kept)
    return Passes(first.at[:, replaced].set(second[:, found]), first, second)
