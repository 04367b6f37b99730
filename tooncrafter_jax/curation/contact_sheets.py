"""The pictures of the curation report: clips by their first, middle and last frames, and cuts by the frames beside
them.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.curation.workspace import ClipRecord, SourceResult, load_clip
from tooncrafter_jax.data.records import SCORES
from tooncrafter_jax.io import write_contact_sheet

MAX_CLIPS, MAX_CUTS = 36, 60
HEIGHT, SHEET_WIDTH = 132, 1600
"""Pixels of a frame, and about those of a sheet."""
_NARROWEST, _WIDEST = 0.5, 2.4  # width of a frame in heights
_GAP = 3

_Picture = UInt8[np.ndarray, "_ _ 3"]


def write_clip_sheet(
    path: Path,
    clips: Sequence[ClipRecord],
    files: Mapping[str, Path],
    score: str | None = None,
    partners: Mapping[str, ClipRecord] | None = None,
) -> int:
    """Writes clips, each by its first, middle and last frame; of many, a choice that is the same every time.

    Args:
      path: of the PNG.
      clips: at least one.
      files: clip file by source.
      score: the clips are ordered by it and labelled with it; by their ids and with all their scores if None.
      partners: for each clip by its id another one, which is shown after it.

    Returns:
      How many are shown.

    Raises:
      UserError: a clip file is damaged, or the PNG cannot be written.
    """
    chosen = sorted(clips, key=lambda clip: hashlib.sha256(clip.id.encode(errors="surrogateescape")).digest())[
        :MAX_CLIPS
    ]
    chosen.sort(key=lambda clip: (0.0 if score is None else clip.scores[score], clip.id))
    cells, labels, width = [], [], _frame_width(chosen)
    for clip in chosen:
        row = _frames(clip, files, width)
        if partners:
            row += _frames(partners[clip.id], files, width)
        cells.append(_side_by_side(row))
        labels.append(_label(clip, score) + (f" = {partners[clip.id].id}" if partners else ""))
    write_contact_sheet(path, np.stack(cells), columns=_columns(cells[0]), labels=labels)
    return len(chosen)


def write_cut_sheet(path: Path, results: Sequence[SourceResult], files: Mapping[str, Path]) -> tuple[int, int]:
    """Writes cuts: the last frame of a clip beside the first frame of the one that follows it in its source.

    The frames in between are the cut's trimmed borders, a gradual transition, or shots that were too short.

    Returns:
      How many are shown, evenly spread over all, and how many there are; without any, no file is written.

    Raises:
      UserError: a clip file is damaged, or the PNG cannot be written.
    """
    cuts = list(_cuts(results))
    if not cuts:
        return 0, 0
    shown = [cuts[round(place)] for place in np.linspace(0, len(cuts) - 1, min(len(cuts), MAX_CUTS))]
    cells, labels, width = [], [], _frame_width([before for before, _ in shown])
    for before, after in shown:
        last, first = _frames(before, files, width, [len(before) - 1]), _frames(after, files, width, [0])
        cells.append(_side_by_side([*last, *first]))
        end = before.start_frame + len(before)
        labels.append(f"{end - 1} | {after.start_frame}  ({after.start_frame - end} left out)  {before.source}")
    write_contact_sheet(path, np.stack(cells), columns=_columns(cells[0]), labels=labels)
    return len(shown), len(cuts)


def _cuts(results: Sequence[SourceResult]) -> Iterator[tuple[ClipRecord, ClipRecord]]:
    for result in results:
        for before, after in pairwise(sorted(result.clips, key=lambda clip: clip.start_frame)):
            pause = after.start_frame - (before.start_frame + len(before))
            if pause > 0:  # else a long shot was divided, or they are not of one film strip
                yield before, after


def _frames(
    clip: ClipRecord, files: Mapping[str, Path], width: int, indices: Sequence[int] | None = None
) -> list[_Picture]:
    if indices is None:
        indices = [0, len(clip) // 2, len(clip) - 1]
    pictures = load_clip(os.fspath(files[clip.source]), clip.index, clip.id).decode(indices)
    return [_fit(picture, width) for picture in pictures]


def _frame_width(clips: Sequence[ClipRecord]) -> int:
    """The width that suits most of the clips."""
    shape = float(np.median([clip.width / clip.height for clip in clips]))
    return round(HEIGHT * min(max(shape, _NARROWEST), _WIDEST))


def _columns(cell: _Picture) -> int:
    return max(1, SHEET_WIDTH // cell.shape[1])


def _fit(picture: _Picture, frame_width: int) -> _Picture:
    """A picture in the middle of a grey one of the sheet's size."""
    height, width, _ = picture.shape
    scale = min(HEIGHT / height, frame_width / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    frame = np.full((HEIGHT, frame_width, 3), 225, np.uint8)
    top, left = (HEIGHT - size[1]) // 2, (frame_width - size[0]) // 2
    frame[top : top + size[1], left : left + size[0]] = small
    return frame


def _side_by_side(pictures: Sequence[_Picture]) -> _Picture:
    gap = np.full((HEIGHT, _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _label(clip: ClipRecord, score: str | None) -> str:
    names = SCORES if score is None else [score]
    measured = [f"{name} {clip.scores[name]:.3g}" for name in names if not math.isnan(clip.scores[name])]
    return "  ".join([*measured, f"{len(clip)} frames", clip.id])
