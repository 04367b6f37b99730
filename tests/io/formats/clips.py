"""Drawn clips, and what is found in a folder."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def cartoon(count: int = 16, height: int = 64, width: int = 96) -> np.ndarray:
    """A red disc with an outline that crosses a graded sky over a green ground."""
    y, x = np.mgrid[0:height, 0:width]
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[..., 0], frames[..., 1], frames[..., 2] = 90 + 60 * y / height, 150 + 60 * y / height, 240
    frames[:, y > 0.75 * height] = (60, 160, 40)
    for index, frame in enumerate(frames):
        distance = np.hypot(y - height / 2, x - width * (0.2 + 0.6 * index / max(count - 1, 1)))
        frame[distance < height / 4] = (20, 20, 20)
        frame[distance < height / 4 - 3] = (220, 40, 30)
    return frames


def cel(count: int = 16, height: int = 64, width: int = 96) -> np.ndarray:
    """A red disc with a soft rim crosses an empty sheet above a shadow, with opacity; what is transparent is black."""
    y, x = np.mgrid[0:height, 0:width]
    frames = np.zeros((count, height, width, 4), np.uint8)
    for index, frame in enumerate(frames):
        distance = np.hypot(y - height / 2, x - width * (0.2 + 0.6 * index / max(count - 1, 1)))
        alpha = np.clip(height / 4 - distance, 0, 1)
        frame[(abs(y - 0.85 * height) < 4) & (alpha == 0)] = (10, 20, 40, 100)
        frame[alpha > 0] = (220, 40, 30, 0)
        frame[..., 3] = np.maximum(frame[..., 3], np.round(255 * alpha).astype(np.uint8))
    return frames


def over_grey(frames: np.ndarray, grey: int = 128) -> np.ndarray:
    """What cels show over a grey, (T, H, W, 3) float."""
    alpha = frames[..., 3:] / 255
    return alpha * frames[..., :3] + (1 - alpha) * grey


def noise(count: int = 4, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames that no format makes small."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def files(directory: Path) -> list[str]:
    """All names below a directory, hidden ones too."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def contents(directory: Path) -> dict[str, bytes]:
    """Name -> bytes of all files below a directory."""
    return {name: (directory / name).read_bytes() for name in files(directory) if (directory / name).is_file()}


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets the operating system refuse to write beyond so many bytes of a file, in the middle of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
