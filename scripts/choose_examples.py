"""Chooses the clips of `make demo` among held-out ones by a rule, so that nobody picks the best of many.

  python scripts/choose_examples.py --set=DIR --out=examples [--split=test] [--limit=300]

Clips are ordered by how far the true middle frame is from the mean of both ends: what a cross-fade misses, be it motion
or its timing. Those at `PLACES` of that order are taken. What a model draws of them has no part in it. Printed are
lines for `examples/demo.jsonl`, with the distance, in levels of 255; OUT gets a folder for each, with its first and
last picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from held_out import end
from PIL import Image

from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.evaluation.true_clips import TrueClips, WindowRule
from tooncrafter_jax.typing import Uint8Video

PLACES = (9 / 10, 3 / 4, 1 / 2)
"""Shares of the clips that are nearer to their cross-fade; the first is the README's sheet."""
RULE = WindowRule(height=128, width=128, stride=3, start="motion")
"""As in the evaluations of the model card."""


def distance(video: Uint8Video) -> float:
    """Mean absolute difference of the middle frame from the mean of the ends, in levels of 255."""
    first, middle, last = (video[place].astype(np.float32) for place in (0, len(video) // 2, -1))
    return float(np.abs(middle - (first + last) / 2).mean())


def main() -> None:
    """Writes the pictures and prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="directory of a clip set")
    parser.add_argument("--out", type=Path, required=True, help="where the folders go")
    parser.add_argument("--split", default="test", help="of the set (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=300, help="how many clips (default: %(default)s)")
    arguments = parser.parse_args()
    clips = list(TrueClips(ClipSet(arguments.set, arguments.split), RULE, arguments.limit))
    ordered = sorted(clips, key=lambda clip: distance(clip.video))
    for place in PLACES:
        clip = ordered[int(place * len(ordered))]
        name = clip.id.removeprefix("emoji-").split("/")[0].replace("-", "_")
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for which, frame in (("first", 0), ("last", -1)):
            Image.fromarray(clip.video[frame]).save(folder / f"{which}.png", optimize=True)
        line = {"first": f"{name}/first.png", "last": f"{name}/last.png", "name": name, "fps": clip.fps}
        print(f"{json.dumps(line)}  # {distance(clip.video):.1f}, nearer are {place:.0%}")


if __name__ == "__main__":
    end(main)
