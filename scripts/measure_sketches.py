"""Whether a sketch of the middle frame is obeyed, also one that was moved or drawn by an unsteady hand.

  python scripts/measure_sketches.py --set=DIR --out=DIR [--split=test] [--limit=40] [--model=small] [--show=ID ...]

The sketch is that of the true middle frame, or the same moved by a sixteenth of the picture to the right and down, or
with wobbling, broken lines. Printed are mean distances, in pixels, from the sketch's lines to the nearest line of the
frame that is drawn with it, and of the one that is drawn without; and LPIPS (AlexNet) against the truth of the middle
frame, of the two beside it, and of all others. A sketch that was changed has no truth.

OUT gets a sheet for each of the first clips, and for those that are named: the truth, and what is drawn without and
with each sketch, which stands at the end of its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from held_out import as_pictures, end, held_out, parser_of, sketches_of
from scipy import ndimage

from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.evaluation.metrics.perceptual import LpipsMetric
from tooncrafter_jax.evaluation.true_clips import TrueClip, TrueClips
from tooncrafter_jax.io import write_contact_sheet
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch
from tooncrafter_jax.sketches import load_extractor
from tooncrafter_jax.typing import Uint8Video

SHOWN = (0, 4, 6, 7, 8, 9, 10, 12, 15)
"""Frames on a sheet."""
INK = 0.5
"""Of a sketch in [0, 1], what is darker is a line."""
MOVED = 1 / 16
"""Of a picture's sides."""
WOBBLE, SMOOTHNESS = 1.5, 6.0
"""Pixels that an unsteady hand strays by, as a standard deviation, and over how many pixels it comes back."""
BROKEN = 0.15
"""Share of cells of 8x8 pixels whose lines are left out."""


def moved(sketch: np.ndarray) -> np.ndarray:
    """The sketch further right and down; where nothing comes from is paper."""
    down, right = (round(MOVED * side) for side in sketch.shape)
    return ndimage.shift(sketch, (down, right), order=0, cval=1.0)


def by_hand(sketch: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The sketch with lines that wobble and break."""
    height, width = sketch.shape
    strays = [ndimage.gaussian_filter(random.normal(size=sketch.shape), SMOOTHNESS) for _ in range(2)]
    rows, columns = (
        place + WOBBLE * stray / stray.std() for place, stray in zip(np.indices(sketch.shape), strays, strict=True)
    )
    wobbling = ndimage.map_coordinates(sketch, [rows, columns], order=1, mode="nearest")
    broken = random.random((-(-height // 8), -(-width // 8))) < BROKEN
    return np.where(np.kron(broken, np.ones((8, 8), bool))[:height, :width], 1.0, wobbling)


def distance(sketch: np.ndarray, lines: np.ndarray) -> float:
    """Mean distance of the sketch's lines from the nearest of the others, in pixels; nan where either has none."""
    asked, there = sketch < INK, lines < INK
    if not asked.any() or not there.any():
        return float("nan")
    return float(np.asarray(ndimage.distance_transform_edt(~there))[asked].mean())


def drawn(toon: ToonCrafter, clip: TrueClip, sketch: np.ndarray | None, options: SamplingOptions) -> Uint8Video:
    """The clip, without a sketch or with one of its middle frame."""
    sketches = None
    if sketch is not None:
        sketches = {len(clip.video) // 2: Sketch(as_pictures(sketch), dark_lines=True, may_be_blank=True)}
    pair = Pair(clip.video[0], clip.video[-1], clip.prompt, sketches, clip.seed, clip.fps)
    return toon.interpolate_pairs([pair], options)[0]


def print_tables(distances: Mapping[str, list[tuple[float, float]]], likeness: Mapping[str, list[np.ndarray]]) -> None:
    """Means over clips, with standard errors."""
    print("\n| sketch of the middle frame | distance without it | with it | of clips nearer |\n|---|---|---|---|")
    for name, values in distances.items():
        pairs = np.asarray(values)
        pairs = pairs[~np.isnan(pairs).any(axis=1)]
        mean, error = pairs.mean(axis=0), pairs.std(axis=0) / np.sqrt(len(pairs))
        nearer = (pairs[:, 1] < pairs[:, 0]).mean()
        cells = [f"{m:.2f} ± {e:.2f}" for m, e in zip(mean, error, strict=True)]
        print(f"| {name} | {cells[0]} | {cells[1]} | {nearer:.0%} |")
    print("\n| drawn | LPIPS of the middle frame | of those beside it | of the others between |\n|---|---|---|---|")
    for name, frames in likeness.items():
        of_frames = np.asarray(frames)
        middle = of_frames.shape[1] // 2
        beside = of_frames[:, [middle - 1, middle + 1]].mean()
        others = np.delete(of_frames, [0, middle - 1, middle, middle + 1, of_frames.shape[1] - 1], axis=1).mean()
        print(f"| {name} | {of_frames[:, middle].mean():.4f} | {beside:.4f} | {others:.4f} |")


def main() -> None:
    """Prints the tables and writes the sheets."""
    parser = parser_of(__doc__, limit=40)
    parser.add_argument("--out", type=Path, required=True, help="a directory for the sheets")
    parser.add_argument("--extractor", default="hed", help="draws the sketches (default: %(default)s)")
    parser.add_argument("--sheets", type=int, default=4, help="of how many clips (default: %(default)s)")
    parser.add_argument(
        "--show", nargs="+", default=[], metavar="ID", help="clips that have a sheet besides: parts of ids"
    )
    arguments = parser.parse_args()
    extractor = load_extractor(arguments.extractor)
    toon, options, rule, clips = held_out(arguments, start="motion", stride=3)
    everything = TrueClips(clips.clips, rule)
    asked = [everything[everything.find(text)] for text in arguments.show]
    metric = LpipsMetric.load("alexnet")
    distances: dict[str, list[tuple[float, float]]] = {}
    likeness: dict[str, list[np.ndarray]] = {}
    for number, clip in enumerate([*asked, *(clips[i] for i in range(len(clips)))]):
        middle = len(clip.video) // 2
        (true,) = sketches_of(extractor, clip.video[middle : middle + 1])
        hand = by_hand(true, np.random.default_rng(clip.seed))
        sketches = {"as it is": true, "moved": moved(true), "by an unsteady hand": hand}
        without = drawn(toon, clip, None, options)
        videos = {name: drawn(toon, clip, sketch, options) for name, sketch in sketches.items()}
        if number >= len(asked):
            for name, sketch in sketches.items():
                without_it, with_it = sketches_of(extractor, np.stack([without[middle], videos[name][middle]]))
                distances.setdefault(name, []).append((distance(sketch, without_it), distance(sketch, with_it)))
            for name, video in (("without a sketch", without), ("with the sketch as it is", videos["as it is"])):
                batch = ClipBatch(video[None], clip.video[None], ("",))
                likeness.setdefault(name, []).append(np.asarray(metric.of_frames(batch)[0]))
        if number < len(asked) + arguments.sheets:
            rows = [clip.video, without, *videos.values()]
            ends = [np.full_like(clip.video[0], 255)] * 2 + [as_pictures(sketch) for sketch in sketches.values()]
            frames = np.concatenate(
                [np.concatenate([row[list(SHOWN)], last[None]]) for row, last in zip(rows, ends, strict=True)]
            )
            names = ["truth", "without", *sketches]
            labels = [label for name in names for label in [name, *[""] * len(SHOWN)]]
            write_contact_sheet(arguments.out / f"sketch_{number}.png", frames, len(SHOWN) + 1, labels)
        print(f"{number + 1} of {len(asked) + len(clips)} clips: {clip.id}", flush=True)
    print_tables(distances, likeness)


if __name__ == "__main__":
    end(main)
