"""Fingerprints by which clips that look the same are found: openings and stock shots come again in every episode of a
series.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.curation.frames_of_clips import three_frames
from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import JsonObject


@dataclass(frozen=True)
class Fingerprint:
    """Records the perceptual hashes of first, middle and last frame one after another, in `Clip.fingerprint`.

    A hash says, for each of the lowest frequencies of a shrunk grey picture, whether it is stronger than their median.
    Encoding, size and brightness hardly change it, and what is shown does. The package imagehash computes it.

    Attributes:
      side: frequencies a side, an even number; a hash has `side * side` bits.
    """

    side: int = 8
    name = "fingerprint"

    def __post_init__(self):
        if self.side < 2 or self.side % 2:
            raise UserError(f"a fingerprint of {self.side} frequencies a side cannot be: choose an even number, e.g. 8")

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its fingerprint."""
        pictures = clip.decode(three_frames(len(clip)))
        return replace(clip, fingerprint="".join(self.of_picture(picture) for picture in pictures))

    def of_picture(self, picture: UInt8[np.ndarray, "H W 3"]) -> str:
        """The hash of one picture in hexadecimal digits, four bits each."""
        imagehash = optional("imagehash", "taking fingerprints")
        return str(imagehash.phash(Image.fromarray(picture), hash_size=self.side))

    def settings(self) -> JsonObject:
        """The size, and the version of the package.

        Raises:
          UserError: the package is not installed.
        """
        optional("imagehash", "taking fingerprints")
        return {"side": self.side, "imagehash": importlib.metadata.version("imagehash")}


def distance(one: str, other: str) -> float:
    """The share of bits, 0 to 1, in which two fingerprints differ; about 0.5 for clips that have nothing in common.

    Raises:
      ValueError: they are not of one length, or not hexadecimal.
    """
    if len(one) != len(other) or not one:
        raise ValueError(f"fingerprints of {len(one)} and {len(other)} digits cannot be compared")
    return (int(one, 16) ^ int(other, 16)).bit_count() / (4 * len(one))
