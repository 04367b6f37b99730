"""Which frames of a training clip are guided by their sketch (spec section 8.7).

Frames are numbered from 0 here. The paper numbers them from 1 to L; its frame k is our frame k - 1.

The paper says: in four of five clips, the frames found by bisecting the clip to a random depth; in one of five, a
random subset. It doesn't state how many frames the random subset has: here every size from 1 to L is as likely as
another, so that nearly empty and nearly full subsets, which a user draws, are both met often, and then every subset of
that size is as likely as another. A clip without any sketch would teach the encoder nothing about sketches, and is
there only where it is asked for, for a denoiser that learns beside the encoder.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

BISECTION_DEPTHS = (1, 2, 3, 4)
"""Each as likely as another (spec section 8.7)."""
BISECTION_SHARE = 0.8
"""Share of the clips whose sketched frames are found by bisection (spec section 8.7)."""


def bisection_frames(depth: int, length: int) -> tuple[int, ...]:
    """The frames found by bisecting a clip.

    A segment (i, j) of the paper's numbers, at first (1, L), yields frame floor((i + j) / 2), and then both halves are
    bisected; a segment of two neighbours yields its left one.

    Args:
      depth: how often segments are halved, at least 1; 2**depth - 1 frames, fewer where segments have run out.
      length: frames of the clip, L.

    Returns:
      0-based indices in ascending order. The last frame is never among them (but in a clip of one frame).

    Raises:
      ValueError: if `depth` or `length` is below 1.
    """
    if depth < 1 or length < 1:
        raise ValueError(f"depth and length must be at least 1, not {depth} and {length}")
    segments, found = {(1, length)}, set()
    for _ in range(depth):
        halves = set()
        for left, right in segments:
            middle = (left + right) // 2
            found.add(middle - 1)
            halves |= {(left, middle), (middle, right)}
        segments = halves
    return tuple(sorted(found))


def random_frames(rng: np.random.Generator, length: int, most: int = 0) -> tuple[int, ...]:
    """A random subset of a clip's frames; its size is uniform from 1 to `length` (not stated by the paper).

    Args:
      rng: where the numbers come from.
      length: frames of the clip, at least 1.
      most: the largest size instead, where it is not 0.

    Returns:
      0-based indices in ascending order.
    """
    size = int(rng.integers(1, min(most or length, length) + 1))
    return tuple(sorted(int(frame) for frame in rng.choice(length, size, replace=False)))


def choose_sketched_frames(
    rng: np.random.Generator,
    length: int,
    bisection_share: float = BISECTION_SHARE,
    depths: tuple[int, ...] = BISECTION_DEPTHS,
    most_random: int = 0,
) -> Bool[np.ndarray, "T"]:
    """Draws which frames of a clip are guided by their sketch; the others get the empty image.

    Args:
      rng: where the numbers come from; the same state gives the same frames.
      length: frames of the clip, T.
      bisection_share: probability of bisection to a random depth, else of a random subset.
      depths: how often a clip may be bisected, at least once each, all as likely.
      most_random: the largest random subset; 0 for one as large as the clip.

    Returns:
      (T,), True where a sketch is given; at least one is.

    Raises:
      ValueError: if `bisection_share` is no probability.
    """
    if not 0.0 <= bisection_share <= 1.0:
        raise ValueError(f"bisection_share must be from 0 to 1, not {bisection_share}")
    if rng.random() < bisection_share:
        frames = bisection_frames(int(rng.choice(depths)), length)
    else:
        frames = random_frames(rng, length, most_random)
    chosen = np.zeros(length, np.bool_)
    chosen[list(frames)] = True
    return chosen
