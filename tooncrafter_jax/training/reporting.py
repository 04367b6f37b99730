"""What a run tells: a table of parameters, a progress bar, JSON lines and TensorBoard scalars."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter
from tqdm import tqdm

from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.paths import AnyPath, Mirror
from tooncrafter_jax.notes import note
from tooncrafter_jax.runtime.distributed import as_the_main_process_says
from tooncrafter_jax.training.optimizers import state_bytes
from tooncrafter_jax.training.stages import Stage
from tooncrafter_jax.training.state import abstract_state
from tooncrafter_jax.typing import AnyArray, HostArray
from tooncrafter_jax.weights.groups import GROUPS

SECONDS_BETWEEN_COPIES = 60.0
"""How often scalars go to a bucket, where a file that has grown is written anew."""

LINES_FILE = "metrics.jsonl"
Result = TypeVar("Result")

Reported = Mapping[str, AnyArray | HostArray | float | int]
"""Metrics by name, on devices or on the host."""


def parameter_table(stage: Stage) -> str:
    """How many numbers of each parameter group are trained and frozen, and the size of the optimizer state."""
    state = abstract_state(stage)
    shapes = {**state.trained, **state.frozen}
    rows: dict[str, list[int]] = {}
    for path, leaf in shapes.items():
        if path.startswith("lora."):
            name = "lora"
        else:
            name = next((group for group in GROUPS if "." not in group and GROUPS[group](path)), path.split(".")[0])
        row = rows.setdefault(name, [0, 0])
        row[0 if path in state.trained else 1] += leaf.size
    lines = [f"{'group':<16}{'trained':>16}{'frozen':>16}"]
    lines += [f"{name:<16}{trained:>16,}{frozen:>16,}" for name, (trained, frozen) in rows.items()]
    total = [sum(row[i] for row in rows.values()) for i in (0, 1)]
    lines.append(f"{'all':<16}{total[0]:>16,}{total[1]:>16,}")
    lines.append(f"optimizer state: {state_bytes(state.optimizer) / 2**20:,.1f} MiB")
    return "\n".join(lines)


class Reporter:
    """Writes scalars of one process's run; every process but the first is silent.

    Args:
      workdir: of the run.
      steps: length of the run; `done`: steps that an earlier run took.
      clips: of a global batch.
      seconds_at_peak: see `utilisation.seconds_at_peak`; utilisation is told once they are known.
    """

    def __init__(
        self,
        workdir: AnyPath,
        *,
        steps: int,
        done: int,
        clips: int,
        seconds_at_peak: Future[float | None] | None = None,
    ) -> None:
        self._main = jax.process_index() == 0
        self._clips, self._done, self._seconds_at_peak = clips, done, seconds_at_peak
        self._since, self._steps, self._waited = time.monotonic(), 0, 0.0
        self._paused = 0.0
        has_validated = False
        if self._main:
            self._mirror = Mirror(workdir, fetch=[LINES_FILE])
            file = self._mirror.local / LINES_FILE
            has_validated = _keep_lines(file, done)
            self._lines = file.open("a")
            self._board = SummaryWriter(str(self._mirror.local / "tensorboard"), purge_step=done + 1)
            self._bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True)
        (self._has_validated,) = as_the_main_process_says([has_validated])

    def has_validated(self, step: int) -> bool:
        """Whether an earlier run, which took this step, told its validation; the same on every process."""
        return self._has_validated and step == self._done

    def advance(self, waited: float) -> None:
        """Counts a step, before which the host waited so many seconds for data."""
        self._steps += 1
        self._waited += waited
        if self._main:
            self._bar.update(1)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock of the steps' speed: for validation, samples and saving. The steps before must be done."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - started

    def training(self, step: int, metrics: Reported) -> dict[str, float]:
        """Reports the metrics of a step, and the speed since the last report; returns what was written.

        The speed is that of the steps alone: what `paused` took is left out of it.
        """
        scalars = flatten(metrics)  # waits for the step, which would else count in the next report
        now = time.monotonic()
        elapsed = max(now - self._since - self._paused, 1e-9)
        speed = {
            "seconds_per_step": elapsed / max(self._steps, 1),
            "clips_per_second": self._clips * self._steps / elapsed,
            "data_wait_share": self._waited / elapsed,
        }
        if (seconds := self._known_seconds_at_peak()) is not None:
            speed["model_flop_utilisation"] = seconds / speed["seconds_per_step"]
        self._since, self._steps, self._waited, self._paused = now, 0, 0.0, 0.0
        scalars |= speed
        self.write(step, scalars)
        if self._main:
            self._bar.set_postfix(loss=f"{scalars.get('loss', np.nan):.4g}", wait=f"{speed['data_wait_share']:.0%}")
        return scalars

    def _known_seconds_at_peak(self) -> float | None:
        """What is known by now; an estimate that fails is told of once, and ends no run."""
        future = self._seconds_at_peak
        if future is None or not future.done():
            return None
        if (error := future.exception()) is not None:
            self._seconds_at_peak = None
            reason = f"{type(error).__name__}: {error}"
            note(f"the share of the devices' peak is not told, as it cannot be estimated ({reason})")
            return None
        return future.result()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars of a step; of what is no number, which JSON has no word for, the line says null."""
        if not self._main:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._lines.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        self._mirror.sync(every=SECONDS_BETWEEN_COPIES)

    def pictures(self, step: int, name: str, frames: UInt8[np.ndarray, "N H W 3"]) -> None:
        """Shows pictures (N, H, W, 3) uint8 side by side in TensorBoard."""
        if self._main:
            self._board.add_images(name, frames, step, dataformats="NHWC")

    def say(self, text: str) -> None:
        """Prints above the progress bar."""
        if self._main:
            tqdm.write(text)

    def close(self) -> None:
        """Closes files and the bar, and waits for what runs beside: a thread of JAX must not meet the program's end."""
        if self._seconds_at_peak is not None:
            wait([self._seconds_at_peak])
        if self._main:
            self._bar.close()
            self._lines.close()
            self._board.close()
            self._mirror.close()


def _keep_lines(file: Path, done: int) -> bool:
    """Leaves the lines of the steps that a run need not take again, and says whether one is the last one's validation.

    A run that begins anew keeps none.
    """
    if not file.is_file():
        return False
    kept, has_validated, before = [], False, file.read_text(errors="replace")
    for line in before.splitlines():
        try:
            values = json.loads(line)
            step = int(values["step"])
        except (ValueError, TypeError, KeyError):  # cut off
            continue
        if done and step <= done:
            kept.append(f"{line}\n")
            has_validated |= step == done and any(name.startswith("validation/") for name in values)
    if "".join(kept) != before:
        write_atomically(file, "".join(kept).encode())
    return has_validated


def in_background(function: Callable[[], Result]) -> Future[Result]:
    """What a function will return, which runs in a thread of its own; wait for it before the program ends."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def mean_of_batches(found: Iterable[Reported]) -> dict[str, float]:
    """Scalars of several batches' metrics: means over their clips, of which each batch has as many as its `clips` says.

    The last batch of a split is filled up with rows that do not count, so a mean of the batches' means would give its
    clips more weight than others.
    """
    totals: dict[str, HostArray | float] = {}
    for metrics in found:
        values = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        clips = values.pop("clips")
        shares = {name: value if name.endswith("_by_time") else clips * value for name, value in values.items()}
        for name, share in {"clips": clips, **shares}.items():
            totals[name] = totals.get(name, 0.0) + share
    clips = max(totals.pop("clips", 0.0), 1.0)
    return flatten({name: total if name.endswith("_by_time") else total / clips for name, total in totals.items()})


def flatten(metrics: Reported) -> dict[str, float]:
    """Scalars of metrics; sums by time become means of the ranges that have any clip."""
    host = {name: np.asarray(value) for name, value in metrics.items()}
    scalars = {name: float(value) for name, value in host.items() if value.ndim == 0}
    if "loss_by_time" in host:
        counts = host["clips_by_time"]
        for i in np.flatnonzero(counts):
            scalars[f"loss_by_time/{i}"] = float(host["loss_by_time"][i] / counts[i])
    return scalars
