"""The pictures of a report: the truth and what each method made of it, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tooncrafter_jax.io import write_contact_sheet, write_mp4
from tooncrafter_jax.typing import Uint8Video

SHOWN_FRAMES = 8
_GAP = 4


def write_side_by_side(
    path: Path, titles: Sequence[str], videos: Sequence[Uint8Video], also: Sequence[int] = ()
) -> None:
    """Writes a sheet with a row of frames for each video, the first and the last frame among them.

    Args:
      path: of the PNG.
      titles: of the rows.
      videos: uint8 (T, H, W, 3) of one shape.
      also: frames that are shown beside those at even distances.

    Raises:
      UserError: the file cannot be written.
    """
    frames = len(videos[0])
    even = np.linspace(0, frames - 1, min(SHOWN_FRAMES, frames)).round().astype(int)
    shown = np.union1d(even, np.asarray(also, int))
    cells = np.concatenate([video[shown] for video in videos])
    labels = [f"{title}, {index}" for title in titles for index in shown]
    write_contact_sheet(path, cells, columns=len(shown), labels=labels)


def write_together(path: Path, videos: Sequence[Uint8Video], fps: float) -> None:
    """Writes all videos beside each other as one mp4, from left to right in the order of the sheet's rows.

    Raises:
      UserError: the file cannot be written.
    """
    frames, height, _, _ = videos[0].shape
    gap = np.full((frames, height, _GAP, 3), 255, np.uint8)
    row = np.concatenate([part for video in videos for part in (video, gap)][:-1], axis=2)
    even = np.pad(row, ((0, 0), (0, row.shape[1] % 2), (0, row.shape[2] % 2), (0, 0)), constant_values=255)
    write_mp4(path, even, fps)
