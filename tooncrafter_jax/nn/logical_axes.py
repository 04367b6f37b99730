"""Names for the axes of activations, so that a model file never mentions a mesh.

A model calls `constrain(x, "batch", "frames", None, None, None)`. Outside `axis_rules` this is the identity; inside, each
name is looked up and the activation is constrained to the mesh axes that the rule gives.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from math import prod

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MeshAxes = str | tuple[str, ...] | None

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


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
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


def batch_sharding_of(size: int) -> tuple[Mesh, PartitionSpec] | None:
    """How a merged (batch and frames) axis of `size` entries lies on the mesh, for code that must name it (`shard_map`).

    Returns:
      The mesh and the spec of the leading axis; None without rules or where the devices do not divide the axis.
    """
    active = _rules.get()
    if active is None:
        return None
    mesh, rules = active
    axes: list[str] = []
    for name in ("batch", "frames"):
        rule = rules.get(name)
        axes += [rule] if isinstance(rule, str) else list(rule or ())
    devices = prod(mesh.shape[axis] for axis in axes)
    if devices == 1 or size % devices:
        return None
    return mesh, PartitionSpec(tuple(axes))
