"""How much of the picture text covers: subtitles, titles and credits.

The paper finds text with CRAFT, whose weights are no part of any package: with a file of them, `craft_detector` is it.
Without, it is the detector of PP-OCR, whose weights come with the package rapidocr.
"""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.curation.frames_of_clips import key_frames
from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.typing import JsonObject


@runtime_checkable
class TextDetector(Protocol):
    """Finds text in a picture. Can be sent to other processes; a model is loaded at the first call there."""

    name: str
    """In one word, e.g. "ppocr"."""

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "N 4 2"]:
        """Corners (x, y) in pixels of a box around each line or word, one after another around it.

        Args:
          picture: uint8 RGB (H, W, 3).
        """
        ...

    def settings(self) -> JsonObject:
        """Everything that the result depends on, as JSON values."""
        ...


@dataclass(frozen=True)
class PpOcrDetector:
    """The text detector of PP-OCR, on one core.

    Left to itself it takes the moon, a wheel or the whole picture for a letter. Text that can be read is seldom so
    large, and is found with more confidence: on frames of two animated films and a live one, none of 45 boxes around
    things passed both of the following, and every subtitle of 14 to 64 pixels that was drawn over them did. A title of
    one huge letter is missed.

    Attributes:
      confidence: least confidence in a box, 0 to 1.
      max_height: largest height of a line, in heights of the picture.
    """

    confidence: float = 0.7
    max_height: float = 0.35
    name = "ppocr"

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "N 4 2"]:
        """The boxes of lines; see `TextDetector`."""
        height, width = picture.shape[:2]
        side = max(height, width)  # of a longer shape, the detector would take stripes of the padding for text
        square = np.zeros((side, side, 3), np.uint8)
        square[:height, :width] = picture[..., ::-1]  # it wants blue first
        found = _engine()(square, use_det=True, use_cls=False, use_rec=False)
        if found.boxes is None:
            return np.zeros((0, 4, 2), np.float32)
        boxes, confidence = np.asarray(found.boxes, np.float32), np.asarray(found.scores)
        sides = np.linalg.norm(boxes - np.roll(boxes, 1, 1), axis=-1)
        return boxes[(confidence >= self.confidence) & (sides.min(1) <= self.max_height * height)]

    def settings(self) -> JsonObject:
        """The limits, and the version of the package that has the weights.

        Raises:
          UserError: the package is not installed.
        """
        optional("rapidocr", "finding text")
        return asdict(self) | {"weights": f"rapidocr {importlib.metadata.version('rapidocr')}"}


@functools.cache
def _engine() -> Any:
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    return optional("rapidocr", "finding text").RapidOCR(params={"Global.log_level": "critical", **threads})


@dataclass(frozen=True)
class Text:
    """Measures the score "text_area": the share of the picture that text covers, the largest of first, middle and last
    frame.

    The largest, as a title that fades in spoils a clip as much as one that stays.

    Attributes:
      detector: what finds text.
    """

    detector: TextDetector = field(default_factory=PpOcrDetector)
    name = "text"

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its text."""
        shares = [covered_share(picture, self.detector(picture)) for picture in clip.decode(key_frames(len(clip)))]
        return replace(clip, scores={**clip.scores, "text_area": max(shares)})

    def settings(self) -> JsonObject:
        """The detector's name and settings."""
        return {"detector": self.detector.name, **self.detector.settings()}


def covered_share(picture: UInt8[np.ndarray, "H W 3"], boxes: Float32[np.ndarray, "N 4 2"]) -> float:
    """The share of a picture, 0 to 1, that boxes cover together."""
    cv2 = optional("cv2", "measuring text")
    mask = np.zeros(picture.shape[:2], np.uint8)
    for box in boxes:
        cv2.fillConvexPoly(mask, box.round().astype(np.int32), 1)
    return float(mask.mean())
