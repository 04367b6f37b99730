"""Making clips batch by batch: what is done is left out, a failure does not end the run, and a listener hears how it
goes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import check_writable
from tooncrafter_jax.io.contact_sheets import contact_sheet
from tooncrafter_jax.io.recent_pictures import PICTURES, RecentPictures
from tooncrafter_jax.notes import note
from tooncrafter_jax.runtime.distributed import as_all_processes_say, as_the_main_process_says, is_main_process
from tooncrafter_jax.sampling.batch.artists import Clips, Variants
from tooncrafter_jax.sampling.batch.claims import Claims
from tooncrafter_jax.sampling.batch.jobs import Job
from tooncrafter_jax.sampling.batch.preparing import AHEAD, Preparation, Ready
from tooncrafter_jax.sampling.batch.run_request import (
    WAIT_SECONDS,
    BatchResult,
    Listener,
    RunRequest,
)
from tooncrafter_jax.sampling.batch.selection import UNREADABLE_ELSEWHERE, check_pair, done_before, inputs_of, usable
from tooncrafter_jax.sampling.picking import AnyPair, candidate_sheet, picked
from tooncrafter_jax.sampling.records import record_of
from tooncrafter_jax.sampling.request import prepare
from tooncrafter_jax.typing import JsonObject


@dataclass(frozen=True)
class BatchRequest(RunRequest[Job]):
    """Many clips to make, or one; see `RunRequest`."""

    def make(self, listener: Listener, result: BatchResult | None = None) -> BatchResult:
        """Makes the clips that are not done. Everything that can be wrong is found before the model is loaded.

        Args:
          listener: hears how it goes.
          result: is brought up to date, where the clips are a part of a run.

        Raises:
          UserError: something is wrong that concerns all clips, or the only one.
        """
        result, size = self.begun(result), 1 if self.batch_size is None else self.batch_size
        most = max([PICTURES, *(len(inputs_of(job.pair)) for job in self.jobs)])
        pictures = RecentPictures(most, self.plan.stamps)

        def ready(job: Job) -> Ready:
            self._check(job)
            with pictures.used():
                return Ready(prepare(job.pair, self.options, self.model.config), self._request_of(job))

        with Preparation(ready, AHEAD + size) as preparation:
            todo = self._left(preparation, result, listener, pictures) if self.several else self._all(preparation)
            if not todo:
                return result
            with Claims(self.plan.directory, note) as claims:
                self.artist.get_ready()
                run = Run(self, result, preparation, claims, listener, size)
                try:
                    run.make_all(todo)
                except BaseException:
                    listener.stopped(result)
                    raise
        return result

    def _left(
        self, preparation: Preparation, result: BatchResult, listener: Listener, pictures: RecentPictures
    ) -> Sequence[Job]:
        """The clips of a list that are not done and can be made."""
        self._check_outputs()
        with pictures.used():
            done = done_before(listener.looking(self.jobs), self.plan, self._request_of)
        result.skipped += [job.name for job, is_done in zip(self.jobs, done, strict=True) if is_done]
        todo = [job for job, is_done in zip(self.jobs, done, strict=True) if not is_done]
        return usable(todo, self._check_all, preparation, result.failed)

    def _all(self, preparation: Preparation) -> Sequence[Job]:
        """The clips of one pair, which differ in their seeds."""
        for job in self.jobs:
            self._check(job)
        preparation.start(self.jobs)
        if problem := preparation.problem_with(self.jobs[0]):
            raise UserError(problem)
        self._check_outputs()
        for job in self.jobs:
            self._check_all(job)
        return self.jobs

    def _check(self, job: Job) -> None:
        last = 0 if self.plan.picking is None else self.plan.picking.samples - 1
        pair = job.pair._replace(seed=job.pair.seed + last) if last else job.pair
        check_pair(pair, self.options, self.model.config, self.model.components)

    def _check_all(self, job: Job) -> None:
        self._check(job)
        self.plan.check_ours(job.name)

    def _check_outputs(self) -> None:
        inputs = [path for job in self.jobs for path in inputs_of(job.pair)]
        self.plan.check([*inputs, *self.inputs], [job.name for job in self.jobs])

    def _request_of(self, job: Job) -> JsonObject:
        return self.plan.request_of(job.pair, self.options, self.model.record, self.dtype)


@dataclass(frozen=True)
class Run:
    """Makes clips, batch by batch.

    Attributes:
      request: what is asked for.
      result: is brought up to date.
      preparation: gives the clips' pictures.
      claims: of this run; only those of the main process count.
      listener: hears how it goes.
      batch_size: clips that are sampled together.
    """

    request: BatchRequest
    result: BatchResult
    preparation: Preparation
    claims: Claims
    listener: Listener
    batch_size: int

    def make_all(self, jobs: Sequence[Job]) -> None:
        """Samples all clips and writes their files.

        Every batch has the same size, so that only one program is compiled: a clip that cannot be made leaves its place
        to the next one, and the last batch is filled with copies of a clip, which are thrown away.

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
        waiting, elsewhere = deque(jobs), list[Job]()
        begun: deque[list[tuple[Job, Ready]]] = deque()
        while waiting or begun:
            while waiting and len(begun) <= self.request.artist.ahead:
                if batch := self._next_batch(waiting, elsewhere, size):
                    begun.append(batch)
            if begun:
                batch = begun.popleft()
                self.make(batch, size)
                for job, _ in batch:
                    self.request.artist.end(job)
                    self.claims.release(job.name)
        return elsewhere

    def _next_batch(self, waiting: deque[Job], elsewhere: list[Job], size: int) -> list[tuple[Job, Ready]]:
        """The next clips, which are begun; empty if there are none, and those that another run makes are left to it."""
        batch: list[tuple[Job, Ready]] = []
        while waiting and len(batch) < size:
            taken = [waiting.popleft() for _ in range(min(len(waiting), size - len(batch)))]
            free = as_the_main_process_says([self._claim(job) for job in taken])
            for job, is_free in zip(taken, free, strict=True):
                if not is_free:
                    self.preparation.drop(job)
                    elsewhere.append(job)
            batch += self._usable([job for job, is_free in zip(taken, free, strict=True) if is_free])
        for job, _ in batch:
            wanted = [(pair, self.request.options) for pair in self._variants(job.pair)]
            self.request.artist.begin(job, wanted)
        return batch

    def make(self, batch: Sequence[tuple[Job, Ready]], size: int = 1) -> None:
        """Samples clips in a batch of `size` and writes their files."""
        if not batch:
            return
        start = time.perf_counter()
        try:
            drawn = self._draw(batch, size)
        except UserError as error:
            if not self.request.several:
                raise
            self.request.artist.check_goes_on(error)
            if len(batch) == 1:
                self.result.failed[batch[0][0].name] = str(error)
            else:  # one bad pair must not cost the others of its batch
                for one in batch:
                    self.make([one])
            return
        seconds = (time.perf_counter() - start) / len(batch)
        for (job, ready), clips in zip(batch, drawn, strict=True):
            self._write(job, ready, clips, seconds)

    def _claim(self, job: Job) -> bool:
        """Whether this run makes a clip.

        Raises:
          UserError: another run makes the only one.
        """
        alone = (
            not self.request.several and jax.process_count() > 1
        )  # an error of one process would leave the others waiting
        if not is_main_process() or alone or self.claims.take(job.name, again=not self.request.several):
            return True
        if not self.request.several:
            raise self.request.made_elsewhere(job)
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
                if not self.request.several:
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
                self.result.elsewhere.append(job.name)
            else:
                self.result.failed[job.name] = problems.get(job.name, UNREADABLE_ELSEWHERE)
        return usable

    def _is_done(self, job: Job, ready: Ready) -> bool:
        """Whether another run has made a clip since this one began."""
        return self.request.several and is_main_process() and self.request.plan.is_done(job.name, lambda: ready.request)

    def _variants(self, pair: AnyPair) -> list[AnyPair]:
        """What is drawn of a pair: itself, or those that are picked from."""
        picking = self.request.plan.picking
        return [pair] if picking is None else picking.variants(pair)

    def _draw(self, batch: Sequence[tuple[Job, Ready]], size: int) -> list[Clips]:
        """What gives the variants of each clip."""
        variants = [Variants(job, self._variants(ready.pair)) for job, ready in batch]
        options = self.request.options
        with self.listener.sampling(batch[0][0], self.result, options.steps) as on_progress:
            return self.request.artist.clips(variants, size, options, on_progress)

    def _write(self, job: Job, ready: Ready, drawn: Clips, seconds: float) -> None:
        try:  # of one clip: NaN in it cost no other
            clips = drawn()
        except UserError as error:
            if not self.request.several:
                raise
            self.result.failed[job.name] = str(error)
            return
        if not is_main_process():
            return
        made_by = self.request.artist.made_by(job, seconds)
        try:
            if (picking := self.request.plan.picking) is None:
                self.request.plan.write(job.name, clips[0], record_of(ready.request, made_by))
            else:
                found = picked(clips, self._variants(ready.pair), picking, job.name if self.request.several else "")
                kept = [clips[one.number] for one in found if one.is_kept]
                record = record_of(ready.request, made_by, found)
                self.request.plan.write_all(job.name, kept, record, contact_sheet(*candidate_sheet(clips, found)))
        except UserError as error:
            if not self.request.several:
                raise
            check_writable(self.request.plan.directory)  # a full disk ends the run: sampling on would be in vain
            self.result.failed[job.name] = str(error)
            return
        self.result.made.append(job.name)
        if self.request.several:
            self.listener.made(job.name, self.result, seconds)
