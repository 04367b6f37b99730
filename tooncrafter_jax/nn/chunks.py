"""Work on a few slices of an array at a time, so that what it makes on the way is never whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from tooncrafter_jax.typing import AnyArray

Chunk = int | None
"""Slices that are worked on at a time; None for all."""
Parts = TypeVar("Parts")
"""Arrays that have frames, or rows, in common."""
Made = TypeVar("Made")


def map_chunks(fn: Callable[[Parts], Made], x: Parts, axis: int, chunk: Chunk) -> Made:
    """fn(x) computed on at most `chunk` slices along `axis` at a time; `fn` must treat the slices independently.

    Slices are read from the arrays of `x` and written into those of one result in place, so that nothing but these two
    is ever whole. Where `chunk` does not divide the axis, the last chunk computes some slices a second time.
    """
    leader = jax.tree.leaves(x)[0]
    size = leader.shape[axis]
    if chunk is None or chunk >= size:
        return fn(x)

    def slices(start: Int[Array, ""] | int) -> Parts:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, chunk, axis), x)

    def body(i: Int[Array, ""], out: Made) -> Made:
        start = jnp.minimum(i * chunk, size - chunk)
        return jax.tree.map(
            lambda whole, made: jax.lax.dynamic_update_slice_in_dim(whole, made, start, axis), out, fn(slices(start))
        )

    # Every entry is overwritten. A constant here would have no inputs, and XLA would allocate all of a network's
    # results at its start; this one cannot be made before `x` is.
    def anything(made: jax.ShapeDtypeStruct) -> AnyArray:
        value = leader[(0,) * leader.ndim].astype(made.dtype) * 0
        return jnp.broadcast_to(value, (*made.shape[:axis], size, *made.shape[axis + 1 :]))

    whole = jax.tree.map(anything, jax.eval_shape(lambda: fn(slices(0))))
    return jax.lax.fori_loop(0, -(-size // chunk), body, whole)
