"""Samples while training: the same clips on any mesh and any number of processes, one at a time."""

import copy
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.training.small import FRAMES, MODEL_CHANGES, SIZE, config, fresh_params
from tooncrafter_jax.training import samples
from tooncrafter_jax.training.reporting import Reporter
from tooncrafter_jax.training.samples import CLIPS, Samples, first_clips, make_sampling, sampling_rules
from tooncrafter_jax.training.sharding import make_mesh, tree_shardings
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture

ROOT = Path(__file__).parents[2]


def narrow(clips, stage="rectify", **changes):
    """A model that compiles in seconds: one level, one block."""
    model = copy.deepcopy(MODEL_CHANGES)
    model["unet"] |= {"multipliers": [1], "attention_levels": [0]}
    for name, parts in (("autoencoder", {}), ("decoder", {"temporal": True, "references": True})):
        model[name] = model[name] | {"multipliers": [1, 1]} | parts
    return config(clips, stage, model_changes=model, validation="test", **changes)


def of_run(settings, mesh):
    """The stage on a mesh, and parameters that let everything through, where new layers end in zeros, but little of it.

    A denoiser whose answers grow from step to step would carry rounding on until nothing is alike.
    """
    stage = make_stage(settings, architecture(settings), mesh)
    draw = np.random.default_rng(0)
    fresh = {
        path: value if value.any() else draw.normal(0.0, 0.01, value.shape).astype(value.dtype)
        for path, value in fresh_params(stage, 0).items()
    }
    places = tree_shardings(fresh, mesh)
    return stage, {
        path: jax.make_array_from_callback(value.shape, places[path], lambda index, value=value: value[index])
        for path, value in fresh.items()
    }


def made(settings, mesh):
    stage, params = of_run(settings, mesh)
    clip = first_clips(settings)[0]
    with jax.set_mesh(mesh):
        frames = make_sampling(stage, mesh)(params, {name: jnp.asarray(rows) for name, rows in clip.items()})
    assert frames.is_fully_replicated
    return np.asarray(frames)


@pytest.mark.parametrize(
    ("mesh", "frames", "axes"),
    [
        ("data:8", 16, ("data",)),
        ("data:2,fsdp:4", 16, ("fsdp", "data")),
        ("data:2,fsdp:2,frames:2", 4, {("frames", "fsdp"), ("frames", "data"), ("fsdp", "data")}),
        ("data:4,tensor:2", 16, ("data",)),
        ("data:8", 12, ()),
        ("fsdp:2,data:4", 6, ("fsdp",)),
    ],
)
def test_frames_lie_over_as_many_devices_as_divide_them(devices, mesh, frames, axes):
    rules = sampling_rules(make_mesh(mesh, devices), frames)
    assert rules["frames"] in axes if isinstance(axes, set) else rules["frames"] == axes
    assert rules["pixels"] == rules["frames"] and rules["batch"] is None


@pytest.mark.gate
def test_a_mesh_decodes_the_clip_of_one_device(clips, devices):
    """To float32's rounding: one frame a device, and on one device two at a time."""
    settings = narrow(clips, "decoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "FRAMES_AT_A_TIME", 2)
        alone = made(settings, make_mesh("data:1", devices[:1]))
    assert alone.shape == (FRAMES, SIZE, SIZE, 3) and alone.std() > 0.01
    shared = made(settings, make_mesh("data:2,fsdp:2", devices[:4]))
    np.testing.assert_allclose(shared, alone, atol=1e-4)


@pytest.mark.slow
def test_a_mesh_samples_the_clip_of_one_device(clips, devices):
    """To float32's rounding, which 25 steps carry on."""
    settings = narrow(clips)
    alone, shared = (
        made(settings, make_mesh(text, devices[:count])) for text, count in (("data:1", 1), ("data:2,fsdp:2", 4))
    )
    assert alone.shape == (FRAMES, SIZE, SIZE, 3) and alone.std() > 0.01
    np.testing.assert_allclose(shared, alone, atol=1e-3)


def test_the_split_gives_every_process_the_same_whole_clips(clips):
    settings = narrow(clips, data={"num_workers": 2, "prefetch": 2, "embeddings": "elsewhere"})
    found = first_clips(settings)
    assert len(found) == CLIPS and all(len(rows) == 1 for clip in found for rows in clip.values())
    assert all(clip["valid"].all() and clip["sketched"].any() for clip in found)
    assert not np.array_equal(found[0]["video"], found[1]["video"])


_PROGRAM = """
    import json, sys
    import jax
    settings = json.loads(sys.argv[1])
    jax.config.update("jax_num_cpu_devices", settings["devices"])
    if settings["processes"] > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(settings["coordinator"], settings["processes"], settings["process"])
    from pathlib import Path
    from tests.training.test_samples import write
    from tooncrafter_jax.training.sharding import make_mesh
    write(Path(settings["clips"]), Path(settings["workdir"]), make_mesh("data:2,fsdp:2"))
"""


def write(clips, workdir, mesh):
    """Writes a decoder's samples; nothing stays on the stage."""
    stage, params = of_run(narrow(clips, "decoder"), mesh)
    before = set(vars(stage))
    reporter = Reporter(workdir, steps=1, done=0, clips=8)
    with jax.set_mesh(mesh):
        Samples(stage, mesh, lambda batch: batch).write(params, 500, workdir / "samples", reporter)
    reporter.close()
    assert set(vars(stage)) == before


@pytest.mark.gate
def test_two_processes_write_the_samples_of_one(clips, devices, tmp_path):
    """Of one device, that is: the frames of a clip lie over the four devices of both processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings = {"devices": 2, "processes": 2, "coordinator": f"127.0.0.1:{port}", "clips": str(clips)}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(_PROGRAM),
                json.dumps(settings | {"process": number, "workdir": str(tmp_path / f"of_{number}")}),
            ],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    write(clips, tmp_path / "alone", make_mesh("data:1", devices[:1]))
    for process in running:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]
    names = sorted(path.name for path in (tmp_path / "alone" / "samples").iterdir())
    assert names == [f"00000500-{number}.{kind}" for number in range(CLIPS) for kind in ("mp4", "png")]
    assert sorted(path.name for path in (tmp_path / "of_0" / "samples").iterdir()) == names
    assert not (tmp_path / "of_1").exists(), "one process writes"
    for name in (name for name in names if name.endswith("png")):
        alone, together = (
            np.asarray(Image.open(tmp_path / who / "samples" / name)).astype(int) for who in ("alone", "of_0")
        )
        difference = np.abs(alone - together)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # rounding of sums in another order
