"""How far running jobs are, and who wants to hear of it: from threads that draw to the event loop that serves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple


class Live(NamedTuple):
    """Where a running job stands.

    Attributes:
      done, total: predictions of the denoiser.
      previews: how many previews there were; a new one replaces the one before.
    """

    done: int = 0
    total: int = 0
    previews: int = 0


class _Listener(NamedTuple):
    """Who hears of a job: the event is set in the loop whenever it changes."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event
    previews: bool


class Board:
    """What is known of running jobs beside the database; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, Live] = {}
        self._listeners: defaultdict[str, list[_Listener]] = defaultdict(list)

    def live(self, id: str) -> Live | None:
        """Where a job stands; None if it does not run."""
        with self._lock:
            return self._live.get(id)

    def has_listeners(self, id: str) -> bool:
        """Whether anybody hears of a job."""
        with self._lock:
            return id in self._listeners

    def wants_previews(self, id: str) -> bool:
        """Whether anybody wants to see a job while it is drawn."""
        with self._lock:
            return any(one.previews for one in self._listeners.get(id, ()))

    def tell(self, id: str, live: Live | None = None) -> None:
        """Says that a job has changed; with `live`, that it stands there now."""
        with self._lock:
            if live is not None:
                self._live[id] = live
            listeners = list(self._listeners.get(id, ()))
        for one in listeners:
            with contextlib.suppress(RuntimeError):  # of a loop that has ended
                one.loop.call_soon_threadsafe(one.event.set)

    def end(self, id: str) -> None:
        """Says that a job runs no longer."""
        with self._lock:
            self._live.pop(id, None)
        self.tell(id)

    @contextlib.contextmanager
    def listening(self, ids: Collection[str], previews: bool = True) -> Iterator[asyncio.Event]:
        """Inside, the event of this loop is set whenever one of these jobs changes, and previews of them are wanted."""
        entry = _Listener(asyncio.get_running_loop(), asyncio.Event(), previews)
        with self._lock:
            for id in ids:
                self._listeners[id].append(entry)
        try:
            yield entry.event
        finally:
            with self._lock:
                for id in ids:
                    self._listeners[id].remove(entry)
                    if not self._listeners[id]:
                        del self._listeners[id]
