"""Configs of earlier versions: old files, old runs, and where each of their keys is now."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.training.small import config
from tests.training.test_messages import exists
from tooncrafter_jax.cli.config_options import read_config
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import collected
from tooncrafter_jax.training.checkpoints import Checkpoints
from tooncrafter_jax.training.configuration import config_values, default_config, saved_values, train_config
from tooncrafter_jax.training.former_keys import GONE, MOVED, MOVED_TO_JOINT, OWN, advice
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.sharding import make_mesh
from tooncrafter_jax.training.stages import STAGES, make_stage
from tooncrafter_jax.training.start import architecture

BUNDLED = Path(__file__).parents[2] / "tooncrafter_jax" / "bundled" / "small" / "model.json"


def old_discriminator(rate=4.5e-6):
    """Its optimizer as earlier versions wrote it down."""
    adam = {
        "name": "adam",
        "learning_rate": rate,
        "schedule": "constant",
        "warmup_steps": 0,
        "beta1": 0.5,
        "beta2": 0.9,
    }
    return adam | {"epsilon": 1e-8, "momentum": 0.95, "weight_decay": 0.0, "clip_norm": 0.0, "group_rates": ""}


def old_run(stage, **changes):
    """What an earlier version wrote down of a run: every option of every stage."""
    adversarial = {"width": 16, "start_step": 7, "weight": 0.4, "perceptual_weight": 0.2, "perceptual_frames": 3}
    return {
        "stage": stage,
        "model": "tiny",
        "bypass_temporal": stage == "rectify",
        "sketch": {"extractor": "hed", "weights": "w", "every_frame": False, "hint_start": "scaled"},
        "adversarial": adversarial | {"kl_weight": 1e-5, "optimizer": old_discriminator(2e-6)},
        "latent_noise": 0.5 if stage == "decoder" else 0.0,
        "denoised_latents": False,
        "last_time_share": 0.8 if stage == "sketch" else 0.0,
        "lora": {"rank": 2, "alpha": 4.0, "targets": ["attention."]},
        "optimizer": {"momentum": 0.95, "learning_rate": 1e-3},
        "log_norms": True,
    } | changes


def test_every_former_key_leads_to_an_option():
    for path in (*MOVED.values(), *MOVED_TO_JOINT.values()):
        stages = [name for name in STAGES if exists(path.replace(OWN, name))]
        assert stages, path
    assert not [path for path in (*MOVED, *GONE) if exists(path)]
    assert not {field.name for field in dataclasses.fields(TrainConfig)} & set(STAGES), "stages are sections of configs"


def test_old_runs_are_read_with_the_options_of_their_stage():
    read = {name: train_config(saved_values(old_run(name))) for name in ("rectify", "sketch", "decoder", "autoencoder")}
    assert read["rectify"].options.bypass_temporal and read["rectify"].options.lora.targets == ("attention.",)
    sketch = read["sketch"].options
    assert (sketch.extractor, sketch.weights, sketch.hint_start, sketch.last_time_share) == ("hed", "w", "scaled", 0.8)
    decoder, autoencoder = read["decoder"].options, read["autoencoder"].options
    for options in (decoder, autoencoder):
        assert (options.perceptual_weight, options.perceptual_frames) == (0.2, 3)
        assert dataclasses.astuple(options.discriminator) == (16, 7, 0.4, 2e-6)
    assert decoder.latent_noise == 0.5 and autoencoder.kl_weight == 1e-5


def test_a_decoder_behind_a_denoiser_is_the_stage_joint():
    read = train_config(saved_values(old_run("decoder", denoised_latents=True, last_time_share=0.3, latent_noise=0.0)))
    assert read.stage == "joint" and read.options.last_time_share == 0.3
    assert (read.options.extractor, read.options.weights) == ("hed", "w")
    with pytest.raises(UserError, match="denoised_latents is the stage 'joint' now, not 'sketch'"):
        train_config({"stage": "sketch", "denoised_latents": True})


def test_what_is_written_down_is_read_back():
    for name in STAGES:
        values = json.loads(json.dumps(config_values(train_config({"stage": name}))))
        assert set(values) & set(STAGES) == {name} and "options" not in values
        assert saved_values(values) == values and config_values(train_config(values)) == config_values(
            train_config({"stage": name})
        )


def test_the_bundled_model_tells_a_config_that_can_be_read():
    """And so does each of the models that it started from."""
    provenance, found = json.loads(BUNDLED.read_text())["provenance"], []

    def collect(value):
        if isinstance(value, dict):
            found.extend([value["config"]] if isinstance(value.get("config"), dict) else [])
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    collect(provenance)
    stages = {train_config(saved_values(values)).stage for values in found}
    assert stages == {"joint", "sketch", "decoder", "rectify"}


def test_an_old_key_in_a_config_file_is_taken_and_told(tmp_path):
    file = tmp_path / "mine.py"
    header = "from tooncrafter_jax.training.configuration import default_config\ndef get_config():\n"
    file.write_text(header + "    c = default_config()\n    c.stage, c.latent_noise = 'decoder', 0.5\n    return c\n")
    with collected() as said:
        assert read_config(str(file), []).options.latent_noise == 0.5
    assert said == ["config.latent_noise is config.decoder.latent_noise now: taken as that"]
    file.write_text(header + "    c = default_config()\n    c.adversarial.width = 16\n    return c\n")
    with pytest.raises(UserError, match="config.adversarial is .*config.STAGE.discriminator.width and .* now") as error:
        read_config(str(file), [])
    assert "\n" not in str(error.value)


def test_an_option_that_is_gone_is_refused_where_it_was_another():
    with pytest.raises(UserError, match="adversarial.optimizer.beta1 is no option any more and always 0.5, not 0.4"):
        saved_values(old_run("decoder", adversarial={"optimizer": {"beta1": 0.4}}))
    saved_values(old_run("rectify", adversarial={"optimizer": {"beta1": 0.4}}))  # which has no discriminator
    with pytest.raises(UserError, match="last_time_share is no option of the stage 'base' any more"):
        saved_values(old_run("base", last_time_share=0.5))
    assert advice("optimizer.momentum") == "config.optimizer.momentum is no option any more and always 0.95"
    assert advice("steps") is None


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its directory's config.json has the former keys; a resumed run compares it, and writes today's."""
    now = config(tmp_path, "sketch", options={"last_time_share": 0.8, "hint_start": "scaled"})
    stage = make_stage(now, architecture(now), make_mesh("data:1", jax.devices()[:1]))
    run = tmp_path / "run"
    (run / "checkpoints" / "1").mkdir(parents=True)  # stands for one: before it there is nothing to go on from
    old: dict[str, Any] = config_values(now)
    own = old.pop("sketch")
    share = own.pop("last_time_share")
    rest = {name: value for name, value in old_run("sketch").items() if name not in ("stage", "model", "sketch")}
    old |= rest | {"sketch": own, "last_time_share": share, "optimizer": old["optimizer"] | {"momentum": 0.95}}
    (run / "config.json").write_text(json.dumps(old))
    Checkpoints(run, stage).close()
    written = json.loads((run / "config.json").read_text())
    assert "adversarial" not in written and written["sketch"]["last_time_share"] == 0.8
    (run / "config.json").write_text(json.dumps(old | {"last_time_share": 0.7}))
    with pytest.raises(UserError, match="config.sketch.last_time_share=0.7, not 0.8"):
        Checkpoints(run, stage)
    (run / "config.json").write_text(json.dumps(old_run("rectify")))
    with pytest.raises(UserError, match="config.stage='rectify', not 'sketch'"):
        Checkpoints(run, stage)


def test_defaults_have_a_section_for_every_stage_with_options():
    assert set(default_config()) & set(STAGES) == set(STAGES) - {"base"}
