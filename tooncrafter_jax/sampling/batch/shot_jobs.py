"""Shots as `tooncrafter sample` is asked for them: on the command line, in a folder of numbered keys, and in the
lines of a manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tooncrafter_jax.config_codec import from_dict
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.ordering import pictures_in
from tooncrafter_jax.io.owned_files import Stamps
from tooncrafter_jax.io.timesheets import DrawnSheet, sheet_of_frames
from tooncrafter_jax.io.timesheets.levels import safe_name
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.batch.entries import Entry
from tooncrafter_jax.sampling.batch.jobs import Job, name_of_entry, sketches_of_entry, with_variations
from tooncrafter_jax.sampling.batch.scenes import RequestOf, SceneJob
from tooncrafter_jax.sampling.frame_room import Room
from tooncrafter_jax.sampling.request import SamplingOptions, Sketch
from tooncrafter_jax.sampling.sequence import Shot, ShotOptions
from tooncrafter_jax.sampling.sheet_drawing import Draw, DrawnScene
from tooncrafter_jax.typing import JsonObject, Uint8Clip

SHOT_KEYS = (
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
"""Of a manifest's line that is a shot, beside what makes it one."""
_FRAMES = r"\s*(-?[0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?"


@dataclass(frozen=True)
class ShotJob(SceneJob):
    """One shot and the name of its files.

    Attributes:
      name: stem of the output files.
      shot: what to make.
    """

    shot: Shot

    def shots(self, options: SamplingOptions) -> list[tuple[Shot, SamplingOptions]]:
        """See `SceneJob`."""
        return [(self.shot, options)]

    def pictures(self) -> list[Path]:
        """See `SceneJob`."""
        return inputs_of_shot(self.shot)

    def request(self, options: SamplingOptions, request_of: RequestOf, stamps: Stamps) -> JsonObject:
        """See `SceneJob`."""
        del stamps
        return request_of(self.shot, options)

    def drawn(self, options: SamplingOptions, size: tuple[int, int], draw: Draw, room: Room) -> DrawnScene:
        """See `SceneJob`."""
        del size, room
        video = draw(self.shot, options)
        return DrawnScene(video, lambda: sheet_of_shot(video, list(dict(self.shot.keys)), self.name))

    def variation(self, number: int) -> ShotJob:
        """See `SceneJob`."""
        return ShotJob(f"{self.name}_sample{number}", self.shot._replace(seed=self.shot.seed + number))


def sheet_of_shot(video: Uint8Clip, keys: Sequence[int], name: str) -> DrawnSheet:
    """The drawings of a shot and their timing, as one layer with its keys marked.

    Args:
      video: uint8 (frames, H, W, 3), or (frames, H, W, 4) with opacity.
      keys: their frames; the first is that of the video's first frame.
      name: of the sheet and the layer.
    """
    name = safe_name(name)  # of a file, which may have more than a layer's
    sheet, pictures = sheet_of_frames({name: video}, name=name)
    (layer,) = sheet.layers
    frames = {frame - keys[0] for frame in keys}
    exposures = tuple(
        one._replace(role="key") if one.frame in frames and one.drawing is not None else one for one in layer.exposures
    )
    return DrawnSheet(replace(sheet, layers=(replace(layer, exposures=exposures),)), pictures)


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
        files = pictures_in(folder)
    except UserError as error:
        raise UserError(f"{where}: {error}; give keys as 0:a.png,24:b.png, or a folder of numbered pictures") from error
    if not files:
        raise UserError(f"{where}: the folder {folder} has no pictures")
    ordered = sorted(keys_by_number(files, where).items())
    shown = ", ".join(str(frame) for frame, _ in ordered[:12]) + (", ..." if len(ordered) > 12 else "")
    note(f"the keys of {folder} are on frames {shown}, by the last number in their names")
    return ordered


def keys_by_number(files: Iterable[Path], where: str) -> dict[int, Path]:
    """Pictures by the last number in their names, which is their frame.

    Raises:
      UserError: one has no number, or two have the same.
    """
    keys: dict[int, Path] = {}
    for path in files:
        numbers = re.findall(r"[0-9]{1,9}", path.stem)
        if not numbers:
            raise UserError(
                f"{where}: '{path}' has no number in its name, which would be its frame: rename it, or move it"
            )
        frame = int(numbers[-1])
        if frame in keys:
            raise UserError(
                f"{where}: '{keys[frame].name}' and '{path.name}' in {path.parent} are two keys on frame {frame}: "
                "rename one"
            )
        keys[frame] = path
    return keys


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


def with_scene_variations(jobs: Sequence[Job | SceneJob], count: int) -> list[Job | SceneJob]:
    """`with_variations` of pairs and scenes."""
    found: list[Job | SceneJob] = []
    for job in jobs:
        if isinstance(job, Job):
            found += with_variations([job], count)
        elif count == 1:
            found.append(job)
        else:
            found += [job.variation(number) for number in range(count)]
    return found


def shot_of_entry(entry: Entry, template: Shot, *, dark_lines: bool | None) -> ShotJob:
    """The shot of a manifest's line with "keys".

    Args:
      entry: the line.
      template: what a line that does not say gets.
      dark_lines: as of `pair_of_entry`.

    Raises:
      UserError: it is none.
    """
    keys = _keys(entry)
    shot = template_of_entry(entry, template, ("keys",), dark_lines=dark_lines)._replace(keys=keys)
    return ShotJob(name_of_entry(entry, keys[0][1]), shot)


def template_of_entry(entry: Entry, template: Shot, own: Sequence[str], *, dark_lines: bool | None) -> Shot:
    """What a manifest's line says of a shot, but its keys.

    Args:
      entry: the line.
      template: what a line that does not say gets.
      own: what it may have beside `SHOT_KEYS`, first what makes it a shot.
      dark_lines: as of `pair_of_entry`.

    Raises:
      UserError: it has something else, or of another form.
    """
    known = {*own, *SHOT_KEYS}
    if (unknown := entry.unknown(known)) is not None:
        raise UserError(
            f"{entry.where} has {own[0]} and '{unknown}', which no shot has: known are {', '.join(sorted(known))}"
        )
    options = {field.name: entry.values[field.name] for field in fields(ShotOptions) if field.name in entry}
    how = {field.name: getattr(template.options, field.name) for field in fields(ShotOptions)} | options
    return Shot(
        {},
        prompt=_prompts(entry) if "prompt" in entry else template.prompt,
        sketches=sketches_of_entry(entry, dark_lines),
        timing=_by_frame(entry, "timing") if "timing" in entry else template.timing,
        exposure=_by_frame(entry, "exposure") if "exposure" in entry else template.exposure,
        seed=entry.whole("seed", template.seed),
        fps=entry.whole("fps", template.fps),
        negative_prompt=entry.text("negative_prompt", template.negative_prompt),
        loop=entry.switch("loop", template.loop),
        options=from_dict(ShotOptions, how, entry.where),
    )


def inputs_of_shot(shot: Shot) -> list[Path]:
    """The files that a shot is made from."""
    items = shot.keys.items() if isinstance(shot.keys, Mapping) else shot.keys
    sketches = [sketch.image if isinstance(sketch, Sketch) else sketch for sketch in (shot.sketches or {}).values()]
    found = (*(picture for _, picture in items), *sketches)
    return [Path(os.fspath(one)) for one in found if isinstance(one, os.PathLike)]


def _keys(entry: Entry) -> list[tuple[int, Path]]:
    if isinstance(entry.values["keys"], str):
        return keys_in(entry.path("keys"), entry.where)
    keys = entry.texts("keys", '{"0": "a.png", "24": "b.png"}, or the name of a folder')
    for frame in keys:
        if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", frame):
            raise UserError(f"{entry.where} has a key on frame {frame!r}, which should be a whole number")
    if len(keys) < 2:
        raise UserError(
            f"{entry.where} has {len(keys)} key{'' if len(keys) == 1 else 's'}, and a shot needs at least two, such as "
            '{"0": "a.png", "24": "b.png"}'
        )
    return [(int(frame), entry.base / path) for frame, path in keys.items()]


def _prompts(entry: Entry) -> str | Mapping[int | tuple[int, int], str]:
    if not isinstance(entry.values["prompt"], Mapping):
        return entry.text("prompt")
    return parse_prompts(entry.texts("prompt", '{"0-24": "walks", "25": "runs"}').items(), "", entry.where)


def _by_frame(entry: Entry, key: str) -> Any:
    """A timing or an exposure of a line: a value, or one a gap by frames."""
    given = entry.values[key]
    if not isinstance(given, Mapping):
        return given
    for frame in given:
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", frame):
            raise UserError(f"{entry.where} has {key} for {frame!r}, which should be the frame where a gap begins")
    return {int(frame): value for frame, value in given.items()}
