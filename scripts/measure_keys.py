"""Measures how motion passes the keys of a shot, and what --through-keys gains.

python scripts/measure_keys.py [--model=DIR|NAME] [--gap=8] [--keys=4] [--steps=N] [--size=PIXELS] [--out=DIR]

An animation is drawn whose speed never changes: a face that crosses the frame along an arc. Some of its frames are
the keys of a shot; the table shows the speed to each key, from it and inside the gaps (DIS optical flow, pixels a
frame) of the animation itself, of the shot, and of the shot drawn through its keys; then how far the frames beside
keys are from the animation's (mean absolute difference of levels).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.curation.motion import DisFlow
from tooncrafter_jax.evaluation.key_speeds import key_speeds
from tooncrafter_jax.io import write_gif
from tooncrafter_jax.typing import Uint8Video

TIMES_LARGER = 4
"""Drawn at, so that positions between pixels count."""


def animation(frames: int, size: int) -> Uint8Video:
    """A face on an arc of 140 degrees, as many degrees each frame."""
    video = []
    for angle in np.radians(np.linspace(-160, -20, frames)):
        side = size * TIMES_LARGER
        picture = Image.new("RGB", (side, side), (235, 240, 250))
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0.85 * side, side, side), fill=(120, 170, 90))
        x, y, r = side * (0.5 + 0.32 * np.cos(angle)), side * (0.72 + 0.42 * np.sin(angle)), 0.15 * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(250, 200, 60), outline=(30, 30, 30), width=side // 80)
        for eye in (-0.4, 0.4):
            ex, ey, er = x + eye * r, y - 0.25 * r, 0.14 * r
            draw.ellipse((ex - er, ey - er, ex + er, ey + er), fill=(30, 30, 30))
        draw.arc((x - 0.5 * r, y - 0.2 * r, x + 0.5 * r, y + 0.6 * r), 20, 160, fill=(30, 30, 30), width=side // 80)
        video.append(np.asarray(picture.resize((size, size), Image.Resampling.BOX)))
    return np.stack(video)


def report(name: str, video: Uint8Video, truth: Uint8Video, keys: list[int]) -> None:
    """Prints a row for each key, and one for all."""
    speeds = key_speeds(video, keys, DisFlow())
    for one in speeds:
        print(
            f"{name:14} {one.frame:5d} {one.before:8.3f} {one.after:8.3f} {one.inside:8.3f} {one.stall:7.2f} "
            f"{one.jump:7.2f} {one.turn:7.1f}"
        )
    beside = [frame + step for frame in keys[1:-1] for step in (-2, -1, 1, 2)]
    off = np.abs(video[beside].astype(float) - truth[beside]).mean()
    means = [np.mean([getattr(one, what) for one in speeds]) for what in ("stall", "jump", "turn")]
    print(f"{name:14}  mean {'':26} {means[0]:7.2f} {means[1]:7.2f} {means[2]:7.1f}   beside keys off by {off:.2f}\n")


def main() -> int:
    """Draws and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--gap", type=int, default=8, help="frames between keys")
    parser.add_argument("--keys", type=int, default=4)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int, help="pixels of a side, by default the model's height")
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--out", type=Path, help="folder for the videos as GIFs")
    arguments = parser.parse_args()
    toon = ToonCrafter.load(arguments.model)
    size = arguments.size or toon.config.height
    keys = [number * arguments.gap for number in range(arguments.keys)]
    truth = animation(keys[-1] + 1, size)
    options = {"height": size, "width": size, "seed": arguments.seed}
    if arguments.steps:
        options["steps"] = arguments.steps
    print(f"{'':14} {'key':>5} {'before':>8} {'after':>8} {'inside':>8} {'stall':>7} {'jump':>7} {'turn':>7}")
    videos = {"animation": truth}
    report("animation", truth, truth, keys)
    for name, through in (("shot", False), ("through keys", True)):
        start = time.perf_counter()
        videos[name] = toon.interpolate_sequence({key: truth[key] for key in keys}, through_keys=through, **options)
        seconds = time.perf_counter() - start
        report(name, videos[name], truth, keys)
        print(f"{name}: {seconds:.0f} s, compilation included\n")
    if arguments.out:
        for name, video in videos.items():
            write_gif(arguments.out / f"{name.replace(' ', '_')}.gif", video, 8)
    return 0


if __name__ == "__main__":
    sys.exit(main())
