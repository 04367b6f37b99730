"""Branches of guidance: at some noise levels alone, together or one after another; counted as they run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.oracle import SCHEDULE, row_noise
from tooncrafter_jax.diffusion.guidance import guide, guide_in_two_stages
from tooncrafter_jax.diffusion.loop import chunks, run_chunk
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.tooncrafter import Conditions
from tooncrafter_jax.nn.logical_axes import axis_rules, constrain
from tooncrafter_jax.sampling.denoise import Guidance, guided
from tooncrafter_jax.sampling.guidance_interval import guided_times, noise_interval
from tooncrafter_jax.sampling.sampling_mesh import mesh_rules, sampling_mesh
from tooncrafter_jax.typing import Device

FRAME = (2, 4, 4, 4)
EULER = SOLVERS["euler"]


def conditions_of(batch: int, branches: int) -> Conditions:
    """Contexts that say which branch they are of."""
    context: Any = {"branch": [jnp.repeat(jnp.arange(branches, dtype=jnp.float32), batch)]}
    return Conditions(jnp.zeros((batch, *FRAME)), context, jnp.full((batch,), 8, jnp.int32))


def in_branch(branch: Any, x: Any, time: Any) -> Any:
    """What stands for the network: it knows its branch."""
    return jnp.sin(x + branch) - 0.3 * branch + time / 1000


class Counter:
    """A prediction that tells the host how many clips it was asked for, and when, each time that it is computed."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, noisy: jax.Array, times: jax.Array, given: Conditions) -> jax.Array:
        branch: Any = given.context["branch"][0]
        assert noisy.shape[0] == times.shape[0] == branch.shape[0] == given.fps.shape[0] == given.concat.shape[0]
        jax.debug.callback(lambda time, rows=noisy.shape[0]: self.calls.append((int(time), rows)), times[0])
        noisy = constrain(noisy, "batch", "frames", None, None, None)
        return in_branch(branch.reshape(-1, 1, 1, 1, 1), noisy, times[0])

    def rows_by_time(self) -> dict[int, int]:
        jax.effects_barrier()
        return {time: sum(rows for at, rows in self.calls if at == time) for time, _ in self.calls}


def run(counter: Counter, guidance: Guidance, batch: int, branches: int = 2, at_a_time: int | None = None) -> Any:
    """Five steps, compiled."""
    chunk = next(chunks(EULER.rows(SCHEDULE, SolverOptions(steps=5)), 5))

    @jax.jit
    def compiled(x: jax.Array, guidance: Guidance) -> jax.Array:
        denoise = guided(counter, conditions_of(batch, branches), guidance, branches=branches, rows_at_a_time=at_a_time)
        return run_chunk(EULER, denoise, EULER.init(x), chunk, row_noise)[0]

    return compiled(jax.random.normal(jax.random.key(0), (batch, *FRAME)), guidance)


@pytest.mark.parametrize(
    ("interval", "guided_at"),
    [
        ("2:inf", {999, 799, 599}),
        ("5:1", {599, 399}),
        ("0:1", {199}),
        ("0:inf", {999, 799, 599, 399, 199}),
        ("4:5", set()),
    ],
)
@pytest.mark.parametrize("branches", [2, 3])
def test_other_branches_are_computed_within_the_interval_alone(
    interval: str, guided_at: set[int], branches: int
) -> None:
    counter = Counter()
    run(counter, Guidance(7.5, 0.7, 2.0, guided_times(interval, SCHEDULE)), 2, branches)
    rows = counter.rows_by_time()
    assert rows == {time: 2 * (branches if time in guided_at else 1) for time in (999, 799, 599, 399, 199)}


@pytest.mark.parametrize(("branches", "at_a_time"), [(2, None), (2, 3), (2, 2), (2, 1), (3, None), (3, 3), (3, 1)])
def test_a_prediction_is_guided_within_and_conditional_outside(branches: int, at_a_time: int | None) -> None:
    """However many are computed together: three clips in two or three branches."""
    guidance = Guidance(7.5, 0.7, 2.0, (np.asarray(500), np.asarray(899)))
    denoise = guided(Counter(), conditions_of(3, branches), guidance, branches=branches, rows_at_a_time=at_a_time)
    x = jax.random.normal(jax.random.key(0), (3, *FRAME))
    for time in (999, 899, 700, 500, 499):
        cond, image, uncond = (in_branch(branch, x, time) for branch in (0, 1, branches - 1))
        expected = cond
        if 500 <= time <= 899 and branches == 2:
            expected = guide(cond, uncond, 7.5, 0.7)
        elif 500 <= time <= 899:
            expected = guide_in_two_stages(cond, image, uncond, 7.5, 2.0, 0.7)
        np.testing.assert_allclose(denoise(x, jnp.int32(time)), expected, atol=2e-5)  # guidance multiplies by 7.5


def test_branches_one_after_another_are_the_same_clip() -> None:
    together, apart = Counter(), Counter()
    guidance = Guidance(7.5, 0.7)
    np.testing.assert_allclose(run(together, guidance, 2), run(apart, guidance, 2, at_a_time=2), atol=2e-5)
    assert together.rows_by_time() == apart.rows_by_time()
    assert {rows for _, rows in together.calls} == {4} and {rows for _, rows in apart.calls} == {2}


def test_devices_that_share_clips_and_frames_give_the_same(devices: list[Device]) -> None:
    """Two branches of one clip over eight devices, of which each step outside the interval leaves half idle."""
    guidance = Guidance(7.5, 0.7, 1.0, guided_times("1:4", SCHEDULE))
    one = run(Counter(), guidance, 1)
    mesh = sampling_mesh(devices, rows=2, frames=FRAME[0])
    assert mesh is not None
    with axis_rules(mesh, mesh_rules(mesh)):
        many = run(Counter(), guidance, 1, at_a_time=mesh.shape["data"])
    np.testing.assert_allclose(many, one, atol=2e-5)


def test_one_program_serves_every_interval() -> None:
    traced = []

    @jax.jit
    def denoise(x: jax.Array, time: jax.Array, guidance: Guidance) -> jax.Array:
        traced.append(1)
        return guided(Counter(), conditions_of(1, 2), guidance, branches=2)(x, time)

    x = jnp.ones((1, *FRAME))
    for interval in ("0:1", "1:10", "10:inf"):
        denoise(x, jnp.int32(500), Guidance(7.5, 0.7, 1.0, guided_times(interval, SCHEDULE)))
    assert len(traced) == 1


def test_an_interval_is_told_by_noise_levels() -> None:
    """Deviation of the noise over the signal, of which the dynamic scale is a part."""
    assert noise_interval("5:0.3") == noise_interval("0.3:5") == (0.3, 5.0)
    levels = SCHEDULE.noise_levels
    assert levels[999] == np.inf and abs(levels[0] - 0.02917) < 1e-5
    assert abs(levels[599] - ((1 - SCHEDULE.alphas_cumprod[599]) / SCHEDULE.alphas_cumprod[599]) ** 0.5 / 0.7) < 1e-5
    times = guided_times("0.3:5", SCHEDULE)
    assert times is not None
    first, last = map(int, times)
    assert levels[first - 1] < 0.3 <= levels[first] < levels[last] <= 5.0 < levels[last + 1]
    assert guided_times(None, SCHEDULE) is None


@pytest.mark.parametrize("text", ["", "3", "1:2:3", "a:b", "-1:2", "nan:1", ":"])
def test_what_is_no_interval_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="must be two noise levels of 0 or more, such as 0.3:5 or 2:inf, not"):
        noise_interval(text)
