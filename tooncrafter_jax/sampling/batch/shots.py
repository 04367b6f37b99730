"""Making shots one after another: what is done is left out, what was drawn of one that was stopped is used again, and a
failure of one of several does not end the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from tooncrafter_jax.errors import UserError, is_out_of_memory, out_of_memory
from tooncrafter_jax.io import check_writable
from tooncrafter_jax.notes import note, once
from tooncrafter_jax.options import shown
from tooncrafter_jax.runtime.distributed import as_all_processes_say, as_the_main_process_says, is_main_process
from tooncrafter_jax.sampling.batch.claims import Claims
from tooncrafter_jax.sampling.batch.making import WAIT_SECONDS, BatchResult, Listener
from tooncrafter_jax.sampling.batch.model_source import DescribedModel
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.selection import UNREADABLE_ELSEWHERE
from tooncrafter_jax.sampling.batch.shot_jobs import ShotJob, inputs_of_shot
from tooncrafter_jax.sampling.clip_store import ClipStore
from tooncrafter_jax.sampling.motion_source import missing_motion
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.records import record_of, request_of_shot
from tooncrafter_jax.sampling.request import SamplingOptions, check_sketch_encoder
from tooncrafter_jax.sampling.sequence import lay_out
from tooncrafter_jax.sampling.shot_drawing import prepare_shot
from tooncrafter_jax.typing import JsonObject, Uint8Clip

AFTERWARDS = ("lock_colours", "palette", "alpha", "background", "two_backgrounds", "fit")
"""Options that change what clips are drawn from, or what is made of them, but not how they are drawn."""


@dataclass(frozen=True)
class ShotRequest:
    """Shots to make.

    Attributes:
      jobs: the shots.
      several: whether they are of a list: one that fails does not end the run.
      options: how to sample; must have been checked.
      plan: where the files go.
      model: what is known of the model before it is loaded.
      dtype: of the computation.
      load: loads the model; is called only if there is a shot to make.
      inputs: files that the run reads beside the pictures.
      batch_size: clips of a shot that are drawn together; None for `draw_shot`'s own choice.
    """

    jobs: Sequence[ShotJob]
    several: bool
    options: SamplingOptions
    plan: OutputPlan
    model: DescribedModel
    dtype: str
    load: Callable[[], ToonCrafter]
    inputs: Sequence[Path] = ()
    batch_size: int | None = None

    def make(self, listener: Listener, result: BatchResult | None = None) -> BatchResult:
        """Makes the shots that are not done. What can be wrong is found before the model is loaded.

        Args:
          listener: hears how it goes.
          result: is brought up to date, where the shots are a part of a run.

        Raises:
          UserError: something is wrong that concerns all shots, or the only one.
        """
        result = BatchResult(len(self.jobs)) if result is None else result
        if self.options.alpha:
            self._files.check_holds_alpha()
        if self.options.motion_guidance:
            missing_motion(self.model.config, self.model.components)
        with once():
            usable = self._usable(result)
            if usable:
                self._check_outputs()
            done = as_the_main_process_says([self._is_done(job) for job in listener.looking(usable)]) if usable else []
            result.skipped += [job.name for job, is_done in zip(usable, done, strict=True) if is_done]
            todo = [job for job, is_done in zip(usable, done, strict=True) if not is_done]
            todo = self._writable(todo, result)
            if todo:
                with Claims(self._files.directory, note) as claims:
                    self._make_all(todo, claims, listener, result)
        return result

    @property
    def _files(self) -> OutputPlan:
        """Where the files go; what a loop does not show twice is left out as it is drawn."""
        return replace(self.plan, drop_last=False)

    def _usable(self, result: BatchResult) -> list[ShotJob]:
        """The shots that can be drawn, as far as that can be known without reading a picture, on all processes."""
        return self._kept(self.jobs, self._check, result)

    def _writable(self, jobs: Sequence[ShotJob], result: BatchResult) -> list[ShotJob]:
        """The shots whose files are ours to write, and whose pictures can be read."""

        def check(job: ShotJob) -> None:
            self._files.check_ours(job.name)
            prepare_shot(job.shot, self.options, self.model.config)

        return self._kept(jobs, check, result)

    def _kept(self, jobs: Sequence[ShotJob], check: Callable[[ShotJob], None], result: BatchResult) -> list[ShotJob]:
        problems: dict[str, str] = {}
        for job in jobs:
            try:
                check(job)
            except UserError as error:
                if not self.several:
                    raise
                problems[job.name] = str(error)
        everywhere = as_all_processes_say([job.name not in problems for job in jobs]) if jobs else []
        left = []
        for job, is_usable in zip(jobs, everywhere, strict=True):
            if is_usable:
                left.append(job)
            else:
                result.failed[job.name] = problems.get(job.name, UNREADABLE_ELSEWHERE)
        return left

    def _check(self, job: ShotJob) -> None:
        if lay_out(job.shot, self.options).sketches:
            check_sketch_encoder(self.model.config, self.model.components)

    def _check_outputs(self) -> None:
        inputs = [path for job in self.jobs for path in inputs_of_shot(job.shot)]
        self._files.check([*inputs, *self.inputs], [job.name for job in self.jobs])

    def _request_of(self, job: ShotJob) -> JsonObject:
        layout, files = lay_out(job.shot, self.options), self._files
        request = request_of_shot(job.shot, layout, self.options, self.model.record, self.dtype, files.stamps)
        return request | shown(files)

    def _is_done(self, job: ShotJob) -> bool:
        return self._files.is_done(job.name, lambda: self._request_of(job))

    def _make_all(self, jobs: Sequence[ShotJob], claims: Claims, listener: Listener, result: BatchResult) -> None:
        """Makes all; those that another run is making are left to it, and made here if it has not when it gives up."""
        waiting, told = deque(jobs), False
        try:
            while waiting:
                elsewhere: list[ShotJob] = []
                while waiting:
                    job = waiting.popleft()
                    if as_the_main_process_says([not is_main_process() or claims.take(job.name)]) != [True]:
                        if not self.several:
                            raise UserError(
                                f"another run is making {self.plan.directory / job.name}: wait for it, or choose "
                                "another "
                                "--out"
                            )
                        elsewhere.append(job)
                        continue
                    if as_the_main_process_says([is_main_process() and self._is_done(job)]) == [True]:
                        result.elsewhere.append(job.name)
                    else:
                        self._make(job, listener, result)
                    claims.release(job.name)
                if elsewhere and not told:
                    note(f"another run is making {len(elsewhere)} of the shots: waiting for it")
                    told = True
                if elsewhere:
                    time.sleep(WAIT_SECONDS)
                waiting = deque(elsewhere)
        except BaseException:
            listener.stopped(result)
            raise

    def _make(self, job: ShotJob, listener: Listener, result: BatchResult) -> None:
        start = time.perf_counter()
        try:
            toon, request = self.load(), self._request_of(job)
            store = ClipStore(self._files.directory / f".{job.name}.clips", self._made_by())
            with listener.sampling(job, result, self.options.steps) as on_progress:
                video = self._drawn(toon, job, store, on_progress)
            seconds = time.perf_counter() - start
            if is_main_process():
                self._files.write(job.name, video, record_of(request, toon, seconds))
            store.finish()
        except UserError as error:
            if not self.several:
                raise
            check_writable(self.plan.directory)  # a full disk ends the run: sampling on would be in vain
            result.failed[job.name] = str(error)
            return
        result.made.append(job.name)
        if self.several:
            listener.made(job.name, result, seconds)

    def _drawn(
        self, toon: ToonCrafter, job: ShotJob, store: ClipStore, on_progress: Callable[[Progress], None]
    ) -> Uint8Clip:
        try:
            return toon.draw_shot(
                job.shot, self.options, batch_size=self.batch_size, store=store, on_progress=on_progress
            )
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            remedy = "lower --batch-size, --decode-frames-per-chunk, --height and --width, use --dtype=bfloat16"
            raise out_of_memory("to sample", remedy) from error

    def _made_by(self) -> JsonObject:
        """What decides how a clip looks beside its own request, before its colours are corrected."""
        options = {name: value for name, value in shown(self.options).items() if name not in AFTERWARDS}
        return {"model": dict(self.model.record), "dtype": self.dtype, "options": options}
