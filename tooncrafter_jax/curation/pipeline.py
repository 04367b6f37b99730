"""From sources to a set of clips: makes and measures clips, decides over all of them, and writes the set and a report.

`DIR/workspace` keeps what every source gave, so that a run that was killed goes on where it was, and thresholds can be
changed without measuring again. `DIR/cartoon_clips` is the set, and `DIR/report` shows what was kept, what was dropped,
and why.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tooncrafter_jax.curation.beam_runs import Beam
from tooncrafter_jax.curation.decision import Decision, decide
from tooncrafter_jax.curation.making import finished, make_source, rehearse
from tooncrafter_jax.curation.protocols import Production, Stage
from tooncrafter_jax.curation.report import write_report
from tooncrafter_jax.curation.splits import SplitRule
from tooncrafter_jax.curation.thresholds import Thresholds
from tooncrafter_jax.curation.worker_process import WorkerDied
from tooncrafter_jax.curation.workspace import FORMAT, SourceResult, Workspace, load_clip
from tooncrafter_jax.data.clip_sets import SHARD_BYTES, ClipReference, Shard, write_clips, write_shard
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CurationResult:
    """What a run did.

    Attributes:
      made, reused: how many sources this run and earlier ones made clips of.
      failures: what was wrong, by source.
      decision: what became of every clip.
      set_directory: the shards.
      report: the page.
    """

    made: int
    reused: int
    failures: Mapping[str, str]
    decision: Decision
    set_directory: Path
    report: Path


@dataclasses.dataclass(frozen=True)
class Listener:
    """What is called while a run goes on; by default nothing is done.

    Attributes:
      on_start: the number of sources, and that of those which an earlier run has finished.
      on_source: a source that has just been finished, or failed; not called when another Beam runner does the work.
      on_step: what is done next, in a few words.
    """

    on_start: Callable[[int, int], None] = lambda total, reused: None
    on_source: Callable[[SourceResult], None] = lambda result: None
    on_step: Callable[[str], None] = lambda step: None


def default_workers() -> int:
    """As many worker processes as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def curate(
    production: Production,
    stages: Sequence[Stage],
    directory: str | os.PathLike[str],
    *,
    thresholds: Thresholds | None = None,
    splits: SplitRule | None = None,
    workers: int | None = None,
    beam_arguments: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
    listener: Listener | None = None,
) -> CurationResult:
    """Makes a set of clips, or goes on with one.

    Sources that an earlier run finished in the same way are not made again; those that failed are tried again.

    Args:
      production: where clips come from.
      stages: what measures them, in this order.
      directory: of workspace, set and report.
      thresholds: which clips the set has; the usual ones if None.
      splits: how many clips are held out; the usual share if None.
      workers: processes on this machine; 0 does all work in this process, None takes one for each core.
      beam_arguments: flags of another Beam runner, which works instead of this machine's processes.
      shard_bytes: size at which a shard ends.
      listener: is called as it goes on.

    Raises:
      UserError: there are no sources, the directory belongs to another production or run or cannot be written, or no
        clip is good enough; what was finished is kept.
    """
    thresholds, splits, listener = thresholds or Thresholds(), splits or SplitRule(), listener or Listener()
    directory = Path(directory)
    workspace = Workspace(directory.absolute() / "workspace")
    sources = list(production.sources())
    _check_sources(sources, production)
    run = {
        "format": FORMAT,
        "production": production.name,
        "production_settings": dict(production.settings()),
        "stages": [{"name": stage.name, "settings": dict(stage.settings())} for stage in stages],
        "sources": sources,
        "thresholds": thresholds.as_json(),
        "splits": splits.as_json(),
        "shard_bytes": shard_bytes,
    }
    with Beam(default_workers() if workers is None else workers, beam_arguments) as beam, workspace.lock():
        earlier = workspace.read_run()
        if earlier is not None and earlier["production"] != production.name:
            raise UserError(f"'{directory}' holds a set made from {earlier['production']}: choose another directory")
        workspace.prepare()
        results = {source: finished(workspace, production, stages, source) for source in sources}
        todo = [source for source, result in results.items() if result is None]
        for source in results.keys() - set(todo):
            workspace.forget_failure(source)
        listener.on_start(len(sources), len(sources) - len(todo))
        _make_sources(beam, workspace, production, stages, todo, listener)
        workspace.write_run(run)
        return _write_set(beam, workspace, directory, run, set(todo), thresholds, splits, listener)


def rethreshold(
    directory: str | os.PathLike[str],
    *,
    thresholds: Mapping[str, int | float | None] | None = None,
    splits: Mapping[str, int | float] | None = None,
    workers: int | None = None,
    listener: Listener | None = None,
) -> CurationResult:
    """Writes a set again with other thresholds or splits, from what was measured when it was made.

    Args:
      directory: what `curate` was given.
      thresholds: fields of `Thresholds` to change; the others stay.
      splits: fields of `SplitRule` to change; the others stay.
      workers: processes on this machine; 0 does all work in this process, None takes one for each core.
      listener: is called as it goes on.

    Raises:
      UserError: `curate` has not worked there, a threshold is impossible, or no clip is good enough.
    """
    directory, listener = Path(directory), listener or Listener()
    workspace = Workspace(directory.absolute() / "workspace")
    run = workspace.read_run()
    if run is None:
        raise UserError(f"'{directory}' has no finished set: make one with `tooncrafter curate`")
    with Beam(default_workers() if workers is None else workers) as beam, workspace.lock():
        chosen = Thresholds.from_json({**run["thresholds"], **(thresholds or {})})
        rule = SplitRule(**{**run["splits"], **(splits or {})})
        run |= {"thresholds": chosen.as_json(), "splits": rule.as_json()}
        outcome = _write_set(beam, workspace, directory, run, set(), chosen, rule, listener)
        workspace.write_run(run)
        return outcome


def _check_sources(sources: Sequence[str], production: Production) -> None:
    if not sources:
        raise UserError(f"there are no {production.name} to make clips from")
    seen: set[str] = set()
    for source in sources:
        if source in seen:
            raise UserError(f"two {production.name} have the name '{source}': rename one of them")
        seen.add(source)


def _make_sources(
    beam: Beam,
    workspace: Workspace,
    production: Production,
    stages: Sequence[Stage],
    sources: Sequence[str],
    listener: Listener,
) -> None:
    began = time.monotonic()

    def on_death(source: str, death: WorkerDied) -> None:
        sentence = (
            f"the process that worked on it died ({death}): its file may crash the decoder, or there is too little "
            "memory for so many workers"
        )
        listener.on_source(workspace.write_failure(source, sentence, "", began))

    if sources and stages:
        beam.once("try the stages", rehearse, list(stages))
    beam.each(
        "make clips",
        functools.partial(make_source, workspace, production, list(stages)),
        sources,
        on_result=lambda source, result: listener.on_source(result),
        on_death=on_death,
    )


def _write_set(
    beam: Beam,
    workspace: Workspace,
    directory: Path,
    run: Mapping[str, Any],
    just_made: set[str],
    thresholds: Thresholds,
    splits: SplitRule,
    listener: Listener,
) -> CurationResult:
    listener.on_step("choosing clips")
    results = [_result(workspace, source) for source in run["sources"]]
    failures = {result.source: result.failure for result in results if result.failure}
    made = [result.source for result in results if not result.failure]
    decision = decide((clip for result in results for clip in result.clips), thresholds, splits)
    listener.on_step("drawing the report")
    report = write_report(directory / "report", run, results, decision, workspace, thresholds)
    if not decision.num_kept:
        raise UserError(_nothing_kept(directory, results, decision))

    listener.on_step(f"writing {decision.num_kept} clips")
    file_of = {result.source: workspace.clip_file(result) for result in results}
    references = {
        split: [
            _reference(file_of[clip.source], clip.index, clip.id, clip.num_bytes, decision.version) for clip in clips
        ]
        for split, clips in decision.splits.items()
    }

    def write(shards: list[Shard]) -> None:
        beam.each("write shards", write_shard, shards)

    final = write_clips(directory, references, shard_bytes=run["shard_bytes"], write=write)
    reused = sum(source not in just_made for source in made)
    return CurationResult(len(made) - reused, reused, failures, decision, final, report)


def _result(workspace: Workspace, source: str) -> SourceResult:
    result = workspace.last(source)
    if result is None:
        raise UserError(
            f"what was made of '{source}' is missing or damaged in '{workspace.directory}': run the command that made "
            "this set again"
        )
    return result


def _nothing_kept(directory: Path, results: Sequence[SourceResult], decision: Decision) -> str:
    failed = sum(bool(result.failure) for result in results)
    if failed == len(results):
        first = next(result for result in results if result.failure)
        return f"no source could be read; the first, '{first.source}': {first.failure}"
    if not decision.num_dropped:
        return (
            f"none of the {len(results) - failed} sources that could be read has a clip: see '{directory / 'report'}'"
        )
    counts = ", ".join(f"{len(clips)} {reason}" for reason, clips in decision.dropped.items())
    return (
        f"the thresholds drop all {decision.num_dropped} clips ({counts}): see '{directory / 'report'}', and loosen "
        f"them with `tooncrafter curate rethreshold {directory}`"
    )


def _reference(path: Path, index: int, name: str, num_bytes: int, version: str) -> ClipReference:
    return ClipReference(name, num_bytes, functools.partial(_load, os.fspath(path), index, name, version))


def _load(path: str, index: int, name: str, version: str) -> Clip:
    return dataclasses.replace(load_clip(path, index, name), thresholds=version)
