"""Which clips of a list are still to be made, found without sampling and, but for those that are done, without reading
pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.runtime.distributed import as_all_processes_say, as_the_main_process_says
from tooncrafter_jax.sampling.batch.jobs import AnyJob, Job
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.preparing import Preparation
from tooncrafter_jax.sampling.request import (
    Pair,
    SamplingOptions,
    Sketch,
    check_settings,
    check_sketch_encoder,
    sketches_by_frame,
)
from tooncrafter_jax.typing import JsonObject

UNREADABLE_ELSEWHERE = "another process cannot read its pictures"


def inputs_of(pair: Pair) -> list[Path]:
    """The files that a pair is made from."""
    sketches = (sketch.image for sketch in sketches_by_frame(pair.sketches).values() if isinstance(sketch, Sketch))
    pictures = (pair.first, pair.last, *sketches, *(() if pair.draft is None else pair.draft))
    return [Path(picture) for picture in pictures if isinstance(picture, Path)]


def check_pair(pair: Pair, options: SamplingOptions, config: ModelConfig, components: Collection[str]) -> None:
    """Finds out whether a pair can be sampled, as far as that can be known without reading its pictures.

    Raises:
      UserError: if not.
    """
    check_settings(pair, options)
    if sketches_by_frame(pair.sketches):
        check_sketch_encoder(config, components)


def done_before(jobs: Iterable[Job], plan: OutputPlan, request_of: Callable[[Job], JsonObject]) -> list[bool]:
    """Which clips are done, as the main process finds them."""
    return as_the_main_process_says([plan.is_done(job.name, lambda job=job: request_of(job)) for job in jobs])


def usable_everywhere(jobs: Sequence[AnyJob], check: Callable[[AnyJob], None], failed: dict[str, str]) -> list[AnyJob]:
    """Those that every process can make.

    Args:
      jobs: clips or shots.
      check: raises UserError if one cannot be made.
      failed: name -> what is wrong; is brought up to date.
    """
    problems: dict[str, str] = {}
    for job in jobs:
        try:
            check(job)
        except UserError as error:
            problems[job.name] = str(error)
    everywhere = as_all_processes_say([job.name not in problems for job in jobs]) if jobs else []
    left = []
    for job, is_usable in zip(jobs, everywhere, strict=True):
        if is_usable:
            left.append(job)
        else:
            failed[job.name] = problems.get(job.name, UNREADABLE_ELSEWHERE)
    return left


def usable(
    jobs: Sequence[Job], check: Callable[[Job], None], preparation: Preparation, failed: dict[str, str]
) -> list[Job]:
    """The clips that can be made, as far as can be known without reading every picture, on all processes.

    Args:
      jobs: clips that are not done.
      check: raises UserError if a clip cannot be made.
      preparation: begins with those that can; what it finds of the first ones is waited for, until one can be made.
      failed: name -> what is wrong; is brought up to date.
    """
    left = usable_everywhere(jobs, check, failed)
    preparation.start(left)
    for number, job in enumerate(left):
        problem = preparation.problem_with(job)
        if as_all_processes_say([problem is None]) == [True]:
            return left[number:]
        preparation.drop(job)
        failed[job.name] = problem or UNREADABLE_ELSEWHERE
    return []
