"""Makes jobs: takes them in, begins them in turn, and keeps what becomes of them. A killed server goes on where it was.

Each job that runs has a thread of its own, which reads pictures and waits for the devices (`devices.Devices`); the
devices draw clips of all of them.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_webp
from tooncrafter_jax.notes import collected
from tooncrafter_jax.options import shown
from tooncrafter_jax.sampling.clip_store import ClipStore
from tooncrafter_jax.sampling.finishing import finished, sample_all
from tooncrafter_jax.sampling.frame_room import FrameRoom
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import Pair, PreparedPair, SamplingOptions, prepare
from tooncrafter_jax.sampling.shot_drawing import draw_shot
from tooncrafter_jax.sampling.shot_preparation import prepare_shot
from tooncrafter_jax.serving.board import Board, Live
from tooncrafter_jax.serving.database import ENDED, OPEN, Job
from tooncrafter_jax.serving.descriptions import (
    AnyDescription,
    ShotDescription,
    Work,
    check,
    described,
    told,
    work_of,
)
from tooncrafter_jax.serving.devices import GATHERING_SECONDS, Devices, ServedModel, Stopped
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.models import named
from tooncrafter_jax.serving.storage import NoRoom, Storage, room_explained
from tooncrafter_jax.serving.turns import Turns
from tooncrafter_jax.serving.warm_up import chores
from tooncrafter_jax.typing import HostVideos, JsonObject, Uint8Clip

_log = logging.getLogger(__name__)
MOST_ATTEMPTS = 3
"""How often a job is begun: one that ends the server's process each time would do so for ever."""
ALONE = "alone"
"""The setting that says which job runs to which nothing else can be the fault if the server ends; empty: none."""
LOOK_SECONDS = 1.0
"""Between two looks at the disk, where nothing else happens."""
CLEAN_SECONDS = 60.0
"""Between two looks for what is older than `Limits.keep`."""
UNUSED_SECONDS = 30 * 86400.0
"""That a key lasts with which nothing was sent."""
PREVIEW_SHARE = 0.5
"""Of the time of drawing: previews take no more than that besides."""


class Busy(Exception):
    """There are too many jobs; `seconds` says when to come again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Engine:
    """Makes the jobs of a folder.

    Args:
      storage: the folder.
      models: name -> model, the first of them for requests that name none.
      limits: see there.
      batch_size: clips that are drawn together at most; a power of two is used.
      gathering_seconds: see `devices.GATHERING_SECONDS`.
      warm_up: whether the first model is compiled for its usual size at the start.

    Attributes:
      storage, models, limits, batch_size: as given.
      board: how far the jobs are.
      devices: what draws.
      on_end: is told the state of each job that ends.
    """

    def __init__(
        self,
        storage: Storage,
        models: Mapping[str, ServedModel],
        limits: Limits,
        *,
        batch_size: int = 1,
        gathering_seconds: float = GATHERING_SECONDS,
        warm_up: bool = False,
    ) -> None:
        self.storage, self.models, self.limits, self.batch_size = storage, models, limits, batch_size
        first = chores(next(iter(models.values())), limits) if warm_up else ()
        self.board, self.devices = Board(), Devices(batch_size, gathering_seconds, first)
        self.on_end: Callable[[str, float], None] = lambda state, seconds: None
        self._database = storage.database
        self._turns = Turns(max(4, 2 * batch_size))
        self._active: dict[str, Job] = {}
        self._cancelled: set[str] = set()
        self._changed, self._ends = threading.Condition(threading.RLock()), False
        self._cleaned, self._not_before = float("-inf"), float("-inf")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begins: jobs that ran when the last server ended go on."""
        running = self._database.jobs("running")
        alone = next((job for job in running if job.id == self._database.setting(ALONE)), None)
        for job in running:
            if alone is not None and job is not alone:
                self._keep(job.id, state="waiting", attempts=job.attempts - 1)
            elif job.attempts >= MOST_ATTEMPTS:
                sentence = f"the server ended {job.attempts} times while it was drawn: ask for fewer pixels or frames"
                self._keep(job.id, state="failed", error=sentence, finished=time.time())
            else:
                self._keep(job.id, state="waiting")
        self._nothing_alone()
        self._turns.suspects |= {job.id for job in self._database.jobs("waiting") if job.attempts > 0}
        self.devices.start()
        self._thread.start()

    @property
    def works(self) -> bool:
        """Whether the threads live that begin jobs and draw."""
        return self._thread.is_alive() and self.devices.works

    @property
    def is_ending(self) -> bool:
        """Whether the server ends."""
        return self._ends

    def stop(self) -> None:
        """Ends at the next chunk of steps; what is not done goes on when a server starts again."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self.devices.stop()
        if self._thread.is_alive():
            self._thread.join()
        with self._changed:
            while self._active:
                self._changed.wait(1)

    # --------------------------------------------------------------------------------------------------------- requests

    def submit(self, client: str, values: JsonObject, asked: AnyDescription, pictures: Mapping[str, str]) -> Job:
        """Takes a job in.

        Args:
          client: whose.
          values: the request as it was sent.
          asked: what it says.
          pictures: what it calls a picture -> checksum; must be the client's.

        Returns:
          The job; its notes say what was decided about its pictures.

        Raises:
          UserError: it cannot be drawn.
          Busy: there are too many jobs.
          NoRoom: the disk is nearly full.
        """
        self.storage.check_room()
        self._check_queue(client)
        model = named(self.models, asked.model)
        work = self._work(asked, pictures, model)
        with collected() as found:
            try:
                check(work, model.described, self.limits)
            except UserError as error:
                raise UserError(work.told(str(error))) from error
        notes = [work.told(sentence) for sentence in found]
        kind = "shot" if isinstance(asked, ShotDescription) else "pair"
        job = Job(secrets.token_hex(16), client, values, pictures, kind, created=time.time(), notes=notes)
        with room_explained(self.storage):
            job = self._database.add_job(job)
            try:
                self.storage.record(job.id)
            except BaseException:
                self.storage.remove_job(job)
                raise
        self._wake()
        return job

    def cancel(self, job: Job) -> Job | None:
        """Cancels a job that is still to be made, at the next chunk of its steps; gives it as it is now."""
        with self._changed:
            now = self._database.change(job.id, unless=ENDED, state="cancelled", finished=time.time())
            if job.id in self._active:
                self._cancelled.add(job.id)
        if now is not None and now.state == "cancelled":
            self._record(job.id)
        self.devices.wake()
        self._wake()
        self.board.tell(job.id)
        return now

    def remove(self, job: Job) -> None:
        """Removes a job with all that belongs to it."""
        self.cancel(job)
        self._database.remove_job(job.id)
        with self._changed:
            if job.id not in self._active:
                self.storage.remove_job(job)
        self.board.tell(job.id)

    def _check_queue(self, client: str) -> None:
        seconds = 5.0
        if self._database.count(*OPEN, client=client) >= self.limits.jobs_per_client:
            most = self.limits.jobs_per_client
            raise Busy(f"you have {most} jobs that wait or run, which is as many as this server takes", seconds)
        if self._database.count(*OPEN) >= self.limits.all_jobs:
            raise Busy(f"{self.limits.all_jobs} jobs wait or run, which is as many as this server takes", seconds)

    def _work(self, asked: AnyDescription, pictures: Mapping[str, str], model: ServedModel) -> Work:
        paths = {name: self.storage.picture(sha256) for name, sha256 in pictures.items()}
        return work_of(asked, paths, model.described)

    # ----------------------------------------------------------------------------------------------------------- turns

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._ends:
                    return
            try:
                self._clean()
                begun = self._begun_next() if self.storage.free >= 0 and time.monotonic() >= self._not_before else None
            except Exception:
                _log.exception("the jobs cannot be looked at: trying again")
                begun = None
            if begun is None:
                with self._changed:
                    if not self._ends:
                        self._changed.wait(LOOK_SECONDS)
                continue
            self.board.tell(begun.id, Live())
            threading.Thread(target=self._make, args=(begun,), name=f"job {begun.number}", daemon=True).start()

    def _begun_next(self) -> Job | None:
        """The next job, which runs from now on."""
        with self._changed:
            chosen = self._turns.next(self._database.waiting(), self._active)
            job = None if chosen is None or self._ends else self._database.job(chosen.id)
            if job is None:
                return None
            if job.id in self._turns.suspects:
                self._database.set_setting(ALONE, job.id)
            begun = self._database.change(job.id, unless=("cancelled",), state="running", attempts=job.attempts + 1)
            if begun is None or begun.state != "running":
                return None
            self._turns.begins(begun.client)
            self._active[begun.id] = begun
            return begun

    def _clean(self) -> None:
        """Removes what is older than `Limits.keep`, and keys that were never used; a clock that was set back keeps
        everything longer.
        """
        if time.monotonic() - self._cleaned < CLEAN_SECONDS:
            return
        self._cleaned = time.monotonic()
        self._database.forget_clients(time.time() - UNUSED_SECONDS)
        if self.limits.keep is not None:
            self.storage.remove_old(time.time() - self.limits.keep * 86400)

    # --------------------------------------------------------------------------------------------------------- one job

    def _make(self, job: Job) -> None:
        """The thread of a job."""
        start = time.perf_counter()
        changes: dict[str, object]
        try:
            with collected() as found, room_explained(self.storage):
                changes = self._made(job)
            notes = list(dict.fromkeys([*job.notes, *found]))
            changes |= {"state": "done", "notes": notes, "error": ""}
        except Stopped:
            changes = {"state": "waiting", "attempts": job.attempts - 1}
        except NoRoom as error:
            _log.warning("job %d waits for room on the disk: %s", job.number, error)
            self._not_before = time.monotonic() + LOOK_SECONDS
            changes = {"state": "waiting", "attempts": job.attempts - 1}
        except UserError as error:
            changes = {"state": "failed", "error": self._told(job, str(error))}
        except Exception as error:
            _log.exception("job %d failed", job.number)
            sentence = f"something went wrong inside the server ({type(error).__name__}), whose log says what"
            changes = {"state": "failed", "error": sentence}
        seconds = time.perf_counter() - start
        if changes["state"] != "waiting":
            changes |= {"finished": time.time(), "seconds": round(seconds, 3)}
        try:
            try:
                now = self._keep(job.id, **changes)
            finally:
                self._ended(job)
            if now is not None and not now.is_open:
                self.on_end(now.state, seconds)
        finally:
            self.board.end(job.id)

    def _ended(self, job: Job) -> None:
        """A job runs no longer, and did not end the server; of one that was removed meanwhile nothing stays."""
        with self._changed:
            try:
                if self._database.job(job.id) is None:
                    self.storage.remove_job(job)
            except OSError as error:
                _log.warning("the files of job %d, which was removed, may still be there: %s", job.number, error)
            finally:
                del self._active[job.id]
                self._cancelled.discard(job.id)
                self._turns.ends(job.id)
                self._turns.suspects.discard(job.id)
                self._changed.notify_all()
                self._nothing_alone(job.id)

    def _made(self, job: Job) -> dict[str, object]:
        """Draws a job, and writes its frames; what is known of it then."""
        asked = described(job.request)
        model = named(self.models, asked.model)
        work = self._work(asked, job.pictures, model)
        try:
            frames = self.storage.frames(job.id)  # of a server that was killed before it could say so
        except (OSError, ValueError):
            height, width = work.options.size(model.described.config)
            self.storage.check_room(work.options.frames * height * width * 4)
            frames = self._drawn(job, work, model)
            if job.id in self._cancelled:
                raise Stopped from None
            self.storage.write_frames(job.id, frames)
            return {"shape": list(frames.shape), "made_by": dict(model.made_by)}
        return {"shape": list(frames.shape)}

    def _drawn(self, job: Job, work: Work, model: ServedModel) -> Uint8Clip:
        watching = _Watching(self, job)

        def sample(
            pairs: Sequence[PreparedPair],
            options: SamplingOptions,
            on_progress: Callable[[Progress], None] | None,
        ) -> HostVideos:
            stopped = partial(self._is_stopped, job.id)
            videos = self.devices.sample(job.client, job.number, model, pairs, options, on_progress, stopped)
            self._has_drawn(job.id)
            return videos

        options, config = work.options, model.described.config
        if isinstance(work.what, Pair):
            prepared = prepare(work.what, options, config)
            (sampled,) = sample_all(sample, [prepared], options, watching)
            return finished(sampled, prepared, options)
        folder = self.storage.job_folder(job.id)
        made_by = {"model": dict(model.described.record), "dtype": model.dtype, "options": shown(options)}
        try:
            store = ClipStore(folder / "clips", made_by)
        except UserError as error:
            _log.warning("the clips of job %d are drawn again: %s", job.number, error)
            shutil.rmtree(folder / "clips", ignore_errors=True)
            store = ClipStore(folder / "clips", made_by)
        room = FrameRoom(folder)
        shot = prepare_shot(work.what, options, config, room)
        return draw_shot(
            shot, options, sample, batch_size=self.batch_size, store=store, room=room, on_progress=watching
        )

    def _has_drawn(self, id: str) -> None:
        with self._changed:
            if self._turns.draws(id):
                self._nothing_alone()
                self._changed.notify_all()

    def _nothing_alone(self, id: str | None = None) -> None:
        """Says that nothing runs to which nothing else can be the fault; with `id`, if it was this job."""
        with contextlib.suppress(OSError):  # then at the next start the job may be blamed once too often
            alone = self._database.setting(ALONE)
            if alone and id in (None, alone):
                self._database.set_setting(ALONE, "")

    def _is_stopped(self, id: str) -> bool:
        return self._ends or id in self._cancelled

    def _told(self, job: Job, sentence: str) -> str:
        """A sentence without this machine's paths."""
        sentence = told(sentence, {str(self.storage.picture(sha256)): name for name, sha256 in job.pictures.items()})
        return sentence.replace(str(self.storage.job_folder(job.id)), "the job's folder")

    def _keep(self, id: str, **changes: object) -> Job | None:
        """Changes a job in the database, and beside its files; waits for room where there is none.

        What was cancelled meanwhile stays so.
        """
        while True:
            try:
                now = self._database.change(id, unless=("cancelled",), **changes)
                break
            except OSError:
                _log.warning("the database cannot be written: waiting for room on the disk")
                with self._changed:
                    if self._ends:
                        return self._database.job(id)
                    self._changed.wait(LOOK_SECONDS)
        self._record(id)
        return now

    def _record(self, id: str) -> None:
        """Brings what stands beside a job's files up to date: if that cannot be, the database still knows."""
        with contextlib.suppress(UserError, OSError):
            self.storage.record(id)


class _Watching:
    """Hears of one job's progress, and makes previews for those who watch."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine, self._job = engine, job
        self._previews, self._spent, self._since = 0, 0.0, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        board, id = self._engine.board, self._job.id
        if progress.done < progress.total and board.wants_previews(id):
            start = time.monotonic()
            if self._spent <= PREVIEW_SHARE * (start - self._since - self._spent):
                self._preview(progress)
                self._spent += time.monotonic() - start
        board.tell(id, Live(progress.done, progress.total, self._previews))

    def _preview(self, progress: Progress) -> None:
        path = self._engine.storage.job_folder(self._job.id) / "preview.webp"
        try:
            write_webp(path, progress.preview()[0])
        except (UserError, OSError) as error:  # drawing goes on without
            _log.warning("job %d has no preview: %s", self._job.number, error)
        else:
            self._previews += 1
