"""The paper's applications on held-out clips: colouring by reference, and in-betweening of line drawings.

  python scripts/measure_applications.py --set=DIR --out=DIR [--split=test] [--limit=64] [--model=small]

The edges of the true frames are the sketches. Colouring: each clip is drawn from them and from one or two references,
and, to compare with, without references (the first sketch stands for the first frame) and without sketches. Printed is
LPIPS against the truth of the frames between the first and the last, and of the last, which only two references show.

Lines: each clip of sketches is drawn from its first and last, with --lines and without, but for those that are mostly
ink. Printed are LPIPS against the true sketches, the share of the true paper that is white, and how far pixels are
from grey, in levels.

DIR gets a sheet of each of the first clips, a row a way of drawing it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from held_out import as_pictures, end, held_out, parser_of, sketches_of

from tooncrafter_jax import ToonCrafter, UserError
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch
from tooncrafter_jax.evaluation.metrics.perceptual import LpipsMetric
from tooncrafter_jax.evaluation.true_clips import TrueClip
from tooncrafter_jax.io import write_contact_sheet
from tooncrafter_jax.notes import heard_by
from tooncrafter_jax.sampling.finishing import finished, sample_all
from tooncrafter_jax.sampling.request import Pair, PreparedPair, SamplingOptions, Sketch, prepare
from tooncrafter_jax.sketches import load_extractor
from tooncrafter_jax.typing import Uint8Video

SHOWN = (0, 2, 5, 8, 11, 13, 15)
"""Frames on a sheet."""
WHITE_PAPER = 250
"""Level from which on a true sketch is paper, and a drawn one white."""
Rows = dict[str, list[list[float]]]


def colourings(
    clip: TrueClip, sketches: Uint8Video, options: SamplingOptions, toon: ToonCrafter
) -> dict[str, PreparedPair]:
    """Ways of drawing a clip -> what is drawn."""
    first, last, drawings = clip.video[0], clip.video[-1], [Sketch(one, dark_lines=True) for one in sketches]

    def pair(reference: np.ndarray, other: np.ndarray | None) -> PreparedPair:
        asked = Pair(reference, other, clip.prompt, drawings, clip.seed, clip.fps)
        return prepare(asked, options, toon.config)

    one, two = pair(first, None), pair(first, last)
    return {
        "two references and sketches": two,
        "one reference and sketches": one,
        "one reference twice and sketches": one._replace(open_end=False),
        "two references, no sketches": two._replace(hints=None),
        "one reference, no sketches": one._replace(hints=None),
        "no reference, sketches": pair(sketches[0], None),
    }


def line_drawings(
    clip: TrueClip, sketches: Uint8Video, options: SamplingOptions, toon: ToonCrafter
) -> dict[str, tuple[PreparedPair, SamplingOptions]]:
    """Ways of drawing a clip of sketches -> what is drawn, and how; none where they are too dark for --lines."""
    asked = Pair(sketches[0], sketches[-1], clip.prompt, seed=clip.seed, fps=clip.fps)
    ways = {"as pictures": options, "lines": replace(options, lines=True)}
    try:
        return {name: (prepare(asked, chosen, toon.config), chosen) for name, chosen in ways.items()}
    except UserError as error:
        print(f"{clip.id}: not among the line drawings: {error}", flush=True)
        return {}


def drawn(toon: ToonCrafter, pairs: Sequence[PreparedPair], options: SamplingOptions) -> list[Uint8Video]:
    """The clips of prepared pairs, one after another."""
    return [
        finished(sampled, pair, options)
        for pair in pairs
        for sampled in sample_all(toon.sample_prepared, [pair], options)
    ]


def of_lines(metric: LpipsMetric, made: Uint8Video, truth: Uint8Video) -> list[float]:
    """LPIPS, share of the true paper that is white, and distance from grey, of the frames between."""
    lpips = metric.of_frames(ClipBatch(made[None], truth[None], ("",)))[0, 1:-1].mean()
    made, truth = made[1:-1], truth[1:-1]
    paper = truth.min(-1) >= WHITE_PAPER
    grey = (made.max(-1).astype(int) - made.min(-1)).mean()
    return [float(lpips), float((made.min(-1)[paper] >= WHITE_PAPER).mean()), float(grey)]


def print_table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Means over clips, with the standard error of the first column."""
    print(f"\n| {title} | " + " | ".join(columns) + " |\n|" + "---|" * (1 + len(columns)))
    for name, values in rows.items():
        means = np.mean(values, axis=0)
        error = np.std(values, axis=0)[0] / np.sqrt(len(values))
        print(f"| {name} | {means[0]:.4f} ± {error:.4f} | " + " | ".join(f"{value:.4f}" for value in means[1:]) + " |")


def main() -> None:
    """Prints both tables and writes the sheets."""
    parser = parser_of(__doc__, limit=64)
    parser.add_argument("--out", type=Path, required=True, help="a directory for the sheets")
    parser.add_argument("--extractor", default="hed", help="draws the sketches (default: %(default)s)")
    parser.add_argument("--sheets", type=int, default=4, help="of how many clips (default: %(default)s)")
    arguments = parser.parse_args()
    extractor = load_extractor(arguments.extractor)
    toon, options, _, clips = held_out(arguments)
    metric, coloured, lined = LpipsMetric.load("alexnet"), Rows(), Rows()
    for number in range(len(clips)):
        clip = clips[number]
        sketches = as_pictures(sketches_of(extractor, clip.video))
        with heard_by(lambda sentence: None):
            ways = colourings(clip, sketches, options, toon)
            by_lines = line_drawings(clip, sketches, options, toon)
        rows = [clip.video, sketches]
        for name, video in zip(ways, drawn(toon, list(ways.values()), options), strict=True):
            lpips = metric.of_frames(ClipBatch(video[None], clip.video[None], ("",)))[0]
            coloured.setdefault(name, []).append([float(lpips[1:-1].mean()), float(lpips[-1])])
            rows.append(video)
        lines = [sketches]
        for name, (pair, chosen) in by_lines.items():
            (video,) = drawn(toon, [pair], chosen)
            lined.setdefault(name, []).append(of_lines(metric, video, sketches))
            lines.append(video)
        if number < arguments.sheets:
            sheets = [("colouring", rows, ["truth", "sketches", *ways])]
            if by_lines:
                sheets.append(("lines", lines, ["sketches of the truth", *by_lines]))
            for kind, shown, names in sheets:
                labels = [label for name in names for label in [name, *[""] * (len(SHOWN) - 1)]]
                frames = np.concatenate([video[list(SHOWN)] for video in shown])
                write_contact_sheet(arguments.out / f"{kind}_{number}.png", frames, len(SHOWN), labels)
        print(f"{number + 1} of {len(clips)} clips: {clip.id}", flush=True)
    print_table("colouring", ("LPIPS of the frames between", "of the last frame"), coloured)
    print_table("line drawings", ("LPIPS", "white paper", "from grey"), lined)


if __name__ == "__main__":
    end(main)
