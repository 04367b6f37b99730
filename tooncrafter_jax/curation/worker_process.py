"""A process that calls functions for another one, so that what crashes or is killed there costs one call and no
more.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TypeVar

Result = TypeVar("Result")

_CONTEXT = multiprocessing.get_context("spawn")  # a forked copy of a process with JAX's threads may hang
_STARTING = threading.Lock()


class WorkerDied(Exception):
    """The process ended in the middle of a call; the message says how.

    Attributes:
      signal: what killed it, or 0.
    """

    def __init__(self, exitcode: int):
        super().__init__(f"killed by signal {-exitcode}" if exitcode < 0 else f"exit code {exitcode}")
        self.signal = max(0, -exitcode)


class WorkerProcess:
    """A process that is started at the first call, ends with the one that made it, and knows nothing of Ctrl-C.

    As with all spawned processes, a script that uses it needs `if __name__ == "__main__":`.
    """

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._closed = False

    def call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """What `function(*arguments)` returns there, or raises.

        Raises:
          WorkerDied: the process ended meanwhile; the next call starts another.
        """
        process, pipe = self._started()
        try:
            pipe.send((function, arguments))
            succeeded, value = pipe.recv()
        except (EOFError, ConnectionError) as error:
            process.join()
            self._process = None
            raise WorkerDied(process.exitcode or 0) from error
        if succeeded:
            return value
        raise value

    def kill(self) -> None:
        """Ends the process, also in the middle of a call, which then raises `WorkerDied`; there will be no other."""
        self._closed = True
        with _STARTING:
            process = self._process
        if process is not None:
            process.kill()

    def _started(self) -> tuple[SpawnProcess, Connection]:
        with _STARTING:
            if self._closed:
                raise WorkerDied(-signal.SIGKILL)
            if self._process is not None and self._connection is not None:
                return self._process, self._connection
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(theirs,), name="tooncrafter-worker", daemon=False)
            with _without_interrupts():
                process.start()
            theirs.close()
            self._process, self._connection = process, ours
            return process, ours


@contextlib.contextmanager
def _without_interrupts():
    """A process that is started within never gets SIGINT: the terminal sends it to all, but who asked decides what
    ends.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _serve(pipe: Connection) -> None:
    """Calls what comes through a pipe until it is closed, or its other end is gone: a killed parent wants no last
    words.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, arguments = pipe.recv()
            try:
                answer = True, function(*arguments)
            except Exception as error:
                answer = False, error
            try:
                pipe.send(answer)
            except ConnectionError:
                return
            except Exception as error:  # cannot be pickled
                pipe.send((False, RuntimeError(f"{answer[1]!r} cannot be sent between processes: {error}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
