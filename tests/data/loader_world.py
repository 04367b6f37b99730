"""Tiny sets for the tests of the loader, and a program that loads from one in a process of its own."""

from __future__ import annotations

import functools
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tooncrafter_jax.data.clip_sets import ClipReference, ClipSet, write_clips
from tooncrafter_jax.data.loader import Loader, LoaderConfig
from tooncrafter_jax.data.records import Clip, clip_of_pictures

LENGTHS = (16, 20, 33, 47, 61, 96, 40, 31, 100, 25, 50)
"""Frames of the clips of the tiny set, by the number in their colour."""
SMALL: dict[str, Any] = {"batch": 4, "height": 16, "width": 24, "prefetch": 0}
RED, GREEN = 20, 2
"""Levels of red for a step from clip to clip, and of green from frame to frame."""


def make_clip(number: int, length: int | None = None, damaged: bool = False) -> Clip:
    """A clip whose frames are of one colour, which says what clip and frame it is."""
    length = LENGTHS[number] if length is None else length
    pictures = np.full((length, 20, 28, 3), 128, np.uint8)
    pictures[..., 0] = RED * number
    pictures[..., 1] = GREEN * np.arange(length)[:, None, None]
    clip = clip_of_pictures(
        pictures, id=f"film {number}/0", source=f"film {number}", fps=24.0 + number, caption=f"number {number}"
    )
    if damaged:
        object.__setattr__(clip, "frames", tuple(frame[:80] for frame in clip.frames))
    return clip


def references(**changed: dict) -> list[ClipReference]:
    """The tiny set; `clip_3={"length": 5}` makes another clip of number 3."""
    numbers = range(len(LENGTHS))
    return [
        ClipReference(f"film {n}/0", 9000, functools.partial(make_clip, n, **changed.get(f"clip_{n}", {})))
        for n in numbers
    ]


def make_set(directory: Path, **changed: dict) -> ClipSet:
    """The tiny set, written."""
    write_clips(directory, {"train": references(**changed)})
    return ClipSet(directory)


def main(directory: str) -> None:
    """Loads for ever with a worker, and prints its process id first."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which nohup and & turn off, for workers too
    loader = Loader(ClipSet(directory), LoaderConfig(**{**SMALL, "num_workers": 1, "prefetch": 1}))
    next(loader)
    next(loader)
    try:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)  # the signal may come at once
        while True:
            next(loader)
    except KeyboardInterrupt:
        loader.close()
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1])
