"""The options of `tooncrafter sample` that are those of a shot."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from tooncrafter_jax.cli.declared_options import add_declared, given_options
from tooncrafter_jax.cli.vocabulary import Add
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.shot_jobs import parse_by_frame, parse_prompts
from tooncrafter_jax.sampling.request import Pair
from tooncrafter_jax.sampling.sequence import Shot, ShotOptions
from tooncrafter_jax.sampling.timing import CHARTS, CURVES


def add_shot(add: Add) -> None:
    """Adds the options."""
    add(
        "--keys",
        metavar="FRAME:PICTURE,...",
        help="two or more key drawings and their frames, e.g. 0:a.png,24:b.png,40:c.png, or a folder of pictures with "
        "their frames in their names, or of folders of those, which are layers; instead of --first and --last",
    )
    add(
        "--timesheet",
        type=Path,
        metavar="FILE",
        help="a time sheet, whose drawings are the keys: XDTS, an OCA folder, or TVPaint's CSV, with the pictures "
        "beside it; instead of --keys",
    )
    add(
        "--layer",
        action="append",
        default=[],
        metavar="NAME",
        help="draw this layer of the time sheet alone; may be given several times (default: all that are shown)",
    )
    add(
        "--sketch-layer",
        metavar="NAME",
        help="a layer of the time sheet whose drawings guide the frames where they begin",
    )
    add(
        "--timing",
        action="append",
        default=[],
        metavar="[FRAME:]TIMING",
        help=f"where drawings stand between two keys: {', '.join((*CURVES, *CHARTS))}, cubic-bezier(x1,y1,x2,y2), or "
        "positions such as 0.2,0.5,0.9; with FRAME, of the gap after that key alone; may be given several times "
        "(default: linear)",
    )
    add(
        "--exposure",
        action="append",
        default=[],
        metavar="[FRAME:]FRAMES",
        help="frames that a drawing is held: 1, 2 (on twos), or a list such as 2,2,3, which is repeated; with FRAME, "
        "in the gap after that key alone; may be given several times (default: 1)",
    )
    add(
        "--prompt-at",
        action="append",
        default=[],
        metavar="FRAMES:TEXT",
        help="a prompt from a frame on, e.g. 24:jumps, or for a span, 24-40:jumps; may be given several times",
    )
    add_declared(add, ShotOptions)


def check_shot_options(arguments: argparse.Namespace) -> None:
    """Raises UserError for options of shots without a shot, or of frames where there may be several shots."""
    of_keys = {"--prompt-at": arguments.prompt_at}
    of_shots = {"--timing": arguments.timing, "--exposure": arguments.exposure} | {
        f"--{field.name.replace('_', '-')}": hasattr(arguments, field.name) for field in fields(ShotOptions)
    }
    for flag, value in {"--layer": arguments.layer, "--sketch-layer": arguments.sketch_layer}.items():
        if value and arguments.timesheet is None:
            raise UserError(f"{flag} is of a time sheet: it goes with --timesheet; a line of a manifest has its own")
    if arguments.keys is None and arguments.timesheet is None:
        for flag, values in (of_keys if arguments.manifest else of_keys | of_shots).items():
            if values:
                more = "" if flag in of_keys else ", or a manifest"
                raise UserError(f"{flag} is of a shot: it goes with --keys or --timesheet{more}")
        for flag in ("timing", "exposure"):
            if isinstance(parse_by_frame(getattr(arguments, flag), f"--{flag}"), dict) and getattr(arguments, flag):
                raise UserError(
                    f"--{flag} of one gap goes with --keys or --timesheet: in a manifest, each line has its own"
                )
    if arguments.prompt_at and "prompt" in arguments:
        raise UserError("--prompt is for all frames, and --prompt-at for some: give one of them")


def given_shot(arguments: argparse.Namespace, template: Pair) -> Shot:
    """The shot that is asked for, without keys and sketches.

    Raises:
      UserError: a setting has a form that it cannot have.
    """
    prompts = []
    for value in arguments.prompt_at:
        frames, colon, text = value.partition(":")
        if not colon:
            raise UserError(f"--prompt-at: '{value}' is not of the form FRAMES:TEXT, e.g. 24:jumps or 24-40:jumps")
        prompts.append((frames, text))
    timing, exposure = (
        parse_by_frame(getattr(arguments, name), f"--{name}") if getattr(arguments, name) else default
        for name, default in (("timing", "linear"), ("exposure", "1"))
    )
    return Shot(
        {},
        parse_prompts(prompts, template.prompt, "--prompt-at"),
        timing=timing,
        exposure=exposure,
        seed=template.seed,
        fps=template.fps,
        negative_prompt=template.negative_prompt,
        loop=arguments.loop,
        options=ShotOptions(**given_options(arguments, ShotOptions)),
    )
