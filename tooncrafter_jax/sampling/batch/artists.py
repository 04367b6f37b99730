"""Who draws the clips and the shots of a run: this process (`LocalArtist`), or another one that is asked for them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.jobs import Job, NamedJob
from tooncrafter_jax.sampling.batch.memory import memory_explained
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.clip_store import ClipStore
from tooncrafter_jax.sampling.finishing import Sampled, finished, sample_all
from tooncrafter_jax.sampling.frame_room import Room
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.records import makers
from tooncrafter_jax.sampling.request import Pair, PreparedPair, SamplingOptions
from tooncrafter_jax.sampling.sequence import Shot, lay_out
from tooncrafter_jax.sampling.shot_drawing import drawn_together
from tooncrafter_jax.sampling.shot_preparation import PreparedShot
from tooncrafter_jax.typing import JsonObject, Uint8Clip

OnProgress = Callable[[Progress], None]
Clips = Callable[[], list[Uint8Clip]]
"""Gives the finished variants of a pair, or raises UserError where they have come to nothing."""
DrawShot = Callable[[Shot | PreparedShot, SamplingOptions, OnProgress], Uint8Clip]
"""Draws a shot, uint8 (frames, H, W, 3 or 4); one that is prepared is not read again."""


class Variants(NamedTuple):
    """What is drawn of a pair.

    Attributes:
      job: the clip.
      pairs: the pair, or those that are picked from.
    """

    job: Job
    pairs: Sequence[PreparedPair]


class Desk(NamedTuple):
    """Where a scene is drawn.

    Attributes:
      store: the folder that keeps its clips, so that it goes on where it stopped.
      made_by: as of `ClipStore`.
      room: where its frames lie.
      batch_size: clips that are drawn together; None: as many as suit all of its shots.
    """

    store: Path
    made_by: JsonObject
    room: Room
    batch_size: int | None


class Artist(ABC):
    """Draws for a run; to be used by `with`, and by one thread.

    Attributes:
      ahead: how many jobs are begun before the one that is waited for.
    """

    ahead: int = 0

    def __enter__(self) -> Artist:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def get_ready(self) -> None:
        """Does once what is needed before anything can be drawn, such as loading the model.

        Raises:
          UserError: it cannot be done.
        """

    @abstractmethod
    def begin(self, job: NamedJob, wanted: Sequence[tuple[Pair | Shot, SamplingOptions]]) -> None:
        """Hears that a job is begun, and which pairs or shots it will ask for, in order."""

    @abstractmethod
    def clips(
        self, batch: Sequence[Variants], size: int, options: SamplingOptions, on_progress: OnProgress
    ) -> list[Clips]:
        """Draws the clips of jobs.

        Args:
          batch: the jobs.
          size: how many jobs a batch has; what is missing is filled with copies, which are thrown away.
          options: how, the same for all.
          on_progress: hears of all together.

        Returns:
          For each job what gives its clips.

        Raises:
          UserError: they cannot be drawn together.
        """

    @abstractmethod
    def scene(self, job: SceneJob, options: SamplingOptions, desk: Desk) -> contextlib.AbstractContextManager[DrawShot]:
        """Inside, the shots of a job are drawn, and its files are written.

        Raises:
          UserError: it cannot be begun, or a shot cannot be drawn.
        """

    @abstractmethod
    def made_by(self, job: NamedJob, seconds: float) -> JsonObject:
        """What the record of a job says of who drew it; it took so long here."""

    @abstractmethod
    def end(self, job: NamedJob) -> None:
        """Hears that a job was made, or has failed."""

    @abstractmethod
    def check_goes_on(self, error: UserError) -> None:
        """Raises an error again that ends a whole run, as all other jobs would fail, too."""


class LocalArtist(Artist):
    """Draws in this process.

    Args:
      load: loads the model; is called when something is to be drawn.
    """

    def __init__(self, load: Callable[[], ToonCrafter]) -> None:
        self._load = load

    @cached_property
    def _toon(self) -> ToonCrafter:
        return self._load()

    def get_ready(self) -> None:
        """See `Artist`."""
        _ = self._toon

    def begin(self, job: NamedJob, wanted: Sequence[tuple[Pair | Shot, SamplingOptions]]) -> None:
        """See `Artist`; nothing happens before it is asked for."""
        del job, wanted

    def clips(
        self, batch: Sequence[Variants], size: int, options: SamplingOptions, on_progress: OnProgress
    ) -> list[Clips]:
        """See `Artist`; clips of one call are one batch."""
        given = [one.pairs for one in batch]
        pairs = [pair for variants in given + given[-1:] * (size - len(given)) for pair in variants]
        with memory_explained():
            sampled = sample_all(self._toon.sample_prepared, pairs, options, on_progress)
        each = len(given[0])
        own = [sampled[each * number : each * (number + 1)] for number in range(len(batch))]
        return [partial(_finished, *both, options) for both in zip(own, given, strict=True)]

    @contextlib.contextmanager
    def scene(self, job: SceneJob, options: SamplingOptions, desk: Desk) -> Iterator[DrawShot]:
        """See `Artist`; clips that were drawn before are used."""
        store = ClipStore(desk.store, desk.made_by)
        layouts = (lay_out(shot, how) for shot, how in job.shots(options))
        batch_size = desk.batch_size or drawn_together(layouts, len(self._toon.devices))  # one program for all shots

        def draw(shot: Shot | PreparedShot, how: SamplingOptions, on_progress: OnProgress) -> Uint8Clip:
            with memory_explained():
                return self._toon.draw_shot(
                    shot, how, batch_size=batch_size, store=store, room=desk.room, on_progress=on_progress
                )

        yield draw
        store.finish()

    def made_by(self, job: NamedJob, seconds: float) -> JsonObject:
        """See `Artist`."""
        del job
        return {**makers(self._toon), "seconds": round(seconds, 3)}

    def end(self, job: NamedJob) -> None:
        """See `Artist`; nothing of it is left."""
        del job

    def check_goes_on(self, error: UserError) -> None:
        """See `Artist`; what fails for one job need not for another."""
        del error


def _finished(sampled: Sequence[Sampled], pairs: Sequence[PreparedPair], options: SamplingOptions) -> list[Uint8Clip]:
    return [finished(one, pair, options) for one, pair in zip(sampled, pairs, strict=True)]
