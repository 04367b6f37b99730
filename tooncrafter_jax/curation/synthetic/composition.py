"""Putting cut-out pictures over a background that a camera moves across, with positions in fractions of pixels.

A pan at whole pixels trembles, and colours that were not multiplied by their opacity leave a fringe: here pictures are
resampled at their exact place, with colour multiplied by opacity from reading to the end. Resampling is by a triangle,
which moves edges by exactly what the place says and, unlike sharper kernels, never overshoots into a bright rim.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from tooncrafter_jax.typing import Uint8Video

_KERNEL = Image.Resampling.BILINEAR
_MARGIN = 6  # transparent pixels around a picture, so that its edge can lie between the pixels of the screen
_TURNING_MARGIN = 0.22  # of its side, around one that turns: its corners stay inside


@dataclasses.dataclass(frozen=True)
class Layer:
    """A cut-out picture on the screen, or one picture a frame.

    Attributes:
      frames: (T, h, w, 4), or (1, h, w, 4) for a still one; colour multiplied by opacity, then opacity.
      x: (T,) column of the picture's centre on the screen, in pixels; 0 is the screen's left edge.
      y: (T,) row of the picture's centre, from the top edge.
      scale: (T,) pixels of the screen for one of the picture.
      degrees: (T,) counter-clockwise turn of a still picture about its centre.
      mirrored: whether left and right are exchanged.
    """

    frames: UInt8[np.ndarray, "_ h w 4"]
    x: Float64[np.ndarray, "T"]
    y: Float64[np.ndarray, "T"]
    scale: Float64[np.ndarray, "T"]
    degrees: Float64[np.ndarray, "T"] | None = None
    mirrored: bool = False


def compose(
    background: UInt8[np.ndarray, "h w 3"],
    views: Float64[np.ndarray, "T 4"],
    layers: Sequence[Layer],
    height: int,
    width: int,
) -> Uint8Video:
    """The frames (T, height, width, 3) of layers, the first farthest, over a moving part of the background.

    Args:
      background: a picture.
      views: left, top, right and bottom edge of the part that fills the screen, in pixels of the background, inside it.
      layers: of T frames.
      height: of the screen, in pixels.
      width: of the screen, in pixels.
    """
    picture = Image.fromarray(background)
    prepared = [[_prepare(frame, layer) for frame in layer.frames] for layer in layers]
    frames = np.empty((len(views), height, width, 3), np.uint8)
    behind: np.ndarray = background
    for time, (left, top, right, bottom) in enumerate(views.tolist()):
        if not time or not np.array_equal(views[time], views[time - 1]):
            box = (left, top, right, bottom)
            behind = np.asarray(picture.resize((width, height), _KERNEL, box=box))
        frames[time] = behind
        for layer, pictures in zip(layers, prepared, strict=True):
            _draw(frames[time], pictures[time % len(pictures)], layer, time)
    return frames


def _prepare(frame: UInt8[np.ndarray, "h w 4"], layer: Layer) -> Image.Image:
    margin = _MARGIN if layer.degrees is None else math.ceil(_TURNING_MARGIN * max(frame.shape[:2]))
    padded = np.pad(frame[:, ::-1] if layer.mirrored else frame, [(margin, margin), (margin, margin), (0, 0)])
    return Image.frombytes("RGBa", (padded.shape[1], padded.shape[0]), padded.tobytes())  # colour times opacity


def _draw(canvas: UInt8[np.ndarray, "H W 3"], picture: Image.Image, layer: Layer, time: int) -> None:
    scale = float(layer.scale[time])
    if layer.degrees is not None and layer.degrees[time]:
        picture = picture.rotate(float(layer.degrees[time]), Image.Resampling.BILINEAR)
    left = float(layer.x[time]) - scale * picture.width / 2
    top = float(layer.y[time]) - scale * picture.height / 2
    # The whole pixels of the screen that lie inside the padded picture.
    first_x, first_y = max(0, math.ceil(left)), max(0, math.ceil(top))
    end_x = min(canvas.shape[1], math.floor(left + scale * picture.width))
    end_y = min(canvas.shape[0], math.floor(top + scale * picture.height))
    if first_x >= end_x or first_y >= end_y:
        return
    box = (
        (first_x - left) / scale,
        (first_y - top) / scale,
        min(picture.width, (end_x - left) / scale),
        min(picture.height, (end_y - top) / scale),
    )
    part = picture.resize((end_x - first_x, end_y - first_y), _KERNEL, box=box)
    values = np.asarray(part).astype(np.uint16)
    opacity = values[..., 3:]
    region = canvas[first_y:end_y, first_x:end_x]
    region[:] = np.minimum(values[..., :3], opacity) + (region * (255 - opacity) + 127) // 255
