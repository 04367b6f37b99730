"""What is frozen leaves training as it came: every stage, bit by bit, from a checkpoint of mixed dtypes."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.small import config, write_begin
from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import COMPONENTS
from tooncrafter_jax.training.checkpoints import Checkpoints, export
from tooncrafter_jax.training.sharding import make_mesh, put_batch, step_rows
from tooncrafter_jax.training.stages import STAGES as REGISTRY
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import Start, architecture
from tooncrafter_jax.training.step import make_step
from tooncrafter_jax.weights.store import Checkpoint

pytestmark = pytest.mark.heavy

STAGES = {
    "rectify": {"stage": "rectify"},
    "base": {"stage": "base"},
    "sketch": {"stage": "sketch"},
    "new sketch parts": {"stage": "sketch", "groups": ("sketch.added",)},
    "decoder": {"stage": "decoder"},
    "new decoder parts": {"stage": "decoder", "groups": ("decoder.p3d",)},
    "decoder behind the denoiser": {"stage": "joint", "groups": ("spatial", "decoder.har")},
    "autoencoder": {"stage": "autoencoder", "groups": ("decoder",)},
    "motion": {"stage": "motion"},
    "distill": {"stage": "distill", "groups": ("spatial",)},
}
"""Every stage, and some choices of what it trains."""


@pytest.fixture(scope="module")
def begin(clips, tmp_path_factory):
    """A checkpoint of all components: numbers that bfloat16 cannot hold, but for the text tower, which is stored in
    it.
    """
    directory = tmp_path_factory.mktemp("begin") / "model"
    return write_begin(directory, architecture(config(clips)))


def make(clips, begin, **changes):
    if changes["stage"] == "autoencoder":  # whose decoder has no temporal and reference parts
        plain = begin.with_name("plain")
        if not plain.exists():
            model = Checkpoint(begin).config
            decoder = dataclasses.replace(model.decoder, temporal=False, references=False)
            write_begin(plain, dataclasses.replace(model, decoder=decoder))
        begin = plain
    reconstructs = changes["stage"] in ("decoder", "joint", "autoencoder", "motion")
    settings = config(
        clips,
        model_changes={},
        start=str(begin),
        frozen_dtype="bfloat16",
        steps=20,
        options={"discriminator": {"width": 8}} if reconstructs else {},
        data={"batch": 1},
        **changes,
    )
    mesh = make_mesh("data:1", jax.devices()[:1])
    return make_stage(settings, architecture(settings), mesh), mesh


def changed(exported, begin, stage, state):
    """Names of frozen parameters that differ between two checkpoints, and how many there are."""
    found, count = [], 0
    before, after = Checkpoint(begin), Checkpoint(exported)
    assert after.components == tuple(name for name in COMPONENTS if name in before.components)
    networks = {**before.config.networks(), **stage.model.networks()}
    for name in after.components:
        old, new = (checkpoint.restore_on_host(name, networks[name]) for checkpoint in (before, after))
        assert old.keys() == new.keys()
        for path in old:
            if f"{name}.{path}" not in state.trained:
                count += 1
                if old[path].dtype != new[path].dtype or old[path].tobytes() != new[path].tobytes():
                    found.append(f"{name}.{path}")
    return found, count


def test_no_stage_is_left_out():
    assert {settings["stage"] for settings in STAGES.values()} == set(REGISTRY)


@pytest.mark.gate
@pytest.mark.parametrize("name", ["rectify", "new decoder parts", "autoencoder", "motion"])
def test_what_is_frozen_is_exported_as_it_came(clips, begin, tmp_path, name):
    stage, mesh = make(clips, begin, **STAGES[name])
    state = Start(stage).state(mesh)
    assert state.trained
    export(tmp_path / "model", stage, state, model=stage.model, provenance={})
    found, count = changed(tmp_path / "model", Path(stage.config.start), stage, state)
    assert count > 100 and not found


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_what_is_frozen_is_exported_as_it_came_after_20_steps(clips, begin, tmp_path, name):
    stage, mesh = make(clips, begin, **STAGES[name])
    state, step = Start(stage).state(mesh), make_step(stage, mesh)
    first = jax.device_get(state.trained)
    settings = dataclasses.replace(stage.config.data, video=True)
    with Loader.open(settings) as loader:
        metrics = {}
        for _ in range(20):
            batch = step_rows(next(loader))
            if stage.is_guided:
                dark = 1 - batch["video"].mean(-1, keepdims=True, dtype=np.float32) / 255
                batch["hints"] = dark * batch["sketched"][..., None, None, None]
            state, metrics = step(state, put_batch(batch, mesh))
    assert int(metrics["skipped"]) == 0
    moved = sum(not np.array_equal(first[path], value) for path, value in jax.device_get(state.trained).items())
    checkpoints = Checkpoints(tmp_path, stage)
    checkpoints.save(state, {}, wait=True)
    resumed = checkpoints.restore(mesh).state
    checkpoints.close()
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    export(tmp_path / "model", stage, resumed, model=stage.model, provenance={})
    found, count = changed(tmp_path / "model", Path(stage.config.start), stage, state)
    print(f"\n{name}: {moved} of {len(first)} trained tensors moved, {len(found)} of {count} frozen ones changed")
    assert moved > 0.9 * len(first) and count > 100 and not found


@pytest.mark.gate
def test_a_start_that_is_gone_or_another_is_reported(clips, begin, tmp_path):
    first = shutil.copytree(begin, tmp_path / "first")
    stage, mesh = make(clips, first, stage="rectify")
    state = Start(stage).state(mesh)
    run = tmp_path / "run"
    checkpoints = Checkpoints(run, stage)
    checkpoints.save(state, {}, wait=True)
    checkpoints.close()

    moved = first.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="no checkpoint directory .*first"):
        make(clips, first, stage="rectify")
    again = Checkpoints(run, make(clips, moved, stage="rectify")[0])
    resumed = again.restore(mesh).state
    again.close()
    for path, value in state.frozen.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(resumed.frozen[path]), err_msg=path)

    other = write_begin(tmp_path / "other", Checkpoint(begin).config, seed=1)
    wrong = make(clips, other, stage="rectify")[0]
    checkpoints = Checkpoints(run, wrong)
    with pytest.raises(UserError, match="config.start '.*other' is not the one that this run began with"):
        checkpoints.restore(mesh)
    checkpoints.close()
    with pytest.raises(UserError, match="is not the one that this run began with"):
        export(tmp_path / "model", wrong, state, model=wrong.model, provenance={})
    assert not (tmp_path / "model").exists()


@pytest.mark.gate
def test_a_start_of_an_earlier_version_is_known_by_its_small_arrays(clips, begin, tmp_path):
    """Which tells no fingerprints of its weights."""
    old = shutil.copytree(begin, tmp_path / "old")
    description = json.loads((old / "model.json").read_text())
    del description["weights"]
    (old / "model.json").write_text(json.dumps(description))
    stage, _ = make(clips, old, stage="sketch")
    checkpoints = Checkpoints(tmp_path / "run", stage)
    found = checkpoints.start.fingerprints(stage.components.abstract_params)
    checkpoints.close()
    assert set(found) == set(stage.uses) and all(len(values) == 1 and values[0] for values in found.values())
    other = write_begin(tmp_path / "other", Checkpoint(begin).config, seed=1)
    (other / "model.json").write_text(json.dumps(description))
    checkpoints = Checkpoints(tmp_path / "run2", make(clips, other, stage="sketch")[0])
    different = checkpoints.start.fingerprints(stage.components.abstract_params)
    checkpoints.close()
    assert all(found[name] != different[name] for name in found)


def test_a_run_does_not_start_from_what_it_will_write(clips, begin, tmp_path):
    shutil.copytree(begin, tmp_path / "run" / "export")
    stage, _ = make(clips, tmp_path / "run" / "export", stage="sketch")
    with pytest.raises(UserError, match="which this run will write its own model to: choose another --workdir"):
        Checkpoints(tmp_path / "run", stage)
