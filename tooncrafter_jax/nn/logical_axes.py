"""Names for the axes of activations, so that a model file never mentions a mesh.

A model calls `constrain(x, "batch", "frames", None, None, None)`. Outside `axis_rules` this is the identity; inside,
each name is looked up and the activation is constrained to the mesh axes that the rule gives.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from math import prod

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

MeshAxes = str | tuple[str, ...] | None
Names = str | tuple[str, ...] | None

_rules: contextvars.ContextVar[tuple[Mesh, Mapping[str, MeshAxes]] | None] = contextvars.ContextVar(
    "axis_rules", default=None
)


@contextlib.contextmanager
def axis_rules(mesh: Mesh, rules: Mapping[str, MeshAxes]) -> Iterator[None]:
    """Gives the logical axes a meaning while a function is traced.

    Args:
      mesh: the device mesh, built with `axis_types=Auto`.
      rules: logical axis name -> mesh axis or axes; a name without a rule stays unsharded.
    """
    token = _rules.set((mesh, rules))
    try:
        yield
    finally:
        _rules.reset(token)


def on_several_devices() -> bool:
    """Whether rules are in force and their mesh has more than one device."""
    active = _rules.get()
    return active is not None and active[0].size > 1


def devices_sharing(name: str, size: int) -> int:
    """Over how many devices the rules in force lay an axis of this logical name and size; 1 without rules."""
    active = _rules.get()
    if active is None:
        return 1
    mesh, rules = active
    axes = dividing_axes(mesh, rules.get(name), size)
    return prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))


def constrain(x: Shaped[Array, "*S"], *names: str | None) -> Shaped[Array, "*S"]:
    """Constrains `x` (one name or None per axis) to the rules in force; the identity without rules.

    An axis that the devices do not divide is shared by as many mesh axes, from the first, as do divide it.

    Raises:
      ValueError: if the number of names is not the number of axes.
    """
    if len(names) != x.ndim:
        raise ValueError(f"{len(names)} axis names were given for an array with {x.ndim} axes")
    active = _rules.get()
    if active is None:
        return x
    mesh, rules = active
    spec = PartitionSpec(
        *(dividing_axes(mesh, rules.get(name) if name else None, n) for name, n in zip(names, x.shape, strict=True))
    )
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def dividing_axes(mesh: Mesh, axes: MeshAxes, size: int) -> MeshAxes:
    """The longest prefix of `axes` whose devices divide an array axis of `size`; None if not even the first does."""
    names = (axes,) if isinstance(axes, str) else axes or ()
    for count in range(len(names), 0, -1):
        if size % prod(mesh.shape[name] for name in names[:count]) == 0:
            return names[:count]
    return None


def sharding_of(shape: Sequence[int], *names: Names) -> tuple[Mesh, PartitionSpec] | None:
    """How an activation lies on the mesh, for code that must name it (`shard_map`).

    Args:
      shape: of the array.
      *names: for each axis its logical name, the names that are merged in it (first the slowest), or None. An axis that
        the devices do not divide is shared by as many mesh axes, from the first, as do divide it.

    Returns:
      The mesh and the spec; None without rules or on a mesh of one device.
    """
    active = _rules.get()
    if active is None or not on_several_devices():
        return None
    mesh, rules = active
    taken: set[str] = set()
    spec: list[MeshAxes] = []
    for size, merged in zip(shape, names, strict=True):
        axes: list[str] = []
        for name in (merged,) if isinstance(merged, str) else merged or ():
            rule = rules.get(name)
            axes += [rule] if isinstance(rule, str) else list(rule or ())
        found = dividing_axes(mesh, tuple(axis for axis in axes if axis not in taken), size)
        taken.update(found or ())
        spec.append(found)
    return mesh, PartitionSpec(*spec)


def shard_shape(mesh: Mesh, spec: PartitionSpec, shape: Sequence[int]) -> tuple[int, ...]:
    """The part of an array of `shape` that one device holds."""
    return NamedSharding(mesh, spec).shard_shape(tuple(shape))
