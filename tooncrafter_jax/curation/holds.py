"""Held drawings: cartoons are drawn "on twos" or "on threes", so that two or three frames show one drawing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.typing import JsonObject, Uint8Video

WIDTH, BLOCK = 256, 8
"""Frames are compared at most this many pixels wide, in square blocks of this side."""
_NOISE_QUANTILE, _NOISE_FACTOR = 0.1, 2.0


@dataclass(frozen=True)
class Holds:
    """Records how many drawings a second a clip has, in `Clip.effective_fps`.

    A frame shows a new drawing if the colours of one block at least have changed, by more in the mean than what the
    encoder changes in a held one. A mean over the whole picture would miss a mouth that moves. How much the encoder
    changes is guessed from the stillest tenth of the frames: twice that, but within the two limits.

    Attributes:
      least: mean absolute change of a block, 0 to 255, up to which a drawing is held in a clean film.
      most: the same in a noisy one; more is a new drawing in any film.
    """

    least: float = 5.0
    most: float = 12.0
    name = "holds"

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its drawings a second; of one that stands still, that of its single drawing."""
        drawings = 1 + int(new_drawings(clip.decode(), self.least, self.most).sum())
        return replace(clip, effective_fps=clip.fps * drawings / len(clip))

    def settings(self) -> JsonObject:
        """The limits."""
        return asdict(self)


def new_drawings(pictures: Uint8Video, least: float, most: float) -> Bool[np.ndarray, "T-1"]:
    """For each frame but the first, whether it differs from the one before by more than noise; see `Holds`.

    Args:
      pictures: (T, H, W, 3).
      least: limits of the threshold, 0 to 255.
      most: see there.
    """
    changes = largest_changes(pictures)
    if not len(changes):
        return np.zeros(0, bool)
    noise = float(np.quantile(changes, _NOISE_QUANTILE))
    return changes > min(max(_NOISE_FACTOR * noise, least), most)


def largest_changes(pictures: Uint8Video) -> Float32[np.ndarray, "T-1"]:
    """For each frame but the first, the mean absolute change, 0 to 255, of the block that has changed most."""
    cv2 = optional("cv2", "recognising held drawings")
    height, width = pictures.shape[1:3]
    scale = min(1.0, WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    blocks = max(1, size[0] // BLOCK), max(1, size[1] // BLOCK)
    changes, previous = [], None
    for picture in pictures:
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        if previous is not None:
            difference = np.abs(small - previous).mean(-1)
            changes.append(cv2.resize(difference, blocks, interpolation=cv2.INTER_AREA).max())
        previous = small
    return np.asarray(changes, np.float32)
