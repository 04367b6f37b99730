"""Work on a few slices of an array at a time, so that what it makes on the way is never whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def map_chunks(fn: Callable[[Parts], Made], x: Parts, axis: int, chunk: Chunk, *, in_place: bool = False) -> Made:
    """fn(x) computed on at most `chunk` slices along `axis` at a time; `fn` must treat the slices independently.

    Slices are read from the arrays of `x` and written into those of one result in place, so that nothing but these two
    is ever whole. Where `chunk` does not divide the axis, the last chunk computes some slices a second time.

    Args:
      fn: of slices of `x`.
      x: arrays, of which the first says how many slices there are.
      axis: of them, in all arrays and results.
      chunk: slices at a time.
      in_place: for callers that need the first array of `x` no more: if the first result is like it in shape and dtype,
        it is written over it, and not even these two are there at once.
    """
    arrays, structure = jax.tree.flatten(x)
    leader, size = arrays[0], arrays[0].shape[axis]
    if chunk is None or chunk >= size:
        return fn(x)
    count, last = -(-size // chunk), size - chunk

    def slices(arrays: Sequence[AnyArray], start: Int[Array, ""] | int) -> list[AnyArray]:
        return [jax.lax.dynamic_slice_in_dim(one, start, chunk, axis) for one in arrays]

    # Every entry is overwritten. A constant here would have no inputs, and XLA would allocate all of a network's
    # results at its start; this one cannot be made before `x` is.
    def anything(made: jax.ShapeDtypeStruct) -> AnyArray:
        value = leader[(0,) * leader.ndim].astype(made.dtype) * 0
        return jnp.broadcast_to(value, (*made.shape[:axis], size, *made.shape[axis + 1 :]))

    made = jax.eval_shape(lambda: fn(jax.tree.unflatten(structure, slices(arrays, 0))))
    results, structure_of_results = jax.tree.flatten(jax.tree.map(anything, made))
    in_place = in_place and (results[0].shape, results[0].dtype) == (leader.shape, leader.dtype)
    if in_place:
        results[0] = leader
    # The last chunk begins within the one before, which has been overwritten by then.
    at_end = jax.lax.slice_in_dim(leader, last, size, axis=axis)

    def body(i: Int[Array, ""], results: list[AnyArray]) -> list[AnyArray]:
        start = jnp.minimum(i * chunk, last)
        parts = slices([results[0], *arrays[1:]] if in_place else arrays, start)
        if in_place and size % chunk:
            parts[0] = jnp.where(i == count - 1, at_end, parts[0])
        made = jax.tree.leaves(fn(jax.tree.unflatten(structure, parts)))
        return [
            jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis)
            for whole, part in zip(results, made, strict=True)
        ]

    return jax.tree.unflatten(structure_of_results, jax.lax.fori_loop(0, count, body, results))
