"""Making the clips of one source: the work that is spread over processes and machines."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tooncrafter_jax.curation.protocols import Production, Stage
from tooncrafter_jax.curation.workspace import (
    MEASURED,
    SourceResult,
    Workspace,
    changes_between,
    measurements_after,
    recipe_of,
)
from tooncrafter_jax.data.clip_sets import ClipFile
from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import JsonObject

_REHEARSAL_SIDE, _REHEARSAL_FRAMES = 64, 16


class _SourceFailure(Exception):
    """Something in the source, not in the workspace; neither an OSError nor a RuntimeError, which the writer would
    explain.
    """


def finished(workspace: Workspace, production: Production, stages: Sequence[Stage], source: str) -> SourceResult | None:
    """What an earlier run made of a source, if it would be made the same now."""
    earlier = workspace.read(source)
    if earlier is None:
        return None
    try:
        return earlier if earlier.recipe == recipe_of(production, stages, source) else None
    except UserError:  # is reported when it is made
        return None


def rehearse(stages: Sequence[Stage]) -> None:
    """Lets stages measure a made-up clip: what they lack is found before hours of work, not after.

    Raises:
      UserError: a stage's package, model or file is missing.
    """
    slope = np.add.outer(np.arange(_REHEARSAL_SIDE), np.arange(_REHEARSAL_SIDE))
    pictures = np.stack([np.stack([slope + 4 * frame] * 3, axis=-1) for frame in range(_REHEARSAL_FRAMES)])
    for caption in ("", "a slope"):  # some stages measure only clips without one, others only those with one
        clip = clip_of_pictures(
            pictures.astype(np.uint8), fps=24.0, id="rehearsal/0", source="rehearsal", caption=caption
        )
        for stage in stages:
            clip = stage(clip)


def make_source(workspace: Workspace, production: Production, stages: Sequence[Stage], source: str) -> SourceResult:
    """Makes and measures the clips of a source and writes them to the workspace, or why that failed.

    Where an earlier run made the same clips and only stages were added, changed or left out, its clips are measured
    from the first such stage on.

    Raises:
      UserError: the workspace cannot be written, which concerns all sources.
    """
    started = time.monotonic()
    try:
        try:
            recipe = recipe_of(production, stages, source)
        except Exception as error:
            raise _failure(error) from error
        clips, todo = _start(workspace, production, stages, source, recipe)
        return workspace.write(source, recipe, _guarded(_measured(clips, todo, source)), started)
    except _SourceFailure as failure:
        error = failure.__cause__
        details = "" if isinstance(error, UserError) else "".join(traceback.format_exception(error))
        return workspace.write_failure(source, str(failure), details, started)


_Measured = tuple[Clip, tuple[JsonObject, ...]]
"""A clip and its history."""


def _start(
    workspace: Workspace, production: Production, stages: Sequence[Stage], source: str, recipe: tuple[str, ...]
) -> tuple[Iterable[_Measured], Sequence[Stage]]:
    """The clips to begin with, and the stages that have yet to see them."""
    earlier = workspace.read(source)
    if earlier is not None and earlier.file:
        same = sum(
            1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(earlier.recipe, recipe, strict=False))
        )
        if same:
            with contextlib.suppress(UserError):  # a damaged clip file is made again
                return _rewound(ClipFile(workspace.clip_file(earlier)), earlier, same), stages[same - 1 :]
    return _produced(production, source), stages


def _produced(production: Production, source: str) -> Iterator[_Measured]:
    for clip in production.clips(source):
        yield clip, (changes_between(None, clip),)


def _rewound(clips: ClipFile, earlier: SourceResult, steps: int) -> Iterator[_Measured]:
    """Clips as they were after some steps of their recipe."""
    for record in earlier.clips:
        history = record.history[:steps]
        yield dataclasses.replace(clips[record.index], **measurements_after(history)), history


def _measured(clips: Iterable[_Measured], stages: Sequence[Stage], source: str) -> Iterator[_Measured]:
    for clip, history in clips:
        if clip.source != source:
            raise ValueError(f"a clip of '{clip.source}' came from the source '{source}'")
        for stage in stages:
            measured = stage(clip)
            _check_only_measured(clip, measured, stage)
            history = (*history, changes_between(clip, measured))
            clip = measured
        yield clip, history


def _check_only_measured(before: Clip, after: Clip, stage: Stage) -> None:
    for field in dataclasses.fields(Clip):
        if field.name not in MEASURED and getattr(before, field.name) != getattr(after, field.name):
            raise ValueError(
                f"the stage '{stage.name}' has changed '{field.name}' of clip '{before.id}', but may only measure"
            )


def _guarded(clips: Iterator[_Measured]) -> Iterator[_Measured]:
    """Tells errors of the source from those of writing, in whose midst they arise."""
    try:
        yield from clips
    except Exception as error:
        raise _failure(error) from error


def _failure(error: Exception) -> _SourceFailure:
    if isinstance(error, UserError):
        return _SourceFailure(str(error))
    return _SourceFailure(f"an unexpected {type(error).__name__}: {error}")
