"""Layers against explicit sums in float64."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tooncrafter_jax.nn.layers import (
    Conv,
    GroupNorm,
    LayerNorm,
    Linear,
    TemporalConv,
    gelu,
    silu,
    upsample_nearest,
)
from tooncrafter_jax.nn.platform import without_cpu_forms


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def bf16(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, as float64."""
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


def group_norm(x: np.ndarray, epsilon: float, axes: tuple[int, ...]) -> np.ndarray:
    """Normalisation in float64 over `axes` and the channels of each of 32 groups, without scale and bias."""
    grouped = x.astype(np.float64).reshape(*x.shape[:-1], 32, -1)
    over = (*axes, grouped.ndim - 1)
    mean, variance = grouped.mean(over, keepdims=True), grouped.var(over, keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)


def conv_2d(x: np.ndarray, kernel: np.ndarray, stride: int, padding: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(N H W C) by (kh kw C O) in float64, position by position."""
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    size = kernel.shape[0]
    rows, columns = (n // stride for n in (x.shape[1] - size + stride, x.shape[2] - size + stride))
    out = np.zeros((x.shape[0], rows, columns, kernel.shape[-1]))
    for i, j in np.ndindex(rows, columns):
        patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, i, j] = np.tensordot(patch, kernel.astype(np.float64), 3)
    return out


def bias_of(layer: Any) -> np.ndarray:
    return np.asarray(layer.bias[...])


class TestGroupNorm:
    @pytest.mark.parametrize("batch_axes", [1, 2], ids=["whole_clip", "frame_by_frame"])
    def test_accurate_far_from_zero(self, batch_axes: int) -> None:
        """Mean 3 and std 0.1: E[x²] - E[x]² in float32 would err by 3e-3; the two-pass variance by the inputs'
        rounding.
        """
        x = 3 + 0.1 * normal(2, 3, 4, 5, 64)
        norm = GroupNorm(64, epsilon=1e-6, rngs=nnx.Rngs(0))
        expected = group_norm(x, 1e-6, (1, 2, 3) if batch_axes == 1 else (2, 3))
        np.testing.assert_allclose(norm(jnp.asarray(x), batch_axes=batch_axes), expected, atol=2e-5)

    def test_frames_share_statistics_only_where_asked(self) -> None:
        x = normal(1, 2, 4, 4, 64) * np.asarray([1.0, 5.0], np.float32)[None, :, None, None, None]
        norm = GroupNorm(64, epsilon=1e-5, rngs=nnx.Rngs(0))
        joint, single = (np.asarray(norm(jnp.asarray(x), batch_axes=axes)) for axes in (1, 2))
        np.testing.assert_allclose(single.std((0, 2, 3, 4)), 1.0, atol=1e-3)
        assert joint[:, 0].std() < 0.5 < 1.2 < joint[:, 1].std()

    def test_scale_bias_and_epsilon(self) -> None:
        x = 1e-2 * normal(1, 1, 4, 4, 64)  # a variance of 1e-4, of which an epsilon of 1e-5 is a tenth
        norm = GroupNorm(64, epsilon=1e-5, rngs=nnx.Rngs(0))
        scale, bias = normal(64, seed=1), normal(64, seed=2)
        norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
        expected = group_norm(x, 1e-5, (1, 2, 3)) * scale + bias
        np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-5)

    def test_parts_normalised_with_the_statistics_of_the_whole(self) -> None:
        x = jnp.asarray(normal(1, 6, 4, 4, 64))
        norm = GroupNorm(64, epsilon=1e-5, rngs=nnx.Rngs(0))
        statistics = norm.statistics(x)
        parts = jnp.concatenate([norm.apply(x[:, i : i + 2], *statistics) for i in range(0, 6, 2)], axis=1)
        # Values of up to 5, each rounded once more or less where a release of JAX fuses otherwise.
        np.testing.assert_allclose(parts, norm(x), rtol=0, atol=1e-6)

    def test_bfloat16_has_statistics_in_float32(self) -> None:
        x = 3 + 0.1 * normal(1, 16, 8, 8, 64)
        norm = GroupNorm(64, epsilon=1e-6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        out = norm(jnp.asarray(x, jnp.bfloat16))
        assert out.dtype == jnp.bfloat16
        # One rounding to bfloat16. A mean in bfloat16 would be off by 0.01, which is 0.1 after the normalisation.
        expected = group_norm(bf16(x), 1e-6, (1, 2, 3))
        np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=2**-8, atol=2e-5)

    def test_channels_that_are_no_groups_are_refused(self) -> None:
        with pytest.raises(ValueError, match="multiple of 32 channels, not 48"):
            GroupNorm(48, epsilon=1e-5, rngs=nnx.Rngs(0))


def test_layer_norm_is_accurate_far_from_zero() -> None:
    x = 3 + 0.1 * normal(4, 96)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(LayerNorm(96, rngs=nnx.Rngs(0))(jnp.asarray(x)), expected, atol=2e-5)


class TestConv:
    @pytest.mark.parametrize(
        ("size", "stride", "padding", "expected"),
        [
            (3, 1, None, ((1, 1), (1, 1))),
            (1, 1, None, ((0, 0), (0, 0))),
            (3, 2, None, ((1, 1), (1, 1))),  # the denoiser's downsampling
            (3, 2, ((0, 1), (0, 1)), ((0, 1), (0, 1))),  # the encoder's
        ],
    )
    def test_equals_the_sum(self, size: int, stride: int, padding: Any, expected: Any) -> None:
        conv = Conv(5, 7, size, stride=stride, padding=padding, rngs=nnx.Rngs(0))
        assert conv.bias is not None
        conv.bias[...] = jnp.asarray(normal(7))
        x = normal(2, 6, 8, 5)
        sums = conv_2d(x, np.asarray(conv.kernel[...]), stride, expected) + bias_of(conv)
        np.testing.assert_allclose(conv(jnp.asarray(x)), sums, atol=2e-6)  # 45 products of about 0.1

    def test_frames_are_independent_pictures(self) -> None:
        conv = Conv(4, 4, rngs=nnx.Rngs(0))
        x = jnp.asarray(normal(2, 3, 4, 4, 4))
        np.testing.assert_allclose(conv(x)[1, 2], conv(x[1, 2][None])[0], atol=1e-6)

    def test_bfloat16_form_of_the_cpu_equals_the_plain_one(self) -> None:
        """Both round their sum once to bfloat16; the CPU form must not be worse than that."""
        conv = Conv(32, 16, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        assert conv.bias is not None
        conv.bias[...] = jnp.zeros(16)
        x = normal(2, 3, 6, 5, 32)
        exact = conv_2d(bf16(x).reshape(6, 6, 5, 32), bf16(np.asarray(conv.kernel[...])), 1, ((1, 1), (1, 1)))
        fast = conv(jnp.asarray(x, jnp.bfloat16))
        with without_cpu_forms():
            plain = conv(jnp.asarray(x, jnp.bfloat16))
        assert "scan" in str(jax.make_jaxpr(lambda y: conv(y))(x)), "the CPU form, a loop over pictures, was not taken"
        for form in (fast, plain):
            assert form.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(fast, np.float64).reshape(exact.shape), exact, rtol=2**-8, atol=2**-12)
        np.testing.assert_allclose(np.asarray(fast, np.float64), np.asarray(plain, np.float64), atol=2**-6)


class TestTemporalConv:
    def test_equals_the_sum(self) -> None:
        conv = TemporalConv(4, 6, rngs=nnx.Rngs(0))
        x = normal(2, 5, 2, 3, 4)
        kernel, bias = np.asarray(conv.kernel[...], np.float64), bias_of(conv).astype(np.float64)
        assert kernel.shape == (3, 1, 1, 4, 6)
        expected = np.zeros((2, 5, 2, 3, 6)) + bias
        for t in range(5):
            for tap in range(3):
                if 0 <= t + tap - 1 < 5:
                    expected[:, t] += x[:, t + tap - 1] @ kernel[tap, 0, 0]
        np.testing.assert_allclose(conv(jnp.asarray(x)), expected, atol=1e-6)

    def test_zero_init(self) -> None:
        conv = TemporalConv(4, 6, zero_init=True, rngs=nnx.Rngs(0))
        assert not conv.kernel[...].any() and not bias_of(conv).any()


class TestLinear:
    def test_equals_the_sum(self) -> None:
        layer = Linear(5, 7, rngs=nnx.Rngs(0))
        x = normal(2, 3, 5)
        expected = x @ np.asarray(layer.kernel[...], np.float64) + bias_of(layer)
        np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-6)

    def test_bfloat16_form_of_the_cpu_equals_the_plain_one(self) -> None:
        layer = Linear(300, 40, use_bias=False, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        x = normal(6, 300)
        exact = bf16(x) @ bf16(np.asarray(layer.kernel[...]))
        fast = layer(jnp.asarray(x, jnp.bfloat16))
        with without_cpu_forms():
            plain = layer(jnp.asarray(x, jnp.bfloat16))
        assert fast.dtype == plain.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(fast, np.float64), exact, rtol=2**-8, atol=2**-12)
        np.testing.assert_allclose(np.asarray(fast, np.float64), np.asarray(plain, np.float64), atol=2**-6)

    def test_initialised_uniformly_by_its_inputs(self) -> None:
        """Plus or minus 1/sqrt(fan_in) for kernel and bias, as published; its standard deviation is that over
        sqrt(3).
        """
        layer = Linear(400, 500, rngs=nnx.Rngs(0))
        kernel, bias = np.asarray(layer.kernel[...]), bias_of(layer)
        assert 0.0499 < np.abs(kernel).max() <= 0.05
        assert abs(kernel.std() - 0.05 / math.sqrt(3)) < 3e-4  # five standard errors of 200,000 draws
        assert 0.045 < np.abs(bias).max() <= 0.05
        conv = Conv(16, 32, rngs=nnx.Rngs(0))
        assert 0.08 < np.abs(np.asarray(conv.kernel[...])).max() <= (16 * 9) ** -0.5

    def test_zero_init(self) -> None:
        layer = Linear(5, 7, zero_init=True, rngs=nnx.Rngs(0))
        assert not layer.kernel[...].any() and not bias_of(layer).any()


def test_gelu_is_the_exact_one() -> None:
    x = np.linspace(-4, 4, 33)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), expected, atol=1e-6)  # the tanh form errs by 5e-4


def test_silu() -> None:
    x = np.linspace(-4, 4, 33)
    np.testing.assert_allclose(silu(jnp.asarray(x, jnp.float32)), x / (1 + np.exp(-x)), atol=1e-6)


def test_upsampling_repeats_pixels() -> None:
    x = normal(2, 3, 2, 3, 4)
    np.testing.assert_array_equal(upsample_nearest(jnp.asarray(x)), x.repeat(2, axis=2).repeat(2, axis=3))


def test_the_number_of_groups() -> None:
    """With a channel a group, the mean of every channel is lost; within one group, channels keep their differences."""
    x = jnp.arange(8.0) * jnp.ones((1, 3, 3, 8))

    def normalised(groups: int) -> jax.Array:
        return GroupNorm(8, groups, epsilon=1e-6, rngs=nnx.Rngs(0))(x)

    np.testing.assert_allclose(normalised(8), 0, atol=1e-5)
    expected = (np.arange(8) - 3.5) / np.std(np.arange(8))
    np.testing.assert_allclose(normalised(1)[0, 0, 0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="multiple of 3 channels, not 8"):
        normalised(3)


def _layers() -> dict[str, tuple[nnx.Module, tuple[int, ...]]]:
    rngs = nnx.Rngs(0)
    return {
        "linear": (Linear(6, 5, rngs=rngs), (2, 3, 4, 6)),
        "linear without bias": (Linear(6, 5, use_bias=False, rngs=rngs), (2, 3, 4, 6)),
        "conv": (Conv(6, 5, rngs=rngs), (2, 3, 4, 5, 6)),
        "conv with stride": (Conv(6, 5, stride=2, padding=((0, 1), (0, 1)), rngs=rngs), (2, 3, 4, 6, 6)),
        "temporal conv": (TemporalConv(6, 5, rngs=rngs), (2, 4, 3, 2, 6)),
        "layer norm": (LayerNorm(6, rngs=rngs), (2, 3, 4, 6)),
        "group norm": (GroupNorm(64, epsilon=1e-5, rngs=rngs), (2, 3, 4, 5, 64)),
    }


@pytest.mark.parametrize("name", list(_layers()))
@pytest.mark.gate
def test_gradients_of_the_cpu_are_those_of_differentiation(name: str) -> None:
    """Values and gradients by every input of a layer whose backward pass the CPU has its own form of."""
    layer, shape = _layers()[name]
    graph, state = nnx.split(layer)
    draw = np.random.default_rng(1)
    state = jax.tree.map(lambda leaf: leaf + 0.3 * draw.normal(size=leaf.shape).astype(np.float32), state)
    x, seen = jnp.asarray(normal(*shape) + 2.0), jnp.asarray(normal(*shape[:-1], 1, seed=2))

    def loss(state: nnx.State, x: jax.Array) -> jax.Array:
        y = nnx.merge(graph, state)(x)
        return jnp.sum(jnp.square(y) * (seen if y.shape[:-1] == seen.shape[:-1] else 1.0))

    assert "custom_vjp" in str(jax.make_jaxpr(loss)(state, x)), "the CPU's form was not taken"
    form = jax.value_and_grad(loss, (0, 1))(state, x)
    with without_cpu_forms():
        plain = jax.value_and_grad(loss, (0, 1))(state, x)
    for ours, theirs in zip(jax.tree.leaves(form), jax.tree.leaves(plain), strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5 * float(np.abs(theirs).max()))
