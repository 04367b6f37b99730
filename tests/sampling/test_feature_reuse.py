"""Features that are computed in some steps alone: which steps these are, and what the others use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.oracle import SCHEDULE, row_noise
from tests.sampling.test_denoise import EULER, FRAME, conditions_of, in_branch
from tooncrafter_jax.diffusion.loop import chunks, run_remembering_chunk
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny, tooncrafter_512
from tooncrafter_jax.nn.logical_axes import axis_rules, constrain
from tooncrafter_jax.sampling.denoise import Guidance, guided_remembering
from tooncrafter_jax.sampling.feature_reuse import Reuse
from tooncrafter_jax.sampling.guidance_interval import guided_times
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.sampling_mesh import mesh_rules, sampling_mesh
from tooncrafter_jax.typing import Device


@pytest.mark.parametrize(("text", "reuse"), [("2", Reuse(2, 1)), ("3:1", Reuse(3, 1)), ("5:3", Reuse(5, 3))])
def test_what_is_asked_for(text: str, reuse: Reuse) -> None:
    assert Reuse.parse(text, tooncrafter_512().unet) == reuse


@pytest.mark.parametrize("text", ["1", "0:1", "3:0", "3:4", "x", "3:1:1", "", "2.5", ":"])
def test_what_cannot_be(text: str) -> None:
    with pytest.raises(UserError, match="reuse must be a number of predictions from 2 on"):
        SamplingOptions(reuse=text).check(tooncrafter_512())


def test_every_so_many_predictions_are_whole() -> None:
    times = np.arange(999, 0, -100)
    assert np.flatnonzero(Reuse(3).fresh(times)).tolist() == [0, 3, 6, 9]
    assert np.flatnonzero(Reuse(50).fresh(times)).tolist() == [0]


def test_where_guidance_begins_a_prediction_is_whole() -> None:
    """Its other branches have nothing that is near; where it ends, the conditional branch goes on."""
    times = np.arange(999, 0, -100)  # guided: 699 to 299
    fresh = Reuse(4).fresh(times, (np.asarray(250), np.asarray(750)))
    assert np.flatnonzero(fresh).tolist() == [0, 3, 7]
    never = Reuse(4).fresh(times, (np.asarray(1000), np.asarray(0)))
    assert np.flatnonzero(never).tolist() == [0, 4, 8]


class Network:
    """Stands for the network: what it keeps is its branch and the time; says when it is computed whole."""

    def __init__(self) -> None:
        self.whole: list[int] = []

    def __call__(self, noisy: Any, times: Any, given: Any, kept: Any, is_fresh: Any) -> Any:
        branch = given.context["branch"][0].reshape(-1, 1, 1, 1, 1)

        def whole(kept: Any) -> Any:
            jax.debug.callback(lambda time: self.whole.append(int(time)), times[0])
            return jnp.broadcast_to(branch + times[0] / 1000, kept.shape)

        kept = jax.lax.cond(is_fresh, whole, lambda kept: kept, kept)
        return in_branch(branch, noisy, times[0]) + kept, kept


@pytest.mark.parametrize("at_a_time", [None, 2, 1])
@pytest.mark.parametrize(("interval", "whole_at"), [(None, {999, 399}), ("1:4", {999, 599})])
def test_each_branch_uses_what_it_kept_itself(interval: str | None, whole_at: set[int], at_a_time: int | None) -> None:
    """Two clips, five steps, every third one whole, and the first that is guided: in the middle alone, 599 and 399."""
    rows, network, reuse = EULER.rows(SCHEDULE, SolverOptions(steps=5)), Network(), Reuse(3)
    guided_at = guided_times(interval, SCHEDULE)
    fresh = reuse.fresh(np.asarray(rows.timestep), guided_at)
    assert {int(time) for time in rows.timestep[fresh]} == whole_at
    guidance, x = Guidance(7.5, 0.0, 1.0, guided_at), jax.random.normal(jax.random.key(0), (2, *FRAME))
    denoise = guided_remembering(network, conditions_of(2, 2), guidance, branches=2, rows_at_a_time=at_a_time)

    @jax.jit
    def run(x: Any, chunk: Any) -> Any:
        memory = jnp.zeros((4, 1, 1, 1, 1))
        return run_remembering_chunk(EULER, denoise, EULER.init(x), memory, chunk, row_noise)[:2]

    carry, memory = run(x, next(chunks(rows, 6, fresh)))
    jax.effects_barrier()
    assert set(network.whole) == whole_at

    expected, kept = EULER.init(x), np.zeros(2)
    for row, is_fresh in enumerate(fresh):
        time = float(rows.timestep[row])
        if is_fresh:
            kept = np.asarray([time / 1000, 1 + time / 1000])
        clean_x = EULER.latents(expected)
        v = in_branch(0, clean_x, time) + kept[0]
        if guided_at is None or guided_at[0] <= time <= guided_at[1]:
            other = in_branch(1, clean_x, time) + kept[1]
            v = other + 7.5 * (v - other)
        expected, _ = EULER.step(
            expected, v, jax.tree.map(lambda column, row=row: np.asarray(column[row]), rows), lambda: x
        )
    np.testing.assert_allclose(EULER.latents(carry), EULER.latents(expected), atol=1e-3)
    assert memory.shape == (4, 1, 1, 1, 1)


def test_devices_that_share_clips_and_frames_give_the_same(devices: list[Device]) -> None:
    """What two branches of one clip keep lies on eight devices, as their latents do."""
    rows, guided_at = EULER.rows(SCHEDULE, SolverOptions(steps=5)), guided_times("1:4", SCHEDULE)
    chunk = next(chunks(rows, 5, Reuse(2).fresh(np.asarray(rows.timestep), guided_at)))
    guidance = Guidance(7.5, 0.7, 1.0, guided_at)

    def run(at_a_time: int | None = None) -> jax.Array:
        @jax.jit
        def compiled(x: jax.Array, memory: jax.Array) -> jax.Array:
            denoise = guided_remembering(Network(), conditions_of(1, 2), guidance, branches=2, rows_at_a_time=at_a_time)
            memory = constrain(memory, "batch", "frames", None, None, None)
            return run_remembering_chunk(EULER, denoise, EULER.init(x), memory, chunk, row_noise)[0]

        return compiled(jax.random.normal(jax.random.key(0), (1, *FRAME)), jnp.zeros((2, FRAME[0], 1, 1, 1)))

    one, mesh = run(), sampling_mesh(devices, rows=2, frames=FRAME[0])
    assert mesh is not None
    with axis_rules(mesh, mesh_rules(mesh)):
        many = run(at_a_time=mesh.shape["data"])
    np.testing.assert_allclose(many, one, atol=2e-5)


def test_a_request_for_the_tiny_model() -> None:
    SamplingOptions(reuse="2:2").check(tiny())
