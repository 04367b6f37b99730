"""Making clips batch by batch: progress, failures that do not end the run, and the report at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from tooncrafter_jax import media
from tooncrafter_jax.cli.common import EXIT_FAILED, EXIT_OK, one_line
from tooncrafter_jax.cli.jobs import Job
from tooncrafter_jax.cli.outputs import OutputPlan, record_of
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.pipeline import Progress, ToonCrafter
from tooncrafter_jax.requests import Pair, SamplingOptions, Sketch, prepare


@dataclass
class Outcome:
    """How a run went.

    Attributes:
      total: how many clips were asked for.
      made, skipped: names of clips.
      failed: name -> what was wrong.
    """

    total: int
    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many clips are dealt with."""
        return len(self.made) + len(self.skipped) + len(self.failed)


def inputs_of(pair: Pair) -> list[Path]:
    """The files that a pair is made from."""
    sketches = (sketch.image for sketch in (pair.sketches or {}).values() if isinstance(sketch, Sketch))
    return [Path(picture) for picture in (pair.first, pair.last, *sketches) if isinstance(picture, Path)]


def check_pair(pair: Pair, options: SamplingOptions, config: ModelConfig, components: Collection[str]) -> None:
    """Finds out, without sampling, whether a pair can be sampled.

    Raises:
      UserError: if not.
    """
    prepare(pair, options, config)
    if pair.sketches and "sketch_encoder" not in components:
        raise UserError("this model has no sketch encoder: convert its file into the checkpoint directory first")


@dataclass(frozen=True)
class Run:
    """Makes clips, batch by batch.

    Attributes:
      toon, options, plan: what samples, how, and where the files go.
      outcome: is brought up to date.
      model, dtype: for the records.
      several: whether a failing pair is noted and the run goes on.
      quiet: whether nothing but errors is shown.
    """

    toon: ToonCrafter
    options: SamplingOptions
    plan: OutputPlan
    outcome: Outcome
    model: str
    dtype: str
    several: bool
    quiet: bool

    def make(self, batch: Sequence[Job]) -> None:
        """Samples a batch and writes its files."""
        if self.several:
            batch = [job for job in batch if self._is_usable(job)]
        if not batch:
            return
        start = time.perf_counter()
        try:
            videos = self._sample(batch)
        except UserError as error:
            if not self.several:
                raise
            if len(batch) == 1:
                self.outcome.failed[batch[0].name] = str(error)
            else:  # one bad pair must not cost the others of its batch
                for job in batch:
                    self.make([job])
            return
        seconds = (time.perf_counter() - start) / len(batch)
        for job, video in zip(batch, videos, strict=True):
            self._write(job, video, seconds)

    def _is_usable(self, job: Job) -> bool:
        try:
            check_pair(job.pair, self.options, self.toon.config, self.toon.params)
        except UserError as error:
            self.outcome.failed[job.name] = str(error)
            return False
        return True

    def _sample(self, batch: Sequence[Job]) -> np.ndarray:
        title = f"{self.outcome.count + 1}/{self.outcome.total} {batch[0].name}"
        with tqdm(
            total=self.options.steps,
            desc=title,
            unit="step",
            leave=False,
            disable=self.quiet or not sys.stderr.isatty(),
        ) as bar:

            def on_progress(progress: Progress) -> None:
                bar.total = progress.total
                bar.update(progress.done - bar.n)

            try:
                return self.toon.interpolate_pairs([job.pair for job in batch], self.options, on_progress=on_progress)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                raise UserError(
                    "the device has too little memory: lower --batch-size, --decode-frames-per-chunk, --height and --width, "
                    "or use --dtype=bfloat16"
                ) from error

    def _write(self, job: Job, video: np.ndarray, seconds: float) -> None:
        request = self.plan.request_of(job.pair, self.options, self.model, self.dtype)
        try:
            self.plan.write(job.name, video, record_of(request, self.toon, seconds))
        except UserError as error:
            if not self.several:
                raise
            media.check_writable(self.plan.directory)  # a full disk ends the run: sampling on would be in vain
            self.outcome.failed[job.name] = str(error)
            return
        self.outcome.made.append(job.name)
        if self.several and not self.quiet:
            print(f"{self.outcome.count}/{self.outcome.total} {job.name}: {seconds:.1f} s", file=sys.stderr)


def report(outcome: Outcome, plan: OutputPlan, several: bool) -> int:
    """Prints what was made and what failed; the exit code."""
    if not several:
        for name in outcome.made:
            print("\n".join(str(path) for path in plan.paths(name).values()))
        return EXIT_OK
    left = outcome.total - outcome.count
    print(
        f"{plan.directory}: {len(outcome.made)} made, {len(outcome.skipped)} done before, {len(outcome.failed)} failed"
        + (f", {left} left" if left else "")
    )
    for name, reason in outcome.failed.items():
        print(f"error: {name} failed: {one_line(reason)}", file=sys.stderr)
    return EXIT_FAILED if outcome.failed else EXIT_OK
