"""Shots as `tooncrafter sample` is asked for them: on the command line, in a folder of numbered keys, and in the
lines of a manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tooncrafter_jax.config_codec import from_dict
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io import SUPPORTED_EXTENSIONS
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.batch.jobs import (
    Job,
    NamedJob,
    checked_name,
    default_name,
    manifest_entries,
    pair_of_entry,
    parse_sketches,
    with_unique_names,
    with_variations,
)
from tooncrafter_jax.sampling.request import Pair, Sketch
from tooncrafter_jax.sampling.sequence import Shot, ShotOptions

SHOT_KEYS = (
    "keys",
    "prompt",
    "negative_prompt",
    "sketches",
    "timing",
    "exposure",
    "seed",
    "fps",
    "name",
    "loop",
    *(field.name for field in fields(ShotOptions)),
)
"""Of a manifest's line that is a shot."""
_FRAMES = r"\s*(-?[0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?"


@dataclass(frozen=True)
class ShotJob(NamedJob):
    """One shot and the name of its files.

    Attributes:
      name: stem of the output files.
      shot: what to make.
    """

    shot: Shot


def parse_keys(value: str, where: str = "--keys") -> list[tuple[int, Path]]:
    """Keys as they are given on the command line: "0:a.png,24:b.png", or a folder of numbered pictures.

    Raises:
      UserError: it is neither.
    """
    if ":" not in value or Path(value).is_dir():
        return keys_in(Path(value), where)
    keys = []
    for part in re.split(r",(?=\s*-?[0-9]+\s*:)", value):
        frame, _, path = part.partition(":")
        if not path or not re.fullmatch(_FRAMES, frame) or "-" in frame.strip()[1:]:
            raise UserError(
                f"{where}: '{printable(part, 80)}' is not of the form FRAME:PICTURE, e.g. 0:a.png,24:b.png; or name a "
                "folder of numbered pictures"
            )
        keys.append((int(frame), Path(path)))
    return keys


def keys_in(folder: Path, where: str = "--keys") -> list[tuple[int, Path]]:
    """The pictures of a folder, by the last number in their names, which is their frame.

    Raises:
      UserError: there is no such folder, no picture in it, or one without a number.
    """
    try:
        files = [
            path for path in folder.iterdir() if path.suffix.lower() in SUPPORTED_EXTENSIONS and path.name[0] != "."
        ]
    except OSError as error:
        raise UserError(
            f"{where}: cannot read the folder {folder} ({error.strerror}): give keys as 0:a.png,24:b.png, or a "
            "folder of numbered pictures"
        ) from error
    files = [path for path in files if path.name[0] != "."]
    if not files:
        raise UserError(f"{where}: the folder {folder} has no pictures")
    keys: dict[int, Path] = {}
    for path in sorted(files):
        numbers = re.findall(r"[0-9]{1,9}", path.stem)
        if not numbers:
            raise UserError(
                f"{where}: '{path}' has no number in its name, which would be its frame: rename it, or move it"
            )
        frame = int(numbers[-1])
        if frame in keys:
            raise UserError(
                f"{where}: '{keys[frame].name}' and '{path.name}' in {folder} are two keys on frame {frame}: rename one"
            )
        keys[frame] = path
    ordered = sorted(keys.items())
    shown = ", ".join(str(frame) for frame, _ in ordered[:12]) + (", ..." if len(ordered) > 12 else "")
    note(f"the keys of {folder} are on frames {shown}, by the last number in their names")
    return ordered


def parse_by_frame(values: Sequence[str], where: str) -> str | dict[int | None, str]:
    """A setting of gaps: "VALUE" for all of them, "FRAME:VALUE" for the one that begins there, which may be mixed.

    Returns:
      The one value, or frame -> value; None stands for all others.

    Raises:
      UserError: there are two for the same.
    """
    found: dict[int | None, str] = {}
    for value in values:
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*:(.*)", value)
        frame = None if match is None else int(match[1])
        if frame in found:
            whose = "all gaps" if frame is None else f"the gap after frame {frame}"
            raise UserError(f"{where}: there are two for {whose}: keep one of them")
        found[frame] = value if match is None else match[2]
    return found[None] if set(found) == {None} else found


def parse_prompts(values: Iterable[tuple[str, str]], prompt: str, where: str) -> str | dict[int | tuple[int, int], str]:
    """Prompts with the frames that they are for: "24" from there on, or "24-40".

    Args:
      values: frames, and the prompt.
      prompt: that counts without any.
      where: names them in sentences.

    Raises:
      UserError: frames have another form, or are given twice.
    """
    found: dict[int | tuple[int, int], str] = {}
    for frames, text in values:
        match = re.fullmatch(_FRAMES, frames)
        if match is None:
            raise UserError(
                f"{where}: '{printable(frames, 40)}' is no frame such as 24, nor a span of frames such as 24-40"
            )
        key = int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
        if key in found:
            raise UserError(f"{where}: there are two prompts for {printable(frames, 40)}: keep one of them")
        found[key] = text
    return found or prompt


def manifest_shots(
    path: Path, template: Pair, shot: Shot, *, loop: bool = False, dark_lines: bool | None = None
) -> list[Job | ShotJob]:
    """The pairs and shots of a manifest: lines with "keys" are shots; see `manifest_jobs` and `shot_of_entry`.

    Args:
      path: the manifest.
      template: as of `manifest_jobs`.
      shot: what lines of shots get that do not say.
      loop: as of `manifest_jobs`.
      dark_lines: as of `manifest_jobs`.

    Raises:
      UserError: naming the first line that is neither.
    """
    jobs: list[Job | ShotJob] = []
    for entry, where in manifest_entries(path):
        if "keys" in entry:
            jobs.append(shot_of_entry(entry, where, path.parent, shot, dark_lines=dark_lines))
        else:
            jobs.append(pair_of_entry(entry, where, path.parent, template, loop, dark_lines))
    return with_unique_names(jobs)


def with_shot_variations(jobs: Sequence[Job | ShotJob], count: int) -> list[Job | ShotJob]:
    """`with_variations` of pairs and shots."""
    found: list[Job | ShotJob] = []
    for job in jobs:
        if isinstance(job, Job):
            found += with_variations([job], count)
        elif count == 1:
            found.append(job)
        else:
            found += [
                ShotJob(f"{job.name}_sample{number}", job.shot._replace(seed=job.shot.seed + number))
                for number in range(count)
            ]
    return found


def shot_of_entry(
    entry: Mapping[str, object], where: str, base: Path, template: Shot, *, dark_lines: bool | None
) -> ShotJob:
    """The shot of a manifest's line with "keys".

    Args:
      entry: the line.
      where: names it in sentences.
      base: what its paths are relative to.
      template: what a line that does not say gets.
      dark_lines: as of `manifest_jobs`.

    Raises:
      UserError: it is none.
    """
    unknown = sorted(set(entry) - set(SHOT_KEYS))
    if unknown:
        raise UserError(
            f"{where} has keys and '{unknown[0]}', which no shot has: known are {', '.join(sorted(SHOT_KEYS))}"
        )
    keys = _keys(entry["keys"], where, base)
    sketches = _mapping(entry.get("sketches") or {}, f"{where} has sketches", '{"7": "sketch.png"}')
    own = {field.name: entry[field.name] for field in fields(ShotOptions) if field.name in entry}
    how = {field.name: getattr(template.options, field.name) for field in fields(ShotOptions)} | own
    shot = Shot(
        keys,
        prompt=_prompts(entry.get("prompt", template.prompt), where),
        sketches=parse_sketches([f"{f}:{base / p}" for f, p in sketches.items()], dark_lines=dark_lines, where=where),
        timing=_by_frame(entry["timing"], where) if "timing" in entry else template.timing,
        exposure=_by_frame(entry["exposure"], where) if "exposure" in entry else template.exposure,
        seed=_whole(entry, "seed", template.seed, where),
        fps=_whole(entry, "fps", template.fps, where),
        negative_prompt=_text(entry.get("negative_prompt", template.negative_prompt), f"{where} has negative_prompt"),
        loop=_switch(entry.get("loop", template.loop), where),
        options=from_dict(ShotOptions, how, where),
    )
    first = keys[0][1]
    name = _text(entry.get("name", ""), f"{where} has name")
    return ShotJob(checked_name(name, where) if "name" in entry else default_name(first), shot)


def inputs_of_shot(shot: Shot) -> list[Path]:
    """The files that a shot is made from."""
    items = shot.keys.items() if isinstance(shot.keys, Mapping) else shot.keys
    sketches = [sketch.image if isinstance(sketch, Sketch) else sketch for sketch in (shot.sketches or {}).values()]
    return [Path(one) for one in (*(picture for _, picture in items), *sketches) if isinstance(one, Path)]


def _keys(given: object, where: str, base: Path) -> list[tuple[int, Path]]:
    if isinstance(given, str):
        return keys_in(base / given, where)
    keys = _mapping(given, f"{where} has keys", '{"0": "a.png", "24": "b.png"}, or the name of a folder')
    for frame in keys:
        if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", frame):
            raise UserError(f"{where} has a key on frame {frame!r}, which should be a whole number")
    return [(int(frame), base / path) for frame, path in keys.items()]


def _mapping(given: object, what: str, like: str) -> dict[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
        raise UserError(f"{what} = {printable(repr(given), 80)}, which should be like {like}")
    return dict(given)


def _prompts(given: object, where: str) -> str | Mapping[int | tuple[int, int], str]:
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        texts = _mapping(given, f"{where} has prompt", '{"0-24": "walks", "25": "runs"}')
        return parse_prompts(texts.items(), "", where)
    if isinstance(given, Mapping):  # of the command line
        return dict(given)
    return _text(given, f"{where} has prompt")


def _by_frame(given: object, where: str) -> Any:
    """A timing or an exposure of a line: a value, or one a gap by frames."""
    if not isinstance(given, Mapping):
        return given
    for frame in given:
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", frame):
            raise UserError(
                f"{where} has a timing or exposure for {frame!r}, which should be the frame where a gap begins"
            )
    return {int(frame): value for frame, value in given.items()}


def _text(given: object, what: str) -> str:
    if not isinstance(given, str):
        raise UserError(f"{what} = {printable(repr(given), 80)}, which should be text")
    return given


def _whole(entry: Mapping[str, object], key: str, default: int, where: str) -> int:
    value = entry.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{where} has {key} = {value!r}, which should be a whole number")
    return value


def _switch(given: object, where: str) -> bool:
    if not isinstance(given, bool):
        raise UserError(f"{where} has loop = {given!r}, which should be true or false")
    return given
