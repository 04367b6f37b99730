"""The same losses on every mesh, and on several processes (make test-slow)."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.small import MODEL_CHANGES, config, make_clips, write_begin
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.weights.store import Checkpoint

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
    values = {"steps": settings["steps"], "mesh": settings["mesh"], **settings["changes"]}
    outcome = Trainer(config(settings["clips"], **values), settings["workdir"]).run()
    sys.exit(0 if outcome.finished else 75)
"""


def _start(clips, workdir, mesh="data:1", *, devices=1, processes=1, process=0, port=0, **changes):
    """Starts one process of a training; its exit code is 0 if it came to its end, and 75 if it was told to stop."""
    settings = {
        "clips": str(clips),
        "workdir": str(workdir),
        "mesh": mesh,
        "steps": STEPS,
        "devices": devices,
        "processes": processes,
        "process": process,
        "coordinator": f"127.0.0.1:{port}",
        "changes": changes,
    }
    command = [sys.executable, "-c", textwrap.dedent(_PROGRAM), json.dumps(settings)]
    root = Path(__file__).parents[2]
    cache = jax.config.jax_compilation_cache_dir or str(root / ".cache" / "jax")  # pyright: ignore
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": cache}
    return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)


def _train(clips, workdir, mesh, *, devices=1, processes=1, port=0, **changes):
    """Runs a training in processes of its own, and returns its losses by step."""
    settings = {"devices": devices, "processes": processes, "port": port, **changes}
    running = [_start(clips, workdir, mesh, process=number, **settings) for number in range(processes)]
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


def test_a_decoder_and_its_denoiser_learn_the_same_on_a_mesh(clips, tmp_path):
    together = {"stage": "joint", "groups": ("decoder", "spatial", "projector"), "steps": 5}
    together["options"] = {"discriminator": {"start_step": 100}}  # its ratio of gradients would amplify rounding
    expected = _train(clips, tmp_path / "one", "data:1", **together)
    losses = _train(clips, tmp_path / "mesh", "data:2,fsdp:2", devices=4, **together)
    print(f"\nlargest relative difference {np.max(np.abs(losses / expected - 1)):.1e}")
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_student_learns_the_same_on_a_mesh(clips, tmp_path, rank):
    """With a copy of the teacher that is shared as the student is, and with the teacher that lies under the factors."""
    start = str(write_begin(tmp_path / "start", architecture(config(clips))))  # fresh denoisers end in zeros
    student = {"stage": "distill", "options": {"lora": {"rank": rank}, "guidance_scale": 2.0}, "steps": 5}
    student |= {"start": start, "model_changes": {}, "optimizer": {"learning_rate": 1e-4}}
    expected = _train(clips, tmp_path / "one", "data:1", **student)
    losses = _train(clips, tmp_path / "mesh", "data:2,fsdp:2,frames:2", devices=8, **student)
    print(f"\nrank {rank}: largest relative difference {np.max(np.abs(losses / expected - 1)):.1e}")
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_losses_on_two_processes(clips, on_one_device, tmp_path):
    losses = _train(clips, tmp_path, "data:8", devices=4, processes=2, port=29731)
    print(f"\n2 processes: largest relative difference {np.max(np.abs(losses / on_one_device - 1)):.1e}")
    np.testing.assert_allclose(losses, on_one_device, rtol=1e-4)


def test_a_run_killed_twice_ends_with_the_same_parameters(clips, tmp_path):
    """SIGKILL between checkpoints, then SIGTERM, then to the end; and without any interruption."""

    def wait_for_line(workdir, count, process):
        lines = workdir / "metrics.jsonl"
        while process.poll() is None and not (lines.exists() and len(lines.read_text().splitlines()) >= count):
            time.sleep(0.05)
        assert process.poll() is None

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _train(clips, whole, "data:1", save_every=4)
    process = _start(clips, cut, save_every=4)
    wait_for_line(cut, 6, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    seen = len((cut / "metrics.jsonl").read_text().splitlines())
    process = _start(clips, cut, save_every=4)
    wait_for_line(cut, seen + 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 75, errors[-3000:]
    _train(clips, cut, "data:1", save_every=4)
    one, other = _exported(whole), _exported(cut)
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


def test_resumed_on_another_mesh(clips, tmp_path):
    """Ten steps on one device, the rest on eight: the losses and parameters of a run on one device.

    At the paper's learning rate: Adam moves a parameter whose gradient is mere rounding by as much as any other, so
    parameters of two meshes differ by a part of the learning rate whatever it is.
    """
    settings = {"optimizer": {"learning_rate": 1e-5}, "save_every": 10}
    expected = _train(clips, tmp_path / "whole", "data:1", **settings)
    _train(clips, tmp_path / "cut", "data:1", steps=10, **settings)
    losses = _train(clips, tmp_path / "cut", "data:2,fsdp:4", devices=8, **settings)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    one, other = _exported(tmp_path / "whole"), _exported(tmp_path / "cut")
    largest = max(float(np.max(np.abs(other[path] - one[path]))) for path in one)
    print(f"\nresumed on data:2,fsdp:4: parameters differ by {largest:.1e} at most")
    assert largest <= 1e-5


def test_accumulated_gradients_are_those_of_the_whole_batch(clips, tmp_path):
    """The loss is a mean over clips, so micro-batches of equal size change only the order of sums (and what dropout
    draws).
    """
    model = MODEL_CHANGES | {"unet": MODEL_CHANGES["unet"] | {"dropout": 0.0}}
    whole, parts = (
        _train(clips, tmp_path / name, "data:1", accumulation=count, steps=5, model_changes=model)
        for name, count in (("whole", 1), ("parts", 4))
    )
    print(f"\n4 micro-batches: largest relative difference {np.max(np.abs(parts / whole - 1)):.1e}")
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def _exported(workdir):
    """Parameters of a finished run, by component and path."""
    checkpoint = Checkpoint(workdir / "export")
    networks = checkpoint.config.networks()
    return {
        f"{component}.{path}": np.asarray(value)
        for component in checkpoint.components
        for path, value in checkpoint.restore(component, networks[component]).items()
    }
