"""The text detector of the paper, CRAFT, with weights of the user's (Baek et al., CVPR 2019, sections 3.1 and 3.3)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Real, UInt8

from tooncrafter_jax.curation.clip_model import file_digest
from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import JsonObject
from tooncrafter_jax.zoo.craft.network import Craft, CraftConfig
from tooncrafter_jax.zoo.craft.weights import load_craft

MEAN_RGB, DEVIATION_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours in [0, 1]: what pictures are normalised by."""
CANVAS_MULTIPLE = 32
"""Pixels that both sides of the canvas are a multiple of."""
CELL = 2
"""Pixels of the canvas that a cell of the score maps is wide and high."""
SMALLEST_AREA = 10
"""Cells of the smallest text."""
SQUARE = 0.1
"""How far the sides' ratio may be from 1 in a box that is taken for a lozenge around upright text, and set upright."""

Boxes = Float32[np.ndarray, "N 4 2"]
"""Corners (x, y) of boxes, clockwise from the one nearest to the upper left."""
ScoreMap = Float32[np.ndarray, "h w"]
"""A score for each cell, about 0 to 1."""


@dataclass(frozen=True)
class CraftDetector:
    """CRAFT with the thresholds and sizes of its published demonstration; a box is around a word.

    Attributes:
      weights: the published file, or what it was converted to (see `load_craft`).
      config: its architecture.
      text_threshold: region score that a word must reach somewhere.
      low_text: region score above which a cell is a character's.
      link_threshold: affinity score above which a cell joins characters.
      canvas_size: pixels of the longer side at most, while text is looked for.
      magnification: of smaller pictures, up to `canvas_size`.
    """

    weights: Path
    config: CraftConfig = CraftConfig()
    text_threshold: float = 0.7
    low_text: float = 0.4
    link_threshold: float = 0.4
    canvas_size: int = 1280
    magnification: float = 1.5
    name = "craft"

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> Boxes:
        """The boxes of words in pixels of the picture.

        Args:
          picture: uint8 RGB (H, W, 3).

        Raises:
          UserError: the file cannot be read or is another network's, or OpenCV is not installed.
        """
        pixels, ratio = on_canvas(picture, self.canvas_size, self.magnification)
        scores = np.asarray(_scorer(self.weights, self.config)(pixels[None]))[0]
        boxes = text_boxes(
            scores[..., 0],
            scores[..., 1],
            text_threshold=self.text_threshold,
            low_text=self.low_text,
            link_threshold=self.link_threshold,
        )
        return boxes * np.float32(CELL / ratio)

    def settings(self) -> JsonObject:
        """Thresholds and sizes, and what tells the weights from others.

        Raises:
          UserError: the file cannot be read, or OpenCV is not installed.
        """
        optional("cv2", "finding text")
        names = ("text_threshold", "low_text", "link_threshold", "canvas_size", "magnification")
        return {name: getattr(self, name) for name in names} | {"weights": file_digest(self.weights)}


def on_canvas(
    picture: UInt8[np.ndarray, "H W 3"], canvas_size: int, magnification: float
) -> tuple[Float32[np.ndarray, "h w 3"], float]:
    """A picture as the network wants it.

    Args:
      picture: uint8 RGB (H, W, 3).
      canvas_size: pixels of the longer side at most.
      magnification: of smaller pictures.

    Returns:
      Normalised pixels (h, w, 3), on a canvas that is black beyond the picture, its sides multiples of 32; and pixels
      of the canvas for a pixel of the picture.
    """
    cv2 = optional("cv2", "finding text")
    height, width = picture.shape[:2]
    ratio = min(magnification * max(height, width), canvas_size) / max(height, width)
    inner = max(1, int(height * ratio)), max(1, int(width * ratio))
    sides = [math.ceil(side / CANVAS_MULTIPLE) * CANVAS_MULTIPLE for side in inner]
    canvas = np.zeros((*sides, 3), np.float32)
    canvas[: inner[0], : inner[1]] = cv2.resize(picture, inner[::-1], interpolation=cv2.INTER_LINEAR)
    mean, deviation = (np.asarray(values, np.float32) * 255 for values in (MEAN_RGB, DEVIATION_RGB))
    return (canvas - mean) / deviation, ratio


def text_boxes(
    region: ScoreMap, affinity: ScoreMap, *, text_threshold: float, low_text: float, link_threshold: float
) -> Boxes:
    """Boxes around words, from the score maps.

    Characters and what joins them make connected areas, and each with a sure character in it is a word. Its box is the
    smallest one around its characters, which are grown first, as a character's score falls off before its edge.

    Args:
      region: how near a cell is to a character's middle.
      affinity: how near it is to the middle between two characters.
      text_threshold: region score that a word must reach somewhere.
      low_text: region score above which a cell is a character's.
      link_threshold: affinity score above which a cell joins characters.

    Returns:
      Corners in cells, from the middle of a cell to that of another.
    """
    cv2 = optional("cv2", "finding text")
    characters = region > low_text
    areas = (characters | (affinity > link_threshold)).astype(np.uint8)
    count, labels, figures, _ = cv2.connectedComponentsWithStats(areas, connectivity=4)
    boxes = []
    for label in range(1, count):
        left, top, width, height, area = map(int, figures[label])
        word = labels[top : top + height, left : left + width] == label
        if area < SMALLEST_AREA or region[top : top + height, left : left + width][word].max() < text_threshold:
            continue
        reach = int(2 * math.sqrt(area * min(width, height) / (width * height)))
        top, left, bottom, right = max(0, top - reach), max(0, left - reach), top + height + reach, left + width + reach
        window = np.s_[top : bottom + 1, left : right + 1]
        own = ((labels[window] == label) & characters[window]).astype(np.uint8)
        rows, columns = np.nonzero(cv2.dilate(own, np.ones((1 + reach, 1 + reach), np.uint8)))
        if len(rows):
            boxes.append(_box_around(np.stack([columns + left, rows + top], axis=-1)))
    return np.asarray(boxes, np.float32).reshape(-1, 4, 2)


def _box_around(points: Real[np.ndarray, "N 2"]) -> Float32[np.ndarray, "4 2"]:
    """The smallest box around points (x, y), which may be tilted."""
    cv2 = optional("cv2", "finding text")
    corners = cv2.boxPoints(cv2.minAreaRect(points.astype(np.int32)))
    sides = np.linalg.norm(corners[:2] - corners[1:3], axis=-1)
    if abs(1 - sides.max() / (sides.min() + 1e-5)) <= SQUARE:
        (left, top), (right, bottom) = points.min(0), points.max(0)
        corners = np.asarray([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    return np.roll(corners, -int(corners.sum(1).argmin()), 0).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _scorer(weights: Path, config: CraftConfig) -> Callable[[Float[np.ndarray, "B H W 3"]], Float[Array, "B h w 2"]]:
    """The network with a file's weights, read once in a process and compiled once for each size."""
    network = Network(Craft, config)
    params = {path: jnp.asarray(value) for path, value in load_craft(weights, config).items()}
    compiled = jax.jit(lambda params, pixels: network.bind(params)(pixels))
    return functools.partial(compiled, params)
