"""Which frames of a clip a measurement looks at."""

from __future__ import annotations

from tooncrafter_jax.data.records import Clip

SAMPLES_A_SECOND = 2.0
"""Rate at which motion is measured: cartoons hold a drawing for two or three frames, so neighbours tell little (spec
section 9).
"""


def key_frames(length: int) -> tuple[int, ...]:
    """First, middle and last index of `length` frames, without repetition (spec section 9: what CLIP looks at)."""
    return tuple(sorted(set(three_frames(length))))


def three_frames(length: int) -> tuple[int, int, int]:
    """First, middle and last index, of a short clip with repetitions: always three, for what needs one size."""
    return 0, length // 2, length - 1


def sparse_frames(clip: Clip, rate: float = SAMPLES_A_SECOND) -> tuple[int, ...]:
    """Indices of frames `1 / rate` seconds apart, from the first on; first and last of a clip that is shorter than
    that.

    Args:
      clip: the clip.
      rate: in samples a second.
    """
    step = max(1, round(clip.fps / rate))
    indices = tuple(range(0, len(clip), step))
    return indices if len(indices) > 1 else tuple(sorted({0, len(clip) - 1}))
