"""The composition of the networks: what sampling, training, evaluation and verification all call."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.tooncrafter import BoundModel, condition_latents, draw_latents, guided_by_motion

FRAMES, SIZE = 5, 16


@pytest.fixture(scope="module")
def world():
    """The tiny model: architecture, networks, drawn parameters of the two that see pixels; and a video of uint8."""
    config = tiny()
    networks = config.networks()
    params = {name: dict(networks[name].drawn(0)) for name in ("autoencoder", "decoder")}
    video = np.random.default_rng(0).integers(0, 256, (2, FRAMES, SIZE, SIZE, 3), np.uint8)
    return config, networks, params, video


def bound(world, params):
    config, networks, _, _ = world
    return BoundModel(config, lambda name: networks[name].bind(params[name]))


@pytest.mark.gate
def test_an_end_frames_latents_are_those_that_it_has_in_the_whole_clip(world):
    """A frame's noise depends on its clip's seed and its number; frames are encoded alone, to float32's rounding."""
    config, _, params, video = world
    seeds = jnp.asarray([3, 9], jnp.uint32)

    @jax.jit
    def latents(params):
        model = bound(world, params)
        moments = model.moments(jnp.asarray(video), 2)
        ends = jnp.asarray(video[:, [0, -1]]) / 127.5 - 1
        return (
            moments,
            config.schedule.scale_factor * draw_latents(moments, seeds),
            model.encode_ends(ends, seeds, FRAMES - 1),
        )

    moments, whole, (ends, references) = latents(params)
    np.testing.assert_allclose(ends, whole[:, [0, -1]], atol=1e-4)
    assert references is not None and np.std(ends) > 0.01
    chosen = draw_latents(moments[:, 1:3], seeds, jnp.asarray([1, 2]))
    np.testing.assert_allclose(config.schedule.scale_factor * chosen, whole[:, 1:3], atol=1e-6)
    others = draw_latents(moments, seeds + 1)
    assert np.abs(config.schedule.scale_factor * others - whole).max() > 1e-3


@pytest.mark.gate
def test_references_pull_at_the_decoder_alone(world):
    _, _, params, video = world
    ends = jnp.asarray(video[:, [0, -1]]) / 127.5 - 1

    def size(params):
        references = bound(world, params).references_of(ends)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(references))

    gradients = jax.jit(jax.grad(size))(jax.tree.map(jnp.asarray, params))
    assert not any(np.any(value) for value in gradients["autoencoder"].values())
    assert any(np.any(value) for value in gradients["decoder"].values())


def test_a_network_is_bound_once_and_only_when_it_is_asked_for():
    asked = []
    model = BoundModel(tiny(), lambda name: asked.append(name) or name)
    assert [model.network("unet"), model.network("unet"), model.network("decoder")] == ["unet", "unet", "decoder"]
    assert asked == ["unet", "decoder"]


@pytest.mark.parametrize("guides", [True, False])
def test_motion_guides_the_denoiser_unless_it_is_for_the_decoder_alone(guides):
    config = tiny()
    config = replace(config, motion=replace(config.motion, guides_denoiser=guides))
    latents = jnp.ones((1, 4, 2, 4, 3)).at[:, 1:-1].set(0)
    motion = Motion.of_frames_between(jnp.zeros((1, 2, 16, 32, 4)), jnp.full((1, 2, 16, 32, 1), 0.5))
    found, levels = guided_by_motion(latents, motion, config)
    assert (levels is not None) == guides
    np.testing.assert_allclose(found[:, 1:-1], 1.0 if guides else 0.0)


def test_condition_latents_are_zero_between_the_ends():
    ends = jnp.arange(1.0, 5.0).reshape(1, 2, 1, 1, 2)
    found = np.asarray(condition_latents(ends, 4))[0, :, 0, 0]
    np.testing.assert_array_equal(found, [[1, 2], [0, 0], [0, 0], [3, 4]])
