"""The clip record: what curation makes, what the shards hold, and what the loader reads.

A clip is a run of frames of one shot, each frame an encoded picture, with where it came from, what it shows, and every
score that curation measured. Scores stay in the record, so other thresholds can be applied to a set without measuring
again.
"""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import Uint8Video

SCORES: dict[str, str] = {
    "motion": "mean optical-flow magnitude in pixels between samples taken at low frame rate, "
    "on frames 512 pixels wide",
    "text_area": "share of the picture, 0 to 1, that detected text covers",
    "aesthetic": "mean aesthetic score of the first, middle and last frame, about 1 to 10",
    "agreement": "mean cosine between caption and frames (first, middle, last), -1 to 1",
}
"""Every score of a clip and its unit; a score that was not measured is NaN."""

LARGEST_SIDE = 2**14
"""Pixels of a side of a frame."""
MOST_PIXELS = 2**25
"""Of a frame; one of 8K has 33.2 million."""
HIGHEST_FPS = 1000
"""Of a clip."""
LONGEST_ID = 2000
"""Characters of a clip's id, or of its source's name."""
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

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

    def check(self) -> None:
        """Checks that the numbers can be: a record comes from anybody, and pictures of its size are made by it.

        Raises:
          ValueError: naming the first that cannot.
        """
        if not (0 < self.height <= LARGEST_SIDE and 0 < self.width <= LARGEST_SIDE):
            raise ValueError(f"its frames are stated to have {self.width} x {self.height} pixels")
        if self.height * self.width > MOST_PIXELS:
            raise ValueError(f"its frames are stated to have {self.width} x {self.height} pixels, which is too many")
        if not 0 < self.fps <= HIGHEST_FPS or not 0 <= self.effective_fps <= HIGHEST_FPS:
            raise ValueError(f"its rate is stated as {self.fps:g} frames and {self.effective_fps:g} drawings a second")
        if not 0 <= self.start_frame < 2**62:
            raise ValueError(f"its first frame is stated as {self.start_frame}")
        if not self.frames or not all(isinstance(frame, bytes) for frame in self.frames):
            raise ValueError("it has no frames")
        if not self.id or max(len(self.id), len(self.source)) > LONGEST_ID:
            raise ValueError("it has no id, or one that is too long")
        if any(math.isinf(score) for score in self.scores.values()):
            raise ValueError("it has a score that is infinite")

    def decode(self, frames: Sequence[int] | None = None) -> Uint8Video:
        """The pictures (T, H, W, 3) of the frames with these indices, or of all.

        Raises:
          UserError: a frame is damaged.
        """
        indices = range(len(self.frames)) if frames is None else frames
        size = (self.height, self.width)
        pictures: np.ndarray | None = None  # not made before a frame has this size
        for position, index in enumerate(indices):
            try:
                picture = decode_frame(self.frames[index], size)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"frame {index} of clip '{self.id}' is damaged{_because(error)}: write that set again"
                ) from error
            if pictures is None:
                pictures = np.empty((len(indices), *size, 3), np.uint8)
            pictures[position] = picture
        return np.empty((0, *size, 3), np.uint8) if pictures is None else pictures


def _because(error: Exception) -> str:
    return f" ({error})" if isinstance(error, ValueError) else ""


def encode_frame(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A frame as it is stored."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_frame(data: bytes, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of a stored frame.

    Args:
      data: the frame.
      size: (height, width) that it must have; a picture of another size is not decoded.

    Raises:
      OSError: it is not a picture, or damaged.
      ValueError: it has another size, or more than `MOST_PIXELS`.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            found = (image.height, image.width)
            if found[0] * found[1] > MOST_PIXELS or size not in (None, found):
                raise ValueError(f"it has {found[1]} x {found[0]} pixels")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError):
        raise
    except Image.DecompressionBombError as error:
        raise ValueError("it has far too many pixels") from error
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise OSError("it is damaged") from error


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
