"""Orders of convergence on a problem whose solution is known (`tests.diffusion.gaussian`), in double precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.gaussian import (
    MEAN,
    cosine_schedule,
    followed,
    log_snr_schedule,
    run,
    spread,
)
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import SolverOptions
from tooncrafter_jax.diffusion.solvers.levels import levels

STARTS = np.array([-1.5, -0.3, 0.6, 2.0]).reshape(-1, 1, 1, 1, 1)
ORDERS = {"euler": 1.0, "dpmpp_2m": 2.0, "unipc": 3.0, "heun": 2.0}
"""UniPC's corrector adds one to the order of its predictor."""
GRIDS: dict[str, Callable[[int], NoiseSchedule]] = {
    "finite": log_snr_schedule,
    "with the dynamic rescale": partial(log_snr_schedule, dynamic_rescale=True),
}


def order(errors: list[float]) -> float:
    """Of the last doubling of the steps."""
    return float(np.log2(errors[-2] / errors[-1]))


def error(name: str, schedule: NoiseSchedule, truth: np.ndarray | None = None) -> float:
    expected = followed(schedule, STARTS) if truth is None else truth
    return float(np.abs(run(name, schedule, STARTS) - expected).max())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ORDERS)
def test_the_order_is_the_published_one(name: str, grid: str) -> None:
    """Measured orders of 100 to 200 steps; they differ from the limit by terms that fall with the steps."""
    errors = [error(name, GRIDS[grid](steps)) for steps in (50, 100, 200)]
    assert abs(order(errors) - ORDERS[name]) < 0.15, errors
    assert errors[-1] < {1.0: 1e-2, 2.0: 2e-4, 3.0: 5e-6}[ORDERS[name]], errors


@pytest.mark.parametrize(("name", "least"), [("euler", 0.9), ("dpmpp_2m", 1.8), ("unipc", 1.8), ("heun", 1.8)])
def test_the_order_stays_from_pure_noise(name: str, least: float) -> None:
    """The first signal is 0. Its step is of first order everywhere, hence of second in the whole."""
    errors = [error(name, cosine_schedule(steps)) for steps in (50, 100, 200)]
    assert order(errors) > least, errors


def test_an_epsilon_instead_of_zero_signal_stops_the_convergence() -> None:
    """A last share of signal of 2**-24, as some programs have it, leaves an error that no number of steps removes."""
    exact = followed(cosine_schedule(200), STARTS)
    assert error("unipc", cosine_schedule(200)) < 2e-5
    assert error("unipc", cosine_schedule(200, last=2.0**-24), exact) > 5e-5


# --- with noise: the distribution, which is known without drawing from it ---

ENTRIES, OF_START, OF_MEAN = 203, 201, 202


def impulse(index: Any) -> Any:
    """Noise of 1 in one entry for each step, so that a run of a linear model shows what became of it."""
    return (jnp.arange(ENTRIES) == index).astype(jnp.float64).reshape(-1, 1, 1, 1, 1)


def moments_error(name: str, schedule: NoiseSchedule) -> tuple[float, float]:
    """Errors of mean and standard deviation at the end, for eta 1."""
    reached = levels(schedule, SolverOptions(steps=schedule.config.timesteps))
    start = np.full((ENTRIES, 1, 1, 1, 1), reached.signal[0] * MEAN)
    start[OF_START] += spread(reached.signal[0], reached.noise[0])
    ends = run(name, schedule, start, impulse).reshape(-1)
    deviation = np.sqrt(np.sum((ends - ends[OF_MEAN]) ** 2))
    expected = reached.signal[-1] * MEAN, spread(reached.signal[-1], reached.noise[-1])
    return abs(ends[OF_MEAN] - expected[0]), abs(deviation - expected[1])


@pytest.mark.parametrize(("name", "least"), [("ddim", 0.9), ("dpmpp_2m_sde", 1.8)])
@pytest.mark.parametrize("grid", [log_snr_schedule, cosine_schedule])
def test_the_weak_order_with_noise(name: str, least: float, grid: Callable[[int], NoiseSchedule]) -> None:
    """The mean and the deviation of what a run draws approach the data's, noise and start from pure noise included.

    The mean is exact at any number of steps, but for DDIM's table, which is rounded to float32 as published.
    """
    errors = [moments_error(name, grid(steps)) for steps in (50, 100, 200)]
    for moment in zip(*errors, strict=True):
        assert order(list(moment)) > least or moment[-1] < 1e-6, errors
