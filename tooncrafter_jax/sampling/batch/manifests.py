"""Manifests: lines that are pairs, shots of keys, folders of layers, or time sheets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.sampling.batch.jobs import Job, manifest_entries, pair_of_entry, with_unique_names
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.batch.sheet_jobs import SheetJob, layered_job, layers_in, sheet_job
from tooncrafter_jax.sampling.batch.shot_jobs import name_of_entry, shot_of_entry, template_of_entry, text_of
from tooncrafter_jax.sampling.request import Pair
from tooncrafter_jax.sampling.sequence import Shot


def manifest_scenes(
    path: Path, template: Pair, shot: Shot, *, loop: bool = False, dark_lines: bool | None = None
) -> list[Job | SceneJob]:
    """The pairs and shots of a manifest: lines with "keys" or "timesheet" are shots, the others pairs.

    Args:
      path: the manifest.
      template: as of `manifest_jobs`.
      shot: what lines of shots get that do not say.
      loop: as of `manifest_jobs`.
      dark_lines: as of `manifest_jobs`.

    Raises:
      UserError: naming the first line that is neither.
    """
    jobs: list[Job | SceneJob] = []
    for entry, where in manifest_entries(path):
        if "timesheet" in entry:
            jobs.append(_sheet_of_entry(entry, where, path.parent, shot, dark_lines))
        elif "keys" in entry:
            jobs.append(_scene_of_entry(entry, where, path.parent, shot, dark_lines))
        else:
            jobs.append(pair_of_entry(entry, where, path.parent, template, loop, dark_lines))
    return with_unique_names(jobs)


def _scene_of_entry(
    entry: Mapping[str, object], where: str, base: Path, shot: Shot, dark_lines: bool | None
) -> SceneJob:
    given = entry["keys"]
    sheet = layers_in(base / given, where) if isinstance(given, str) else None
    if sheet is None or not isinstance(given, str):
        return shot_of_entry(entry, where, base, shot, dark_lines=dark_lines)
    template = template_of_entry(entry, where, base, shot, ("keys",), dark_lines=dark_lines)
    return layered_job(base / given, sheet, template, name_of_entry(entry, where, base / given))


def _sheet_of_entry(
    entry: Mapping[str, object], where: str, base: Path, shot: Shot, dark_lines: bool | None
) -> SheetJob:
    own = ("timesheet", "layers", "sketch_layer")
    template = template_of_entry(entry, where, base, shot, own, dark_lines=dark_lines)
    path = base / text_of(entry["timesheet"], f"{where} has timesheet")
    layers = entry.get("layers", [])
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise UserError(f'{where} has layers = {printable(repr(layers), 80)}, which should be like ["A", "B"]')
    sketches = text_of(entry["sketch_layer"], f"{where} has sketch_layer") if "sketch_layer" in entry else None
    return sheet_job(path, template, name_of_entry(entry, where, path), layers, sketches, dark_lines=dark_lines)
