"""What a run of clips or of shots is asked for, how it went, and who hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.artists import Artist
from tooncrafter_jax.sampling.batch.jobs import AnyJob, NamedJob
from tooncrafter_jax.sampling.batch.model_source import DescribedModel
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.motion_source import missing_motion
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import SamplingOptions

WAIT_SECONDS = 0.5
"""Between two looks at what another run is making."""


@dataclass
class BatchResult:
    """How a run went.

    Attributes:
      total: how many clips were asked for.
      made, skipped: names of clips.
      elsewhere: names of clips that another run has made meanwhile.
      failed: name -> what was wrong.
    """

    total: int
    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many clips are dealt with."""
        return len(self.made) + len(self.skipped) + len(self.elsewhere) + len(self.failed)


class Listener:
    """Hears how a run goes, on every process; this one says nothing."""

    def looking(self, jobs: Sequence[AnyJob]) -> Iterable[AnyJob]:
        """The clips, as they are looked through for those that are done."""
        return jobs

    @contextlib.contextmanager
    def sampling(self, job: NamedJob, result: BatchResult, steps: int) -> Iterator[Callable[[Progress], None]]:
        """A batch that begins with a clip is sampled inside; what it yields is called with its progress."""
        yield lambda progress: None

    def made(self, name: str, result: BatchResult, seconds: float) -> None:
        """A clip of several is finished."""

    def stopped(self, result: BatchResult) -> None:
        """The run ends before its time."""


@dataclass(frozen=True)
class RunRequest(Generic[AnyJob]):
    """What is to be made, and how.

    Attributes:
      jobs: the clips, or the shots.
      several: whether they are a list: one that is done is left out, and one that fails does not end the run.
      options: how to sample; must have been checked.
      plan: where the files go.
      model: what is known of the model before it is loaded.
      dtype: of the computation.
      artist: draws; is asked only if there is something to make.
      inputs: files that the run reads beside the pictures.
      batch_size: clips that are sampled together; None: one, or of a shot as many as `draw_shot` chooses.
      rate_is_given: whether the plan's playback rate was asked for, and counts more than that of a time sheet.
    """

    jobs: Sequence[AnyJob]
    several: bool
    options: SamplingOptions
    plan: OutputPlan
    model: DescribedModel
    dtype: str
    artist: Artist
    inputs: Sequence[Path] = ()
    batch_size: int | None = None
    rate_is_given: bool = False

    def begun(self, result: BatchResult | None) -> BatchResult:
        """The result to bring up to date: the one that is given, or a new one.

        Raises:
          UserError: no format holds what is asked for, or the model lacks a network.
        """
        if self.options.alpha:
            self.plan.check_holds_alpha()
        if self.options.motion_guidance:
            missing_motion(self.model.config, self.model.components)
        return BatchResult(len(self.jobs)) if result is None else result

    def made_elsewhere(self, job: NamedJob) -> UserError:
        """The error where another run makes the only clip or shot."""
        return UserError(
            f"another run is making {self.plan.directory / job.name}: wait for it, or choose another --out"
        )
