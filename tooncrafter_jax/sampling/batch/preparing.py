"""Reading and fitting the pictures of the next clips while the present ones are sampled."""

from __future__ import annotations

import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.jobs import Job
from tooncrafter_jax.sampling.request import PreparedPair
from tooncrafter_jax.typing import JsonObject

AHEAD = 3
"""Clips that are prepared while the present batch is sampled, beside the next one."""


class Ready(NamedTuple):
    """A clip that can be sampled.

    Attributes:
      pair: its pictures.
      request: what its record says it was made from.
    """

    pair: PreparedPair
    request: JsonObject


class Preparation:
    """Prepares clips in order in a thread of its own, a few more than were asked for so far.

    Args:
      prepare: makes one ready, or raises UserError.
      ahead: how many clips are prepared before they are asked for.
    """

    def __init__(self, prepare: Callable[[Job], Ready], ahead: int) -> None:
        self._waiting: deque[Job] = deque()
        self._prepare = prepare
        self._ahead = ahead
        self._begun: dict[str, Future[Ready]] = {}
        self._thread = ThreadPoolExecutor(1, "preparing")

    def __enter__(self) -> Preparation:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def start(self, jobs: Iterable[Job]) -> None:
        """Begins with clips, in the order in which they will be asked for."""
        self._waiting.extend(jobs)
        self._go_on()

    def problem_with(self, job: Job) -> str | None:
        """What keeps a clip from being made; None if nothing does, and then it can still be had."""
        try:
            self._future(job).result()
        except UserError as error:
            return str(error)
        return None

    def get(self, job: Job) -> Ready:
        """A clip, when it is ready; it is not kept here.

        Raises:
          UserError: if it cannot be made.
        """
        ready = self._future(job)
        del self._begun[job.name]
        self._go_on()
        return ready.result()

    def drop(self, job: Job) -> None:
        """Says that a clip will not be asked for soon."""
        begun = self._begun.pop(job.name, None)
        if begun is not None:
            begun.cancel()
        else:
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)
        self._go_on()

    def _future(self, job: Job) -> Future[Ready]:
        if job.name not in self._begun:
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)
            self._begin(job)
        return self._begun[job.name]

    def _go_on(self) -> None:
        while self._waiting and len(self._begun) < self._ahead:
            self._begin(self._waiting.popleft())

    def _begin(self, job: Job) -> None:
        context = contextvars.copy_context()  # what is said of a picture is heard where the clip was asked for
        self._begun[job.name] = self._thread.submit(context.run, self._prepare, job)
