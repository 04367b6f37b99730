"""What the terminal shows of a run of many clips: progress, and the report at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from tqdm import tqdm

from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK, one_line
from tooncrafter_jax.errors import printable
from tooncrafter_jax.runtime.distributed import is_main_process
from tooncrafter_jax.sampling.batch.jobs import AnyJob, NamedJob
from tooncrafter_jax.sampling.batch.making import BatchResult, Listener
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.observation import Progress


class Terminal(Listener):
    """Shows on standard error, on the main process alone, how a run goes.

    Args:
      plan: of the files.
      several: whether the run is a list of clips.
      quiet: whether nothing but errors is shown.
    """

    def __init__(self, plan: OutputPlan, several: bool, quiet: bool) -> None:
        self._plan, self._several, self._quiet = plan, several, quiet

    def looking(self, jobs: Sequence[AnyJob]) -> Iterable[AnyJob]:
        """Shows a bar."""
        return tqdm(jobs, "looking for clips that are done", unit="clip", leave=False, disable=self._has_no_bar())

    @contextlib.contextmanager
    def sampling(self, job: NamedJob, result: BatchResult, steps: int) -> Iterator[Callable[[Progress], None]]:
        """Shows a bar of the steps."""
        title = f"{result.count + 1}/{result.total} {printable(job.name)}"
        with tqdm(total=steps, desc=title, unit="step", leave=False, disable=self._has_no_bar()) as bar:

            def on_progress(progress: Progress) -> None:
                bar.total = progress.total
                bar.update(progress.done - bar.n)

            yield on_progress

    def made(self, name: str, result: BatchResult, seconds: float) -> None:
        """Prints a line."""
        if not self._quiet and is_main_process():
            print(f"{result.count}/{result.total} {printable(name)}: {seconds:.1f} s", file=sys.stderr)

    def stopped(self, result: BatchResult) -> None:
        """Reports what was made of a list until then."""
        if self._several:
            report(result, self._plan, self._several)

    def _has_no_bar(self) -> bool:
        return self._quiet or not sys.stderr.isatty() or not is_main_process()


def report(result: BatchResult, plan: OutputPlan, several: bool) -> int:
    """Prints what was made and what failed; the exit code."""
    if not is_main_process():
        return EXIT_FAILED if result.failed else EXIT_OK
    if not several:
        for name in (*result.made, *result.skipped, *result.elsewhere):
            if name not in result.made:
                how = "done before" if name in result.skipped else "made by another run"
                print(f"{printable(name)}: {how}", file=sys.stderr)
            print("\n".join(printable(path) for path in plan.paths(name).values()))
        return EXIT_OK
    left = result.total - result.count
    print(
        f"{printable(plan.directory)}: {len(result.made)} made, {len(result.skipped)} done before, "
        f"{len(result.failed)} failed"
        + (f", {len(result.elsewhere)} made by another run" if result.elsewhere else "")
        + (f", {left} left" if left else "")
    )
    for name, reason in result.failed.items():
        print(f"error: {printable(name)} failed: {one_line(reason)}", file=sys.stderr)
    return EXIT_FAILED if result.failed else EXIT_OK
