"""A set of small moving drawings, and methods that make it again in ways whose numbers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tooncrafter_jax.data.clip_sets import ClipReference, ClipSet, write_clips
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.evaluation.run import Evaluation
from tooncrafter_jax.evaluation.true_clips import TrueClip

LENGTHS = (40, 16, 23, 70, 9, 31, 16, 52)
"""Frames of the clips; one is too short for a window of 16."""
SIDE = 32


def drawing(number: int, frames: int) -> np.ndarray:
    """A square that goes over a ground of the clip's own colour, fast in the last third of the clip."""
    pictures = np.full((frames, SIDE, SIDE, 3), (20 * number + 30, 90, 200 - 15 * number), np.uint8)
    for index in range(frames):
        left = index // 4 + 2 * max(0, index - 2 * frames // 3)
        pictures[index, 10:20, left % (SIDE - 8) : left % (SIDE - 8) + 8] = (250, 240, 10)
    return pictures


def make_set(directory: Path) -> ClipSet:
    """The set, in a split `test`."""

    def reference(number: int, frames: int) -> ClipReference:
        clip_id = f"film {number}/é 0"

        def load() -> Any:
            pictures = drawing(number, frames)
            return clip_of_pictures(pictures, id=clip_id, source=f"film {number}", fps=24.0, caption=f"square {number}")

        return ClipReference(clip_id, 9000, load)

    write_clips(directory, {"test": [reference(number, frames) for number, frames in enumerate(LENGTHS)]})
    return ClipSet(directory, "test")


class Darker:
    """The truth, darker by some levels; counts the clips that it was asked for."""

    def __init__(self, levels: int, name: str = "") -> None:
        self.name = self.title = name or f"darker {levels}"
        self.levels, self.asked = levels, 0

    def settings(self) -> Mapping[str, Any]:
        return {"levels": self.levels}

    def make(self, clips: Sequence[TrueClip]) -> np.ndarray:
        self.asked += len({clip.id for clip in clips})
        videos = np.stack([clip.video for clip in clips])
        return np.maximum(videos.astype(int) - self.levels, 0).astype(np.uint8)


def numbers(evaluation: Evaluation, measured: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Method -> metric -> number."""
    return {one.name: {m.name: m.summarise(one.rows[m.name]) for m in evaluation.metrics} for one in measured}
