"""Loops over blocks that fit the CPU's caches; only the CPU's own forms call them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def one_by_one(one: Callable[[Int[Array, ""]], Array], count: int, after: jax.Array) -> Array:
    """`one` of 0 to count - 1, stacked: `lax.map` whose results have no place in memory before `after` is there.

    The CPU's scheduler does early what depends on nothing, as the empty results of a `lax.map` do: those of layers
    in a row would be held at once. These begin as copies of a number of `after`.
    """
    found = jax.eval_shape(one, jax.ShapeDtypeStruct((), jnp.int32))
    start = jnp.full((count, *found.shape), after[(0,) * after.ndim].astype(found.dtype))

    def with_next(index: Int[Array, ""], so_far: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(so_far, one(index), index, 0)

    return jax.lax.fori_loop(0, count, with_next, start)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`, or 1."""
    return next(n for n in range(max(1, min(number, most)), 0, -1) if number % n == 0)
