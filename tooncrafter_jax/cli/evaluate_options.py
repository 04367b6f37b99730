"""The options of `tooncrafter evaluate`, group by group."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

from tooncrafter_jax.cli.vocabulary import (
    Add,
    add_batch_size,
    add_dtype,
    add_overwrite,
    add_quiet,
    add_size,
    add_split,
    add_weight_dtype,
)
from tooncrafter_jax.evaluation.method_specs import DEFAULT_METHODS, PRESETS
from tooncrafter_jax.evaluation.metrics import METRICS
from tooncrafter_jax.evaluation.true_clips import Start, WindowRule
from tooncrafter_jax.sketches import EXTRACTORS

SPLIT = "test"
"""That is measured unless another is asked for."""


def add_measured(add: Add) -> None:
    """What is measured, and by what."""
    add("--methods", nargs="+", metavar="METHOD", help=f"see above (default: {' '.join(DEFAULT_METHODS)})")
    add("--metrics", nargs="+", metavar="NAME", help=f"of {', '.join(METRICS)} (default: those that need no CLIP)")
    add("--preset", choices=PRESETS, metavar="NAME", help=f"the metrics of the paper's {', '.join(PRESETS)}")


def add_clips(add: Add) -> None:
    """Which clips, and which frames of them."""
    rule = WindowRule()
    add_split(add, SPLIT)
    add("--limit", type=int, default=0, metavar="N", help="so many clips, spread over the split; 0 for all")
    add_size(add, dataclasses.asdict(rule), "a clip", frames=True)
    add("--stride", type=int, default=rule.stride, metavar="N", help="step between frames (default: %(default)s)")
    add(
        "--start",
        choices=get_args(Start),
        default=rule.start,
        metavar="NAME",
        help=f"where in a clip the frames are taken: {', '.join(get_args(Start))} (default: %(default)s)",
    )


def add_how(add: Add) -> None:
    """How it is done, and what is kept."""
    add_batch_size(add, "clips", 4)
    add(
        "--show",
        nargs="+",
        default=[],
        metavar="ID",
        help="clips that the report shows whatever their numbers: parts of ids",
    )
    add(
        "--against",
        metavar="NAME",
        help="a method of the report that the others are compared with, clip by clip: differences with intervals",
    )
    add("--no-videos", action="store_true", help="keep numbers alone, not what was made")
    add_overwrite(add, "another evaluation in --out")
    add("--no-prompts", action="store_true", help="models do not get the captions")
    add(
        "--sketch-frames",
        type=int,
        nargs="+",
        metavar="N",
        help="frames that sketched:DIR is given sketches of, from 0 (default: the middle one)",
    )
    add(
        "--sketch-extractor",
        choices=EXTRACTORS,
        default="hed",
        metavar="NAME",
        help=f"what draws them: {', '.join(EXTRACTORS)} (default: %(default)s)",
    )
    add("--sketch-weights", type=Path, metavar="FILE", help="of the extractor, where they are the user's to download")
    add_dtype(add)
    add_weight_dtype(add)
    add_quiet(add)
