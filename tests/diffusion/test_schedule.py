"""The noise schedule, the dynamic rescale and the times of a run."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference import golden
from tooncrafter_jax.diffusion.schedule import (
    NoiseSchedule,
    ScheduleConfig,
    spaced_timesteps,
)
from tooncrafter_jax.errors import UserError

SCHEDULE = NoiseSchedule()
ONE_ULP = 1.2e-7
"""Relative spacing of float32: the reference rounds from float64 as we do, by another order of operations."""


class TestTables:
    @pytest.mark.parametrize("name", sorted(SCHEDULE.buffers()))
    def test_buffers_equal_the_reference(self, name: str) -> None:
        np.testing.assert_allclose(SCHEDULE.buffers()[name], golden("schedule")[name], rtol=ONE_ULP, atol=1e-12)

    def test_in_double_precision(self) -> None:
        arrays = golden("schedule")
        np.testing.assert_allclose(SCHEDULE.betas_before_rescale, arrays["betas_before_rescale_f64"], rtol=1e-13)
        np.testing.assert_allclose(SCHEDULE.betas, arrays["betas_f64"], rtol=1e-9)
        np.testing.assert_allclose(SCHEDULE.alphas_cumprod_f64, arrays["alphas_cumprod_f64"], rtol=1e-9)

    def test_check_values(self) -> None:
        """Spec section 6.1, to the digits given there."""
        times = [0, 1, 19, 39, 499, 979, 998, 999]
        shares = [0.99915, 0.998233446, 0.981010457, 0.960263941, 0.242359167, 8.57878e-05, 1.96789e-07, 0.0]
        np.testing.assert_allclose(SCHEDULE.alphas_cumprod[times], shares, rtol=3e-6)
        assert SCHEDULE.alphas_cumprod[999] == 0.0 and SCHEDULE.betas[999] == 1.0
        np.testing.assert_allclose(SCHEDULE.betas[998], 0.751137, rtol=1e-6)
        before = NoiseSchedule(ScheduleConfig(zero_terminal_snr=False)).alphas_cumprod
        np.testing.assert_allclose(before[999], 0.0046601, rtol=1e-5)

    def test_dynamic_scale(self) -> None:
        """Spec section 6.2; the table is longer than it is used, as published."""
        scale = SCHEDULE.dynamic_scale
        expected = [1, 0.999248, 0.985714, 0.970677, 0.850376, 0.7, 0.7]
        np.testing.assert_allclose(scale[[0, 1, 19, 39, 199, 399, 999]], expected, atol=5e-7)
        assert scale.shape == (1400,) and (np.diff(scale[:400]) < 0).all() and (scale[399:] == np.float32(0.7)).all()

    def test_signal_and_noise_shares_make_one(self) -> None:
        total = SCHEDULE.sqrt_alphas_cumprod.astype(np.float64) ** 2
        total += SCHEDULE.sqrt_one_minus_alphas_cumprod.astype(np.float64) ** 2
        np.testing.assert_allclose(total, 1.0, atol=3e-7)

    def test_no_scale_buffer_without_dynamic_rescale(self) -> None:
        buffers = NoiseSchedule(ScheduleConfig(dynamic_rescale=False)).buffers()
        assert len(buffers) == 12 and "scale_arr" not in buffers


class TestTimesteps:
    def test_trailing(self) -> None:
        """Spec section 6.3."""
        assert spaced_timesteps(1000, "uniform_trailing", 50).tolist() == list(range(19, 1000, 20))
        times = spaced_timesteps(1000, "uniform_trailing", 30).tolist()
        assert times[:3] == [32, 66, 99] and times[-1] == 999 and len(times) == 30
        assert spaced_timesteps(1000, "uniform_trailing", 1).tolist() == [999]
        assert spaced_timesteps(1000, "uniform_trailing", 1000).tolist() == list(range(1000))

    def test_trailing_visits_as_many_times_as_asked_for(self) -> None:
        """Floating point may give `arange` one value more, which is none of the schedule's times."""
        for steps in range(1, 1001):
            times = spaced_timesteps(1000, "uniform_trailing", steps)
            assert len(times) == steps and times[0] >= 0 and times[-1] == 999 and (np.diff(times) > 0).all(), steps

    def test_uniform_never_visits_pure_noise(self) -> None:
        assert spaced_timesteps(1000, "uniform", 50).tolist() == list(range(1, 1000, 20))
        assert len(spaced_timesteps(1000, "uniform", 7)) == 8  # 1000 // 7 fits eight times, as published

    @pytest.mark.usefixtures("unchecked_types")
    def test_settings_out_of_range_are_named(self) -> None:
        with pytest.raises(UserError, match="unknown timestep spacing 'quad': choose one of uniform_trailing, uniform"):
            spaced_timesteps(1000, "quad", 50)  # pyright: ignore
        for steps in (0, -3, 1001):
            with pytest.raises(UserError, match=f"from 1 to 1000, not {steps}"):
                spaced_timesteps(1000, "uniform_trailing", steps)

    @pytest.mark.parametrize("steps", [3, 27, 111, 501, 1000])
    def test_uniform_spacing_that_leaves_the_schedule(self, steps: int) -> None:
        with pytest.raises(UserError, match=f"with {steps} of 1000 steps leaves the schedule: use 'uniform_trailing'"):
            spaced_timesteps(1000, "uniform", steps)

    def test_uniform_spacing_leaves_the_schedule_at_divisors_alone(self) -> None:
        """The last time is 1000, which does not exist, exactly if the distance 1000 // steps divides 999."""
        for steps in range(1, 1001):
            distance = 1000 // steps
            if 999 % distance:
                times = spaced_timesteps(1000, "uniform", steps)
                assert times[-1] <= 999 and (np.diff(times) == distance).all(), steps
            else:
                with pytest.raises(UserError):
                    spaced_timesteps(1000, "uniform", steps)
