"""Whose run a working directory is: known from its first checkpoint on, wherever what it reads has moved."""

import dataclasses
import json

import pytest

from tests.training.small import NARROW_CHANGES, config
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.training.checkpoints import Checkpoints
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.training.trainer import Trainer


def opened(workdir, stage="rectify", **changes):
    settings = config("", stage, model_changes=NARROW_CHANGES, **changes)
    Checkpoints(workdir, make_stage(settings, architecture(settings))).close()


def trained(workdir, stage="rectify", **changes):
    """A working directory with what is looked at of a checkpoint."""
    opened(workdir, stage, **changes)
    (workdir / "checkpoints" / "1").mkdir(parents=True)


def test_a_workdir_of_another_run_is_refused(tmp_path):
    trained(tmp_path)
    with pytest.raises(UserError, match=r"config.optimizer.learning_rate=0.001, not 0.0005"):
        opened(tmp_path, optimizer={"learning_rate": 5e-4})
    opened(tmp_path, steps=9, remat="blocks", attention="chunked")


def test_a_run_goes_on_though_its_config_lacks_keys_that_are_new(tmp_path):
    trained(tmp_path)
    file = tmp_path / "config.json"
    description = json.loads(file.read_text())
    del description["ema_decay"], description["data"]["bisection_depths"], description["optimizer"]["weight_decay"]
    file.write_text(json.dumps(description))
    opened(tmp_path)
    assert json.loads(file.read_text())["data"]["bisection_depths"] == [1, 2, 3, 4]
    del description["optimizer"]["learning_rate"]  # the run's is not the default
    file.write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"config.optimizer.learning_rate=1e-05, not 0.001"):
        opened(tmp_path)
    file.write_text("[]")
    with pytest.raises(UserError, match=r"config.json is damaged"):
        opened(tmp_path)


def test_before_the_first_checkpoint_anything_may_change(tmp_path):
    """As after a first step that found too little memory."""
    opened(tmp_path)
    opened(tmp_path, data={"batch": 4}, optimizer={"learning_rate": 5e-4})
    assert json.loads((tmp_path / "config.json").read_text())["data"]["batch"] == 4


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("rectify", {"data": {"directory": "/moved"}}),
        ("sketch", {"options": {"weights": "/moved/netG.pth"}}),
        ("joint", {"groups": ("sketch",), "options": {"weights": "/moved/netG.pth"}}),
        ("motion", {"options": {"weights": "/moved/netG.pth"}}),
        ("distill", {"options": {"weights": "/moved/netG.pth", "steps": 2}}),
    ],
)
def test_what_a_run_reads_may_have_moved(tmp_path, stage, changes):
    trained(tmp_path, stage, **{name: value for name, value in changes.items() if name == "groups"})
    opened(tmp_path, stage, **changes)


def test_embeddings_may_have_moved_but_pictures_do_not_take_their_place(tmp_path):
    trained(tmp_path, data={"embeddings": "/here"})
    opened(tmp_path, data={"embeddings": "/elsewhere"})
    with pytest.raises(UserError, match="config.data.embeddings='/elsewhere', not ''"):
        opened(tmp_path)


@pytest.mark.parametrize(("start", "steps", "goes_on"), [(2**31 - 1, 9, True), (9, 9, True), (8, 9, False)])
def test_a_discriminator_that_never_takes_part_may_begin_otherwise(tmp_path, start, steps, goes_on):
    trained(tmp_path, "decoder", steps=4, options={"discriminator": {"start_step": 4}})
    if goes_on:
        opened(tmp_path, "decoder", steps=steps, options={"discriminator": {"start_step": start}})
    else:
        with pytest.raises(UserError, match=f"config.decoder.discriminator.start_step=4, not {start}"):
            opened(tmp_path, "decoder", steps=steps, options={"discriminator": {"start_step": start}})


def test_missing_weights_of_lpips_are_told_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    settings = config("/nowhere/at/all", "decoder", options={"perceptual_weight": 0.1})
    with pytest.raises(UserError, match="fetch-metric-weights"):
        Trainer(dataclasses.replace(settings, validation="test"), tmp_path / "run").run()
    assert not (tmp_path / "run").exists()
