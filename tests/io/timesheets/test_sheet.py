"""What a sheet says: drawings at each frame, keys, runs, wanted in-betweens; and sheets from what was drawn."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.io.timesheets.sheets import NUMBERS, Plan, disc, layer_of, layer_plans
from tooncrafter_jax import notes
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.timesheets import (
    Exposure,
    Layer,
    Mark,
    Run,
    TimeSheet,
    exposures_of,
    layer_of_drawings,
    numbered,
    sheet_of_frames,
    with_in_betweens,
)
from tooncrafter_jax.io.timesheets.sheet import MAX_FRAMES, MAX_LAYERS

LAYER = Layer(
    "A",
    (Exposure(0, "1"), Exposure(6, "2"), Exposure(8, "3"), Exposure(10, None), Exposure(14, "1")),
    tuple(Mark(frame, "in-between") for frame in (2, 4, 9, 12, 15)),
)
"""Drawings 1, 2, 3 with two in-betweens after the first; nothing from 10 to 13; the first again."""


def test_drawings_hold_until_the_next():
    assert LAYER.shown(16) == ["1"] * 6 + ["2"] * 2 + ["3"] * 2 + [None] * 4 + ["1"] * 2
    assert LAYER.shown(7) == ["1"] * 6 + ["2"]
    assert LAYER.drawings() == ("1", "2", "3")
    assert Layer("A", (Exposure(2, "1"),)).shown(4) == [None, None, "1", "1"]
    assert Layer("A").shown(2) == [None, None] and Layer("A").runs(2) == ()


def test_runs_end_where_nothing_is_shown():
    assert LAYER.runs(16) == (
        Run(0, 10, {0: "1", 6: "2", 8: "3"}, (2, 4)),
        Run(14, 16, {14: "1"}, ()),
    )
    assert LAYER.runs(7) == (Run(0, 7, {0: "1", 6: "2"}, (2, 4)),)


def test_runs_of_a_long_layer_take_no_long_time():
    """A drawing and a mark at every other frame, and a gap now and then."""
    exposures = tuple(Exposure(frame, None if frame % 100 == 98 else str(frame)) for frame in range(0, MAX_FRAMES, 2))
    marks = tuple(Mark(frame, "in-between") for frame in range(1, MAX_FRAMES, 2))
    start = time.process_time()
    runs = Layer("A", exposures, marks).runs(MAX_FRAMES)
    assert time.process_time() - start < 20  # or many minutes
    assert len(runs) == MAX_FRAMES // 100
    assert runs[1] == Run(100, 198, {f: str(f) for f in range(100, 198, 2)}, tuple(range(101, 196, 2)))


def test_in_betweens_are_wanted_between_drawings_alone():
    """9 comes after the last drawing of its run, 12 where nothing is shown, and 15 after the last drawing of all."""
    assert LAYER.in_betweens() == (2, 4)


def test_keys_are_those_that_are_marked_or_all():
    assert LAYER.keys() == {0: "1", 6: "2", 8: "3", 14: "1"}
    marked = Layer(
        "A", (Exposure(0, "1", "key"), Exposure(2, "2"), Exposure(4, "3", "reference"), Exposure(6, "4", "key"))
    )
    assert marked.keys() == {0: "1", 6: "4"}
    assert Layer("A", (Exposure(0, "1"), Exposure(2, "2", "reference"))).keys() == {0: "1", 2: "2"}


@given(st.lists(st.none() | st.sampled_from(NUMBERS), min_size=1, max_size=60))
def test_a_layer_of_drawings_shows_them(drawings: list[str | None]):
    layer = layer_of_drawings("A", drawings)
    assert layer.shown(len(drawings)) == drawings
    shown = {frame for run in layer.runs(len(drawings)) for frame in range(run.start, run.end)}
    assert shown == {frame for frame, drawing in enumerate(drawings) if drawing is not None}


@given(layer_plans(30, NUMBERS, marks=True))
def test_runs_hold_every_drawing_once(plan: Plan):
    layer = layer_of(plan)
    runs = layer.runs(30)
    found = {frame: drawing for run in runs for frame, drawing in run.drawings.items()}
    assert found == {frame: drawing for frame, drawing, _ in layer.exposures if drawing is not None}
    assert all(before.end < after.start for before, after in itertools.pairwise(runs))
    assert all(min(run.drawings) == run.start < run.end <= 30 for run in runs)


def test_exposures_that_change_nothing_are_left_out():
    entries = [Exposure(0, None), Exposure(1, "1"), Exposure(2, "1", "key"), Exposure(3, None), Exposure(4, None)]
    assert exposures_of(entries) == (Exposure(1, "1", "key"), Exposure(3, None))


def test_a_layer_is_found_by_its_name():
    sheet = TimeSheet("shot", 16, (Layer("B"), LAYER, Layer("A")))
    with notes.collected() as said:
        assert sheet.layer("A") == LAYER
    assert said == ["the sheet has 2 layers 'A': the lowest is taken"]
    assert sheet.levels() == {"B": (), "A": ("1", "2", "3")}
    with pytest.raises(UserError, match="no layer 'C': it has 'B', 'A'"):
        sheet.layer("C")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer("A", (Exposure(2, "1"), Exposure(1, "2"))), "not in the order of their frames: 1 follows 2"),
        (lambda: Layer("A", (Exposure(2, "1"), Exposure(2, "2"))), "2 follows 2"),
        (lambda: Layer("A", (Exposure(-1, "1"),)), "exposures before frame 0"),
        (lambda: Layer("A", (Exposure(0, "1"), Exposure(1, "1"))), "show '1' at frame 1, which it does already"),
        (lambda: Layer("A", (Exposure(0, None),)), "begins to show nothing at frame 0"),
        (lambda: Layer("A", (Exposure(0, "1"),), (Mark(0, "reverse"),)), "a mark at frame 0, where a drawing begins"),
        (lambda: Layer("A", (Exposure(0, "01"),)), "drawing '01': call it '1'"),
        (lambda: Layer("A", (Exposure(0, "SYMBOL_TICK_1"),)), "a sign of time sheets"),
        (lambda: Layer("A", (Exposure(0, "_blank"),)), "a sign of time sheets"),
        (lambda: Layer("A", (Exposure(0, ""),)), "a drawing's name in the layer 'A' is empty"),
        (lambda: Layer(""), "a layer's name is empty"),
        (lambda: Layer(" A"), "has blanks around it"),
        (lambda: Layer("A\nB"), "characters that are no text"),
        (lambda: Layer("\ud800"), "characters that are no text"),
        (lambda: Layer("A" * 201), "201 characters"),
        (lambda: Layer("A", opacity=float("nan")), "the opacity nan"),
        (lambda: TimeSheet("a", 0), "0 frames"),
        (lambda: TimeSheet("a", MAX_FRAMES + 1), "1 to 100,000"),
        (lambda: TimeSheet("a", 4, (LAYER,)), "says something at frame 15, but the sheet ends after frame 3"),
        (lambda: TimeSheet("a", 4, (Layer("A"),) * (MAX_LAYERS + 1)), "1,001 layers"),
        (lambda: TimeSheet("a", 4, fps=0.0), "0.0 frames a second"),
        (lambda: TimeSheet("a", 4, fps=float("nan")), "nan frames a second"),
        (lambda: TimeSheet("a", 4, size=(0, 8)), "0 x 8 pixels"),
    ],
)
def test_sheets_that_cannot_be(make, message: str):
    with pytest.raises(UserError, match=message):
        make()


# --- from what was drawn ---


def test_equal_frames_are_one_drawing_and_transparent_ones_none():
    a, b = disc(2), disc(2, colour=(0, 0, 255))
    ink = np.stack([a[0], a[0], a[1], np.zeros_like(a[0]), a[0]])
    paint = np.stack([b[0], b[1], b[1], b[1], b[1]])
    sheet, pictures = sheet_of_frames({"paint": paint, "ink": ink}, fps=12, name="cut 3")
    assert sheet == TimeSheet(
        "cut 3",
        5,
        (layer_of_drawings("paint", ["1", "2", "2", "2", "2"]), layer_of_drawings("ink", ["1", "1", "2", None, "1"])),
        fps=12,
        size=(32, 24),
    )
    assert [list(drawings) for drawings in pictures.values()] == [["1", "2"], ["1", "2"]]
    for layer, frames in zip(sheet.layers, (paint, ink), strict=True):
        for drawing, frame in zip(layer.shown(5), frames, strict=True):
            expected = np.zeros_like(frame) if drawing is None else pictures[layer.name][drawing]
            np.testing.assert_array_equal(expected, frame)


def test_a_black_opaque_frame_is_a_drawing():
    sheet, pictures = sheet_of_frames({"A": np.zeros((2, 8, 8, 3), np.uint8)})
    assert sheet.layers[0].shown(2) == ["1", "1"] and list(pictures["A"]) == ["1"]


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({}, "needs a layer"),
        ({"A": np.zeros((2, 8, 8, 3), np.float32)}, "'A' is no uint8 array"),
        ({"A": np.zeros((0, 8, 8, 3), np.uint8)}, "'A' is no uint8 array"),
        ({"A": np.zeros((2, 8, 8, 2), np.uint8)}, "2 channels"),
        ({"A": disc(2), "B": disc(3)}, "as many frames, of one size: 'A' 2 of 32 x 24, 'B' 3 of 32 x 24"),
        ({"A": disc(2), "B": disc(2, width=40)}, "'B' 2 of 40 x 24"),
    ],
)
def test_frames_of_no_sheet(frames, message: str):
    with pytest.raises(UserError, match=message):
        sheet_of_frames(frames)


# --- in-betweens and numbers ---


def test_in_betweens_get_letters_after_the_key():
    with notes.collected() as said:
        layer, new = with_in_betweens(LAYER)
    assert new == {2: "1a", 4: "1b"}
    assert layer.shown(16) == ["1", "1", "1a", "1a", "1b", "1b", "2", "2", "3", "3", None, None, None, None, "1", "1"]
    assert [mark.frame for mark in layer.marks] == [9, 12, 15] and "its mark at frame 9" in said[0]


def test_letters_that_are_taken_are_passed_over():
    layer = Layer(
        "A",
        (Exposure(0, "1"), Exposure(1, "1a"), Exposure(2, "1"), Exposure(5, "2")),
        (Mark(3, "in-between"), Mark(4, "in-between")),
    )
    assert with_in_betweens(layer)[1] == {3: "1b", 4: "1c"}


def test_in_betweens_without_letters_are_refused():
    named = Layer("A", (Exposure(0, "smile"), Exposure(4, "2")), (Mark(2, "in-between"),))
    with pytest.raises(UserError, match="frame 2 of the layer 'A' gets no letter after the drawing 'smile': number"):
        with_in_betweens(named)
    assert with_in_betweens(numbered(named)[0])[1] == {2: "1a"}
    many = Layer("A", (Exposure(0, "1"), Exposure(28, "2")), tuple(Mark(frame, "in-between") for frame in range(1, 28)))
    with pytest.raises(UserError, match="more than 26 in-betweens follow the drawing '1' of the layer 'A'"):
        with_in_betweens(many)


def test_drawings_are_numbered_as_they_appear():
    layer, names = numbered(layer_of_drawings("A", ["7", "smile", None, "7"]))
    assert names == {"7": "1", "smile": "2"} and layer.shown(4) == ["1", "2", None, "1"]
