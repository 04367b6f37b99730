"""Exposure, curves and charts: which drawings a gap has, and where they stand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tooncrafter_jax import UserError
from tooncrafter_jax.sampling.timing import (
    CHARTS,
    CURVES,
    LEAST_STEP,
    Timing,
    drawings_between,
    exposure_of,
    held_at,
    timing_of,
)


def positions(gap: int, timing: object = "linear", exposure: object = 1) -> list[float]:
    return [one.position for one in drawings_between(gap, timing_of(timing), exposure_of(exposure)).drawings]


def offsets(gap: int, timing: object = "linear", exposure: object = 1) -> list[int]:
    return [one.offset for one in drawings_between(gap, timing_of(timing), exposure_of(exposure)).drawings]


def test_on_ones_every_frame_has_a_drawing_of_its_own() -> None:
    assert offsets(4) == [1, 2, 3]
    assert positions(4) == [0.25, 0.5, 0.75]


def test_on_twos_every_second_frame_has() -> None:
    assert offsets(7, exposure=2) == [2, 4, 6]
    assert positions(8, exposure="twos") == [0.25, 0.5, 0.75]


def test_a_list_of_holds_is_repeated_and_the_first_is_the_keys() -> None:
    assert offsets(12, exposure="2,1,3") == [2, 3, 6, 8, 9]
    assert offsets(12, exposure=[2, 1, 3]) == offsets(12, exposure=np.asarray([2, 1, 3]))


def test_keys_side_by_side_have_nothing_between() -> None:
    assert offsets(1) == offsets(2, exposure=2) == offsets(1, "ease-in", "threes") == []


def test_curves_begin_and_end_as_they_are_called() -> None:
    even = np.diff([0, *positions(16), 1])
    slow_start, slow_end, slow_ends = (
        np.diff([0, *positions(16, name), 1]) for name in ("ease-in", "ease-out", "ease-in-out")
    )
    assert slow_start[0] < even[0] / 2 < slow_start[-1] / 2
    assert slow_end[-1] < even[-1] / 2 < slow_end[0] / 2
    assert max(slow_ends[0], slow_ends[-1]) < even[0] / 2
    np.testing.assert_allclose(slow_start, slow_end[::-1], atol=1e-12, err_msg="one is the other, run backwards")


def test_a_curve_is_that_of_style_sheets() -> None:
    """Values of the CSS Easing Functions' cubic-bezier(0.25, 0.1, 0.25, 1), by Newton's method to 12 digits."""

    def by_newton(time: float, x1: float, y1: float, x2: float, y2: float) -> float:
        share = time
        for _ in range(50):
            x = 3 * (1 - share) ** 2 * share * x1 + 3 * (1 - share) * share**2 * x2 + share**3
            slope = 3 * (1 - share) ** 2 * x1 + 6 * (1 - share) * share * (x2 - x1) + 3 * share**2 * (1 - x2)
            share -= (x - time) / slope
        return 3 * (1 - share) ** 2 * share * y1 + 3 * (1 - share) * share**2 * y2 + share**3

    found = positions(10, "cubic-bezier(0.25, 0.1, 0.25, 1)")
    assert found == pytest.approx([by_newton(k / 10, 0.25, 0.1, 0.25, 1) for k in range(1, 10)], abs=1e-10)
    assert found == positions(10, "ease")


def test_a_chart_lists_the_drawings_and_spreads_them() -> None:
    assert (offsets(24, "halves"), positions(24, "halves")) == ([12], [0.5])
    assert (offsets(24, "thirds"), positions(24, "thirds")) == ([8, 16], [1 / 3, 2 / 3])
    assert positions(24, "favour-first")[0] < 0.5 < positions(24, "favor-last")[0]
    assert offsets(24, [0.2, 0.5, 0.9]) == [6, 12, 18]
    assert offsets(9, "0.2, 1/2, .9", exposure=2) == [2, 4, 8], "on frames where twos have a new drawing"
    assert positions(9, "0.2, 1/2, .9") == positions(9, np.asarray([0.2, 0.5, 0.9])) == [0.2, 0.5, 0.9]


def test_drawings_that_would_hardly_move_are_held() -> None:
    found = drawings_between(600, timing_of("ease-in-out"), (1,))
    assert found.held > 0
    assert found.held + len(found.drawings) == 599
    assert found.drawings[0].position >= LEAST_STEP


def test_every_timing_is_known_again_from_its_text() -> None:
    for value in (*CURVES, *CHARTS, "cubic-bezier(.4,0,.2,1)", "0.2,0.5", ",".join(f"{k / 100}" for k in range(1, 99))):
        timing = timing_of(value)
        again = timing_of(timing.text)
        assert again.text == timing.text
        assert positions(200, again) == pytest.approx(positions(200, timing), abs=1e-6)
    assert timing_of("cubic-bezier(0.3,0.3,0.6,0.6)") == Timing("linear")


def test_which_drawing_a_frame_shows() -> None:
    assert [held_at([2, 4], frame) for frame in range(6)] == [-1, -1, 0, 0, 1, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.sampled_from([*CURVES, "cubic-bezier(1,0,0,1)", "cubic-bezier(0,1,1,0)"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_drawings_ascend_between_the_keys(gap: int, timing: str, exposure: list[int]) -> None:
    found = drawings_between(gap, timing_of(timing), exposure).drawings
    places = [0.0, *(one.position for one in found), 1.0]
    assert all(after - before >= LEAST_STEP * 0.999 for before, after in pairwise(places))
    frames = [0, *(one.offset for one in found), gap]
    assert all(before < after for before, after in pairwise(frames))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("bounce", "none of linear"),
        ("", "none of linear"),
        ("0.5,x", "none of linear"),
        ("1/0", "none of linear"),
        ("nan", "none of linear"),
        (7, "none of linear"),
        (None, "none of linear"),
        ([], "none of linear"),
        ([True], "none of linear"),
        ([[0.5]], "none of linear"),
        ("cubic-bezier(0,0,1)", "four numbers"),
        ("cubic-bezier(0.4,-0.5,0.2,1)", "past a key"),
        ("cubic-bezier(0.4,0,0.2,1.5)", "past a key"),
        ("0.5,0.2", "must ascend"),
        ("0.5,0.5", "must ascend"),
        ("0,0.5", "keys themselves are 0 and 1"),
        ([0.5, 1.0], "keys themselves are 0 and 1"),
        ([float("nan")], "keys themselves are 0 and 1"),
        ([0.5] * 10_001, "at most"),
    ],
)
def test_what_is_no_timing_ends_in_a_sentence(value: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        timing_of(value)


@pytest.mark.parametrize("value", [0, -1, 10_001, 1.5, True, None, "", "x", "2,", "2;3", [], [2, 0], [1.5], "1e3", {}])
def test_what_is_no_exposure_ends_in_a_sentence(value: object) -> None:
    with pytest.raises(UserError, match="the exposure (is|holds)"):
        exposure_of(value)


def test_a_chart_that_does_not_fit_ends_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"the gap has 4 frames.*2 leaves room for 1 drawing, but its chart .* has 3"):
        drawings_between(4, timing_of("quarters"), (2,))
