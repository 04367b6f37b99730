"""Heun's method: two rows a step, and its way out of pure noise."""

from __future__ import annotations

import itertools

import numpy as np

from tests.diffusion.oracle import SCHEDULE
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import SolverOptions
from tooncrafter_jax.diffusion.solvers.heun import Heun


def test_a_step_is_tried_and_then_made_from_where_it_began() -> None:
    rows = Heun().rows(SCHEDULE, SolverOptions(steps=3))
    assert rows.timestep.tolist() == [999, 666, 666, 332, 332]
    tries = np.array([True, False, True, False, True])
    assert (rows.of_begun[tries] == 0).all() and (rows.of_last[tries] == 0).all() and (rows.of_x[tries] > 0).all()
    assert (rows.of_x[~tries] == 0).all()
    np.testing.assert_array_equal(rows.of_begun[~tries], rows.of_x[tries][:-1])
    np.testing.assert_allclose((rows.of_clean + rows.of_last)[~tries], rows.of_clean[tries][:-1], rtol=1e-14)


def test_from_pure_noise_both_predictions_count_alike() -> None:
    """In the noise level the trapezoid's correction grows without bound instead, the less signal there is."""
    rows = Heun().rows(SCHEDULE, SolverOptions(steps=10))
    assert rows.of_clean[1] == rows.of_last[1] > 0
    corrections = []
    for signal in (1e-3, 1e-4, 1e-5):
        schedule = NoiseSchedule()
        schedule.alphas_cumprod_f64 = np.append(schedule.alphas_cumprod_f64[:-1], signal**2)
        corrections.append(float(Heun().rows(schedule, SolverOptions(steps=10)).of_clean[1]))
    assert all(after > 9 * before for before, after in itertools.pairwise(corrections))
