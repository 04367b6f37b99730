"""Dropout: the mean, the share, the cost, and the same mask on every mesh."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tooncrafter_jax.nn.dropout import LEVELS, SHARERS, dropout, kept_levels
from tooncrafter_jax.typing import Device

STANDARD_ERRORS = 5
"""A right program fails a comparison of a share once in two million keys; the keys are fixed."""


def mask_of(shape: tuple[int, ...], rate: float, seed: int = 0) -> np.ndarray:
    return np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(seed))) > 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_keeps_the_mean_and_the_share(rate: float, dtype: Any) -> None:
    """What is kept is scaled by the share that is really kept, which is within half a 256th of what was asked for."""
    out = np.asarray(dropout(jnp.ones((40, 500, 20), dtype), rate, jax.random.key(0)).astype(jnp.float32))
    kept = kept_levels(rate) / LEVELS
    assert abs(kept - (1 - rate)) <= 1 / (2 * LEVELS)
    scale = float(jnp.asarray(1 / kept, dtype))
    assert set(np.unique(out).tolist()) == {0.0, scale}
    assert abs((out > 0).mean() - kept) < STANDARD_ERRORS * math.sqrt(kept * (1 - kept) / out.size)


def test_a_bfloat16_mean_is_not_shifted_by_a_rounded_scale() -> None:
    """Products with one bfloat16 scale would all be 0.37 % too large; each product is rounded for itself instead."""
    x = jnp.linspace(1, 2, 2**18, dtype=jnp.float32).astype(jnp.bfloat16)
    out = np.asarray(dropout(x, 0.1, jax.random.key(0)).astype(jnp.float32))
    true = np.asarray(x.astype(jnp.float32))
    kept = out > 0
    # The rounding of a product is up to 2^-9 of it, as often up as down: its mean over so many is far below 1e-4.
    assert abs(out[kept].mean() / true[kept].mean() / (LEVELS / kept_levels(0.1)) - 1) < 1e-4


@pytest.mark.parametrize(("rate", "levels"), [(1e-6, LEVELS - 1), (0.5, 128), (0.9999, 1)])
def test_some_are_dropped_and_some_kept_at_every_rate(rate: float, levels: int) -> None:
    assert kept_levels(rate) == levels


def test_elements_that_share_a_number_are_independent() -> None:
    """All pairs of the four bytes agree as often as independent masks do."""
    masks = mask_of((1, 4, 300, 200), 0.5).reshape(SHARERS, -1)
    size = masks.shape[1]
    for one in range(SHARERS):
        for other in range(one):
            assert abs((masks[one] == masks[other]).mean() - 0.5) < STANDARD_ERRORS * math.sqrt(0.25 / size)


def test_differs_by_key_only() -> None:
    first, again, other = (mask_of((40, 50), 0.5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert 0.4 < (first != other).mean() < 0.6


def test_the_identity_without_a_key_or_rate() -> None:
    x = jnp.ones((4, 5))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 4, 5, 3), (2, 3, 5, 10, 6), (1, 2, 4, 3, 3)])
def test_the_gradient_goes_through_what_was_kept_in_a_checkpointed_block_too(shape: tuple[int, ...]) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    key, rate = jax.random.key(3), 0.25

    def block(x: jax.Array) -> jax.Array:
        return dropout(jnp.sin(x), rate, key)

    out = np.asarray(block(x))
    expected = np.where(out != 0, np.cos(np.asarray(x)) * LEVELS / kept_levels(rate), 0)
    for form in (block, jax.checkpoint(block)):
        gradient = jax.grad(lambda x, form=form: jnp.sum(form(x)))(x)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)  # float32 rounding of two products


@pytest.mark.gate
@given(
    shape=st.tuples(st.sampled_from([2, 4, 8]), st.sampled_from([2, 4]), *[st.integers(1, 6)] * 3),
    sizes=st.sampled_from([(8, 1), (1, 8), (4, 2), (2, 2), (1, 1)]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12, deadline=None)  # each compiles
def test_the_mask_is_the_same_on_every_mesh(shape: tuple[int, ...], sizes: tuple[int, int], seed: int) -> None:
    """Clips and frames over devices in any way, those that do not divide left whole."""
    devices = np.asarray(jax.devices("cpu")[: math.prod(sizes)]).reshape(sizes)
    mesh = Mesh(devices, ("data", "frames"), axis_types=(AxisType.Auto,) * 2)
    axes = [name if size % mesh.shape[name] == 0 else None for name, size in zip(mesh.axis_names, shape, strict=False)]
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    key = jax.random.key(seed)
    drop = jax.jit(lambda x, key: dropout(x, 0.3, key), in_shardings=(sharding, None), out_shardings=sharding)
    spread = drop(jnp.ones(shape), key)
    assert spread.sharding.is_equivalent_to(sharding, len(shape))
    np.testing.assert_array_equal(np.asarray(spread), np.asarray(dropout(jnp.ones(shape), 0.3, key)))


def test_devices_draw_their_own_part_without_talking(devices: list[Device]) -> None:
    mesh = Mesh(np.asarray(devices).reshape(4, 2), ("data", "frames"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec("data", "frames"))
    drop = jax.jit(lambda x, key: dropout(x, 0.1, key), in_shardings=(sharding, None), out_shardings=sharding)
    text = drop.lower(jnp.ones((4, 2, 8, 8, 32)), jax.random.key(0)).compile().as_text() or ""
    for collective in ("all-gather", "all-reduce", "collective-permute", "all-to-all"):
        assert collective not in text
    assert "[1,1,2,8,32]" in text, "a device draws numbers for its own clip and frame, one for four elements"


def test_a_number_is_drawn_for_four_elements() -> None:
    """Integer operations of the traced program, for each element, where a draw of threefry is a primitive of its
    own.
    """
    shape = (1, 2, 8, 8, 32)
    traced = jax.make_jaxpr(lambda x, key: dropout(x, 0.1, key))(jnp.ones(shape), jax.random.key(0))
    counts: Counter[str] = Counter()

    def walk(jaxpr: Any) -> None:
        for eqn in jaxpr.eqns:
            inner = [value for value in eqn.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
            for program in inner:
                walk(getattr(program, "jaxpr", program))
            if not inner:
                counts[eqn.primitive.name] += max(math.prod(out.aval.shape) for out in eqn.outvars)

    walk(traced.jaxpr)
    elements = math.prod(shape)
    drawn = counts["threefry2x32"] + counts["random_bits"]
    assert drawn == elements // SHARERS
