"""Manifests: lines that are pairs, shots of keys, folders of layers, or time sheets."""

from __future__ import annotations

from pathlib import Path

from tooncrafter_jax.sampling.batch.entries import Entry, manifest_entries
from tooncrafter_jax.sampling.batch.jobs import Job, name_of_entry, pair_of_entry, with_unique_names
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.batch.sheet_jobs import SheetJob, layered_job, layers_in, sheet_job
from tooncrafter_jax.sampling.batch.shot_jobs import shot_of_entry, template_of_entry
from tooncrafter_jax.sampling.request import Pair
from tooncrafter_jax.sampling.sequence import Shot


def manifest_scenes(
    path: Path, template: Pair, shot: Shot, *, loop: bool = False, dark_lines: bool | None = None
) -> list[Job | SceneJob]:
    """The pairs and shots of a manifest: lines with "keys" or "timesheet" are shots, the others pairs. Paths are
    relative to the manifest.

    Args:
      path: the manifest.
      template: as of `pair_of_entry`.
      shot: what lines of shots get that do not say.
      loop: as of `pair_of_entry`.
      dark_lines: as of `pair_of_entry`.

    Raises:
      UserError: naming the first line that is neither.
    """
    jobs: list[Job | SceneJob] = []
    for entry in manifest_entries(path):
        if "timesheet" in entry:
            jobs.append(_sheet_of_entry(entry, shot, dark_lines))
        elif "keys" in entry:
            jobs.append(_scene_of_entry(entry, shot, dark_lines))
        else:
            jobs.append(pair_of_entry(entry, template, loop=loop, dark_lines=dark_lines))
    return with_unique_names(jobs)


def _scene_of_entry(entry: Entry, shot: Shot, dark_lines: bool | None) -> SceneJob:
    folder = entry.path("keys") if isinstance(entry.values["keys"], str) else None
    sheet = None if folder is None else layers_in(folder, entry.where)
    if folder is None or sheet is None:
        return shot_of_entry(entry, shot, dark_lines=dark_lines)
    template = template_of_entry(entry, shot, ("keys",), dark_lines=dark_lines)
    return layered_job(folder, sheet, template, name_of_entry(entry, folder))


def _sheet_of_entry(entry: Entry, shot: Shot, dark_lines: bool | None) -> SheetJob:
    template = template_of_entry(entry, shot, ("timesheet", "layers", "sketch_layer"), dark_lines=dark_lines)
    path, layers = entry.path("timesheet"), entry.listed("layers", '["A", "B"]')
    sketches = entry.text("sketch_layer") if "sketch_layer" in entry else None
    return sheet_job(path, template, name_of_entry(entry, path), layers, sketches, dark_lines=dark_lines)
