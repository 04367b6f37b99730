"""The sampling loop: any solver's rows in chunks, each chunk one jittable scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from tooncrafter_jax.diffusion.solvers.solver import Carry, Rows, Solver, number_of_rows
from tooncrafter_jax.typing import Latents, Trajectory

Denoise = Callable[[Latents, Int[Array, ""]], Latents]
"""Predicts v from the noisy latents and the time (a scalar)."""


class Chunk(NamedTuple):
    """Some rows of a run in a fixed number; every array has one entry a row.

    Attributes:
      index: number of the row within the whole run, counted from 0; the source of its noise.
      active: False for the padding at the end of the last chunk, which costs no computation.
      rows: the solver's.
    """

    index: jax.Array | np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    active: jax.Array | np.ndarray
    rows: Rows


def chunks(rows: Rows, size: int) -> Iterator[Chunk]:
    """A run in chunks of exactly `size` rows, so that one compiled program serves any number of steps."""
    count = number_of_rows(rows)
    padded = -(-count // size) * size
    index = np.arange(padded, dtype=np.int32)
    filled = jax.tree.map(lambda column: np.pad(column, (0, padded - count), mode="edge"), rows)
    for start in range(0, padded, size):
        here = slice(start, start + size)
        part: Any = jax.tree.map(lambda column, here=here: column[here], filled)
        yield Chunk(index[here], index[here] < count, part)


def run_chunk(
    solver: Solver,
    denoise: Denoise,
    carry: Carry,
    chunk: Chunk,
    noise_of_row: Callable[[Int[Array, ""]], Latents],
    *,
    with_predictions: bool = False,
) -> tuple[Carry, Trajectory | None]:
    """Runs a chunk; only the solver's carry is carried.

    Args:
      solver: what is made of the predictions.
      denoise: the guided network.
      carry: the solver's, before the chunk.
      chunk: its rows.
      noise_of_row: index -> standard normal noise of the latents' shape.
      with_predictions: whether the clean latents predicted for each row are returned too (for previews and checks).

    Returns:
      The carry after the chunk, and the predictions (rows, B, T, h, w, C) or None.
    """

    def body(carry: Carry, entry: Chunk) -> tuple[Carry, Latents | None]:
        def update(carry: Carry) -> tuple[Carry, Latents]:
            x = solver.latents(carry)
            v = denoise(x, jnp.asarray(entry.rows.timestep)).astype(x.dtype)
            return solver.step(carry, v, entry.rows, lambda: noise_of_row(jnp.asarray(entry.index)))

        carry, clean = jax.lax.cond(entry.active, update, lambda carry: (carry, solver.latents(carry)), carry)
        return carry, clean if with_predictions else None

    with jax.named_scope("solver"):
        return jax.lax.scan(body, carry, chunk)
