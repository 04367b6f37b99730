"""Which clips the options of `tooncrafter sample` ask for, and where they go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tooncrafter_jax.cli.declared_options import given_options
from tooncrafter_jax.cli.shot_options import given_shot
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.formats import FORMATS, format_of_ending
from tooncrafter_jax.sampling.batch.jobs import Job, checked_name, frames_in, parse_sketches, sketches_in
from tooncrafter_jax.sampling.batch.manifests import manifest_scenes
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.prompt_folders import ORDERS, folder_jobs
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.batch.sheet_jobs import layered_job, layers_in, sheet_job
from tooncrafter_jax.sampling.batch.shot_jobs import ShotJob, parse_keys
from tooncrafter_jax.sampling.request import Pair, references_of


class Asked(NamedTuple):
    """What is asked for.

    Attributes:
      jobs: the clips.
      directory: where their files go.
      formats: that are named, or that the ending of --out stands for.
      endings: as of `OutputPlan`.
      files: other options of `OutputPlan`.
    """

    jobs: list[Job | SceneJob]
    directory: Path
    formats: tuple[str, ...]
    endings: Mapping[str, str]
    files: dict[str, Any]


def asked_for(arguments: argparse.Namespace) -> Asked:
    """The clips of all options.

    Raises:
      UserError: options exclude each other, or one that is needed is missing.
    """
    kinds = ("first", "keys", "timesheet", "reference", "folder", "manifest")
    given = [name for name in kinds if getattr(arguments, name) not in (None, [])]
    if len(given) != 1:
        raise UserError(
            "give one of --first with --last, --keys, --timesheet, --reference with --sketches, --folder, or --manifest"
            + (f", not --{' and --'.join(given)} together" if given else "")
        )
    if arguments.out is None:
        raise UserError("say where the result goes with --out")
    formats = tuple(dict.fromkeys(part.strip() for part in arguments.format.split(",") if part.strip()))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"unknown format '{unknown[0]}': choose of {', '.join(FORMATS)}")
    if arguments.folder is None and arguments.order is not None:
        raise UserError("--order is that of the pictures of a --folder: leave it out")
    if (arguments.sketches is None) == bool(arguments.reference):
        raise UserError(
            "--reference needs --sketches, a folder with a sketch for each frame"
            if arguments.reference
            else "--sketches goes with --reference: single frames of others are guided by --sketch"
        )
    _check_polarity(arguments)
    template, files = Pair(Path(), Path(), **given_options(arguments, Pair)), given_options(arguments, OutputPlan)
    if given[0] in ("folder", "manifest"):
        return Asked(_several_jobs(arguments, template), arguments.out, formats, {}, files)
    directory, name, endings = _single_output(arguments.out, formats)
    job = {"first": _pair, "reference": _colouring}.get(given[0], _scene)(
        arguments, checked_name(name, "--out"), template
    )
    return Asked([job], directory, tuple(dict.fromkeys((*endings, *formats))), endings, files)


def _pair(arguments: argparse.Namespace, name: str, template: Pair) -> Job | SceneJob:
    if arguments.loop == (arguments.last is not None):
        raise UserError(
            "--loop takes one picture: leave out --last" if arguments.loop else "--first needs --last (or --loop)"
        )
    pair = template._replace(
        first=arguments.first,
        last=arguments.first if arguments.loop else arguments.last,
        sketches=parse_sketches(arguments.sketch, dark_lines=_dark_lines(arguments)),
        draft=None if arguments.draft is None else frames_in(arguments.draft),
    )
    return Job(name, pair)


def _colouring(arguments: argparse.Namespace, name: str, template: Pair) -> Job | SceneJob:
    """The sketches that are to be coloured by references."""
    others = {"--last": arguments.last, "--sketch": arguments.sketch, "--loop": arguments.loop}
    for flag in (flag for flag, value in others.items() if value):
        raise UserError(f"{flag} goes with --first, not with --reference")
    first, last = references_of(arguments.reference)
    sketches = sketches_in(arguments.sketches, _dark_lines(arguments))
    draft = None if arguments.draft is None else frames_in(arguments.draft)
    return Job(name, template._replace(first=first, last=last, sketches=sketches, draft=draft))


def _scene(arguments: argparse.Namespace, name: str, template: Pair) -> Job | SceneJob:
    """The shot of keys, or the layers of a time sheet or a folder."""
    sketches = parse_sketches(arguments.sketch, dark_lines=_dark_lines(arguments))
    shot = given_shot(arguments, template)._replace(sketches=sketches)
    for flag, value in {"--last": arguments.last, "--draft": arguments.draft}.items():
        if value is not None:
            raise UserError(
                f"{flag} goes with --first, not with --{'keys' if arguments.timesheet is None else 'timesheet'}"
            )
    if arguments.timesheet is not None:
        dark_lines = _dark_lines(arguments)
        return sheet_job(
            arguments.timesheet, shot, name, arguments.layer, arguments.sketch_layer, dark_lines=dark_lines
        )
    sheet = layers_in(Path(arguments.keys)) if Path(arguments.keys).is_dir() else None
    if sheet is not None:
        return layered_job(Path(arguments.keys), sheet, shot, name)
    return ShotJob(name, shot._replace(keys=parse_keys(arguments.keys)))


def _dark_lines(arguments: argparse.Namespace) -> bool | None:
    """The polarity of the sketches that is said; None where it is left to them."""
    if arguments.dark_sketches and arguments.bright_sketches:
        raise UserError(
            "--dark-sketches and --bright-sketches exclude each other: leave both out if there are sketches of both"
        )
    return True if arguments.dark_sketches else False if arguments.bright_sketches else None


def _check_polarity(arguments: argparse.Namespace) -> None:
    """Raises UserError where it is said how sketches are drawn, and there are none."""
    sketches = arguments.sketch or arguments.sketches or arguments.sketch_layer or arguments.manifest
    if _dark_lines(arguments) is not None and not sketches:
        raise UserError(
            f"--{'dark' if arguments.dark_sketches else 'bright'}-sketches says how sketches are drawn, and there are "
            "none: give them by --sketch, --sketches, --sketch-layer or a manifest, or leave it out"
        )


def _several_jobs(arguments: argparse.Namespace, template: Pair) -> list[Job | SceneJob]:
    where = "a folder" if arguments.folder is not None else "a manifest"
    of_a_pair = {"--last": arguments.last, "--sketch": arguments.sketch, "--draft": arguments.draft}
    for flag in (flag for flag, value in of_a_pair.items() if value):
        raise UserError(f"{flag} goes with --first, not with {where}")
    ending = arguments.out.suffix.removeprefix(".")
    if format_of_ending(ending) or ending.lower() in FORMATS:
        raise UserError(f"--out={arguments.out} is the name of one file, but {where} makes several: give a directory")
    if arguments.folder is None:
        shot, dark_lines = given_shot(arguments, template), _dark_lines(arguments)
        return manifest_scenes(arguments.manifest, template, shot, loop=arguments.loop, dark_lines=dark_lines)
    if "prompt" in arguments:
        raise UserError("--prompt goes with --first: the prompts of a folder are in its .txt file")
    if os.path.realpath(arguments.out) == os.path.realpath(arguments.folder):
        raise UserError(f"--out={arguments.out} is the folder of the pictures: choose another for the results")
    order = arguments.order or ORDERS[0]
    return [*folder_jobs(arguments.folder, template, loop=arguments.loop, order=order)]


def _single_output(out: Path, formats: Sequence[str]) -> tuple[Path, str, Mapping[str, str]]:
    """Directory and stem that --out stands for with a single pair, and the format with its ending, spelt as it was
    given.
    """
    ending = out.suffix.removeprefix(".")
    if kind := format_of_ending(ending):
        return out.parent, out.stem, {kind: ending}
    if ending:
        *others, last = [f".{form.endings[0]}" for form in FORMATS.values() if not form.is_folder]
        raise UserError(
            f"--out={out} ends in .{ending}: use {', '.join(others)} or {last}, or --format=png for a folder of frames"
        )
    if out.is_dir() and not any(FORMATS[kind].is_folder for kind in formats):
        raise UserError(f"--out={out} is a directory: name the file, e.g. --out={out / 'clip.mp4'}")
    return out.parent, out.name, {}
