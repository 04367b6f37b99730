"""Joining the processes of a run on several hosts, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax
import numpy as np

from tooncrafter_jax.errors import UserError


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the other processes, before any device is used; does nothing where there are none.

    Without arguments, TPU pods and Slurm jobs are recognised by the environment that they give their processes.

    Args:
      coordinator: "host:port" of the first process.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      UserError: only some of the arguments are given, or the others cannot be reached.
    """
    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --num-processes and --process-id belong together")
    if not any(given) and not _environment_names_others():
        return
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or jax.config.jax_platforms == "cpu":  # pyright: ignore
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes cannot find each other ({str(error).splitlines()[0][:200]})") from error


def is_main_process() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def as_the_main_process_says(answers: Sequence[bool]) -> list[bool]:
    """The main process's answers, on every process; what they find on their own disks may differ."""
    if jax.process_count() == 1:
        return list(answers)
    from jax.experimental import multihost_utils

    return [bool(answer) for answer in multihost_utils.broadcast_one_to_all(np.asarray(answers))]


def as_all_processes_say(answers: Sequence[bool]) -> list[bool]:
    """Where all processes answer yes, on every process; all must ask, about the same things."""
    if jax.process_count() == 1:
        return list(answers)
    from jax.experimental import multihost_utils

    return [bool(answer) for answer in multihost_utils.process_allgather(np.asarray(answers)).all(axis=0)]


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array as numpy, on every process; all must ask."""
    if x.is_fully_addressable:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _environment_names_others() -> bool:
    on_tpu = (
        len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    )
    in_slurm = (
        "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ
    )
    return on_tpu or in_slurm
