"""Calling a function for many items through Apache Beam: in processes of this machine, or by any runner that Beam has.

On one machine the pipeline runs on the engine of Beam's DirectRunner in this process, in more threads than there are
workers, and each item is dealt with in the next free worker process. So work is balanced, and a decoder that crashes or
a process that is killed for its memory costs one item. Other runners get the plain function and do all this in their
way.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import queue
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType
from typing import Generic, TypeVar

from tooncrafter_jax.curation.worker_process import WorkerDied, WorkerProcess
from tooncrafter_jax.errors import UserError, missing_extra

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS_PER_WORKER = 8
"""Beam deals items out to its threads beforehand; the more threads, the less it matters that some items take long."""
_MAX_THREADS = 128

_numbers = itertools.count()
_local_runs: dict[int, _LocalRun] = {}


class _LocalRun(Generic[Item, Result]):
    """One call of `Beam.each` on this machine.

    Attributes:
      workers: the idle ones; None stands for doing the work right there.
      stopping: whether items that have not begun are left.
      error: why.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        workers: Sequence[WorkerProcess | None],
        on_result: Callable[[Item, Result], None],
        on_death: Callable[[Item, WorkerDied], None],
    ):
        self.function, self.items = function, items
        self.workers: queue.Queue[WorkerProcess | None] = queue.Queue()
        for worker in workers:
            self.workers.put(worker)
        self.on_result, self.on_death = on_result, on_death
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self._reporting = threading.Lock()

    def call(self, index: int) -> None:
        """Calls the function for an item in the next idle worker and reports the result; the first error stops the
        run.
        """
        item, worker = self.items[index], self.workers.get()
        try:
            if self.stopping.is_set():
                return
            try:
                result = self.function(item) if worker is None else worker.call(self.function, item)
                with self._reporting:
                    self.on_result(item, result)
            except WorkerDied as death:
                if not self.stopping.is_set():
                    with self._reporting:
                        self.on_death(item, death)
        except (Exception, KeyboardInterrupt) as error:
            if self.error is None:
                self.error = error
            self.stopping.set()
        finally:
            self.workers.put(worker)


class Beam:
    """Where functions are called: use it in a `with` statement, which ends the worker processes."""

    def __init__(self, workers: int = 1, arguments: Sequence[str] = ()):
        """Prepares; nothing is started yet.

        Args:
          workers: processes on this machine; 0 does the work in this process, one item at a time.
          arguments: instead, flags of another runner, e.g. `["--runner=FlinkRunner", "--flink_master=host:8081"]`. Its
            machines need this package, and must see the files under the same paths.

        Raises:
          UserError: Beam is not installed, or a flag or the runner is unknown to it.
        """
        self._beam = _import_beam()
        self._arguments = list(arguments)
        self._workers = [None] if workers == 0 else [WorkerProcess() for _ in range(workers)]
        self._options(self._arguments)

    def __enter__(self) -> Beam:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    @property
    def is_local(self) -> bool:
        """Whether the work is done on this machine and results are reported as they come."""
        return not self._arguments

    def once(self, title: str, function: Callable[[Item], None], item: Item) -> None:
        """Calls a function for one item, in a worker, which keeps what it loads for the items to come.

        Raises:
          UserError: the function raised it, or the worker process died.
        """
        if not self.is_local:
            self._each_elsewhere(title, function, [item])
        elif (worker := self._workers[0]) is None:
            function(item)
        else:
            try:
                worker.call(function, item)
            except WorkerDied as death:
                _give_up(item, death)

    def each(
        self,
        title: str,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        on_result: Callable[[Item, Result], None] = lambda item, result: None,
        on_death: Callable[[Item, WorkerDied], None] | None = None,
    ) -> None:
        """Calls a function for each item.

        Args:
          title: of the step, as other runners show it.
          function: can be called again for an item that was done; it and the items can be pickled.
          items: what it is called with.
          on_result: called with each item and result, on this machine only.
          on_death: called with each item whose worker process was killed; without it the run ends.

        Raises:
          UserError: the function raised it, or a worker process died.
        """
        if not items:
            return
        if self.is_local:
            self._each_here(title, function, items, on_result, on_death or _give_up)
        else:
            self._each_elsewhere(title, function, items)

    def _each_here(
        self, title: str, function: Callable, items: Sequence, on_result: Callable, on_death: Callable
    ) -> None:
        from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

        number = next(_numbers)
        run = _local_runs[number] = _LocalRun(function, items, self._workers, on_result, on_death)
        threads = (
            1 if self._workers == [None] else min(len(items), _THREADS_PER_WORKER * len(self._workers), _MAX_THREADS)
        )
        try:
            with self._interruptible(run), _quiet():
                call = functools.partial(_call_here, number)
                self._run(title, call, range(len(items)), FnApiRunner(), [f"--direct_num_workers={threads}"])
        finally:
            del _local_runs[number]
        if run.error is not None:
            raise run.error

    def _each_elsewhere(self, title: str, function: Callable, items: Sequence) -> None:
        try:
            self._run(title, function, items, None, self._arguments)
        except Exception as error:
            sentences = re.findall(r"UserError: (.+?)(?: \[while running|\\n|\n|$)", f"{type(error).__name__}: {error}")
            if sentences:
                raise UserError(sentences[-1]) from error
            raise UserError(f"the Beam runner failed: {type(error).__name__}: {error}") from error

    def _run(self, title: str, function: Callable, items: Sequence, runner: object, arguments: list[str]) -> None:
        beam = self._beam
        with beam.Pipeline(runner=runner, options=self._options(arguments)) as pipeline:
            _ = (
                pipeline
                | f"{title}: list" >> beam.Create(list(items), reshuffle=False)
                | f"{title}: spread" >> beam.Reshuffle()
                | title >> beam.Map(function)
            )

    def _options(self, arguments: list[str]) -> object:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
        from apache_beam.runners.runner import create_runner

        try:
            options = PipelineOptions(arguments)
            runner = options.view_as(StandardOptions).runner
            if runner:
                create_runner(runner)
        except SystemExit as error:
            raise UserError(f"Beam does not take the flags {' '.join(arguments)}: see its documentation") from error
        except (ValueError, ImportError, AttributeError) as error:
            raise UserError(f"Beam has no such runner: {' '.join(str(error).split()).rstrip('.')}") from error
        return options

    @contextlib.contextmanager
    def _interruptible(self, run: _LocalRun) -> Iterator[None]:
        """Within, Ctrl-C ends the calls that are under way, for which Beam would wait."""
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(previous):
            yield
            return

        def interrupt(signum: int, frame: FrameType | None) -> None:
            run.stopping.set()
            run.error = KeyboardInterrupt()
            self._kill()
            previous(signum, frame)

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        except Exception:
            if isinstance(run.error, KeyboardInterrupt):  # which Beam wraps, in some of its threads
                raise run.error from None
            raise
        finally:
            signal.signal(signal.SIGINT, previous)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.kill()


def _call_here(number: int, index: int) -> None:
    """What Beam's threads call; numbers only, as Beam copies all that it is given."""
    _local_runs[number].call(index)


def _give_up(item: object, death: WorkerDied) -> None:
    remedy = "use fewer workers if memory is short" if death.signal else "see what it has said above"
    raise UserError(f"a worker process ended in the middle of its work ({death}): {remedy}") from death


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within, Beam logs nothing: errors are reported in our own words."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _import_beam() -> ModuleType:
    logging.disable(logging.WARNING)  # it complains at import of what is not needed here
    try:
        import apache_beam
    except ImportError as error:
        raise missing_extra("apache_beam", "data", "making sets of clips") from error
    finally:
        logging.disable(logging.NOTSET)
    return apache_beam
