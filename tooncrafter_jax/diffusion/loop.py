"""The sampling loop: any solver's rows in chunks, each chunk one jittable scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from tooncrafter_jax.diffusion.solvers.solver import Carry, Rows, Solver, number_of_rows
from tooncrafter_jax.typing import Latents, Trajectory

Denoise = Callable[[Latents, Int[Array, ""]], Latents]
"""Predicts v from the noisy latents and the time (a scalar)."""
Memory = Any
"""What predictions leave for those after them: a tree of arrays with fixed shapes."""
RememberingDenoise = Callable[[Latents, Int[Array, ""], Memory, Bool[Array, ""]], tuple[Latents, Memory]]
"""Predicts v from the noisy latents, the time, and what was left by the predictions before; the last argument says
whether that is to be made anew.
"""


class Chunk(NamedTuple):
    """Some rows of a run in a fixed number; every array has one entry a row.

    Attributes:
      index: number of the row within the whole run, counted from 0; the source of its noise.
      active: False for the padding at the end of the last chunk, which costs no computation.
      rows: the solver's.
      is_fresh: whether the prediction leaves anew what those after it may use of it; of use to a loop that remembers.
    """

    index: jax.Array | np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    active: jax.Array | np.ndarray
    rows: Rows
    is_fresh: jax.Array | np.ndarray


def chunks(rows: Rows, size: int, is_fresh: Bool[np.ndarray, "rows"] | None = None) -> Iterator[Chunk]:
    """A run in chunks of exactly `size` rows, so that one compiled program serves any number of steps.

    Args:
      rows: the solver's.
      size: rows of a chunk.
      is_fresh: of each row; None: of all.
    """
    count = number_of_rows(rows)
    padded = -(-count // size) * size
    index = np.arange(padded, dtype=np.int32)
    filled = jax.tree.map(lambda column: np.pad(column, (0, padded - count), mode="edge"), rows)
    fresh = np.ones(padded, bool) if is_fresh is None else np.pad(is_fresh, (0, padded - count))
    for start in range(0, padded, size):
        here = slice(start, start + size)
        part: Any = jax.tree.map(lambda column, here=here: column[here], filled)
        yield Chunk(index[here], index[here] < count, part, fresh[here])


def run_chunk(
    solver: Solver,
    denoise: Denoise,
    carry: Carry,
    chunk: Chunk,
    noise_of_row: Callable[[Int[Array, ""]], Latents],
    *,
    with_predictions: bool = False,
) -> tuple[Carry, Trajectory | None]:
    """Runs a chunk whose predictions leave nothing to each other; only the solver's carry is carried.

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
    carry, _, predictions = run_remembering_chunk(
        solver,
        lambda x, timestep, memory, _: (denoise(x, timestep), memory),
        carry,
        (),
        chunk,
        noise_of_row,
        with_predictions=with_predictions,
    )
    return carry, predictions


def run_remembering_chunk(
    solver: Solver,
    denoise: RememberingDenoise,
    carry: Carry,
    memory: Memory,
    chunk: Chunk,
    noise_of_row: Callable[[Int[Array, ""]], Latents],
    *,
    with_predictions: bool = False,
) -> tuple[Carry, Memory, Trajectory | None]:
    """`run_chunk` of a network that uses what its predictions leave for those after them.

    Args:
      solver: as of `run_chunk`.
      denoise: the guided network.
      carry: as of `run_chunk`.
      memory: what the predictions before the chunk left.
      chunk: as of `run_chunk`.
      noise_of_row: as of `run_chunk`.
      with_predictions: as of `run_chunk`.

    Returns:
      The carry and the memory after the chunk, and the predictions or None.
    """

    def body(state: tuple[Carry, Memory], entry: Chunk) -> tuple[tuple[Carry, Memory], Latents | None]:
        def update(carry: Carry, memory: Memory) -> tuple[Carry, Memory, Latents]:
            x = solver.latents(carry)
            v, memory = denoise(x, jnp.asarray(entry.rows.timestep), memory, jnp.asarray(entry.is_fresh))
            carry, clean = solver.step(
                carry, v.astype(x.dtype), entry.rows, lambda: noise_of_row(jnp.asarray(entry.index))
            )
            return carry, memory, clean

        def keep(carry: Carry, memory: Memory) -> tuple[Carry, Memory, Latents]:
            return carry, memory, solver.latents(carry)

        carry, memory, clean = jax.lax.cond(entry.active, update, keep, *state)
        return (carry, memory), clean if with_predictions else None

    with jax.named_scope("solver"):
        (carry, memory), predictions = jax.lax.scan(body, (carry, memory), chunk)
    return carry, memory, predictions
