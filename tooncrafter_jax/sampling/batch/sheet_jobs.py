"""Time sheets, and folders of layers, as `tooncrafter sample` is asked for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.ordering import pictures_in
from tooncrafter_jax.io.owned_files import Stamps
from tooncrafter_jax.io.timesheets import (
    DEFAULT_FPS,
    CelFile,
    Exposure,
    Layer,
    TimeSheet,
    parse_drawing_file,
    read_timesheet,
)
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.batch.jobs import default_name
from tooncrafter_jax.sampling.batch.scenes import RequestOf, SceneJob
from tooncrafter_jax.sampling.batch.shot_jobs import inputs_of_shot, keys_by_number
from tooncrafter_jax.sampling.frame_room import Room
from tooncrafter_jax.sampling.records import file_record
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.sequence import Shot
from tooncrafter_jax.sampling.sheet_drawing import Draw, DrawnScene, draw_sheet, options_of_layers
from tooncrafter_jax.sampling.sheet_shots import SheetLayer, SheetRun, layers_of_sheet
from tooncrafter_jax.typing import JsonObject

_SAID_ONCE = ("options", "model", "dtype")
"""Of a shot's request, what is that of the whole."""


@dataclass(frozen=True)
class SheetJob(SceneJob):
    """The layers of a time sheet, drawn one after another and put over one another.

    Attributes:
      name: stem of the output files.
      sheet: the whole.
      layers: what is drawn of it.
      source: the sheet's file or folder; None of a folder of layers.
    """

    sheet: TimeSheet
    layers: tuple[SheetLayer, ...]
    source: Path | None = None

    def shots(self, options: SamplingOptions) -> list[tuple[Shot, SamplingOptions]]:
        """See `SceneJob`."""
        return [(shot, how) for layer, how in options_of_layers(self.layers, options) for shot in layer.shots()]

    def pictures(self) -> list[Path]:
        """See `SceneJob`."""
        found = [path for layer in self.layers for shot in layer.shots() for path in inputs_of_shot(shot)]
        stills = [run.picture for layer in self.layers for run in layer.runs if run.shot is None]
        return list(dict.fromkeys([*found, *(Path(os.fspath(one)) for one in stills if isinstance(one, os.PathLike))]))

    def inputs(self) -> list[Path]:
        """See `SceneJob`."""
        if self.source is None:
            return self.pictures()
        sheet = [file for file in self.source.iterdir() if file.is_file()] if self.source.is_dir() else [self.source]
        return [*sheet, *self.pictures()]

    def playback(self) -> tuple[float, str] | None:
        """See `SceneJob`; a folder of layers says no rate."""
        if self.source is None:
            return None
        if (fps := self.sheet.fps) is not None:
            return float(fps), f"the clip is played at {fps:g} frames a second, as its time sheet says"
        return DEFAULT_FPS, f"the time sheet says no rate: the clip is played at {DEFAULT_FPS:g} frames a second"

    def request(self, options: SamplingOptions, request_of: RequestOf, stamps: Stamps) -> JsonObject:
        """See `SceneJob`."""

        def of_run(run: SheetRun, how: SamplingOptions) -> JsonObject:
            asked = {"picture": file_record(run.picture, stamps)} if run.shot is None else request_of(run.shot, how)
            drawings = {str(frame): name for frame, name in sorted((dict(run.keys) | dict(run.named)).items())}
            own = {key: value for key, value in asked.items() if key not in _SAID_ONCE}
            return {"end": run.end, "drawings": drawings, **own}

        layers = {
            str(number): {
                "name": layer.layer.name,
                "opacity": layer.layer.opacity,
                "alpha": how.alpha,
                "places": {name: list(cel.centre) for name, cel in layer.layer.cels.items() if cel.centre is not None},
                "runs": {str(run.start): of_run(run, how) for run in layer.runs},
            }
            for number, (layer, how) in enumerate(options_of_layers(self.layers, options))
        }
        size = None if self.sheet.size is None else list(self.sheet.size)
        return {"duration": self.sheet.duration, "size": size, "layers": layers}

    def drawn(self, options: SamplingOptions, size: tuple[int, int], draw: Draw, room: Room) -> DrawnScene:
        """See `SceneJob`."""
        layers = options_of_layers(self.layers, options)
        return draw_sheet(self.sheet, layers, options, size, draw, room)

    def variation(self, number: int) -> SheetJob:
        """See `SceneJob`."""
        layers = tuple(layer.with_seed_after(number) for layer in self.layers)
        return replace(self, name=f"{self.name}_sample{number}", layers=layers)


def sheet_job(
    path: Path,
    template: Shot,
    name: str | None = None,
    layers: Sequence[str] = (),
    sketches: str | None = None,
    *,
    dark_lines: bool | None = None,
) -> SheetJob:
    """The job of a time sheet.

    Args:
      path: of the sheet.
      template: as of `layers_of_sheet`.
      name: of the clip; None: as the sheet's file.
      layers: names of those that are drawn; without any, all that are shown.
      sketches: as of `layers_of_sheet`.
      dark_lines: as of `layers_of_sheet`.

    Raises:
      UserError: it cannot be read, or as of `layers_of_sheet`.
    """
    sheet = read_timesheet(path)
    if template.loop:
        raise UserError(f"'{path}' says itself what is shown at its end: leave loop out, and let it end as it begins")
    drawn = layers_of_sheet(sheet, template, layers, sketches, dark_lines=dark_lines)
    return SheetJob(default_name(path) if name is None else name, sheet, drawn, path)


def layers_in(folder: Path, where: str = "--keys") -> TimeSheet | None:
    """The time sheet of a folder of numbered keys of several layers; None if they are of one.

    The layers are the folders in it, if there are no pictures in itself; or the levels that the names of its pictures
    begin with, if their numbers are the same. Frame 0 is the first one that has a key.

    Raises:
      UserError: a picture has no number, two of a layer have the same, or a folder in it cannot be read.
    """
    try:
        own = pictures_in(folder)
    except UserError:
        return None  # which is said where a folder of one layer is read
    if own:
        found = _levels(own)
        if found is None:
            return None
    else:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
        found = {path.name: keys_by_number(pictures, where) for path in inside if (pictures := pictures_in(path))}
        if not found:
            return None
    first = min(min(keys) for keys in found.values())
    last = max(max(keys) for keys in found.values())
    names = ", ".join(f"'{printable(name, 60)}'" for name in found)
    note(f"'{folder}' has the layers {names}, from the bottom to the top; its frame {first} is frame 0 of the shot")
    for name, keys in found.items():
        if max(keys) < last:
            note(f"the layer '{printable(name, 60)}' ends at frame {max(keys)}: its last key is held to frame {last}")
        if min(keys) > first:
            note(f"the layer '{printable(name, 60)}' begins at frame {min(keys)}: it is empty before")
    layers = [
        Layer(
            name,
            tuple(Exposure(frame - first, str(frame)) for frame in sorted(keys)),
            cels={str(frame): CelFile(path) for frame, path in keys.items()},
        )
        for name, keys in found.items()
    ]
    return TimeSheet(folder.name or "shot", last - first + 1, tuple(layers))


def layered_job(folder: Path, sheet: TimeSheet, template: Shot, name: str | None = None) -> SheetJob:
    """The job of a folder of layers, as of `layers_in`.

    Raises:
      UserError: as of `layers_of_sheet`, or it is to be a loop.
    """
    if template.loop:
        raise UserError(f"'{folder}' has several layers, of which no loop can be made: draw each by itself")
    return SheetJob(default_name(folder) if name is None else name, sheet, layers_of_sheet(sheet, template))


def _levels(pictures: Sequence[Path]) -> Mapping[str, Mapping[int, Path]] | None:
    """Level -> frame -> picture; None unless there are levels that share a frame."""
    levels: dict[str, dict[int, Path]] = {}
    for path in pictures:
        parsed = parse_drawing_file(path.name)
        if parsed is None or not parsed.level or not parsed.drawing.isdigit():
            return None
        keys = levels.setdefault(parsed.level, {})
        if int(parsed.drawing) in keys:
            return None  # two keys on one frame, which is said where a folder of one layer is read
        keys[int(parsed.drawing)] = path
    frames = [frame for keys in levels.values() for frame in keys]
    return dict(sorted(levels.items())) if len(set(frames)) < len(frames) else None
