"""What the server takes from its clients, declared once: the options of `tooncrafter app` are made from it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from tooncrafter_jax.options import Option, with_attributes

MOST_KNOWN = 10_000
"""Clients whose rate is remembered; the one that was heard longest ago is forgotten first."""


@dataclass(frozen=True)
class Limits:
    """How much of everything the server takes."""

    upload_megabytes: Annotated[int, Option("largest request, its pictures included", least=1, most=4096)] = 128
    upload_pictures: Annotated[int, Option("pictures that a request may bring", least=1, most=1000)] = 64
    client_megabytes: Annotated[
        int, Option("pictures that are kept of a client; those that no job needs go first", least=1)
    ] = 4096
    upload_seconds: Annotated[float, Option("how long a request may take to arrive", least=0.1, most=86400)] = 120.0
    clip_pixels: Annotated[int, Option("height times width of the largest clip", least=4096)] = 2**20
    clip_frames: Annotated[int, Option("frames of the longest clip", least=3)] = 64
    shot_frames: Annotated[int, Option("frames of the longest shot", least=3)] = 2000
    jobs_per_client: Annotated[int, Option("jobs that a client may have waiting or running", least=1)] = 100
    all_jobs: Annotated[int, Option("jobs of all clients that may wait or run", least=1)] = 1000
    requests_per_minute: Annotated[int, Option("requests that a client may send in a minute", least=1)] = 600
    free_megabytes: Annotated[int, Option("room that is always left on the disk", least=0)] = 1024
    keep: Annotated[
        float | None,
        Option(
            "days after which finished jobs and unused pictures are removed",
            least=0.001,
            most=36500,
            unset="never",
            metavar="DAYS",
        ),
    ] = None


Limits.__doc__ = with_attributes(Limits.__doc__, Limits)


class Rate:
    """Lets each client do something so many times a minute: a bucket that fills evenly and holds a minute's worth.

    Args:
      per_minute: how often.
      clock: seconds that never go back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._each, self._clock = float(per_minute), 60 / per_minute, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, client: str) -> float:
        """0 where the client may go on, which is counted; else how many seconds it must wait."""
        with self._lock:
            now = self._clock()
            left, then = self._left.pop(client, (self._most, now))
            left = min(self._most, left + (now - then) / self._each)
            allowed = left >= 1
            self._left[client] = (left - allowed, now)
            if len(self._left) > MOST_KNOWN:
                self._left.popitem(last=False)
            return 0.0 if allowed else (1 - left) * self._each
