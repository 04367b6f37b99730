"""Making clips batch by batch: progress, failures that do not end the run, and the report at the end."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from tooncrafter_jax import media
from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK, one_line
from tooncrafter_jax.cli.jobs import Job
from tooncrafter_jax.cli.outputs import OutputPlan, record_of
from tooncrafter_jax.distributed import as_all_processes_say, is_main_process
from tooncrafter_jax.errors import UserError, is_out_of_memory, out_of_memory
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.observation import Progress
from tooncrafter_jax.pipeline import ToonCrafter
from tooncrafter_jax.requests import Pair, SamplingOptions, Sketch, check_sketch_encoder, prepare

UNREADABLE_ELSEWHERE = "another process cannot read its pictures"


@dataclass
class Outcome:
    """How a run went.

    Attributes:
      total: how many clips were asked for.
      made, skipped: names of clips.
      failed: name -> what was wrong.
    """

    total: int
    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many clips are dealt with."""
        return len(self.made) + len(self.skipped) + len(self.failed)


def inputs_of(pair: Pair) -> list[Path]:
    """The files that a pair is made from."""
    sketches = (sketch.image for sketch in (pair.sketches or {}).values() if isinstance(sketch, Sketch))
    return [Path(picture) for picture in (pair.first, pair.last, *sketches) if isinstance(picture, Path)]


def problem_with(pair: Pair, options: SamplingOptions, config: ModelConfig, components: Collection[str]) -> str | None:
    """What keeps a pair from being sampled; None if nothing does."""
    try:
        check_pair(pair, options, config, components)
    except UserError as error:
        return str(error)
    return None


def check_pair(pair: Pair, options: SamplingOptions, config: ModelConfig, components: Collection[str]) -> None:
    """Finds out, without sampling, whether a pair can be sampled.

    Raises:
      UserError: if not.
    """
    prepare(pair, options, config)
    if pair.sketches:
        check_sketch_encoder(config, components)


@dataclass(frozen=True)
class Run:
    """Makes clips, batch by batch.

    Attributes:
      toon, options, plan: what samples, how, and where the files go.
      outcome: is brought up to date.
      model, dtype: for the records.
      several: whether a failing pair is noted and the run goes on.
      batch_size: clips that are sampled together.
      quiet: whether nothing but errors is shown.
    """

    toon: ToonCrafter
    options: SamplingOptions
    plan: OutputPlan
    outcome: Outcome
    model: Mapping[str, str]
    dtype: str
    several: bool
    quiet: bool
    batch_size: int = 1

    def make_all(self, jobs: Sequence[Job]) -> None:
        """Samples all clips and writes their files.

        Every batch has the same size, so that only one program is compiled: a clip that cannot be made leaves its place to the
        next one, and the last batch is filled with copies of a clip, which are thrown away.
        """
        waiting, size = deque(jobs), min(self.batch_size, len(jobs))
        while waiting:
            batch: list[Job] = []
            while waiting and len(batch) < size:
                taken = [waiting.popleft() for _ in range(min(len(waiting), size - len(batch)))]
                batch += self._usable(taken) if self.several else taken
            self.make(batch, size)

    def make(self, batch: Sequence[Job], size: int = 1) -> None:
        """Samples clips in a batch of `size` and writes their files."""
        if not batch:
            return
        start = time.perf_counter()
        try:
            videos = self._sample(batch, size)
        except UserError as error:
            if not self.several:
                raise
            if len(batch) == 1:
                self.outcome.failed[batch[0].name] = str(error)
            else:  # one bad pair must not cost the others of its batch
                for job in batch:
                    self.make([job])
            return
        seconds = (time.perf_counter() - start) / len(batch)
        for job, video in zip(batch, videos, strict=True):
            self._write(job, video, seconds)

    def _usable(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that can be made, on every process; a file may have gone since the run began."""
        problems = {job.name: problem_with(job.pair, self.options, self.toon.config, self.toon.params) for job in jobs}
        everywhere = as_all_processes_say([problem is None for problem in problems.values()])
        for (name, problem), usable in zip(problems.items(), everywhere, strict=True):
            if not usable:
                self.outcome.failed[name] = problem or UNREADABLE_ELSEWHERE
        return [job for job, usable in zip(jobs, everywhere, strict=True) if usable]

    def _sample(self, batch: Sequence[Job], size: int) -> np.ndarray:
        pairs = [job.pair for job in batch]
        pairs += pairs[-1:] * (size - len(pairs))
        title = f"{self.outcome.count + 1}/{self.outcome.total} {batch[0].name}"
        with tqdm(
            total=self.options.steps,
            desc=title,
            unit="step",
            leave=False,
            disable=self.quiet or not sys.stderr.isatty() or not is_main_process(),
        ) as bar:

            def on_progress(progress: Progress) -> None:
                bar.total = progress.total
                bar.update(progress.done - bar.n)

            try:
                videos = self.toon.interpolate_pairs(pairs, self.options, on_progress=on_progress)
                return videos[: len(batch)]
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                remedy = "lower --batch-size, --decode-frames-per-chunk, --height and --width, use --dtype=bfloat16"
                raise out_of_memory("to sample", remedy) from error

    def _write(self, job: Job, video: np.ndarray, seconds: float) -> None:
        request = self.plan.request_of(job.pair, self.options, self.model, self.dtype)
        try:
            if not is_main_process():
                return
            self.plan.write(job.name, video, record_of(request, self.toon, seconds))
        except UserError as error:
            if not self.several:
                raise
            media.check_writable(self.plan.directory)  # a full disk ends the run: sampling on would be in vain
            self.outcome.failed[job.name] = str(error)
            return
        self.outcome.made.append(job.name)
        if self.several and not self.quiet:
            print(f"{self.outcome.count}/{self.outcome.total} {job.name}: {seconds:.1f} s", file=sys.stderr)


def report(outcome: Outcome, plan: OutputPlan, several: bool) -> int:
    """Prints what was made and what failed; the exit code."""
    if not is_main_process():
        return EXIT_FAILED if outcome.failed else EXIT_OK
    if not several:
        for name in outcome.made:
            print("\n".join(str(path) for path in plan.paths(name).values()))
        return EXIT_OK
    left = outcome.total - outcome.count
    print(
        f"{plan.directory}: {len(outcome.made)} made, {len(outcome.skipped)} done before, {len(outcome.failed)} failed"
        + (f", {left} left" if left else "")
    )
    for name, reason in outcome.failed.items():
        print(f"error: {name} failed: {one_line(reason)}", file=sys.stderr)
    return EXIT_FAILED if outcome.failed else EXIT_OK
