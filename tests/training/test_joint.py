"""Denoiser, decoder and sketch encoder on decoded pictures."""

import types
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import config, start_params
from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.objective import noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.sharding import step_rows
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.encoding import clean_latents, drawn_latents
from tooncrafter_jax.training.stages.joint import Joint
from tooncrafter_jax.training.stages.stage import MODEL
from tooncrafter_jax.training.start import architecture


def make_joint(settings: TrainConfig) -> Joint:
    stage = make_stage(settings, architecture(settings))
    assert isinstance(stage, Joint)
    return stage


@pytest.mark.gate
def test_a_perfect_denoiser_gives_the_decoder_the_true_latents(clips, monkeypatch):
    settings = config(clips, "joint", data={"batch": 4})
    stage = make_joint(settings)
    params = {path: jnp.asarray(value) for path, value in start_params(stage).items()}
    with Loader.open(settings.data) as loader:
        batch = {name: jnp.asarray(rows) for name, rows in step_rows(next(loader)).items()}
    model = stage.bound(params)
    drawn = stage.latents(model, batch, None)
    truth = drawn_latents(model, batch)
    assert np.abs(drawn - truth).max() > 0.1

    def perfect(noisy, times, conditions):
        noise = clip_noise(batch["seed"], Stream.INITIAL, jnp.arange(noisy.shape[1]), noisy.shape[2:])
        target = noisy_target(NoiseSchedule(stage.model.schedule), clean_latents(model, batch), noise, times)
        np.testing.assert_array_equal(noisy, target.noisy)
        assert len(set(times.tolist())) > 1
        return target.v

    monkeypatch.setattr(model, "predict_v", perfect)
    np.testing.assert_allclose(stage.latents(model, batch, None), truth, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.usefixtures("unchecked_types")  # of fakes
def test_the_last_time_has_its_share_of_what_is_decoded(clips, share):
    stage, seen = make_joint(config(clips, "joint", options={"last_time_share": share})), []

    def predict_v(noisy, times, conditions):
        seen.append(np.asarray(times))
        return noisy

    parts = {"image_tokens": lambda tokens: tokens, "condition": lambda *_: None, "predict_v": predict_v}
    model = cast(Any, types.SimpleNamespace(config=stage.model, **parts))
    embedded = {name: jnp.zeros((8, 1, 1)) for name in ("text", "image")}
    batch = {"moments": jnp.zeros((8, 4, 2, 2, 8)), "seed": jnp.arange(8, dtype=jnp.uint32), "fps": jnp.ones(8)}
    stage.latents(model, batch | embedded, None)
    assert (seen[0] == 999).all() == bool(share)


@pytest.mark.parametrize(
    ("groups", "learning"),
    [
        pytest.param((), {"decoder"}, marks=pytest.mark.gate),
        pytest.param(
            ("decoder", "spatial", "projector"), {"decoder", "unet", "image_projector"}, marks=pytest.mark.gate
        ),
        pytest.param(("sketch",), {"sketch_encoder"}, marks=pytest.mark.slow),
    ],
)
def test_the_denoiser_learns_from_the_decoders_pictures_where_it_is_asked_to(clips, groups, learning):
    settings = config(clips, "joint", groups=groups, data={"batch": 1})
    stage = make_joint(settings)
    assert {path.split(".")[0] for path in stage.components.abstract_params if stage.is_trained(path)} == learning
    if not groups:
        return
    params = {path: jnp.asarray(value) for path, value in start_params(stage).items()}
    with Loader.open(settings.data) as loader:
        batch = {name: jnp.asarray(rows) for name, rows in step_rows(next(loader)).items()}
    if stage.is_guided:
        # A new denoiser and new taps end in zeros, which let no gradient through.
        params = {
            path: value + 0.01 if path.startswith(("unet.", "sketch_encoder.")) else value
            for path, value in params.items()
        }
        batch["hints"] = jnp.mean(batch["video"], axis=-1, keepdims=True) / 255
    found = jax.jit(stage.gradients)(params, batch, jax.random.key(0), jnp.asarray(0)).by_optimizer[MODEL]
    assert {path.split(".")[0] for path, gradient in found.items() if np.abs(gradient).max() > 0} >= learning - {
        "image_projector"
    }


@pytest.mark.gate
def test_sketches_guide_the_clips_that_have_some(clips):
    settings = config(clips, "joint", groups=("sketch",), data={"batch": 2})
    stage = make_joint(settings)
    params = {path: jnp.asarray(value) for path, value in start_params(stage).items()}
    params = {path: value + 0.01 if path.startswith(("unet.", "sketch_")) else value for path, value in params.items()}
    with Loader.open(settings.data) as loader:
        batch = {name: jnp.asarray(rows) for name, rows in step_rows(next(loader)).items()}
    batch["sketched"] = jnp.zeros_like(batch["sketched"]).at[1, 2].set(True)
    hints = jnp.where(batch["sketched"][..., None, None, None], 1.0, jnp.zeros((2, *batch["video"].shape[1:4], 1)))
    drawn = jax.jit(lambda p, b: stage.latents(stage.bound(p), b, None))
    alone, guided = drawn(params, batch), drawn(params, batch | {"hints": hints})
    np.testing.assert_allclose(guided[0], alone[0], atol=1e-5)
    assert np.abs(guided[1] - alone[1]).max() > 1e-3


def test_sketches_can_guide_a_denoiser_that_does_not_learn(clips):
    asked = make_joint(config(clips, "joint", options={"sketched": True, "extractor": "hed"}))
    assert asked.is_guided and asked.sketches is not None and asked.sketches.extractor == "hed"
    assert {path.split(".")[0] for path in asked.components.abstract_params if asked.is_trained(path)} == {"decoder"}
    assert not make_joint(config(clips, "joint")).is_guided


def test_guided_frames_are_compared_first(clips):
    guided = config(clips, "joint", groups=("sketch",), options={"perceptual_frames": 3})
    stage = make_joint(guided)
    frames = guided.data.frames
    few, many = jnp.zeros((2, frames), bool), jnp.ones((2, frames), bool)
    few = few.at[0, [1, 3]].set(True).at[1, 3].set(True)
    for seed in range(frames):
        batch = {"video": jnp.zeros((2, frames, 8, 8, 3)), "seed": jnp.asarray([seed, 7], jnp.uint32)}
        compared = np.asarray(stage.compared_frames(batch | {"sketched": few}))
        assert compared.tolist()[:2] == [3, 1] and compared[2] not in (1, 3)
        of_all = np.asarray(stage.compared_frames(batch | {"sketched": many}))
        np.testing.assert_array_equal(of_all, (seed + np.arange(3)) % frames)
