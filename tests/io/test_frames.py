"""Pixel values as bytes, and how long frames are shown."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import check_playback_rate, to_uint8
from tooncrafter_jax.io.frames import as_bytes, durations, in_range


def test_to_uint8_truncates_and_clamps():
    # 0.999 of a level above 127 is still 127; rounding would give 128.
    values = np.array([-3, -1, 0, 127.999 / 127.5 - 1, 128.001 / 127.5 - 1, 1, 7], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 127, 127, 128, 255, 255]
    assert to_uint8(values.astype(np.float16).reshape(7, 1)).shape == (7, 1)


def test_to_uint8_loses_at_most_one_level_of_a_picture():
    levels = np.arange(256, dtype=np.uint8)
    back = to_uint8(levels.astype(np.float32) / 255 * 2 - 1)
    lost = levels.astype(int) - back
    assert set(lost.tolist()) <= {0, 1} and lost.mean() < 0.5


def test_to_uint8_refuses_nan():
    with pytest.raises(UserError, match="NaN"):
        to_uint8(np.array([0, np.nan], np.float32))


def test_rates_of_television_are_exact():
    assert check_playback_rate(24000 / 1001) == Fraction(24000, 1001)
    assert check_playback_rate(12.5) == Fraction(25, 2)


@pytest.mark.parametrize("rate", [Fraction(7), Fraction(24), Fraction(24000, 1001), Fraction(1000)])
@pytest.mark.parametrize("ticks", [100, 1000])
def test_rounding_errors_of_durations_do_not_add_up(rate: Fraction, ticks: int):
    for count in (1, 2, 16, 1001):
        shown = durations(count, rate, ticks)
        assert len(shown) == count and abs(sum(shown) - count * ticks / rate) <= 0.5 and min(shown) >= 0
        assert max(shown) - min(shown) <= 1


def test_what_bytes_become_for_a_network_comes_back_as_it_was() -> None:
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(as_bytes(in_range(every)), every)
    assert as_bytes(np.array([-1.5, 1.5])).tolist() == [0, 255]
