"""Recognising the other processes of a run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import Note
from tooncrafter_jax.runtime.distributed import (
    as_all_processes_say,
    describe_machine,
    initialize,
    is_main_process,
    only_run_in,
)
from tooncrafter_jax.training.sharding import make_mesh

CLUSTERS = ("TPU_", "MEGASCALE_", "SLURM_", "OMPI_", "PMI_", "JAX_COORD", "JAX_NUM", "JAX_PROC", "KUBERNETES_", "JOB_")
STEP = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "node[1-4]", "SLURM_LOCALID": "0"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


@pytest.fixture
def calls(monkeypatch):
    """An environment without clusters, in which joining is noted down."""
    found = []
    for name in [name for name in os.environ if name.startswith((*CLUSTERS, "WORLD_SIZE", "RANK"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # as JAX sets it where there is no TPU
    join = lambda *names, local_device_ids: found.append((*names, local_device_ids))  # noqa: E731
    monkeypatch.setattr(jax.distributed, "initialize", join)
    return found


@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        ({}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, (None, None, None, None)),
        ({"TPU_PROCESS_ADDRESSES": "a:8471,b:8471"}, (None, None, None, None)),
        ({"TPU_PROCESS_ADDRESSES": "a:8471", **POD}, None),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, (None, None, None, None)),
        ({"SLURM_NTASKS": "1", **STEP}, None),
        ({"SLURM_NTASKS": "4", **STEP}, (None, None, None, None)),
        (
            {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_NODES": "4", "SLURM_GPUS_ON_NODE": "2", **STEP},
            (None,) * 3 + ([0, 1],),
        ),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "2", **STEP}, (None,) * 4),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.96.0.1:34911", **OPEN_MPI}, (None, None, None, None)),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, ("a:1", None, None, None)),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "0"}, ("a:1", 3, 0, None)),
    ],
)
def test_the_environment_says_whether_there_are_others(calls, monkeypatch, environment, joins):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    initialize()
    assert calls == ([] if joins is None else [joins])
    assert is_main_process()
    initialize(processes=1)
    assert len(calls) == (joins is not None), "a process that is set to be alone is"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (OPEN_MPI, "Open MPI started 2 processes, which cannot find each other .* give --coordinator"),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "PMI_SIZE counts 2 processes"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE counts 2 processes"),
        (POD, "pods of an indexed job, this one with index 0"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "many"}, "JAX_NUM_PROCESSES is 'many'"),
    ],
)
def test_a_process_among_others_never_goes_on_alone(calls, monkeypatch, environment, sentence):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=sentence):
        initialize()
    assert not calls


def test_a_batch_script_is_one_process(calls, monkeypatch):
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.warns(Note, match="srun did not start this process: going on alone"):
        initialize()
    assert not calls


@pytest.mark.parametrize("hosts", ["", "a,b"])
def test_a_tpu_machine_asks_its_metadata_server(calls, monkeypatch, hosts):
    """Where nothing answers, a machine whose environment names no other hosts is alone; any other is not."""
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "libtpu" else None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no")))
    before = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_platforms", "tpu,cpu")
    try:
        if hosts:
            monkeypatch.setenv("TPU_WORKER_HOSTNAMES", hosts)
            with pytest.raises(UserError, match=r"several TPU hosts; no\)"):
                initialize()
        else:
            with pytest.warns(Note, match=r"names no other hosts \(no\): going on alone"):
                initialize()
    finally:
        jax.config.update("jax_platforms", before)


def test_arguments_belong_together(calls):
    initialize("host:1", 2, 1)
    assert calls == [("host:1", 2, 1, None)]
    with pytest.raises(UserError, match="belong together"):
        initialize("host:1")


@pytest.mark.gate
def test_a_process_that_fails_alone_does_not_wait_for_the_others(tmp_path):
    """They wait for it in turn, in what all compute together, or as here for a file."""
    code = (
        "import sys, time; from pathlib import Path; from tooncrafter_jax.cli.common import run\n"
        "from tooncrafter_jax.errors import UserError; from tooncrafter_jax.runtime import distributed\n"
        "distributed.GRACE_SECONDS, number, end = 2.0, int(sys.argv[2]), Path(sys.argv[3])\n"
        "def main(argv):\n"
        "    distributed.initialize(sys.argv[1], 2, number)\n"
        "    if number == 1: raise UserError('something is only wrong here')\n"
        "    while not end.exists(): time.sleep(0.1)\n"
        "    return 0\n"
        "sys.exit(run(main, []))"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    end, environment = tmp_path / "end", os.environ | {"JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, address, str(number), end], stderr=subprocess.PIPE, env=environment
        )
        for number in range(2)
    ]
    try:
        _, errors = processes[1].communicate(timeout=60)
        assert processes[1].returncode == 2
        assert b"error: something is only wrong here" in errors
    finally:
        end.touch()
        processes[0].kill()
        for process in processes:
            process.communicate()


def test_a_working_directory_is_for_one_run(tmp_path):
    """The lock is a process's own: another one is refused, and may have it afterwards, however the first ends."""
    program = (
        "import sys, time; from pathlib import Path; from tooncrafter_jax.runtime.distributed import only_run_in\n"
        "with only_run_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = [sys.executable, "-c", program, str(tmp_path / "run")]
    with subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {first.pid} on .*give --coordinator"):
            with only_run_in(tmp_path / "run"):
                pytest.fail("held twice")
        first.kill()
    with only_run_in(tmp_path / "run"):
        pass


def test_the_machine_is_reported_in_one_line(devices):
    assert describe_machine(make_mesh("data:2,frames:4", devices)) == "1 process, 8 devices (cpu), mesh data:2,frames:4"
    assert describe_machine(make_mesh("data:1", devices[:1])) == "1 process, 1 device (cpu), mesh one device"


def test_all_processes_must_say_yes(monkeypatch):
    assert as_all_processes_say([True, False]) == [True, False]
    others = np.asarray([False, True, True])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.process_allgather", lambda answers: np.stack([answers, others])
    )
    assert as_all_processes_say([True, False, True]) == [False, False, True]
