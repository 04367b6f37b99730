"""Near-duplicates in the whole set: clips whose fingerprints differ in few bits.

Openings and stock shots come again in every episode of a series. Of two codes that differ in at most d bits, at least
one of any d // 2 + 1 parts differs in at most one bit. So a code is compared only with the kept ones that nearly share
a part with it.
"""

from __future__ import annotations

import functools
import itertools
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int64, UInt64

from tooncrafter_jax.errors import UserError

_FIRST_ROWS = 1024
_MIN_BITS_PER_PART = 8
"""Shorter parts are nearly shared by so many codes that looking at all of them at once is faster."""


def find_duplicates(fingerprints: Iterable[tuple[str, str]], max_distance: float) -> dict[str, str]:
    """Which clips are nearly the same as one that comes before them and is kept.

    Args:
      fingerprints: id and fingerprint in hexadecimal digits of every clip, the ones to keep rather first; fingerprints
        of one length are compared, and "" is like no other.
      max_distance: share of the bits, 0 to 1, in which two may differ.

    Returns:
      The id of each duplicate and that of the nearest kept clip, or of the first of equally near ones.

    Raises:
      UserError: a fingerprint is not hexadecimal.
    """
    kept_of_length: dict[int, _Codes] = {}
    duplicates: dict[str, str] = {}
    for name, fingerprint in fingerprints:
        if not fingerprint:
            continue
        code = _code(name, fingerprint)
        kept = kept_of_length.get(len(code))
        if kept is None:
            kept = kept_of_length[len(code)] = _Codes(8 * len(code), math.floor(max_distance * 8 * len(code) + 1e-9))
        nearest = kept.nearest(code)
        if nearest is None:
            kept.add(name, code)
        else:
            duplicates[name] = nearest
    return duplicates


def _code(name: str, fingerprint: str) -> bytes:
    try:
        return bytes.fromhex(fingerprint)
    except ValueError as error:
        raise UserError(
            f"the fingerprint '{fingerprint}' of clip '{name}' is not hexadecimal: measure it again"
        ) from error


class _Codes:
    """Codes of one length, and the search for one within a distance of another."""

    def __init__(self, num_bits: int, max_bits: int):
        self.max_bits = max_bits
        self.num_words = math.ceil(num_bits / 64)
        self.names: list[str] = []
        self.codes = np.empty((_FIRST_ROWS, self.num_words), np.uint64)
        self.equal: dict[bytes, str] = {}
        edges = np.linspace(0, num_bits, max_bits // 2 + 2).round().astype(int).tolist()
        self.parts = list(itertools.pairwise(edges))
        if num_bits < _MIN_BITS_PER_PART * len(self.parts):
            self.parts = []  # compare with all
        self.sharing: defaultdict[tuple[int, int], array] = defaultdict(functools.partial(array, "q"))

    def nearest(self, code: bytes) -> str | None:
        """The name of the nearest code within the distance, of equally near ones the first."""
        equal = self.equal.get(code)
        if equal is not None:
            return equal
        rows = self._candidates(code)
        if not len(rows):
            return None
        distances = np.bitwise_count(self.codes[rows] ^ self._words(code)).sum(axis=1, dtype=np.uint16)
        least = distances.min()
        return self.names[rows[distances == least].min()] if least <= self.max_bits else None

    def add(self, name: str, code: bytes) -> None:
        """Adds one that is like no other."""
        row = len(self.names)
        if row == len(self.codes):
            self.codes = np.concatenate([self.codes, np.empty_like(self.codes)])
        self.codes[row] = self._words(code)
        self.names.append(name)
        self.equal[code] = name
        for index, part in self._parts_of(code):
            self.sharing[index, part].append(row)

    def _words(self, code: bytes) -> UInt64[np.ndarray, "words"]:
        return np.frombuffer(code.ljust(8 * self.num_words, b"\0"), np.uint64)

    def _candidates(self, code: bytes) -> Int64[np.ndarray, "rows"]:
        if not self.parts:
            return np.arange(len(self.names))
        found = []
        for index, part in self._parts_of(code):
            start, end = self.parts[index]
            for flip in (0, *(1 << bit for bit in range(end - start))):
                rows = self.sharing.get((index, part ^ flip))
                if rows is not None:
                    found.append(np.frombuffer(rows, np.int64))
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _parts_of(self, code: bytes) -> Iterator[tuple[int, int]]:
        number = int.from_bytes(code, "little")
        for index, (start, end) in enumerate(self.parts):
            yield index, (number >> start) & ((1 << (end - start)) - 1)
