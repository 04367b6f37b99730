"""Small films made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

LOSSLESS: Any = {"codec": "ffv1", "pixels": "bgr0"}
"""What a film comes back from as it was."""


def write_film(
    path: Path,
    pictures: np.ndarray | Sequence[np.ndarray],
    *,
    fps: int = 10,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
    prepare: Any = None,
) -> Path:
    """Writes pictures (T, H, W, 3); `times` are their milliseconds, `prepare` is called with the stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, stream.pix_fmt = pictures[0].shape[0], pictures[0].shape[1], pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if prepare is not None:
            prepare(stream)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Half a second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered(count: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Even pictures, each 4 brighter than the one before: `number_of` tells which is which."""
    return np.broadcast_to(
        (4 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, height, width, 3)
    ).copy()


def number_of(picture: np.ndarray) -> int:
    """Which of `numbered` a picture is."""
    return round(float(picture.mean()) / 4)


def scene(seed: int, height: int = 72, width: int = 96) -> np.ndarray:
    """A picture of coloured patches, unlike that of another seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (height // 12, width // 12, 3), np.uint8)
    return patches.repeat(12, 0).repeat(12, 1)


def moving(seed: int, count: int, step: int = 1, **size: int) -> np.ndarray:
    """Pictures (count, H, W, 3) of a scene with a white square that moves over it."""
    pictures = np.repeat(scene(seed, **size)[None], count, 0)
    for index, picture in enumerate(pictures):
        left = 4 + (step * index) % (picture.shape[1] - 24)
        picture[20:36, left : left + 16] = 255
    return pictures


def dissolve(before: np.ndarray, after: np.ndarray, count: int) -> np.ndarray:
    """`count` pictures that go from one to another."""
    weights = (np.arange(1, count + 1) / (count + 1))[:, None, None, None]
    return ((1 - weights) * before + weights * after).round().astype(np.uint8)
