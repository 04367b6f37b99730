"""One thread owns the devices. Clips that wait for it, of whatever job, are gathered into batches of one size, clients
take turns, and a long shot is many small clips among those of others.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.memory import memory_explained
from tooncrafter_jax.sampling.batch.model_source import DescribedModel
from tooncrafter_jax.sampling.finishing import Sample
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.typing import HostVideos, JsonObject

_log = logging.getLogger(__name__)
GATHERING_SECONDS = 0.1
"""A batch that is not full waits so long for more clips; a batch takes seconds, or minutes."""


class Stopped(Exception):
    """The job was cancelled, or the server ends."""


@runtime_checkable
class ServedModel(Protocol):
    """A model that the server draws with."""

    @property
    def name(self) -> str:
        """What clients call it."""
        ...

    @property
    def described(self) -> DescribedModel:
        """What is known of it without loading it."""
        ...

    @property
    def dtype(self) -> str:
        """Of the computation."""
        ...

    @property
    def sample(self) -> Sample:
        """Draws clips, as `ToonCrafter.sample_prepared`; is called by one thread."""
        ...

    @property
    def made_by(self) -> JsonObject:
        """What a record says of who drew; may be asked for once something was drawn."""
        ...


@dataclass(eq=False)
class Clip:
    """A clip that waits.

    Attributes:
      client: whose.
      kind: clips of one kind can be drawn together: one model, one way, one compiled size.
      pair: what is drawn.
      order: of the job among all.
      task: what it is a part of.
      video: when it is drawn.
      share: of its steps that are done.
    """

    client: str
    kind: tuple[object, ...]
    pair: PreparedPair
    order: int
    task: Task
    video: np.ndarray | None = None
    share: float = 0.0


@dataclass(eq=False)
class Task:
    """Clips that a job waits for; see `Devices.sample`."""

    model: ServedModel
    options: SamplingOptions
    on_progress: Callable[[Progress], None] | None
    is_stopped: Callable[[], bool]
    clips: list[Clip] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to draw."""
        return self.error is not None or all(clip.video is not None for clip in self.clips)


def next_batch(waiting: Sequence[Clip], served: Mapping[str, int], most: int) -> list[Clip]:
    """The clips that are drawn next.

    The client that was served longest ago comes first, with the first clip of its first job; the batch is filled with
    clips of the same kind, one a client in turn. Of what is there the largest power of two is taken, so that few sizes
    are compiled and no place stays empty.

    Args:
      waiting: in the order in which they came.
      served: client -> when it was served last, as a number that grows; one that is missing was never served.
      most: clips of a batch.
    """
    if not waiting:
        return []
    order = sorted(
        {clip.client for clip in waiting}, key=lambda client: (served.get(client, -1), _first(waiting, client))
    )
    leading = next(clip for clip in sorted(waiting, key=_order) if clip.client == order[0])
    fitting = [clip for clip in sorted(waiting, key=_order) if clip.kind == leading.kind]
    turns = {client: [clip for clip in fitting if clip.client == client] for client in order}
    chosen: list[Clip] = []
    while len(chosen) < most and any(turns.values()):
        chosen += [clips.pop(0) for clips in turns.values() if clips]
    size = 1
    while 2 * size <= min(len(chosen), most):
        size *= 2
    return chosen[:size]


def _order(clip: Clip) -> int:
    return clip.order


def _first(waiting: Sequence[Clip], client: str) -> int:
    return min(clip.order for clip in waiting if clip.client == client)


class Devices:
    """The thread that draws.

    Args:
      most: clips of a batch; a power of two.
      gathering_seconds: see `GATHERING_SECONDS`.
      chores: are done in turn while no clip waits, such as compiling what the first clips will need.

    Attributes:
      on_batch: is told the size of each batch and the seconds that it took.
      on_ready: is called when the last chore is done; not without chores.
    """

    def __init__(
        self,
        most: int,
        gathering_seconds: float = GATHERING_SECONDS,
        chores: Sequence[Callable[[Callable[[Progress], None]], None]] = (),
    ) -> None:
        self._most, self._gathering, self._chores = most, gathering_seconds, list(chores)
        self._waiting: list[Clip] = []
        self._served: dict[str, int] = {}
        self._turn, self._ends = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="devices", daemon=True)
        self.on_batch: Callable[[int, float], None] = lambda size, seconds: None
        self.on_ready: Callable[[], None] = lambda: None

    @property
    def works(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    @property
    def has_chores(self) -> bool:
        """Whether there are chores that are not done."""
        return bool(self._chores)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, at the next chunk of steps; what waits is told."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        with self._changed:
            for clip in self._waiting:
                clip.task.error = clip.task.error or Stopped()
            self._waiting.clear()
            self._changed.notify_all()

    def wake(self) -> None:
        """Has all that wait look again whether they are to stop."""
        with self._changed:
            self._changed.notify_all()

    def sample(
        self,
        client: str,
        order: int,
        model: ServedModel,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None,
        is_stopped: Callable[[], bool],
    ) -> HostVideos:
        """Draws clips when their turn has come; of a pair that is there several times, one.

        Args:
          client: whose they are.
          order: of the job among all.
          model: draws them.
          pairs: of one size.
          options: how.
          on_progress: hears of all of them together; is called by the thread of the devices.
          is_stopped: whether they are wanted no longer.

        Returns:
          The frames (B, T, H, W, 3), float32 in about [-1, 1].

        Raises:
          Stopped: they are wanted no longer.
          UserError: as `ToonCrafter.sample_prepared`.
        """
        task = Task(model, options, on_progress, is_stopped)
        own: dict[int, Clip] = {}
        for pair in pairs:
            if id(pair) not in own:
                own[id(pair)] = Clip(client, _kind(model, pair, options), pair, order, task)
        task.clips = list(own.values())
        with self._changed:
            if self._ends:
                raise Stopped
            self._waiting += task.clips
            self._changed.notify_all()
            while not task.is_over:
                self._changed.wait()
                if is_stopped() or self._ends:
                    self._waiting = [clip for clip in self._waiting if clip.task is not task]
                    raise Stopped
        if task.error is not None:
            raise task.error
        return np.stack([video for pair in pairs if (video := own[id(pair)].video) is not None])

    # ------------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._ends:
            self._do_chores()
            if batch := self._gathered():
                self._try(batch)

    def _try(self, batch: Sequence[Clip]) -> None:
        """Draws a batch; where that fails, each of its clips alone."""
        start = time.monotonic()
        try:
            self._draw(batch)
        except BaseException as error:
            if len(batch) > 1 and not isinstance(error, Stopped):
                self._each_alone(batch)  # what is wrong with one must not cost the others
            else:
                self._failed(batch, error)
        _tell(self.on_batch, len(batch), time.monotonic() - start)
        with self._changed:
            self._changed.notify_all()

    def _do_chores(self) -> None:
        """Does chores until a clip waits, or none is left; clips that come in the middle of one wait for its end."""

        def tell(progress: Progress) -> None:
            if self._ends:
                raise Stopped

        while self._chores and not self._waiting and not self._ends:
            try:
                self._chores[0](tell)
            except Stopped:
                return
            except Exception as error:
                is_ours = not isinstance(error, UserError)
                _log.warning("nothing is compiled beforehand: %s", error, exc_info=error if is_ours else None)
                self._chores.clear()
                return
            del self._chores[0]
            if not self._chores:
                _tell(self.on_ready)

    def _gathered(self) -> list[Clip]:
        """The next batch, which waits a little to be full; nothing when the server ends, or there are chores."""
        with self._changed:
            while not self._waiting and not self._ends:
                if self._chores:
                    return []
                self._changed.wait()
            until = time.monotonic() + self._gathering
            while not self._ends and self._waiting and len(self._fitting()) < self._most:
                left = until - time.monotonic()
                if left <= 0 or self._most == 1:
                    break
                self._changed.wait(left)
            if self._ends:
                return []
            batch = self._fitting()
            if not batch:  # all were cancelled meanwhile
                return []
            chosen = set(map(id, batch))
            self._waiting = [clip for clip in self._waiting if id(clip) not in chosen]
            for clip in batch:
                self._turn += 1
                self._served[clip.client] = self._turn
            active = {clip.client for clip in (*self._waiting, *batch)}
            if len(self._served) > 10_000:
                self._served = {client: turn for client, turn in self._served.items() if client in active}
            return batch

    def _fitting(self) -> list[Clip]:
        return next_batch(self._waiting, self._served, self._most)

    def _draw(self, batch: Sequence[Clip]) -> None:
        first = batch[0].task

        def listen(progress: Progress) -> None:
            if self._ends or all(clip.task.is_stopped() for clip in batch):
                raise Stopped
            for clip in batch:
                clip.share = progress.done / progress.total

            preview = functools.cache(progress.preview)  # one for all
            for task in dict.fromkeys(clip.task for clip in batch):
                if task.on_progress is not None and not task.is_stopped():
                    rows = [row for row, clip in enumerate(batch) if clip.task is task]
                    share = sum(clip.share for clip in task.clips) / len(task.clips)
                    done = int(share * progress.total + 1e-6)
                    task.on_progress(Progress(done, progress.total, lambda rows=rows: preview()[rows]))

        with memory_explained():
            videos = first.model.sample([clip.pair for clip in batch], first.options, listen)
        for clip, video in zip(batch, videos, strict=True):
            clip.video, clip.share = video, 1.0

    def _each_alone(self, batch: Sequence[Clip]) -> None:
        for clip in batch:
            if clip.task.is_stopped() or clip.task.error is not None:
                continue
            try:
                self._draw([clip])
            except BaseException as error:
                self._failed([clip], error)

    def _failed(self, batch: Sequence[Clip], error: BaseException) -> None:
        if not isinstance(error, UserError | Stopped):
            _log.error("a batch of %d failed", len(batch), exc_info=error)
        with self._changed:
            tasks = {id(clip.task): clip.task for clip in batch}
            for task in tasks.values():
                task.error = task.error or error
            self._waiting = [clip for clip in self._waiting if id(clip.task) not in tasks]


def _tell(listener: Callable[..., None], *values: object) -> None:
    """Tells somebody whose failing, as to print where nobody reads any more, must not end the thread."""
    try:
        listener(*values)
    except Exception as error:
        _log.warning("the news of the devices are not heard", exc_info=error)


def _kind(model: ServedModel, pair: PreparedPair, options: SamplingOptions) -> tuple[object, ...]:
    return model.name, options, pair.ends.shape, pair.hints is not None, pair.draft is not None
