"""Which clips are drawn for which positions."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tooncrafter_jax.sampling.shot_plan import PlannedClip, planned
from tooncrafter_jax.sampling.timing import CURVES, drawings_between, timing_of


def reached(plan: PlannedClip, frames: int = 16) -> dict[int, float]:
    """Number of each drawing -> where it stands."""
    return {one.number: one.position for one in plan.drawn(frames) if one.number is not None}


def plan_of(
    gap: int, timing: str = "linear", exposure: int = 1, frames: int = 16, unevenness: float = 0.5
) -> PlannedClip:
    found = drawings_between(gap, timing_of(timing), (exposure,))
    return planned({i: one.position for i, one in enumerate(found.drawings)}, frames, unevenness)


@pytest.mark.parametrize("gap", range(2, 16))
def test_gaps_shorter_than_a_clip_are_chosen_from_one(gap: int) -> None:
    assert plan_of(gap).by_level() == [1]


def test_a_gap_of_a_clips_length_is_the_clip() -> None:
    assert plan_of(15).shown == {number: number + 1 for number in range(14)}


@pytest.mark.parametrize(("gap", "clips"), [(16, 2), (30, 3), (60, 5), (100, 8), (240, 19)])
def test_longer_gaps_are_drawn_again_between_drawn_frames_with_few_clips(gap: int, clips: int) -> None:
    """Each clip has 14 frames of its own: no fewer than gap / 14 would do, and one for each pair of frames would be
    16.
    """
    plan = plan_of(gap)
    assert len(plan.by_level()) > 1
    assert gap / 15 <= sum(plan.by_level()) <= clips


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 300),
    st.sampled_from(list(CURVES)),
    st.integers(1, 3),
    st.sampled_from([3, 4, 8, 16]),
    st.sampled_from([0.5, 0.25, 0.1]),
)
def test_every_drawing_is_a_frame_of_its_own_in_order_and_near_its_place(
    gap: int, timing: str, exposure: int, frames: int, unevenness: float
) -> None:
    """No drawing is off its place by more than half a step of the first clip, and that of the level below it."""
    found = drawings_between(gap, timing_of(timing), (exposure,)).drawings
    if not found:
        return
    plan = planned({i: one.position for i, one in enumerate(found)}, frames, unevenness)
    places = reached(plan, frames)
    assert sorted(places) == list(range(len(found)))
    assert all(before < after for before, after in pairwise([0.0, *(places[i] for i in range(len(found))), 1.0]))
    step = 1 / (frames - 1)
    assert (
        max(abs(places[i] - one.position) for i, one in enumerate(found)) <= (0.5 + 0.5 * step / (1 - step)) * step * 2
    )
    assert len(plan.drawn(frames)) == sum(plan.by_level()) * (frames - 2)


@pytest.mark.parametrize("unevenness", [0.5, 0.25, 0.1, 0.01])
def test_less_unevenness_brings_drawings_nearer_to_their_places(unevenness: float) -> None:
    """Of the steps inside one clip: the ratio is bounded in each, and here there are two levels at most."""
    for chart in ((0.5,), (0.2, 0.5, 0.9)):
        plan = planned(dict(enumerate(chart)), 16, unevenness)
        places = [place for _, place in sorted(reached(plan).items())]
        for (before, after), (start, end) in zip(
            pairwise([0.0, *places, 1.0]), pairwise([0.0, *chart, 1.0]), strict=True
        ):
            assert (1 - unevenness) ** 3 - 1e-9 <= (after - before) / (end - start) <= (1 - unevenness) ** -3 + 1e-9


def test_drawings_closer_than_a_clips_frames_are_drawn_between_two_of_them() -> None:
    plan = planned({0: 0.01, 1: 0.02}, 16, 0.5)
    assert (plan.shown, len(plan.parts), plan.parts[0][:2]) == ({}, 1, (0, 1))
    assert list(reached(plan).values()) == pytest.approx([0.01, 0.02], abs=1 / 225)


@pytest.mark.gate
def test_a_search_among_thousands_of_frames_is_bounded() -> None:
    """Its time grows with the square of the frames that may be used; unbounded, this one takes minutes."""
    plan = planned({number: (number + 1) / 3800 for number in range(3799)}, 64, 0.5)
    places = reached(plan, 64)
    assert sorted(places) == list(range(3799))
    assert len(plan.by_level()) == 2 and sum(plan.by_level()) <= 64
