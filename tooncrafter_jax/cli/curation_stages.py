"""The options of `curate` that say how clips are measured, and the stages that they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.vocabulary import add_clip_weights
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.errors import UserError

if TYPE_CHECKING:
    from tooncrafter_jax.curation.craft_detector import CraftDetector

OFF = "off"
FLOWS, DETECTORS = ("dis", "gmflow", OFF), ("ppocr", "craft", OFF)


def add_measurements(parser: Parser, *, films: bool = False) -> None:
    """The options of the stages.

    Args:
      parser: gets them.
      films: whether clips are of films, of which more has to be found out.
    """
    add = parser.add_argument_group("how clips are measured").add_argument
    add(
        "--motion",
        choices=FLOWS,
        default="dis",
        metavar="NAME",
        help="optical flow by dis (OpenCV), gmflow (learned, with the extra torch-data), or off (default: %(default)s)",
    )
    add(
        "--text",
        choices=DETECTORS,
        default="ppocr" if films else OFF,
        metavar="NAME",
        help="text in the picture by ppocr (PP-OCR), craft (the paper's, with --craft-weights), or off (default: %(default)s)",
    )
    add(
        "--craft-weights",
        type=Path,
        metavar="FILE",
        help="weights of CRAFT: craft_mlt_25k.pth (with the extra convert), or what `convert` made of it",
    )
    add("--no-fingerprints", action="store_true", help="do not look for near-duplicates")
    if films:
        add(
            "--captions",
            type=Path,
            metavar="FILE",
            help=".csv, .json or .jsonl with 'caption' and 'source' (a film, and if wanted 'start' and 'stop' frames) or 'id' "
            "(a clip)",
        )
        add(
            "--blip2",
            type=Path,
            metavar="DIR",
            help="a BLIP-2 model on this disk, for clips without a caption (with the extra torch-data, and transformers)",
        )
    add_clip_weights(add, "the agreement of captions and frames, and aesthetic scores")
    add(
        "--aesthetic-head",
        type=Path,
        metavar="FILE",
        help="weights of LAION's aesthetic predictor for this CLIP; without it aesthetic scores are off",
    )
    parser.set_defaults(films=films)


def stages_of(arguments: argparse.Namespace) -> list[Stage]:
    """The stages that were asked for, the cheap ones first.

    Raises:
      UserError: options that only go together were not given together, or the weights of CRAFT do not fit.
    """
    from tooncrafter_jax.curation.aesthetics import Aesthetics
    from tooncrafter_jax.curation.agreement import Agreement
    from tooncrafter_jax.curation.captions import Blip2Captions, SidecarCaptions
    from tooncrafter_jax.curation.clip_model import ClipWeights
    from tooncrafter_jax.curation.fingerprint import Fingerprint
    from tooncrafter_jax.curation.holds import Holds
    from tooncrafter_jax.curation.motion import DisFlow, GmFlow, Motion
    from tooncrafter_jax.curation.text import Text

    for option in ("aesthetic_head", "quick_gelu"):
        if getattr(arguments, option) and arguments.clip_weights is None:
            raise UserError(f"--{option.replace('_', '-')} needs the weights of CLIP: give them with --clip-weights")
    craft = _craft_detector(arguments)
    stages: list[Stage] = []
    if arguments.films:
        stages.append(Holds())
    if not arguments.no_fingerprints:
        stages.append(Fingerprint())
    if arguments.motion != OFF:
        stages.append(Motion(GmFlow() if arguments.motion == "gmflow" else DisFlow()))
    if arguments.text != OFF:
        stages.append(Text() if craft is None else Text(craft))
    if arguments.films and arguments.captions is not None:
        stages.append(SidecarCaptions(arguments.captions))
    if arguments.films and arguments.blip2 is not None:
        stages.append(Blip2Captions(arguments.blip2))
    if arguments.clip_weights is not None:
        clip = ClipWeights(arguments.clip_weights, arguments.quick_gelu)
        stages.append(Agreement(clip))
        if arguments.aesthetic_head is not None:
            stages.append(Aesthetics(clip, arguments.aesthetic_head))
    return stages


def _craft_detector(arguments: argparse.Namespace) -> CraftDetector | None:
    """CRAFT, if it was asked for, with weights that fit."""
    weights: Path | None = arguments.craft_weights
    if arguments.text != "craft":
        if weights is not None:
            raise UserError("--craft-weights goes with --text=craft: add that, or leave the weights out")
        return None
    if weights is None:
        raise UserError("--text=craft needs the weights of CRAFT: give craft_mlt_25k.pth with --craft-weights")
    from tooncrafter_jax.curation.craft_detector import CraftDetector
    from tooncrafter_jax.zoo.craft.weights import check_craft

    check_craft(weights)
    return CraftDetector(weights)


def notes_on(stages: Sequence[Stage], sources: Sequence[str]) -> list[str]:
    """Sentences on what the user may not expect: scores that are off, and captions of other films.

    Raises:
      UserError: the file of captions cannot be read.
    """
    from tooncrafter_jax.curation.aesthetics import Aesthetics
    from tooncrafter_jax.curation.agreement import Agreement
    from tooncrafter_jax.curation.captions import SidecarCaptions

    given = {type(stage) for stage in stages}
    notes = [stage.off for stage in (Aesthetics(), Agreement()) if type(stage) not in given]
    for stage in stages:
        if isinstance(stage, SidecarCaptions) and (mismatch := stage.mismatch(sources)):
            notes.append(mismatch)
    return notes
