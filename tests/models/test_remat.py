"""Where blocks are checkpointed, the backward pass keeps nothing that lies inside them."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from tests.training.small import NARROW_CHANGES
from tooncrafter_jax.models.configuration import ModelConfig, tiny
from tooncrafter_jax.nn.remat import remat_policy
from tooncrafter_jax.training.start import changed

MODEL: ModelConfig = changed(tiny(), NARROW_CHANGES | {"decoder": NARROW_CHANGES["decoder"] | {"temporal": True}})


def shape(*sides):
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def outside_of_blocks(function, *args):
    """How often each operation stands outside of what is checkpointed."""
    found = collections.Counter()

    def look(jaxpr):
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name == "checkpoint" or name.startswith("remat"):  # its name changes with releases of JAX
                found["checkpoint"] += 1
                continue
            found[name] += 1
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    look(inner)

    with remat_policy("blocks"):
        look(jax.make_jaxpr(function)(*args).jaxpr)
    return found


def test_every_transformer_of_the_denoiser_is_in_a_block():
    network = MODEL.networks()["unet"]
    tokens = shape(1, 77 + 16 * 4, MODEL.unet.context_dim)

    def predict(params, x, times, context):
        unet = network.bind(params)
        return unet(x, times, unet.context_keys(context, 4))

    latents = shape(1, 4, 4, 4, MODEL.unet.in_channels)
    times = jax.ShapeDtypeStruct((1,), jnp.int32)
    found = outside_of_blocks(predict, network.abstract_params, latents, times, tokens)
    assert found["checkpoint"] > 1
    assert not found["erf"] and not found["erfc"], "feed-forwards, of the stem's transformer too"


def test_the_decoders_attention_head_and_upsampling_are_in_blocks():
    network = MODEL.networks()["decoder"]

    def decode(params, latents):
        return network.bind(params)(latents)

    found = outside_of_blocks(decode, network.abstract_params, shape(1, 4, 8, 8, 4))
    assert found["checkpoint"] > 1 and not found["logistic"] and not found["rsqrt"]
    assert found["conv_general_dilated"] == 1, "the first convolution, whose input is small"


def test_gradients_through_blocks_have_the_parameters_names():
    network = MODEL.networks()["decoder"]
    with remat_policy("blocks"):
        gradients = jax.eval_shape(
            jax.grad(lambda params, latents: jnp.sum(network.bind(params)(latents))),
            network.abstract_params,
            shape(1, 4, 8, 8, 4),
        )
    assert {path: leaf.shape for path, leaf in gradients.items()} == {
        path: leaf.shape for path, leaf in network.abstract_params.items()
    }
    assert all(np.dtype(leaf.dtype) == np.float32 for leaf in gradients.values())
