"""The CPU's 3x3 convolution with fewer products equals the plain one, and is taken where it is worth it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tooncrafter_jax.nn import cpu_convolution
from tooncrafter_jax.nn.cpu_convolution import same_3x3, suits
from tooncrafter_jax.nn.layers import Conv
from tooncrafter_jax.nn.platform import tracing_for, without_cpu_forms


def drawn(count: int, height: int, width: int, channels: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and a kernel whose results have unit size."""
    random = np.random.default_rng(height * width)
    x = random.standard_normal((count, height, width, channels), np.float32)
    kernel = random.standard_normal((3, 3, channels, features), np.float32) / np.sqrt(9 * channels)
    return x, kernel.astype(np.float32)


def exact(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The sum in float64."""
    height, width = x.shape[1:3]
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        (padded[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64) for i, j in np.ndindex(3, 3)),
        np.zeros(()),
    )


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    ("count", "height", "width"),
    [
        pytest.param(3, 12, 4, id="bands_of_a_picture"),
        pytest.param(6, 2, 4, id="several_pictures_at_a_time"),
        pytest.param(1, 2, 2, id="one_tile"),
        pytest.param(5, 2, 6, id="a_count_that_blocks_do_not_divide"),
    ],
)
def test_equals_the_sum(monkeypatch: pytest.MonkeyPatch, count: int, height: int, width: int) -> None:
    monkeypatch.setattr(cpu_convolution, "BLOCK_TILES", 6)
    x, kernel = drawn(count, height, width, 5, 7)
    np.testing.assert_allclose(same_3x3(jnp.asarray(x), jnp.asarray(kernel)), exact(x, kernel), atol=3e-6)


def test_errs_less_than_twice_as_much_as_the_plain_form() -> None:
    x, kernel = drawn(2, 8, 8, 256, 256)
    sums = exact(x, kernel)
    ours, theirs = (
        np.sqrt(np.mean(np.square(np.asarray(form(jnp.asarray(x), jnp.asarray(kernel))) - sums)))
        for form in (same_3x3, plain)
    )
    assert theirs > 0
    assert ours < 2 * theirs


def test_gradients_are_those_of_the_plain_form() -> None:
    x, kernel = (jnp.asarray(part) for part in drawn(2, 4, 6, 5, 7))
    direction = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 6, 7), np.float32))

    def gradients(form: Any) -> tuple[jax.Array, jax.Array]:
        return jax.grad(lambda x, kernel: jnp.sum(direction * form(x, kernel)), (0, 1))(x, kernel)

    for ours, theirs in zip(gradients(same_3x3), gradients(plain), strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "features", "expected"),
    [
        ((16, 40, 64, 320), 320, True),  # the denoiser's first level
        ((16, 10, 16, 2560), 1280, True),
        ((4, 320, 512, 128), 128, False),  # the decoder's last level: few channels
        ((16, 40, 64, 320), 4, False),  # the denoiser's last convolution
        ((16, 5, 8, 1280), 1280, False),  # odd, and few pixels
        ((1, 10, 16, 1280), 1280, False),
    ],
)
def test_where_it_is_taken(shape: tuple[int, ...], features: int, expected: bool) -> None:
    x, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, (3, 3, shape[-1], features)))

    def taken() -> bool:
        found: list[bool] = []
        jax.eval_shape(lambda x, kernel: found.append(suits(x, kernel)), x, kernel)
        return found[0]

    assert taken() == expected
    with tracing_for("gpu"):
        assert not taken()


def test_a_layer_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_convolution, "MIN_CHANNELS", 8)
    monkeypatch.setattr(cpu_convolution, "MIN_TILES", 8)
    conv = Conv(8, 9, rngs=nnx.Rngs(0))
    x = jnp.asarray(drawn(2, 4, 6, 8, 9)[0])[None]
    called: list[int] = []
    monkeypatch.setattr(cpu_convolution, "same_3x3", lambda *args: (called.append(1), same_3x3(*args))[1])
    ours = conv(x)
    assert called
    with without_cpu_forms():
        np.testing.assert_allclose(ours, conv(x), atol=3e-6)
    assert len(called) == 1
