"""Making shots one after another: what is done is left out, what was drawn of one that was stopped is used again, and a
failure of one of several does not end the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import check_writable
from tooncrafter_jax.io.owned_files import shortened
from tooncrafter_jax.notes import note, once
from tooncrafter_jax.options import shown
from tooncrafter_jax.runtime.distributed import as_the_main_process_says, is_main_process
from tooncrafter_jax.sampling.batch.artists import Desk
from tooncrafter_jax.sampling.batch.claims import Claims
from tooncrafter_jax.sampling.batch.jobs import MAX_FILE_NAME_BYTES
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.run_request import (
    WAIT_SECONDS,
    BatchResult,
    Listener,
    RunRequest,
)
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.batch.selection import usable_everywhere
from tooncrafter_jax.sampling.frame_room import FrameRoom
from tooncrafter_jax.sampling.records import record_of, request_of_shot
from tooncrafter_jax.sampling.request import SamplingOptions, check_sketch_encoder
from tooncrafter_jax.sampling.sequence import Shot, lay_out
from tooncrafter_jax.sampling.shot_preparation import PreparedShot, prepare_shot
from tooncrafter_jax.typing import JsonObject, Uint8Clip

AFTERWARDS = ("lock_colours", "palette", "lines", "alpha", "background", "two_backgrounds", "fit")
"""Options that change what clips are drawn from, or what is made of them, but not how they are drawn."""


@dataclass(frozen=True)
class ShotRequest(RunRequest[SceneJob]):
    """Shots to make; see `RunRequest`. Unlike a single clip, a single shot that is done is left out."""

    def make(self, listener: Listener, result: BatchResult | None = None) -> BatchResult:
        """Makes the shots that are not done. What can be wrong is found before the model is loaded.

        Args:
          listener: hears how it goes.
          result: is brought up to date, where the shots are a part of a run.

        Raises:
          UserError: something is wrong that concerns all shots, or the only one.
        """
        result = self.begun(result)
        if self.plan.cross_fade:
            note("the contact sheet of a shot has no cross-fade: there are keys between its first frame and its last")
        with once():
            usable = self._usable(self.jobs, self._check, result)
            if usable:
                self._check_outputs()
            done = as_the_main_process_says([self._is_done(job) for job in listener.looking(usable)]) if usable else []
            result.skipped += [job.name for job, is_done in zip(usable, done, strict=True) if is_done]
            todo = [job for job, is_done in zip(usable, done, strict=True) if not is_done]
            read: dict[int, PreparedShot] = {}
            todo = self._usable(todo, lambda job: self._check_all(job, read), result)
            self._tell_rates(todo)
            if todo:
                with Claims(self.plan.directory, note) as claims:
                    self._make_all(todo, read, claims, listener, result)
        return result

    def _files_of(self, job: SceneJob) -> OutputPlan:
        """Where a shot's files go, and how they are played. What a loop does not show twice is left out as it is drawn;
        and a cross-fade from the first key to the last says nothing of the keys between.
        """
        plan = replace(self.plan, drop_last=False, cross_fade=False)
        own = None if self.rate_is_given else job.playback()
        return plan if own is None else replace(plan, playback_fps=own[0])

    def _tell_rates(self, jobs: Sequence[SceneJob]) -> None:
        """Says which shots are played at a rate of their own."""
        for job in () if self.rate_is_given else jobs:
            if (own := job.playback()) is not None:
                note(f"{job.name}: {own[1]}" if self.several else own[1])

    @property
    def _room(self) -> FrameRoom:
        """Where the frames lie while they are drawn."""
        return FrameRoom(self.plan.directory)

    def _usable(
        self, jobs: Sequence[SceneJob], check: Callable[[SceneJob], None], result: BatchResult
    ) -> Sequence[SceneJob]:
        """The shots that pass a check; of a list, what is wrong with the others is their result."""
        if self.several:
            return usable_everywhere(jobs, check, result.failed)
        for job in jobs:
            check(job)
        return jobs

    def _check(self, job: SceneJob) -> None:
        """What can be known without reading a picture."""
        self._files_of(job).check_playback_rate()
        for shot, options in job.shots(self.options):
            if lay_out(shot, options).sketches:
                check_sketch_encoder(self.model.config, self.model.components)

    def _check_all(self, job: SceneJob, read: dict[int, PreparedShot]) -> None:
        """Whether its files are ours to write, and its pictures can be read; what was read of the only one is kept, by
        the identities of its shots.
        """
        self._files_of(job).check_ours(job.name)
        for shot, options in job.shots(self.options):
            prepared = prepare_shot(shot, options, self.model.config, self._room)
            if len(self.jobs) == 1:
                read[id(shot)] = prepared

    def _check_outputs(self) -> None:
        inputs = [path for job in self.jobs for path in job.inputs()]
        self.plan.check([*inputs, *self.inputs], [job.name for job in self.jobs])

    def _request_of(self, job: SceneJob) -> JsonObject:
        files, model = self._files_of(job), dict(self.model.record)

        def request_of(shot: Shot, options: SamplingOptions) -> JsonObject:
            return request_of_shot(shot, lay_out(shot, options), options, model, self.dtype, files.stamps)

        common = {"options": shown(self.options), "model": model, "dtype": self.dtype}
        return dict(job.request(self.options, request_of, files.stamps)) | common | shown(files)

    def _is_done(self, job: SceneJob) -> bool:
        return self._files_of(job).is_done(job.name, lambda: self._request_of(job))

    def _make_all(
        self,
        jobs: Sequence[SceneJob],
        read: dict[int, PreparedShot],
        claims: Claims,
        listener: Listener,
        result: BatchResult,
    ) -> None:
        """Makes all; those that another run is making are left to it, and made here if it has not when it gives up."""
        waiting, told = deque(jobs), False
        try:
            while waiting:
                elsewhere = self._make_claimed(waiting, read, claims, listener, result)
                if elsewhere and not told:
                    note(f"another run is making {len(elsewhere)} of the shots: waiting for it")
                    told = True
                if elsewhere:
                    time.sleep(WAIT_SECONDS)
                waiting = deque(elsewhere)
        except BaseException:
            listener.stopped(result)
            raise

    def _make_claimed(
        self,
        waiting: deque[SceneJob],
        read: dict[int, PreparedShot],
        claims: Claims,
        listener: Listener,
        result: BatchResult,
    ) -> list[SceneJob]:
        """Makes the shots that no other run is making; returns the others."""
        elsewhere: list[SceneJob] = []
        begun: deque[SceneJob] = deque()
        while waiting or begun:
            while waiting and len(begun) <= self.artist.ahead:
                job = waiting.popleft()
                is_ours = not is_main_process() or claims.take(job.name, again=not self.several)
                if as_the_main_process_says([is_ours]) != [True]:
                    if not self.several:
                        raise self.made_elsewhere(job)
                    elsewhere.append(job)
                elif as_the_main_process_says([is_main_process() and self._is_done(job)]) == [True]:
                    result.elsewhere.append(job.name)
                    claims.release(job.name)
                else:
                    self.artist.begin(job, job.shots(self.options))
                    begun.append(job)
            if begun:
                job = begun.popleft()
                self._make(job, read, listener, result)
                self.artist.end(job)
                claims.release(job.name)
        return elsewhere

    def _make(self, job: SceneJob, read: dict[int, PreparedShot], listener: Listener, result: BatchResult) -> None:
        start = time.perf_counter()
        try:
            self.artist.get_ready()
            request = self._request_of(job)
            desk = Desk(self.plan.directory / store_name(job.name), self._made_by(), self._room, self.batch_size)
            with self.artist.scene(job, self.options, desk) as draw_shot:
                with listener.sampling(job, result, self.options.steps) as on_progress:

                    def draw(shot: Shot, options: SamplingOptions) -> Uint8Clip:
                        return draw_shot(read.pop(id(shot), shot), options, on_progress)

                    size = self.options.size(self.model.config)
                    scene = job.drawn(self.options, size, draw, self._room)
                seconds = time.perf_counter() - start
                if is_main_process():
                    record = record_of(request, self.artist.made_by(job, seconds))
                    self._files_of(job).write(job.name, scene.video, record, scene.drawn)
        except UserError as error:
            if not self.several:
                raise
            self.artist.check_goes_on(error)
            check_writable(self.plan.directory)  # a full disk ends the run: sampling on would be in vain
            result.failed[job.name] = str(error)
            return
        result.made.append(job.name)
        if self.several:
            listener.made(job.name, result, seconds)

    def _made_by(self) -> JsonObject:
        """What decides how a clip looks beside its own request, before its colours are corrected."""
        options = {name: value for name, value in shown(self.options).items() if name not in AFTERWARDS}
        return {"model": dict(self.model.record), "dtype": self.dtype, "options": options}


def store_name(name: str) -> str:
    """The hidden folder beside a shot's files that holds its clips."""
    return shortened(f".{name}.clips", MAX_FILE_NAME_BYTES)
