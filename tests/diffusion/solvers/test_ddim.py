"""Rows and single steps against the reference, and whole runs with a denoiser that knows the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.oracle import SCHEDULE, SHAPE, normal, oracle, row_noise, run
from tests.reference import golden, noise
from tooncrafter_jax.diffusion.guidance import guide
from tooncrafter_jax.diffusion.loop import chunks, run_chunk
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.diffusion.solvers.ddim import Ddim, DdimRows
from tooncrafter_jax.diffusion.solvers.solver import SolverOptions
from tooncrafter_jax.diffusion.solvers.visits import visits
from tooncrafter_jax.errors import UserError

DDIM = Ddim()
ONE_ULP = 1.2e-7
"""Relative spacing of float32: the reference rounds from float64 as we do, by another order of operations."""
RUNS = [(50, 1.0), (50, 0.0), (25, 1.0), (10, 1.0), (5, 1.0), (7, 1.0)]
CASES = [("uniform_trailing", 1, index) for index in (49, 25, 5, 0)]
CASES += [("uniform_trailing", 0, 10), ("uniform", 1, 30)]


@pytest.mark.parametrize(
    ("spacing", "steps", "eta"),
    [("uniform_trailing", *run) for run in RUNS] + [("uniform", 50, 1.0), ("uniform", 50, 0.0)],
)
def test_rows_equal_the_reference(spacing: Any, steps: int, eta: float) -> None:
    """The reference's tables ascend in time."""
    options = SolverOptions(spacing, steps, eta)
    run, rows = visits(SCHEDULE, options), DDIM.rows(SCHEDULE, options)
    arrays, prefix = golden("schedule"), f"{spacing}_{steps}_eta{eta:.0f}/"
    ours = {
        "alphas": run.alpha,
        "alphas_prev": rows.alpha_next,
        "sigmas": rows.sigma,
        "scale_arr": run.scale,
        "scale_arr_prev": run.scale_next,
        "sqrt_one_minus_alphas": rows.sqrt_one_minus_alpha,
    }
    np.testing.assert_array_equal(rows.timestep, arrays[prefix + "timesteps"][::-1])
    np.testing.assert_array_equal(run.timestep, rows.timestep)
    for name, column in ours.items():
        np.testing.assert_allclose(
            column,
            arrays[prefix + name][::-1],
            rtol=4 * ONE_ULP,
            atol=1e-9 if name != "sqrt_one_minus_alphas" else 4e-7,
        )


def test_the_published_last_step_goes_to_time_zero() -> None:
    run = visits(SCHEDULE, SolverOptions())
    assert run.alpha_next[-1] == SCHEDULE.alphas_cumprod[0] < 1.0
    assert run.scale_next[-1] == run.scale[-1]


def test_the_exact_last_step_differs_there_alone() -> None:
    published, exact = (DDIM.rows(SCHEDULE, SolverOptions(exact_last_step=exact)) for exact in (False, True))
    assert exact.alpha_next[-1] == 1.0 and exact.sigma[-1] == 0.0 and exact.direction[-1] == 0.0
    assert exact.rescale[-1] == 1.0 / SCHEDULE.dynamic_scale[19]
    for name, ours, theirs in zip(DdimRows._fields, exact, published, strict=True):
        np.testing.assert_array_equal(ours[:-1], theirs[:-1], err_msg=name)


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_out_of_range(eta: float) -> None:
    with pytest.raises(UserError, match=f"eta must be from 0 to 1, not {eta}"):
        DDIM.rows(SCHEDULE, SolverOptions(eta=eta))


def test_no_scale_without_dynamic_rescale() -> None:
    schedule = NoiseSchedule(replace(ScheduleConfig(), dynamic_rescale=False))
    assert (DDIM.rows(schedule, SolverOptions(steps=10)).rescale == 1).all()


@pytest.mark.parametrize(("spacing", "eta", "index"), CASES)
def test_a_step_equals_the_reference(spacing: Any, eta: int, index: int) -> None:
    """Guidance 7.5 and rescale 0.7, as published; values are of about unit size after operations on values of about
    10.
    """
    rows = DDIM.rows(SCHEDULE, SolverOptions(spacing, 50, float(eta)))
    row = DdimRows(*(jnp.asarray(column[len(rows.timestep) - 1 - index]) for column in rows))
    cond, uncond, x, eps = (
        jnp.asarray(noise(f"fixture.cfg.{name}", (2, 4, 16, 8, 16))) for name in ("cond", "uncond", "x", "noise")
    )
    results = DDIM.step(x, guide(cond, uncond, 7.5, 0.7), row, lambda: eps)
    arrays, prefix = golden("ddim_step"), f"{spacing}_50_eta{eta}_index{index}/"
    for ours, name in zip(results, ("x_prev", "pred_x0"), strict=True):
        np.testing.assert_allclose(np.moveaxis(np.asarray(ours), -1, 1)[:, :, :2], arrays[prefix + name], atol=5e-6)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [3, 50])
def test_the_exact_last_step_returns_what_the_model_knows(steps: int, eta: float) -> None:
    """Whatever the start and the noise: the last step has neither noise nor a noise estimate left."""
    clean = normal(0)
    rows = DDIM.rows(SCHEDULE, SolverOptions(steps=steps, eta=eta, exact_last_step=True))
    # A few roundings of values of about unit size; the solution for v divides by sigma >= 0.13.
    np.testing.assert_allclose(run(DDIM, rows, oracle(clean), steps, normal(2)), clean, atol=3e-6)


@pytest.mark.parametrize(("steps", "scale"), [(50, 0.9853), (25, 0.9703)])
def test_the_published_last_step_leaves_a_scale_and_noise(steps: int, scale: float) -> None:
    """Spec section 6.3: the latent times 0.985 (50 steps), and noise of standard deviation 0.029."""
    clean = normal(0)
    chunk = next(chunks(DDIM.rows(SCHEDULE, SolverOptions(steps=steps, eta=1.0)), steps))

    @jax.jit
    def final(seed: jax.Array) -> jax.Array:
        def fresh(index: jax.Array) -> jax.Array:
            return jax.random.normal(jax.random.fold_in(jax.random.key(seed), index), SHAPE)

        return run_chunk(DDIM, oracle(clean), jnp.asarray(normal(2)), chunk, fresh)[0]

    finals = np.stack([final(jnp.uint32(seed)) for seed in range(40)])
    # The mean over 40 runs errs by 0.029/sqrt(40) = 0.0046 an entry; the fit over 128 entries by 0.0004.
    fitted = float((finals.mean(0) * clean).sum() / (clean**2).sum())
    assert abs(fitted - scale) < 0.002
    assert abs((finals - finals.mean(0)).std() * np.sqrt(40 / 39) - 0.0292) < 0.0015  # 5120 draws


def test_the_first_step_of_pure_noise_forgets_its_input() -> None:
    """At the last time with eta 1 the new latents are signal and fresh noise.

    What is left of the old ones is the root of the rounding of a radicand that is 0 in exact arithmetic; the published
    code has it too, in float32: one unit in the last place of 1, 2^-24, hence 2^-12.
    """
    rows, clean = DDIM.rows(SCHEDULE, SolverOptions(steps=50)), normal(0)
    row = DdimRows(*(jnp.asarray(column[0]) for column in rows))
    assert int(row.timestep) == 999 and float(row.direction) in (0.0, 2.0**-12)

    def step(x: np.ndarray) -> np.ndarray:
        v = -SCHEDULE.dynamic_scale[999] * clean  # at time 999 v is minus the clean latents
        noise = row_noise(jnp.asarray(0))
        compiled = jax.jit(lambda x, v, row: DDIM.step(x, v, row, lambda: noise)[0])
        return np.asarray(compiled(jnp.asarray(x), jnp.asarray(v), row))

    left = (step(normal(2)) - step(normal(3))) / (normal(2) - normal(3))
    np.testing.assert_allclose(left, float(row.direction), atol=1e-4)
    time = int(rows.timestep[1])
    signal = np.float64(SCHEDULE.alphas_cumprod[time])
    expected = signal**0.5 * SCHEDULE.dynamic_scale[time] * clean + (1 - signal) ** 0.5 * row_noise(jnp.asarray(0))
    np.testing.assert_allclose(step(np.zeros(SHAPE, np.float32)), expected, atol=2e-6)
