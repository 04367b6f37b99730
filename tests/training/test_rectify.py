"""Toon rectification on the small model: what changes, what does not, what an interruption changes."""

import dataclasses

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.training.checkpoints import Checkpoints, export
from tooncrafter_jax.training.components import of_component
from tooncrafter_jax.training.optimizers import state_bytes
from tooncrafter_jax.training.reporting import parameter_table
from tooncrafter_jax.training.sharding import put_batch, step_rows
from tooncrafter_jax.training.trainer import Trainer
from tooncrafter_jax.weights.store import Checkpoint


def _batches(loader, count):
    return [step_rows(next(loader)) for _ in range(count)]


def _host(tree):
    return jax.tree.map(np.asarray, tree)


def checkpoint_state(workdir, step):
    """What a run's checkpoint holds of the state: nested names."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.metadata(workdir / "checkpoints" / str(step) / "state").item_metadata.tree


@pytest.fixture(scope="module")
def run(rectify):
    """States before and after 20 steps on one repeated batch, and the losses."""
    _, mesh, step, start, open_loader = rectify
    (batch,) = _batches(open_loader(), 1)
    state = start()
    before, losses, metrics = _host(state), [], {}
    for _ in range(20):
        state, metrics = step(state, put_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    return before, _host(state), losses, _host(metrics)


def test_the_loss_of_a_repeated_batch_falls(run):
    _, _, losses, _ = run
    assert losses[-1] < 0.6 * losses[0]


def test_frozen_parameters_are_bitwise_the_same(run):
    before, after, _, _ = run
    assert {path.split(".")[0] for path in before.frozen} == {
        "unet",
        "clip_text",
        "clip_image",
        "autoencoder",
        "decoder",
    }
    assert any(".temporal_transformer." in path for path in before.frozen)
    for path, value in before.frozen.items():
        np.testing.assert_array_equal(value, after.frozen[path], err_msg=path)


def test_every_trained_parameter_moves(run):
    before, after, _, _ = run
    still = [path for path, value in before.trained.items() if np.array_equal(value, after.trained[path])]
    assert not still


def test_optimizer_state_is_two_moments_of_what_is_trained(run):
    before, _, _, _ = run
    moments = 2 * sum(value.nbytes for value in before.trained.values())
    counters = state_bytes(before.optimizer) - moments
    assert 0 <= counters <= 16


def test_metrics_say_what_happened(run):
    _, _, _, metrics = run
    assert metrics["skipped"] == 0 and metrics["clips_by_time"].sum() == 8
    assert {"gradient_norm/projector", "gradient_norm/spatial", "parameter_norm/image_kv"} < set(metrics)
    assert "gradient_norm/temporal" not in metrics
    np.testing.assert_allclose(metrics["loss_by_time"].sum() / 8, metrics["loss"], rtol=1e-5)


@pytest.mark.gate
def test_a_step_that_is_not_finite_changes_nothing_but_counts(rectify):
    _, mesh, step, start, open_loader = rectify
    (batch,) = _batches(open_loader(), 1)
    state = start()
    broken = dataclasses.replace(
        state,
        trained={
            path: value * (np.nan if path == "unet.conv_out.bias" else 1) for path, value in state.trained.items()
        },
    )
    before = _host(broken)
    after, metrics = step(broken, put_batch(batch, mesh))
    assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"]), int(after.step)) == (1, 1, 1)
    for path, value in before.trained.items():
        np.testing.assert_array_equal(value, np.asarray(after.trained[path]), err_msg=path)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(after.optimizer))


@pytest.mark.gate
def test_interrupted_equals_uninterrupted(rectify, tmp_path):
    stage, mesh, step, start, open_loader = rectify
    state, loader = start(), open_loader()
    for batch in _batches(loader, 4):
        state, _ = step(state, put_batch(batch, mesh))
    whole = _host(state)

    state, loader = start(), open_loader()
    for batch in _batches(loader, 2):
        state, _ = step(state, put_batch(batch, mesh))
    first = Checkpoints(tmp_path, stage)
    first.save(state, loader.state(), wait=True)
    first.close()
    again = Checkpoints(tmp_path, stage)
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp-1").mkdir()  # cut off while it was written
    assert again.latest == 2
    resumed = again.restore(mesh)
    again.close()
    loader = open_loader()
    loader.restore(resumed.data)
    state = resumed.state
    for batch in _batches(loader, 2):
        state, _ = step(state, put_batch(batch, mesh))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(_host(state)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_newest_checkpoint_is_exported_without_training_on(rectify, tmp_path):
    stage, mesh, step, start, open_loader = rectify
    state, loader = start(), open_loader()
    checkpoints = Checkpoints(tmp_path, stage)
    for batch in _batches(loader, 2):
        state, _ = step(state, put_batch(batch, mesh))
        checkpoints.save(state, loader.state(), wait=True)
    checkpoints.close()
    being_written = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp-1"
    being_written.mkdir()
    before = sorted(tmp_path.rglob("*"))
    trainer = Trainer(stage.config, tmp_path)
    assert trainer.export() == 2
    assert set(tmp_path.iterdir()) - set(before) == {tmp_path / "export"}
    assert all(path.exists() for path in before), "a run that goes on meanwhile keeps what it is writing"
    exported = Checkpoint(tmp_path / "export")
    assert exported.provenance["steps"] == 2
    exported_unet = exported.restore_on_host("unet", exported.config.networks()["unet"])
    trained = of_component({**state.trained, **state.average}, "unet")
    drawn = dict(stage.components.networks["unet"].drawn(stage.config.seed))
    assert set(exported_unet) == set(drawn) and trained
    for path, value in {**drawn, **trained}.items():
        np.testing.assert_array_equal(exported_unet[path], np.asarray(value), err_msg=path)


@pytest.mark.gate
def test_frozen_parameters_are_exported_as_they_were_drawn(rectify, run, tmp_path):
    """After 20 steps, though frozen parameters are rounded to bfloat16 while training."""
    stage, after = rectify[0], run[1]
    assert not any(value.dtype == np.float32 for value in after.frozen.values())
    state = jax.tree.map(jax.numpy.asarray, after)
    export(tmp_path / "model", stage, state, model=stage.model, provenance={})
    checkpoint, changed = Checkpoint(tmp_path / "model"), []
    for name, network in stage.components.networks.items():
        exported, drawn = checkpoint.restore_on_host(name, network), dict(network.drawn(stage.config.seed))
        frozen = [path for path in drawn if f"{name}.{path}" in after.frozen]
        changed += [
            path
            for path in frozen
            if exported[path].dtype != drawn[path].dtype or exported[path].tobytes() != drawn[path].tobytes()
        ]
    assert not changed


@pytest.mark.gate
def test_checkpoints_hold_no_frozen_parameters(rectify, tmp_path):
    stage, _, _, start, open_loader = rectify
    checkpoints = Checkpoints(tmp_path, stage)
    checkpoints.save(start(), open_loader().state(), wait=True)
    held = checkpoint_state(tmp_path, 0)
    checkpoints.close()
    assert not held["frozen"] and held["trained"]


@pytest.mark.gate
def test_a_run_whose_checkpoints_hold_frozen_parameters_goes_on(rectify, tmp_path):
    """As those of earlier versions do."""
    stage, mesh, _, start, open_loader = rectify
    state, loader = start(), open_loader()
    Checkpoints(tmp_path, stage).close()
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        everything = {name: getattr(state, name) for name in state.__dataclass_fields__}
        manager.save(
            0, args=ocp.args.Composite(state=ocp.args.PyTreeSave(everything), data=ocp.args.JsonSave(loader.state()))
        )
    again = Checkpoints(tmp_path, stage)
    resumed = again.restore(mesh)
    again.close()
    for one, other in zip(jax.tree.leaves(_host(state)), jax.tree.leaves(_host(resumed.state)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_exported_before_the_first_checkpoint(rectify, tmp_path):
    with pytest.raises(UserError, match="has no checkpoint yet"):
        Trainer(rectify[0].config, tmp_path / "nowhere").export()
    assert not (tmp_path / "nowhere").exists()


def test_the_table_counts_groups(rectify):
    table = parameter_table(rectify[0])
    row = next(line for line in table.splitlines() if line.startswith("temporal"))
    assert row.split()[1] == "0" and int(row.split()[2].replace(",", "")) > 100_000
