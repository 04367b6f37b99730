"""Joining the processes of a run on several hosts, and what they tell each other."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import AnyPath
from tooncrafter_jax.notes import note
from tooncrafter_jax.typing import AnyArray, HostArray

try:
    import fcntl
except ImportError:  # Windows, where working directories are trusted
    fcntl = None

ARGUMENTS = "--coordinator, --num-processes and --process-id"
LOCK_FILE = ".lock"
GRACE_SECONDS = 20.0
"""After an error, until a process ends whatever it waits for."""


class _Others(NamedTuple):
    """What the environment says about other processes.

    Attributes:
      where: for a sentence.
      certain: whether there surely are others, so that this process must not go on alone.
      found_by_jax: whether JAX may find them by itself.
      devices: of this host, that this process uses; None for JAX's choice.
    """

    where: str
    certain: bool = True
    found_by_jax: bool = True
    devices: list[int] | None = None


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the other processes, before any device is used; does nothing, and takes no time, where there are none.

    Without arguments the environment is asked: `JAX_COORDINATOR_ADDRESS` (with `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`, unless a cluster tells them), Cloud TPU VMs, TPU pods of Kubernetes, Slurm, Open MPI, and indexed
    jobs of Kubernetes, as far as JAX's own detection knows them. Where the environment says that there are others, a
    process never goes on alone.

    Args:
      coordinator: "host:port" of the first process.
      processes: how many there are; 1 without a coordinator for a process that is alone whatever its environment says.
      process: which one this is, from 0.

    Raises:
      UserError: only some of the arguments are given, or there are others which cannot be reached.
    """
    given = [value is not None for value in (coordinator, processes, process)]
    if processes == 1 and coordinator is None and process in (None, 0):
        return
    if any(given) and not all(given):
        raise UserError(f"{ARGUMENTS} belong together")
    others = _Others("the arguments") if all(given) else _others()
    if others is None:
        return
    if not any(given) and "JAX_COORDINATOR_ADDRESS" in os.environ:
        coordinator = os.environ["JAX_COORDINATOR_ADDRESS"]
        processes, process = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
    if not others.found_by_jax:
        raise UserError(
            f"{others.where}, which cannot find each other by that alone: give {ARGUMENTS}, or --num-processes=1 for a "
            "process that is alone"
        )
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or jax.config.jax_platforms == "cpu":  # pyright: ignore
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, processes, process, local_device_ids=others.devices)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if others.certain:
            raise UserError(
                f"the processes cannot find each other ({others.where}; {reason}): give {ARGUMENTS}, or "
                "--num-processes=1 for a process that is alone"
            ) from error
        note(f"{others.where} names no other hosts ({reason}): going on alone")


def check_joined() -> None:
    """Checks that devices of other hosts belong to processes that were joined, once devices may be used.

    Raises:
      UserError: they do not, as on a TPU pod whose processes did not find each other.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"there are devices of {jax.process_count()} processes, which have not found each other: give {ARGUMENTS}"
        )


def end_soon(code: int) -> None:
    """Ends this process before long, after an error, if there are others.

    At its end JAX waits minutes for the others, while they wait in what all compute together; nobody would learn that
    the run has failed. Once this process is gone, JAX ends the others.

    Args:
      code: exit code.
    """
    if jax.distributed.is_initialized():
        timer = threading.Timer(GRACE_SECONDS, os._exit, (code,))
        timer.daemon = True
        timer.start()


def describe_machine(mesh: Mesh) -> str:
    """One line: how many processes and devices there are, and the mesh."""
    devices = list(mesh.devices.flat)
    processes = len({device.process_index for device in devices})
    axes = ",".join(f"{axis}:{size}" for axis, size in mesh.shape.items() if size > 1) or "one device"
    counted = f"{processes} process{'es' * (processes > 1)}, {len(devices)} device{'s' * (len(devices) > 1)}"
    return f"{counted} ({devices[0].device_kind}), mesh {axes}"


@contextlib.contextmanager
def only_run_in(workdir: AnyPath) -> Iterator[None]:
    """Holds a working directory for one run at a time; all processes of a run must ask, and the first one holds it.

    It is held by a lock on `WORKDIR/.lock`, which ends with the process however it ends. File systems without locks are
    trusted, as are buckets.

    Raises:
      UserError: another run holds it, as when two processes of one run each believe to be the first.
    """
    with contextlib.ExitStack() as stack:
        holder = ""
        if fcntl is not None and is_main_process() and isinstance(workdir, Path):
            with contextlib.suppress(OSError):  # those who write more than a lock report that it cannot be written
                workdir.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((workdir / LOCK_FILE).open("a+"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                else:
                    file.truncate(0)
                    file.write(f"process {os.getpid()} on {socket.gethostname()}")
                    file.flush()
        if not as_the_main_process_says([not holder])[0]:
            raise UserError(
                f"{workdir} is in use by {holder or 'another process'}, which trains there now: wait for it or choose "
                "another "
                f"--workdir; if both are one run on several hosts, they did not find each other: give {ARGUMENTS}"
            )
        yield


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


def least_of_all_processes(value: int) -> int:
    """The smallest of what the processes give, each below 2**31 in size, on every process; all must ask."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.asarray(value, np.int32)).min())


def to_host(x: AnyArray) -> HostArray:
    """The whole array as numpy, on every process; all must ask."""
    if x.is_fully_addressable:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _others() -> _Others | None:
    """What the environment says about other processes; None if nothing."""
    environment = os.environ
    if "JAX_COORDINATOR_ADDRESS" in environment:
        return _Others("JAX_COORDINATOR_ADDRESS names a first process")
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return _Others("the environment names several TPU hosts")
    tasks = _number("SLURM_NTASKS") or 1
    if "SLURM_JOB_ID" in environment and tasks > 1:
        # A batch script has a rank too, but runs once: only `srun` starts a process for each task, in a step.
        if "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment:
            return _Others(f"Slurm started {tasks} tasks", devices=_devices_in_slurm(tasks))
        note(f"Slurm has {tasks} tasks, but srun did not start this process: going on alone")
        return None
    if (_number("OMPI_COMM_WORLD_SIZE") or 1) > 1:
        where = f"Open MPI started {environment['OMPI_COMM_WORLD_SIZE']} processes"
        return _Others(where, found_by_jax="OMPI_MCA_orte_hnp_uri" in environment)  # Open MPI 5 does not tell it
    for count, rank in (("PMI_SIZE", "PMI_RANK"), ("WORLD_SIZE", "RANK")):
        if (_number(count) or 1) > 1 and rank in environment:
            return _Others(f"{count} counts {environment[count]} processes", found_by_jax=False)
    if hosts:
        return None  # the one TPU host that it names is this one
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        where = f"Kubernetes started pods of an indexed job, this one with index {environment['JOB_COMPLETION_INDEX']}"
        found = importlib.util.find_spec("kubernetes") is not None
        return _Others(where if found else f"{where}, and the package 'kubernetes' is missing", found_by_jax=found)
    platforms = jax.config.jax_platforms or "tpu"  # pyright: ignore[reportAttributeAccessIssue]
    if "tpu" in platforms and importlib.util.find_spec("libtpu") and "TPU_SKIP_MDS_QUERY" not in environment:
        # JAX sets that variable where it sees no TPU chip, so there are some: the metadata server knows of other hosts.
        return _Others("the metadata server of this TPU machine", certain=False)
    return None


def _devices_in_slurm(tasks: int) -> list[int] | None:
    """All GPUs of a node that runs one task; JAX would take one of them."""
    gpus = _number("SLURM_GPUS_ON_NODE")
    return list(range(gpus)) if gpus and _number("SLURM_STEP_NUM_NODES") == tasks else None


def _number(variable: str) -> int | None:
    """The value of an environment variable that is to be a whole number from 0 on; None if it is not set.

    Raises:
      UserError: it is something else.
    """
    text = os.environ.get(variable, "")
    if not text:
        return None
    if not text.isdecimal():
        raise UserError(f"the environment variable {variable} is '{text}', which must be a whole number")
    return int(text)
