"""The same losses on every mesh, and on several processes (make test-slow)."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.small import make_clips

pytestmark = pytest.mark.slow
STEPS = 20

_PROGRAM = """
    import json, sys
    import jax
    settings = json.loads(sys.argv[1])
    jax.config.update("jax_num_cpu_devices", settings["devices"])
    if settings["processes"] > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(settings["coordinator"], settings["processes"], settings["process"])
    from tests.training.small import config
    from tooncrafter_jax.training.trainer import Trainer
    print(Trainer(config(settings["clips"], steps=settings["steps"], mesh=settings["mesh"]), settings["workdir"]).run().step)
"""


def _train(clips, workdir, mesh, *, devices=None, processes=1, port=0):
    """Runs a training in processes of its own, and returns its losses by step."""
    running = []
    for process in range(processes):
        settings = {
            "clips": str(clips),
            "workdir": str(workdir),
            "mesh": mesh,
            "steps": STEPS,
            "devices": devices,
            "processes": processes,
            "process": process,
            "coordinator": f"127.0.0.1:{port}",
        }
        command = [sys.executable, "-c", textwrap.dedent(_PROGRAM), json.dumps(settings)]
        root = Path(__file__).parents[2]
        cache = jax.config.jax_compilation_cache_dir or str(root / ".cache" / "jax")
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": cache}
        running.append(subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=1500)
        assert process.returncode == 0, errors[-3000:]
    return np.asarray([json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()])


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def on_one_device(clips, tmp_path_factory):
    return _train(clips, tmp_path_factory.mktemp("one"), "data:1", devices=1)


@pytest.mark.parametrize("mesh", ["data:8", "fsdp:8", "data:2,fsdp:2,frames:2"])
def test_losses_are_those_of_one_device(clips, on_one_device, tmp_path, mesh):
    losses = _train(clips, tmp_path, mesh, devices=8)
    assert losses.shape == (STEPS,)
    print(f"\n{mesh}: largest relative difference {np.max(np.abs(losses / on_one_device - 1)):.1e}")
    np.testing.assert_allclose(losses, on_one_device, rtol=1e-4)


def test_losses_on_two_processes(clips, on_one_device, tmp_path):
    losses = _train(clips, tmp_path, "data:8", devices=4, processes=2, port=29731)
    print(f"\n2 processes: largest relative difference {np.max(np.abs(losses / on_one_device - 1)):.1e}")
    np.testing.assert_allclose(losses, on_one_device, rtol=1e-4)


def test_a_run_killed_twice_ends_with_the_same_parameters(clips, tmp_path):
    """SIGKILL between checkpoints, then SIGTERM, then to the end; and without any interruption."""
    import signal
    import time

    def start(workdir):
        settings = {"clips": str(clips), "workdir": str(workdir), "mesh": "data:1", "devices": 1, "processes": 1}
        program = (
            textwrap.dedent(_PROGRAM)
            .replace('steps=settings["steps"]', f"steps={STEPS}, save_every=4")
            .replace("print(", "outcome = ")
            .replace(".run().step)", ".run()\nsys.exit(0 if outcome.finished else 75)")
        )
        root = Path(__file__).parents[2]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
        return subprocess.Popen([sys.executable, "-c", program, json.dumps(settings)], cwd=root, env=environment)

    def wait_for_line(workdir, count, process):
        lines = workdir / "metrics.jsonl"
        while process.poll() is None and not (lines.exists() and len(lines.read_text().splitlines()) >= count):
            time.sleep(0.05)
        assert process.poll() is None

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(whole).wait(1500) == 0
    process = start(cut)
    wait_for_line(cut, 6, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    seen = len((cut / "metrics.jsonl").read_text().splitlines())
    process = start(cut)
    wait_for_line(cut, seen + 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) in (0, 75)
    assert start(cut).wait(1500) == 0
    assert _exported(whole) == _exported(cut)


def _exported(workdir):
    import hashlib

    from tooncrafter_jax.weights.store import Checkpoint

    checkpoint = Checkpoint(workdir / "export")
    networks = checkpoint.config.networks()
    digest = hashlib.sha256()
    for component in checkpoint.components:
        for path, value in sorted(checkpoint.restore(component, networks[component]).items()):
            digest.update(path.encode() + np.asarray(value).tobytes())
    return digest.hexdigest()
