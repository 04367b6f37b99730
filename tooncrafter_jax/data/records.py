"""The clip record: what curation makes, what the shards hold, and what the loader reads.

A clip is a run of frames of one shot, each frame an encoded picture, with where it came from, what it shows, and every
score that curation measured. Scores stay in the record, so a set can be judged by other thresholds without measuring again.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import Uint8Video

SCORES: dict[str, str] = {
    "motion": "mean optical-flow magnitude in pixels between samples taken at low frame rate, on frames 512 pixels wide",
    "text_area": "share of the picture, 0 to 1, that detected text covers",
    "aesthetic": "mean aesthetic score of the first, middle and last frame, about 1 to 10",
    "agreement": "mean cosine between caption and frames (first, middle, last), -1 to 1",
}
"""Every score of a clip and its unit; a score that was not measured is NaN."""

JPEG_QUALITY = 95
"""Quality of stored frames, with colour at full resolution: thin coloured lines survive."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
      id: its name, unique in a set and the same whenever the same clip is made again, e.g. `intro/000120-000168`.
      source: the film or subject that it shows; clips of one source are never in two splits.
      frames: encoded pictures (JPEG by `encode_frame`, or any other that Pillow reads), all of one size.
      height: pixels of a frame.
      width: pixels of a frame.
      fps: rate of `frames` in frames a second.
      effective_fps: drawings a second; below `fps` where each drawing is held for several frames.
      start_frame: index of the first frame in the source.
      caption: what the clip shows, or "".
      caption_from: how the caption was made ("sidecar", "blip2", "unicode"), or "".
      scores: by the names of `SCORES`; NaN where it was not measured, as for every name left out.
      fingerprint: perceptual hash in hexadecimal digits, or "".
      thresholds: version of the thresholds that kept this clip, or "".
    """

    id: str
    source: str
    frames: tuple[bytes, ...]
    height: int
    width: int
    fps: float
    effective_fps: float
    start_frame: int = 0
    caption: str = ""
    caption_from: str = ""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    thresholds: str = ""

    def __post_init__(self):
        unknown = sorted(set(self.scores) - set(SCORES))
        if unknown:
            raise ValueError(f"clip '{self.id}' has unknown scores {unknown}; the known ones are {list(SCORES)}")
        object.__setattr__(self, "scores", {name: float(self.scores.get(name, math.nan)) for name in SCORES})

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def decode(self, frames: Sequence[int] | None = None) -> Uint8Video:
        """The pictures (T, H, W, 3) of the frames with these indices, or of all.

        Raises:
          UserError: a frame is damaged.
        """
        indices = range(len(self.frames)) if frames is None else frames
        pictures = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        for position, index in enumerate(indices):
            try:
                pictures[position] = decode_frame(self.frames[index])
            except (OSError, ValueError) as error:
                raise UserError(f"frame {index} of clip '{self.id}' is damaged: write that set again") from error
        return pictures


def encode_frame(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A frame as it is stored."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_frame(data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of a stored frame.

    Raises:
      OSError: it is not a picture, or damaged.
    """
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def clip_of_pictures(pictures: Uint8Video, *, fps: float, effective_fps: float | None = None, **fields) -> Clip:
    """A clip of pictures (T, H, W, 3); `fields` are the other attributes of `Clip`."""
    return Clip(
        frames=tuple(encode_frame(picture) for picture in pictures),
        height=pictures.shape[1],
        width=pictures.shape[2],
        fps=float(fps),
        effective_fps=float(fps if effective_fps is None else effective_fps),
        **fields,
    )
