"""Times by their noise levels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.diffusion.oracle import SCHEDULE
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.diffusion.solvers import SolverOptions
from tooncrafter_jax.diffusion.solvers.visits import visits
from tooncrafter_jax.diffusion.spacing import given_timesteps, karras_timesteps, refined_timesteps, run_timesteps
from tooncrafter_jax.errors import UserError


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50, 300, 999, 1000])
def test_any_number_of_times_from_the_last_on_each_once(steps: int) -> None:
    times = run_timesteps(SCHEDULE, "karras", steps)
    assert len(times) == steps and times.dtype == np.int32 and times[-1] == 999
    assert (np.diff(times) > 0).all() and times[0] >= (0 if steps == 1000 else 1)


def test_seventh_roots_of_the_levels_are_evenly_spaced() -> None:
    """But for the first step, from pure noise, and for the rounding to whole times."""
    times = run_timesteps(SCHEDULE, "karras", 10)
    roots = np.append(SCHEDULE.noise_levels[0], SCHEDULE.noise_levels[times[:-1]]) ** (1 / 7)
    wanted = (20 ** (1 / 7) - roots[0]) / 10
    np.testing.assert_allclose(np.diff(roots), wanted, rtol=0.1)


def test_without_zero_terminal_snr_the_ladder_begins_at_the_last_level() -> None:
    schedule = NoiseSchedule(ScheduleConfig(zero_terminal_snr=False, dynamic_rescale=False))
    times = karras_timesteps(schedule.noise_levels, 4)
    roots = np.append(schedule.noise_levels[0], schedule.noise_levels[times]) ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=0.02)


def test_a_run_visits_them() -> None:
    run = visits(SCHEDULE, SolverOptions("karras", 10))
    np.testing.assert_array_equal(run.timestep, run_timesteps(SCHEDULE, "karras", 10)[::-1])
    for steps in (0, 1001):
        with pytest.raises(UserError, match=f"from 1 to 1000, not {steps}"):
            visits(SCHEDULE, SolverOptions("karras", steps))


def test_times_can_be_given() -> None:
    run = visits(SCHEDULE, SolverOptions(steps=7, timesteps="999, 600,300,0"))
    assert run.timestep.tolist() == [999, 600, 300, 0]
    assert visits(SCHEDULE, SolverOptions(timesteps="999,600,300,0", strength=0.5)).timestep.tolist() == [300, 0]


@pytest.mark.parametrize(
    "text", ["", "1000,5", "999,5,5", "999,3,4", "999,-1", "a,b", "999,,8", "999,9.5", "9" * 40, "600,300"]
)
def test_what_are_no_times_is_one_sentence(text: str) -> None:
    with pytest.raises(
        UserError, match="must be whole numbers that begin with 999, pure noise, and go down, such as 999,600,300, not"
    ):
        given_timesteps(text, 1000)


def test_times_are_moved_to_where_they_cost_least() -> None:
    """Each a stride from the best, at most; the first stays, and their order does."""
    wanted, asked = np.array([999, 402, 148, 41]), []

    def cost(times: list[int]) -> float:
        asked.append(times)
        return float(np.abs(np.log(np.array(times) / wanted)).sum())

    begun = run_timesteps(SCHEDULE, "uniform_trailing", 4)[::-1].tolist()
    times, lowest = refined_timesteps(begun, cost)
    assert times[0] == 999 and np.abs(np.array(times) - wanted).max() <= 4 and lowest == cost(times)
    assert all((np.diff(times) < 0).all() and times[-1] >= 0 for times in asked)
