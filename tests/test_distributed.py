"""Recognising the other processes of a run."""

import jax
import numpy as np
import pytest

from tooncrafter_jax.distributed import as_all_processes_say, initialize, is_main_process
from tooncrafter_jax.errors import UserError


@pytest.fixture
def calls(monkeypatch):
    found = []
    for name in (
        "TPU_WORKER_HOSTNAMES",
        "MEGASCALE_COORDINATOR_ADDRESS",
        "SLURM_JOB_ID",
        "SLURM_NTASKS",
        "SLURM_PROCID",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: found.append(arguments))
    return found


@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        ({}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"}, True),
    ],
)
def test_the_environment_says_whether_there_are_others(calls, monkeypatch, environment, joins):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    initialize()
    assert calls == ([(None, None, None)] if joins else [])
    assert is_main_process()


def test_arguments_belong_together(calls):
    initialize("host:1", 2, 1)
    assert calls == [("host:1", 2, 1)]
    with pytest.raises(UserError, match="belong together"):
        initialize("host:1")


def test_all_processes_must_say_yes(monkeypatch):
    assert as_all_processes_say([True, False]) == [True, False]
    others = np.asarray([False, True, True])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.process_allgather", lambda answers: np.stack([answers, others])
    )
    assert as_all_processes_say([True, False, True]) == [False, False, True]
