"""Pictures that were encoded: a key that ends one clip and begins the next goes through the encoder once for both.

What is kept are the moments of its latents, which are the same wherever the picture stands; the latents themselves
differ, as their noise is that of a clip's seed and frame.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

MOST_KEPT = 256
"""Pictures; at 512 x 320 pixels their moments take 80 KiB each."""

HostPictures = Float[np.ndarray, "n 2 H W 3"]
HostMoments = Float[np.ndarray, "n 2 h w C2"]


class EncodedPictures:
    """Remembers the moments of the pictures that were encoded last; may be used by several threads.

    Args:
      most: how many are kept from one call to the next.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: dict[str, np.ndarray] = {}

    def moments(self, ends: HostPictures, encode: Callable[[HostPictures], HostMoments], at_a_time: int) -> HostMoments:
        """The moments of pictures, in twos.

        Args:
          ends: in [-1, 1].
          encode: gives the moments of `at_a_time` times two pictures, each by itself.
          at_a_time: how many twos are encoded together; what is missing is filled with copies.
        """
        pictures = ends.reshape(-1, *ends.shape[2:])
        names = [_digest(picture) for picture in pictures]
        with self._lock:
            known = {name: self._known[name] for name in names if name in self._known}
        unknown = {name: picture for name, picture in zip(names, pictures, strict=True) if name not in known}
        left = list(unknown)
        for start in range(0, len(left), 2 * at_a_time):
            some = left[start : start + 2 * at_a_time]
            filled = some + some[-1:] * (2 * at_a_time - len(some))
            given = np.stack([unknown[name] for name in filled]).reshape(at_a_time, 2, *pictures.shape[1:])
            found = encode(given)
            known |= zip(some, found.reshape(-1, *found.shape[2:]), strict=False)
        with self._lock:
            for name in names:  # what was used last goes last
                self._known.pop(name, None)
                self._known[name] = known[name]
            for name in list(self._known)[: -self._most]:
                del self._known[name]
        moments = np.stack([known[name] for name in names])
        return moments.reshape(*ends.shape[:2], *moments.shape[1:])


def _digest(picture: np.ndarray) -> str:
    return hashlib.sha256(
        repr((picture.shape, picture.dtype)).encode() + np.ascontiguousarray(picture).tobytes()
    ).hexdigest()
