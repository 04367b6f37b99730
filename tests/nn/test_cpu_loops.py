"""The CPU's loops over blocks: their results, and the memory of many in a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.nn import layers
from tooncrafter_jax.nn.cpu_attention import in_blocks
from tooncrafter_jax.nn.cpu_convolution import same_3x3
from tooncrafter_jax.nn.cpu_loops import largest_divisor, one_by_one


def test_results_are_stacked_whatever_they_begin_as() -> None:
    x = jnp.asarray([[jnp.nan, 2.0], [3.0, 4.0]])
    found = jax.jit(lambda x: one_by_one(lambda i: x[1] * i, 3, x))(x)
    np.testing.assert_array_equal(found, [[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    assert found.dtype == x.dtype


@pytest.mark.parametrize(("number", "most", "expected"), [(12, 5, 4), (7, 6, 1), (6, 6, 6), (4, 0, 1)])
def test_largest_divisor(number: int, most: int, expected: int) -> None:
    assert largest_divisor(number, most) == expected


def attention(x: jax.Array, layer: int) -> jax.Array:
    return in_blocks(x, x * (layer + 1.0), x, causal=False)


def convolution(x: jax.Array, layer: int) -> jax.Array:
    return same_3x3(x, jnp.full((3, 3, x.shape[-1], x.shape[-1]), 0.1 * (layer + 1)))


def row_products(x: jax.Array, layer: int) -> jax.Array:
    kernel = jnp.full((3, 3, x.shape[-1], x.shape[-1]), 0.1 * (layer + 1), x.dtype)
    return layers._conv_3x3_as_row_products(x, kernel)  # noqa: SLF001


@pytest.mark.parametrize(
    ("of_layer", "shape", "dtype"),
    [
        pytest.param(attention, (4, 1280, 2, 32), jnp.float32, id="attention"),
        pytest.param(convolution, (8, 32, 32, 32), jnp.float32, id="convolution"),
        pytest.param(row_products, (8, 32, 32, 32), jnp.bfloat16, id="row_products"),
    ],
)
def test_many_layers_take_no_more_memory_than_few(
    of_layer: Callable[[jax.Array, int], jax.Array], shape: tuple[int, ...], dtype: Any
) -> None:
    """The results of all layers would be held at once if the scheduler could make them before their time."""

    def temporary(depth: int) -> int:
        def run(x: jax.Array) -> jax.Array:
            for layer in range(depth):
                x = of_layer(x, layer)
            return x

        compiled = jax.jit(run).lower(jax.ShapeDtypeStruct(shape, dtype)).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    few, many = temporary(4), temporary(8)
    assert few > 0
    assert many - few < np.prod(shape) * jnp.dtype(dtype).itemsize / 2
