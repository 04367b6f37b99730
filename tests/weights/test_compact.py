"""A model is put together, halved, and keeps the history and the options that go with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import noise_params
from tests.weights.stored import equal, write
from tooncrafter_jax.__main__ import main
from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.sampling_options import add_sampling, sampling_options
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.motion_network import MotionConfig
from tooncrafter_jax.models.rife import RifeConfig
from tooncrafter_jax.weights.compact import without_repeated_runs
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter


def test_a_run_stands_once_in_a_history():
    base = {"trained_by": "x", "steps": 900, "config": {"stage": "rectify", "seed": 1}}
    decoder = {"steps": 800, "config": {"stage": "decoder"}, "started_from": [base]}
    sketch = {"steps": 480, "config": {"stage": "sketch"}, "started_from": [base | {"steps": 901}, base]}
    history = without_repeated_runs({**decoder, "seed": 3, "taken": {"sketch_encoder": sketch}})
    again = {"stage": "rectify", "steps": 900, "told": "above"}
    expected = {**sketch, "started_from": [base | {"steps": 901}, again]}
    assert history == {**decoder, "seed": 3, "taken": {"sketch_encoder": expected}}


def test_a_model_is_made_compact(tmp_path: Path, tiny_config: ModelConfig, capsys: pytest.CaptureFixture[str]) -> None:
    about = tmp_path / "about.json"
    about.write_text('{"data": "emoji"}')
    network = tiny_config.networks()["autoencoder"]
    params = noise_params(network)
    source = write(tmp_path / "source", tiny_config, params)
    assert main(["compact", str(source), str(tmp_path / "small"), f"--provenance={about}"]) == 0
    assert "autoencoder" in capsys.readouterr().out
    found = Checkpoint(tmp_path / "small")
    assert found.provenance == {"made": "by a test", "data": "emoji", "dtype": "float16"}
    halved = {path: jnp.asarray(np.asarray(value).astype(np.float16), jnp.float32) for path, value in params.items()}
    equal(found.restore("autoencoder", network), halved)


def test_a_component_of_another_directory_is_taken(tmp_path: Path, tiny_config: ModelConfig) -> None:
    wider = dataclasses.replace(
        tiny_config, autoencoder=dataclasses.replace(tiny_config.autoencoder, blocks_per_level=1)
    )
    params = [noise_params(each.networks()["autoencoder"]) for each in (tiny_config, wider)]
    one, other = write(tmp_path / "one", tiny_config, params[0]), write(tmp_path / "other", wider, params[1])
    assert (
        main(["compact", str(one), str(tmp_path / "small"), f"--take=autoencoder={other}", "--stored-dtype=float32"])
        == 0
    )
    found = Checkpoint(tmp_path / "small")
    assert found.config == wider and found.provenance["taken"] == {"autoencoder": {"made": "by a test"}}
    equal(found.restore("autoencoder", wider.networks()["autoencoder"]), params[1])
    for take, message in (
        ("unet=x", "must name a component"),
        ("motion=", "must name a component"),
        (f"autoencoder={tmp_path}", "not a checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            main(["compact", str(one), str(tmp_path / "none"), f"--take={take}"])


def test_an_optional_component_is_taken_by_a_model_without_it(
    tmp_path: Path, tiny_config: ModelConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    other = dataclasses.replace(tiny_config, motion=MotionConfig(RifeConfig(widths=(8,), scales=(4,), depth=1)))
    one = write(tmp_path / "one", tiny_config, noise_params(tiny_config.networks()["autoencoder"]))
    params = noise_params(other.networks()["motion"])
    with CheckpointWriter(tmp_path / "other", other, {"made": "elsewhere"}) as writer:
        writer.write("motion", params)
    take = f"--take=motion={tmp_path / 'other'}"
    assert main(["compact", str(one), str(tmp_path / "small"), take, "--stored-dtype=float32"]) == 0
    assert "autoencoder, motion; " in capsys.readouterr().out
    found = Checkpoint(tmp_path / "small")
    assert found.components == ("autoencoder", "motion") and found.config == other
    equal(found.restore("motion", other.networks()["motion"]), params)


def test_options_that_suit_a_model_are_kept_with_it(tmp_path: Path, tiny_config: ModelConfig) -> None:
    source = write(tmp_path / "one", tiny_config, noise_params(tiny_config.networks()["autoencoder"]))
    options = ["--option=guidance_scale=1.5", "--option=spacing=uniform", "--option=second_pass=false"]
    assert main(["compact", str(source), str(tmp_path / "small"), *options]) == 0
    own = Checkpoint(tmp_path / "small").sampling
    assert own == {"guidance_scale": 1.5, "spacing": "uniform", "second_pass": False}
    parser = Parser("x")
    add_sampling(parser)
    argv = ["--spacing=uniform_trailing", "--steps=9"]
    chosen = sampling_options(parser.parse_args(argv), own)
    assert (chosen.spacing, chosen.steps, chosen.guidance_scale) == ("uniform_trailing", 9, 1.5)
    assert not chosen.second_pass and chosen.eta == 1.0
    on = {"exact_last_step": True, "second_pass": False}
    chosen = sampling_options(parser.parse_args(["--no-exact-last-step", "--second-pass"]), on)
    assert not chosen.exact_last_step and chosen.second_pass
    assert (
        main(["compact", str(tmp_path / "small"), str(tmp_path / "again"), "--option=eta=0", "--option=reuse=2"]) == 0
    )
    assert Checkpoint(tmp_path / "again").sampling == {**own, "eta": 0, "reuse": "2"}
    for option, message in (
        ("guidance=2", "did you mean 'guidance_scale'"),
        ("steps", "a name and a value"),
        ("solver=foo", "unknown solver 'foo'"),
        ("guidance_scale=1000", "the guidance scale must be from 0 to 100, not 1000"),
    ):
        with pytest.raises(UserError, match=message):
            main(["compact", str(source), str(tmp_path / "none"), f"--option={option}"])


def test_what_16_bits_do_not_hold_is_reported(tmp_path: Path, tiny_config: ModelConfig) -> None:
    network = tiny_config.networks()["autoencoder"]
    params = {path: np.asarray(value) for path, value in noise_params(network).items()}
    params["moments.bias"] = params["moments.bias"] + np.float32(1e6)
    source = write(tmp_path / "source", tiny_config, params)
    with pytest.raises(UserError, match="autoencoder.moments.bias has values that float16 does not hold"):
        main(["compact", str(source), str(tmp_path / "small")])
    assert not (tmp_path / "small").exists()
    params["moments.bias"] = params["moments.bias"] * np.float32("nan")
    spoilt = write(tmp_path / "spoilt", tiny_config, params)
    with pytest.raises(UserError, match="autoencoder.moments.bias has values that are not finite: train or convert"):
        main(["compact", str(spoilt), str(tmp_path / "small"), "--stored-dtype=float32"])
    with pytest.raises(UserError, match="cannot read .*none.json as JSON"):
        main(["compact", str(source), str(tmp_path / "small"), f"--provenance={tmp_path / 'none.json'}"])
