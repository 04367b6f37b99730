"""What all solvers keep: exactness where the answer is known, one program for any number of steps, finite tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.oracle import SCHEDULE, SHAPE, normal, oracle, row_noise, run
from tooncrafter_jax.diffusion.loop import chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.diffusion.solvers.solver import number_of_rows
from tooncrafter_jax.errors import UserError

ADDED = [name for name in SOLVERS if name != "ddim"]


@pytest.mark.parametrize("name", SOLVERS)
def test_what_the_model_knows_comes_out_in_any_number_of_steps_by_one_program(name: str) -> None:
    """From pure noise to the exact end, with the dynamic rescale: a constant prediction is no approximation."""
    clean, solver, traced = normal(0), SOLVERS[name], []

    def part(carry: Any, chunk: Any) -> Any:
        traced.append(name)
        return run_chunk(solver, oracle(clean), carry, chunk, row_noise)[0]

    compiled = jax.jit(part, donate_argnums=0)  # as the compiled sampler does
    for steps in (1, 2, 3, 7, 50):
        rows = solver.rows(SCHEDULE, SolverOptions(steps=steps, exact_last_step=True))
        carry = solver.init(jnp.asarray(normal(2)))
        for chunk in chunks(rows, 5):
            carry = compiled(carry, chunk)
        # A few roundings of values of about unit size; the denoiser divides by sigma >= 0.13.
        np.testing.assert_allclose(solver.latents(carry), clean, atol=5e-6, err_msg=f"{steps} steps")
    assert len(traced) == 1


@pytest.mark.parametrize("name", SOLVERS)
def test_an_option_out_of_its_range_is_refused(name: str) -> None:
    for options, said in (
        (SolverOptions(eta=1.5), "eta must be from 0 to 1"),
        (SolverOptions(strength=0.0), "strength"),
    ):
        with pytest.raises(UserError, match=said):
            SOLVERS[name].rows(SCHEDULE, options)


@pytest.mark.parametrize("name", SOLVERS)
def test_one_call_of_the_network_a_step_but_for_heun(name: str) -> None:
    for steps in (1, 2, 10):
        rows = SOLVERS[name].rows(SCHEDULE, SolverOptions(steps=steps))
        assert number_of_rows(rows) == (2 * steps - 1 if name == "heun" else steps)
        assert (np.diff(rows.timestep) <= 0).all() and rows.timestep[0] == 999


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("is_exact", [False, True])
@pytest.mark.parametrize("snr_is_zero", [False, True])
def test_no_number_of_a_table_is_infinite(name: str, is_exact: bool, snr_is_zero: bool) -> None:
    """And none is so large that rounding to float32 would count."""
    schedule = NoiseSchedule(replace(ScheduleConfig(), zero_terminal_snr=snr_is_zero))
    for options in (
        *(SolverOptions(steps=steps, exact_last_step=is_exact) for steps in (1, 2, 3, 50, 1000)),
        SolverOptions("uniform", 50, exact_last_step=is_exact),
        SolverOptions(steps=20, strength=0.3, exact_last_step=is_exact),
    ):
        rows = SOLVERS[name].rows(schedule, options)
        for column in jax.tree.leaves(rows._replace(timestep=0)):
            assert np.isfinite(column).all() and np.abs(column).max() < 50, options


@pytest.mark.parametrize("name", [name for name in ADDED if name != "heun"])
def test_the_first_step_from_pure_noise_is_the_limit_of_ever_less_signal(name: str) -> None:
    """The distance falls with the signal, to nothing. (Heun's correction has no such limit: `test_heun`.)"""

    def first(signal: float) -> np.ndarray:
        schedule = NoiseSchedule()
        schedule.alphas_cumprod_f64 = np.append(schedule.alphas_cumprod_f64[:-1], signal**2)
        rows = SOLVERS[name].rows(schedule, SolverOptions(steps=10))
        return np.array([column[0] for column in jax.tree.leaves(rows)])

    exact = first(0.0)
    for signal in (2.0**-12, 2.0**-20, 2.0**-30):
        assert 0.0 < np.abs(first(signal) - exact).max() < 50 * signal


def test_ddim_without_noise_is_eulers_method() -> None:
    """Up to the rounding of DDIM's published table, with the rescale and from pure noise."""

    def smooth(x: jax.Array, time: jax.Array) -> jax.Array:
        return jnp.sin(1.3 * x + time / 500)

    ours, eulers = (
        run(SOLVERS[name], SOLVERS[name].rows(SCHEDULE, SolverOptions(steps=7, eta=0.0)), smooth, 7, normal(1))
        for name in ("ddim", "euler")
    )
    np.testing.assert_allclose(
        ours, eulers, atol=3e-5
    )  # 1 - alphas_cumprod in float32 errs by 1e-5 of itself near time 0


@pytest.mark.parametrize("name", SOLVERS)
def test_noise_is_drawn_by_those_alone_that_add_it(name: str) -> None:
    drawn: list[int] = []

    def noise(index: jax.Array) -> jax.Array:
        drawn.append(1)
        return row_noise(index)

    solver = SOLVERS[name]
    chunk = next(chunks(solver.rows(SCHEDULE, SolverOptions(steps=2)), 2))
    jax.eval_shape(
        lambda carry, chunk: run_chunk(solver, oracle(normal(0)), carry, chunk, noise),
        solver.init(jnp.ones(SHAPE)),
        chunk,
    )
    assert bool(drawn) == (name in ("ddim", "dpmpp_2m_sde", "lcm"))


@pytest.mark.parametrize("name", SOLVERS)
def test_what_a_draft_begins_with_ends_as_the_whole_run_does(name: str) -> None:
    """The rows of a part of the steps are the last ones of all, but for what looks back."""
    whole, part = (SOLVERS[name].rows(SCHEDULE, SolverOptions(steps=10, strength=share)) for share in (1.0, 0.5))
    np.testing.assert_array_equal(part.timestep, whole.timestep[-len(part.timestep) :])
    assert part.timestep[0] == 499
