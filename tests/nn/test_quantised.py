"""Kernels in 8 bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tooncrafter_jax.models.network import Network
from tooncrafter_jax.nn.layers import Conv, Linear, TemporalConv
from tooncrafter_jax.nn.quantised import QuantisedKernel, quantised

DRAWN = np.random.default_rng(0).standard_normal((3, 3, 40, 16)).astype(np.float32)


def test_integers_are_the_nearest_of_their_channel() -> None:
    kernel = DRAWN * np.logspace(-6, 3, 16, dtype=np.float32)  # channels of very different sizes
    values, scale = quantised(kernel, "int8")
    assert values.dtype == np.int8 and values.shape == kernel.shape
    assert scale.dtype == np.float32 and scale.shape == (16,)
    np.testing.assert_array_equal(np.abs(values.astype(int)).max((0, 1, 2)), 127)
    assert (np.abs(values.astype(np.float32) * scale - kernel) <= 0.5001 * scale).all()


def test_eight_bit_floats_keep_three_bits_behind_the_first() -> None:
    values, scale = quantised(DRAWN, "float8_e4m3fn")
    assert values.dtype == jnp.float8_e4m3fn
    wide = np.asarray(values, np.float32)
    assert np.isfinite(wide).all()
    np.testing.assert_array_equal(np.abs(wide).max((0, 1, 2)), 448)  # the largest number of the type
    smallest = 2.0**-6  # of those with all of their bits
    error = np.abs(wide * scale - DRAWN)
    assert (error <= 2.0**-4 * np.maximum(np.abs(DRAWN), smallest * scale) * 1.001).all()


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_channels_without_weights_and_kernels_in_bfloat16(dtype: str) -> None:
    kernel = DRAWN.astype(jnp.bfloat16)
    kernel[..., 3] = 0
    held = quantised(kernel, dtype)
    assert held.shape == kernel.shape
    back = held.dequantised(jnp.bfloat16)
    assert back.dtype == jnp.bfloat16
    assert not np.asarray(back)[..., 3].any() and np.isfinite(np.asarray(back, np.float32)).all()
    np.testing.assert_array_equal(back, (np.asarray(held.values, np.float32) * held.scale).astype(jnp.bfloat16))


class Layers(nnx.Module):
    """Each kind of layer with a kernel."""

    def __init__(self, config: None, **kw: Any) -> None:
        self.linear = Linear(24, 24, **kw)
        self.conv = Conv(24, 24, **kw)
        self.over_time = TemporalConv(24, 24, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.over_time(self.conv(self.linear(x)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_compute_with_what_is_dequantised(dtype: str) -> None:
    network = Network(Layers, None, dtype=dtype)
    held = {path: quantised(value, "int8") if path.endswith(".kernel") else value for path, value in network.drawn(0)}
    assert sum(isinstance(value, QuantisedKernel) for value in held.values()) == 3
    plain = {
        path: value.dequantised(dtype) if isinstance(value, QuantisedKernel) else value for path, value in held.items()
    }
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8, 24)).astype(np.float32)
    run = jax.jit(lambda params, x: network.bind(params)(x))
    got, expected = run(held, x), run(plain, x)
    assert got.dtype == expected.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(got.astype(jnp.float32), expected.astype(jnp.float32), rtol=1e-5, atol=1e-6)
    assert np.asarray(expected, np.float32).std() > 0.01
