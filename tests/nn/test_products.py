"""Weights stored in float32 under a bfloat16 computation: their gradients are float32, exact for what was
multiplied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh

from tooncrafter_jax.nn.layers import Conv, Linear, TemporalConv
from tooncrafter_jax.nn.logical_axes import axis_rules
from tooncrafter_jax.nn.platform import tracing_for, without_cpu_forms
from tooncrafter_jax.typing import Device

pytestmark = pytest.mark.heavy

BF16 = jnp.bfloat16
EXACT = 1e-5
"""Sums of a few hundred float32 products in another order; a bfloat16 result would be off by up to 4e-3."""

LAYERS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "linear": (lambda **kw: Linear(6, 10, **kw), (2, 5, 7, 6)),
    "linear-without-bias": (lambda **kw: Linear(6, 10, use_bias=False, **kw), (4, 5, 6)),
    "conv": (lambda **kw: Conv(4, 6, **kw), (2, 4, 6, 5, 4)),
    "conv-wide": (lambda **kw: Conv(32, 8, **kw), (1, 2, 4, 5, 32)),
    "conv-stride": (lambda **kw: Conv(4, 6, stride=2, **kw), (2, 7, 6, 4)),
    "conv-1x1": (lambda **kw: Conv(4, 6, 1, **kw), (3, 5, 4, 4)),
    "conv-one-sided": (lambda **kw: Conv(4, 6, stride=2, padding=((0, 1), (0, 1)), **kw), (2, 2, 8, 6, 4)),
    "conv-patches": (lambda **kw: Conv(3, 6, 4, stride=4, padding=0, use_bias=False, **kw), (2, 12, 8, 3)),
    "temporal": (lambda **kw: TemporalConv(4, 6, **kw), (2, 5, 3, 4, 4)),
}


def gradients(make: Callable[..., Any], x: Any, direction: Any, dtype: Any, stored: Any = jnp.float32) -> Any:
    """The output, and the gradients of <direction, output> by x and by the parameters, kept in `stored`; jitted."""
    graph, state = nnx.split(make(rngs=nnx.Rngs(0), dtype=dtype))
    state = jax.tree.map(lambda value: value.astype(stored), state)

    def output(x: Any, state: Any) -> Any:
        y = nnx.merge(graph, state)(x)
        assert y.dtype == dtype
        return jnp.sum(y.astype(jnp.float32) * direction), y

    (_, y), found = jax.jit(jax.value_and_grad(output, (0, 1), has_aux=True))(x, state)
    return y, found[0], jax.tree.leaves(found[1])


def case(name: str) -> tuple[Callable[..., Any], np.ndarray, np.ndarray]:
    """A layer, an input and the gradient of its output, both exact in bfloat16."""
    make, shape = LAYERS[name]
    rng = np.random.default_rng(0)

    def draw(size: tuple[int, ...]) -> np.ndarray:
        return np.asarray(jnp.asarray(rng.normal(size=size), BF16).astype(jnp.float32))

    x = draw(shape)
    out = jax.eval_shape(make(rngs=nnx.Rngs(0)), jnp.zeros(shape)).shape
    return make, x, draw(out)


@functools.cache
def true_gradients(name: str) -> list[Any]:
    """Of the parameters of a layer, in float32."""
    make, x, direction = case(name)
    with without_cpu_forms():
        return gradients(make, x, direction, jnp.float32)[2]


def deviation(ours: Any, true: Any) -> float:
    ours, true = (np.asarray(value, np.float64) for value in (ours, true))
    assert ours.shape == true.shape
    return float(np.abs(ours - true).max() / np.abs(true).max())


@pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_exact_for_the_operands(name: str, platform: Any) -> None:
    """The kernel's and bias' gradients depend on x and the output's gradient alone: float32 finds the same from the
    same.
    """
    make, x, direction = case(name)
    true = true_gradients(name)
    with tracing_for(platform):
        _, of_x, found = gradients(make, x.astype(BF16), direction, BF16)
    assert of_x.dtype == BF16
    for ours, exact in zip(found, true, strict=True):
        assert ours.dtype == jnp.float32
        # On one GPU a kernel's gradient is what cuDNN gives, rounded to bfloat16.
        rounded = platform == "gpu" and ours.ndim > 2
        assert deviation(ours, exact) < (4e-3 if rounded else EXACT)


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_of_inputs_are_those_of_a_weight_that_was_cast_first(name: str) -> None:
    make, x, direction = case(name)
    y, of_x, _ = gradients(make, x.astype(BF16), direction, BF16)
    plain, plain_of_x, found = gradients(make, x.astype(BF16), direction, BF16, stored=BF16)
    assert {leaf.dtype for leaf in found} == {jnp.dtype(BF16)}, "what is stored in bfloat16 has such gradients"
    np.testing.assert_array_equal(y, plain)
    # The same products, summed in another order before they are rounded to bfloat16.
    assert deviation(of_x.astype(jnp.float32), plain_of_x.astype(jnp.float32)) < 1e-2


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["linear", "conv", "conv-stride", "temporal"])
def test_devices_sum_float32(devices: list[Device], name: str, platform: Any) -> None:
    """Each of two devices has a clip. XLA's CPU sums bfloat16 in float32 too, but says that it was asked for less
    ("promoted").
    """
    make, x, direction = case(name)
    true = true_gradients(name)
    mesh = Mesh(np.asarray(devices[:2]), ("data",), axis_types=(AxisType.Auto,))
    layer = make(rngs=nnx.Rngs(0), dtype=BF16)
    graph, state = nnx.split(layer)
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def of_state(state: Any, x: Any, direction: Any) -> Any:
        def output(state: Any) -> Any:
            return jnp.sum(nnx.merge(graph, state)(x).astype(jnp.float32) * direction)

        with axis_rules(mesh, {"batch": "data"}), tracing_for(platform):
            return jax.grad(output)(state)

    run = jax.jit(of_state, in_shardings=(whole, place, place), out_shardings=whole)
    compiled = run.lower(state, x.astype(BF16), direction).compile()
    text = compiled.as_text() or ""
    sums = [line for line in text.splitlines() if " all-reduce(" in line]
    assert sums and not any("promoted" in line or "bf16" in line for line in sums)
    found = jax.tree.leaves(compiled(state, x.astype(BF16), direction))
    for ours, exact in zip(found, true, strict=True):
        rounded = platform == "gpu" and ours.ndim > 2
        assert deviation(ours, exact) < (4e-3 if rounded else EXACT)
