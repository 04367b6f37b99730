"""Logical axis names mean nothing without rules, and mesh axes with them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from tooncrafter_jax.nn.logical_axes import axis_rules, constrain, dividing_axes, shard_shape, sharding_of
from tooncrafter_jax.typing import Device

RULES = {"batch": "data", "frames": ("frames_0", "frames_1")}


@pytest.fixture(scope="module")
def mesh(devices: list[Device]) -> Mesh:
    names = ("data", "frames_0", "frames_1")
    return Mesh(np.asarray(devices).reshape(2, 2, 2), names, axis_types=(AxisType.Auto,) * 3)


def constrained(mesh: Mesh, shape: tuple[int, ...], *names: str | None) -> Any:
    """The sharding of an array of `shape` after `constrain`, as positions of one shard."""

    def run(x: jax.Array) -> jax.Array:
        with axis_rules(mesh, RULES):
            return constrain(x, *names)

    return jax.jit(run)(jnp.zeros(shape)).sharding.shard_shape(shape)


def test_the_identity_without_rules() -> None:
    x = jnp.ones((2, 3))
    assert constrain(x, "batch", "frames") is x
    assert sharding_of((8, 3), "batch", None) is None


def test_rules_end_with_their_context(mesh: Mesh) -> None:
    x = jnp.ones((2, 3))
    with pytest.raises(RuntimeError), axis_rules(mesh, RULES):
        raise RuntimeError
    assert constrain(x, "batch", "frames") is x


def test_one_name_for_each_axis_is_required() -> None:
    with pytest.raises(ValueError, match="3 axis names were given for an array with 2 axes"):
        constrain(jnp.ones((2, 3)), "batch", None, None)


def test_axes_are_laid_out_by_the_rules(mesh: Mesh) -> None:
    assert constrained(mesh, (4, 16, 3), "batch", "frames", None) == (2, 4, 3)
    assert constrained(mesh, (4, 16, 3), None, None, "unknown") == (4, 16, 3)


def test_an_axis_is_shared_by_as_many_mesh_axes_as_divide_it(mesh: Mesh) -> None:
    assert constrained(mesh, (2, 14), "batch", "frames") == (1, 7)  # 14 frames: two devices, not four
    assert constrained(mesh, (3, 16), "batch", "frames") == (3, 4)  # three clips: not over two devices
    assert dividing_axes(mesh, ("frames_0", "frames_1"), 14) == ("frames_0",)
    assert dividing_axes(mesh, ("frames_0", "frames_1"), 15) is None
    assert dividing_axes(mesh, None, 16) is None


def test_a_merged_axis_lies_over_batch_and_frames(mesh: Mesh) -> None:
    def shard(shape: tuple[int, ...], *names: Any) -> tuple[int, ...]:
        with axis_rules(mesh, RULES):
            found = sharding_of(shape, *names)
        assert found is not None
        assert found[0] is mesh
        return shard_shape(*found, shape)

    assert shard((32, 6), ("batch", "frames"), None) == (4, 6)
    assert shard((12, 6), ("batch", "frames"), None) == (3, 6)  # eight devices do not divide it, four do
    assert shard((1, 64), "batch", "frames") == (1, 16)
    assert shard((2, 64), ("batch", "frames"), "frames") == (
        1,
        16,
    )  # frames_0 and frames_1 are left for the second axis
    assert shard((8, 64), ("batch", "frames"), "frames") == (1, 64)  # no mesh axis twice


def test_values_do_not_change(mesh: Mesh) -> None:
    x = jnp.arange(2 * 16 * 3, dtype=jnp.float32).reshape(2, 16, 3)

    def run(x: jax.Array) -> jax.Array:
        with axis_rules(mesh, RULES):
            return constrain(x, "batch", "frames", None) * 2

    np.testing.assert_array_equal(jax.jit(run)(x), 2 * x)
