"""The loop over a solver's rows: chunks, padding, predictions, and solvers that look back or need two predictions a
step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.diffusion.oracle import SCHEDULE, SHAPE, normal, oracle, row_noise, run
from tooncrafter_jax.diffusion.loop import chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.typing import Latents

DDIM = SOLVERS["ddim"]


def test_padded_chunks_equal_one_run() -> None:
    """Seven steps as 5 + 2 with three steps of padding, and as one chunk."""
    rows, denoise, x = DDIM.rows(SCHEDULE, SolverOptions(steps=7)), oracle(normal(0)), normal(2)
    whole = run(DDIM, rows, denoise, 7, x)
    np.testing.assert_allclose(run(DDIM, rows, denoise, 5, x), whole, atol=1e-6)
    parts = list(chunks(rows, 5))
    assert [part.active.tolist() for part in parts] == [[True] * 5, [True] * 2 + [False] * 3]
    assert np.concatenate([part.rows.timestep for part in parts])[:7].tolist() == rows.timestep.tolist()
    assert np.concatenate([part.index for part in parts])[:7].tolist() == list(range(7))


def test_padding_costs_nothing_and_changes_nothing() -> None:
    """A denoiser that would spoil everything is not asked."""
    chunk = next(chunks(DDIM.rows(SCHEDULE, SolverOptions(steps=2)), 5))
    asked: list[int] = []

    def spoil(x: jax.Array, time: jax.Array) -> jax.Array:
        jax.debug.callback(lambda t: asked.append(int(t)), time)
        return x * 0 + jnp.where((time == 999) | (time == 499), 0.0, jnp.nan)

    out, predictions = run_chunk(DDIM, spoil, jnp.asarray(normal(0)), chunk, row_noise, with_predictions=True)
    jax.effects_barrier()
    assert asked == [999, 499]
    assert np.isfinite(out).all()
    assert predictions is not None and predictions.shape == (5, *SHAPE)


def test_predictions_are_the_clean_latents_of_each_step() -> None:
    """An oracle's predictions are the clean latents times the scale of the next time."""
    clean, rows = normal(0), DDIM.rows(SCHEDULE, SolverOptions(steps=4))
    chunk = next(chunks(rows, 4))
    _, predictions = run_chunk(DDIM, oracle(clean), jnp.asarray(normal(2)), chunk, row_noise, with_predictions=True)
    assert predictions is not None
    scales = [*SCHEDULE.dynamic_scale[rows.timestep[1:]], SCHEDULE.dynamic_scale[rows.timestep[-1]]]
    for prediction, scale in zip(predictions, scales, strict=True):
        np.testing.assert_allclose(prediction, scale * clean, atol=3e-6)


class _Rows(NamedTuple):
    timestep: np.ndarray
    corrects: np.ndarray


class _Remembering:
    """A solver with a history: it sums what was predicted, and every second row goes back to where the one before
    began.
    """

    def rows(self, schedule: NoiseSchedule, options: SolverOptions) -> _Rows:
        times = np.repeat(np.arange(options.steps, dtype=np.int32)[::-1], 2)
        return _Rows(times, np.arange(len(times)) % 2 == 1)

    def init(self, x: Latents) -> tuple[jax.Array, jax.Array, jax.Array]:
        return x, x, jnp.zeros_like(x)

    def latents(self, carry: tuple[jax.Array, jax.Array, jax.Array]) -> Latents:
        return carry[0]

    def step(
        self, carry: tuple[jax.Array, jax.Array, jax.Array], v: Latents, row: _Rows, noise: Callable[[], Latents]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Latents]:
        x, begun, total = carry
        begun = jnp.where(row.corrects, begun, x)
        return (begun + v, begun, total + v), x


def test_a_solver_may_look_back_and_predict_twice_a_step() -> None:
    """Its history crosses chunks; noise that it never asks for is not drawn."""
    solver, drawn = _Remembering(), []

    def denoise(x: jax.Array, time: jax.Array) -> jax.Array:
        return x + time.astype(jnp.float32)

    def noise(index: jax.Array) -> jax.Array:
        drawn.append(index)
        return row_noise(index)

    carry = solver.init(jnp.zeros(SHAPE))
    for chunk in chunks(solver.rows(SCHEDULE, SolverOptions(steps=3)), 4):
        carry, _ = run_chunk(solver, denoise, carry, chunk, noise)
    x = total = 0.0
    for time in (2.0, 1.0, 0.0):
        begun, first = x, x + time
        second = begun + first + time
        x, total = begun + second, total + first + second
    assert not drawn
    np.testing.assert_allclose(carry[0], x)
    np.testing.assert_allclose(carry[2], total)
