"""Features of clips that several metrics compare, computed once."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.evaluation.metrics.metric import ClipBatch

Extractor = Callable[[UInt8[np.ndarray, "B T H W 3"]], Float32[np.ndarray, "B ..."]]
"""Clips to features, one row a clip."""


class SharedFeatures:
    """Runs a network once for all metrics that are given the same object of this class.

    The made clips' features are kept until the next batch comes. The true clips' are kept until others come, by their
    content: several methods that are measured one after another against the same clips run the network once on those.

    Args:
      extract: the network, from uint8 clips to their features.
    """

    def __init__(self, extract: Extractor) -> None:
        self._extract = extract
        self._batch: Callable[[], ClipBatch | None] = lambda: None
        self._made: Float32[np.ndarray, "B ..."] | None = None
        self._true: tuple[bytes, Float32[np.ndarray, "B ..."]] | None = None
        self._digest = b""

    def of_videos(self, batch: ClipBatch) -> Float32[np.ndarray, "B ..."]:
        """Features of what was made."""
        self._turn_to(batch)
        if self._made is None:
            self._made = self._extract(batch.videos)
        return self._made

    def of_truth(self, batch: ClipBatch) -> Float32[np.ndarray, "B ..."]:
        """Features of the true clips."""
        self._turn_to(batch)
        if not self._digest:
            self._digest = _digest(batch.truth)
        if self._true is None or self._true[0] != self._digest:
            self._true = self._digest, self._extract(batch.truth)
        return self._true[1]

    def _turn_to(self, batch: ClipBatch) -> None:
        if self._batch() is not batch:
            self._batch, self._made, self._digest = weakref.ref(batch), None, b""


def _digest(clips: np.ndarray) -> bytes:
    return hashlib.sha256(repr(clips.shape).encode() + np.ascontiguousarray(clips).tobytes()).digest()
