"""Making clips batch by batch: progress, failures that do not end the run, and the report at the end."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from tqdm import tqdm

from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK, one_line
from tooncrafter_jax.errors import UserError, is_out_of_memory, out_of_memory, printable
from tooncrafter_jax.io import check_writable, to_uint8
from tooncrafter_jax.notes import note
from tooncrafter_jax.runtime.distributed import as_all_processes_say, as_the_main_process_says, is_main_process
from tooncrafter_jax.sampling.batch.claims import Claims
from tooncrafter_jax.sampling.batch.jobs import Job
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.preparing import Preparation, Ready
from tooncrafter_jax.sampling.batch.selection import UNREADABLE_ELSEWHERE
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.records import record_of
from tooncrafter_jax.sampling.request import SamplingOptions

WAIT_SECONDS = 0.5
"""Between two looks at the clips that another run is making."""


@dataclass
class Outcome:
    """How a run went.

    Attributes:
      total: how many clips were asked for.
      made, skipped: names of clips.
      elsewhere: names of clips that another run has made meanwhile.
      failed: name -> what was wrong.
    """

    total: int
    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many clips are dealt with."""
        return len(self.made) + len(self.skipped) + len(self.elsewhere) + len(self.failed)


@dataclass(frozen=True)
class Run:
    """Makes clips, batch by batch.

    Attributes:
      toon, options, plan: what samples, how, and where the files go.
      outcome: is brought up to date.
      preparation: gives the clips' pictures.
      claims: of this run; only those of the main process count.
      several: whether a failing pair is noted and the run goes on.
      quiet: whether nothing but errors is shown.
      batch_size: clips that are sampled together.
    """

    toon: ToonCrafter
    options: SamplingOptions
    plan: OutputPlan
    outcome: Outcome
    preparation: Preparation
    claims: Claims
    several: bool
    quiet: bool
    batch_size: int = 1

    def make_all(self, jobs: Sequence[Job]) -> None:
        """Samples all clips and writes their files.

        Every batch has the same size, so that only one program is compiled: a clip that cannot be made leaves its place to the
        next one, and the last batch is filled with copies of a clip, which are thrown away.

        Clips that another run is making are left to it; what it has not made when it gives them back is made here.
        """
        size = min(self.batch_size, len(jobs))
        elsewhere = self._make_claimed(jobs, size)
        if elsewhere:
            note(f"another run is making {len(elsewhere)} of the clips: waiting for it")
        while elsewhere:
            left = self._make_claimed(elsewhere, size)
            if len(left) == len(elsewhere):
                time.sleep(WAIT_SECONDS)
            elsewhere = left

    def _make_claimed(self, jobs: Sequence[Job], size: int) -> list[Job]:
        """Makes the clips that no other run is making; returns the others."""
        waiting, elsewhere = deque(jobs), []
        while waiting:
            batch: list[tuple[Job, Ready]] = []
            while waiting and len(batch) < size:
                taken = [waiting.popleft() for _ in range(min(len(waiting), size - len(batch)))]
                free = as_the_main_process_says([self._claim(job) for job in taken])
                for job, is_free in zip(taken, free, strict=True):
                    if not is_free:
                        self.preparation.drop(job)
                        elsewhere.append(job)
                batch += self._usable([job for job, is_free in zip(taken, free, strict=True) if is_free])
            self.make(batch, size)
            for job in {job.name for job, _ in batch}:
                self.claims.release(job)
        return elsewhere

    def make(self, batch: Sequence[tuple[Job, Ready]], size: int = 1) -> None:
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
                self.outcome.failed[batch[0][0].name] = str(error)
            else:  # one bad pair must not cost the others of its batch
                for one in batch:
                    self.make([one])
            return
        seconds = (time.perf_counter() - start) / len(batch)
        for (job, ready), video in zip(batch, videos, strict=True):
            self._write(job, ready, video, seconds)

    def _claim(self, job: Job) -> bool:
        """Whether this run makes a clip.

        Raises:
          UserError: another run makes the only one.
        """
        alone = not self.several and jax.process_count() > 1  # an error of one process would leave the others waiting
        if not is_main_process() or alone or self.claims.take(job.name):
            return True
        if not self.several:
            raise UserError(
                f"another run is making {self.plan.directory / job.name}: wait for it, or choose another --out"
            )
        return False

    def _usable(self, jobs: Sequence[Job]) -> list[tuple[Job, Ready]]:
        """Those that are still to be made and can be, on every process."""
        if not jobs:
            return []
        ready: dict[str, Ready] = {}
        problems: dict[str, str] = {}
        for job in jobs:
            try:
                ready[job.name] = self.preparation.get(job)
            except UserError as error:
                if not self.several:
                    raise
                problems[job.name] = str(error)
        everywhere = as_all_processes_say([job.name in ready for job in jobs])
        done = as_the_main_process_says([job.name in ready and self._is_done(job, ready[job.name]) for job in jobs])
        usable = []
        for job, is_usable, is_done in zip(jobs, everywhere, done, strict=True):
            if is_usable and not is_done:
                usable.append((job, ready[job.name]))
                continue
            self.claims.release(job.name)
            if is_usable:
                self.outcome.elsewhere.append(job.name)
            else:
                self.outcome.failed[job.name] = problems.get(job.name, UNREADABLE_ELSEWHERE)
        return usable

    def _is_done(self, job: Job, ready: Ready) -> bool:
        """Whether another run has made a clip since this one began."""
        return self.several and is_main_process() and self.plan.is_done(job.name, lambda: ready.request)

    def _sample(self, batch: Sequence[tuple[Job, Ready]], size: int) -> np.ndarray:
        """The frames (B, T, H, W, 3) in about [-1, 1]."""
        pairs = [ready.pair for _, ready in batch]
        pairs += pairs[-1:] * (size - len(pairs))
        title = f"{self.outcome.count + 1}/{self.outcome.total} {printable(batch[0][0].name)}"
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
                return self.toon.sample_prepared(pairs, self.options, on_progress)[: len(batch)]
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                remedy = "lower --batch-size, --decode-frames-per-chunk, --height and --width, use --dtype=bfloat16"
                raise out_of_memory("to sample", remedy) from error

    def _write(self, job: Job, ready: Ready, video: np.ndarray, seconds: float) -> None:
        try:
            frames = to_uint8(video)  # of one clip: NaN in it cost no other
        except UserError as error:
            if not self.several:
                raise
            self.outcome.failed[job.name] = str(error)
            return
        if not is_main_process():
            return
        try:
            self.plan.write(job.name, frames, record_of(ready.request, self.toon, seconds))
        except UserError as error:
            if not self.several:
                raise
            check_writable(self.plan.directory)  # a full disk ends the run: sampling on would be in vain
            self.outcome.failed[job.name] = str(error)
            return
        self.outcome.made.append(job.name)
        if self.several and not self.quiet:
            name = printable(job.name)
            print(f"{self.outcome.count}/{self.outcome.total} {name}: {seconds:.1f} s", file=sys.stderr)


def report(outcome: Outcome, plan: OutputPlan, several: bool) -> int:
    """Prints what was made and what failed; the exit code."""
    if not is_main_process():
        return EXIT_FAILED if outcome.failed else EXIT_OK
    if not several:
        for name in outcome.made:
            print("\n".join(printable(path) for path in plan.paths(name).values()))
        return EXIT_OK
    left = outcome.total - outcome.count
    print(
        f"{printable(plan.directory)}: {len(outcome.made)} made, {len(outcome.skipped)} done before, {len(outcome.failed)} failed"
        + (f", {len(outcome.elsewhere)} made by another run" if outcome.elsewhere else "")
        + (f", {left} left" if left else "")
    )
    for name, reason in outcome.failed.items():
        print(f"error: {printable(name)} failed: {one_line(reason)}", file=sys.stderr)
    return EXIT_FAILED if outcome.failed else EXIT_OK
