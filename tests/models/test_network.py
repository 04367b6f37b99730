"""A network is a pure function of flat parameters."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tooncrafter_jax.models.autoencoder import Autoencoder, AutoencoderConfig
from tooncrafter_jax.models.configuration import COMPONENTS, tiny, tooncrafter_512
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.nn.attention import Attends

CONFIG = AutoencoderConfig(width=32, multipliers=(1,), blocks_per_level=1)


@pytest.fixture(scope="module")
def network() -> AnyNetwork:
    return Network(Autoencoder, CONFIG)


@pytest.fixture(scope="module")
def params(network: AnyNetwork) -> dict[str, jax.Array]:
    return {path: jnp.asarray(value) for path, value in network.drawn(0)}


def test_initial_parameters_are_those_announced(network: AnyNetwork, params: dict[str, jax.Array]) -> None:
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in params.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in network.abstract_params.items()
    }
    assert network.parameter_count == sum(leaf.size for leaf in params.values())
    assert params["encoder.conv_in.kernel"].shape == (3, 3, 3, 32)


def test_initialisation_follows_its_seed_and_never_repeats(network: AnyNetwork, params: dict[str, jax.Array]) -> None:
    again = dict(network.drawn(0))
    assert all((again[path] == value).all() for path, value in params.items())
    other = dict(network.drawn(1))
    kernels = [path for path in params if path.endswith("kernel")]
    assert all((other[path] != params[path]).any() for path in kernels)
    same_shape = [np.asarray(params[path]) for path in kernels if params[path].shape == (32, 32)]
    assert len(same_shape) >= 4  # the attention's projections
    assert not any((a == b).all() for i, a in enumerate(same_shape) for b in same_shape[:i])


def test_parameters_reach_the_module(network: AnyNetwork, params: dict[str, jax.Array]) -> None:
    """Zeroing the last layer but its bias makes every moment that bias."""
    zeroed = {**params, "moments.kernel": params["moments.kernel"] * 0, "moments.bias": jnp.arange(8.0)}
    run = jax.jit(lambda params, x: network.bind(params)(x)[0])
    out = run(zeroed, jnp.ones((1, 1, 4, 4, 3)))
    np.testing.assert_array_equal(out, np.broadcast_to(np.arange(8.0), (1, 1, 4, 4, 8)))
    assert np.asarray(run(params, jnp.ones((1, 1, 4, 4, 3)))).std() > 1e-3


def test_one_module_s_parameters_do_not_leak_into_the_next(network: AnyNetwork, params: dict[str, jax.Array]) -> None:
    first = network.bind(params)
    network.bind({path: value * 0 for path, value in params.items()})
    np.testing.assert_array_equal(first.encoder.conv_in.kernel[...], params["encoder.conv_in.kernel"])


def test_a_missing_parameter_is_an_error(network: AnyNetwork, params: dict[str, jax.Array]) -> None:
    with pytest.raises(KeyError, match="moments.bias"):
        network.bind({path: value for path, value in params.items() if path != "moments.bias"})


def test_dtypes() -> None:
    network = Network(Autoencoder, CONFIG, dtype=jnp.bfloat16, param_dtype=jnp.float32)
    assert {leaf.dtype for leaf in network.abstract_params.values()} == {jnp.dtype(jnp.float32)}
    out, hidden = jax.eval_shape(
        lambda params, x: network.bind(params)(x),
        network.abstract_params,
        jax.ShapeDtypeStruct((1, 1, 4, 4, 3), jnp.float32),
    )
    assert {out.dtype, *(h.dtype for h in hidden)} == {jnp.dtype(jnp.bfloat16)}
    half = Network(Autoencoder, CONFIG, param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in half.abstract_params.values()} == {jnp.dtype(jnp.bfloat16)}


def test_the_published_denoiser_is_described_in_seconds() -> None:
    """With `nnx.Rngs` this takes half a minute of processor time; the limit leaves room for type checks and old
    machines.
    """
    network = tooncrafter_512().networks()["unet"]
    start = time.process_time()
    assert network.parameter_count == 1_438_854_980  # spec section 1
    assert time.process_time() - start < 15


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name != "motion"])  # which has no attention
def test_every_attention_layer_prefers_the_back_end_that_its_network_was_told(component: str) -> None:
    for backend in ("auto", "chunked"):
        network = tiny().networks(attention=backend)[component]
        bound = network.bind(network.abstract_params)
        layers = [layer for _, layer in nnx.iter_modules(bound) if isinstance(layer, Attends)]
        assert layers
        assert {layer.attention_backend for layer in layers} == {backend}
