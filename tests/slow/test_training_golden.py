"""The training step's own loss and gradients on the reference numbers (make test-slow)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import deviation, golden, noise, tiny_params
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.models.tooncrafter import Conditions
from tooncrafter_jax.training.components import split
from tooncrafter_jax.training.configuration import train_config
from tooncrafter_jax.training.sharding import make_mesh
from tooncrafter_jax.training.stages import make_stage

pytestmark = pytest.mark.slow

GRADIENTS = {
    "grad_spatial": "unet.up.0.blocks.0.spatial_transformer.blocks.0.cross_attention.image_key.kernel",
    "grad_fps": "unet.fps_embedding.hidden.kernel",
}


@pytest.fixture(scope="module")
def stage():
    settings = {"model": "tiny", "dtype": "float32", "frozen_dtype": "float32", "remat": "blocks"}
    return make_stage(train_config(settings), tiny(), make_mesh("data:1", jax.devices()[:1]))


@pytest.fixture(scope="module")
def params():
    return {f"unet.{path}": value for path, value in tiny_params("unet").items()}


def conditions(model, concat, fps):
    """Those of the fixtures."""
    context = jnp.asarray(noise("fixture.unet.context", (2, 333, 64)))
    return Conditions(concat, model.context_keys(context, concat.shape[1]), jnp.asarray(fps, jnp.int32))


def test_losses_are_the_reference_s(stage, params):
    stored = golden("losses")
    latents = jnp.asarray(noise("fixture.loss.latent", (2, 4, 16, 8, 16)))
    concat = jnp.asarray(0.5 * noise("fixture.loss.concat", (2, 4, 16, 8, 16)))
    drawn = jnp.asarray(noise("fixture.loss.noise", (2, 4, 16, 8, 16)))
    times = jnp.asarray(stored["timesteps"], jnp.int32)

    def errors_of(params):
        model = stage.bound(params)
        return stage.errors(model, latents, conditions(model, concat, stored["fs"]), drawn, times, None)

    errors = jax.jit(errors_of)(params)
    np.testing.assert_allclose(errors, stored["loss_per_sample"], rtol=5e-5)
    np.testing.assert_allclose(jnp.mean(errors), stored["loss"], rtol=5e-5)


def test_gradients_are_the_reference_s(stage, params):
    """With every block checkpointed, and gradients split as the step splits them: trained parameters only."""
    stored = golden("unet")
    x = noise("fixture.unet.x", (2, 8, 16, 8, 16))
    cotangent = noise("fixture.unet.cotangent", (2, 4, 16, 8, 16))
    times = jnp.asarray(stored["timesteps_a"], jnp.int32)
    trained, frozen = split(params, stage.is_trained)
    assert not any("temporal" in path for path in trained) and set(GRADIENTS.values()) <= set(trained)

    def objective(some):
        model = stage.bound(some | frozen)
        given = conditions(model, jnp.asarray(x[..., 4:]), stored["fs"])
        return jnp.sum(stage.predict(model, jnp.asarray(x[..., :4]), times, given) * cotangent)

    gradients = jax.jit(jax.grad(objective))(trained)
    assert set(gradients) == set(trained)
    for name, path in GRADIENTS.items():
        ours = np.asarray(gradients[path]).T  # the reference's linear layers are (out, in)
        assert deviation(ours, stored[name]) < 3e-4, name
