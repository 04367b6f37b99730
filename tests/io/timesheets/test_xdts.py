"""XDTS: the specification's layout, OpenToonz's rules of reading a track, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.io.timesheets.sheets import Plan, disc, refusal, root, sheet_of, timing_plans, track, xdts
from tooncrafter_jax import notes
from tooncrafter_jax.io.timesheets import (
    Exposure,
    Layer,
    Mark,
    TimeSheet,
    layer_of_drawings,
    read_cel,
    read_timesheet,
    sheet_of_frames,
    write_timesheet,
)
from tooncrafter_jax.io.timesheets.xdts import IDENTIFIER, parse_xdts, xdts_bytes

SAMPLE = """exchangeDigitalTimeSheet Save Data
{"header": {"cut": "12", "scene": "3"}, "version": 5, "timeTables": [{
 "name": "sheet1", "duration": 12,
 "timeTableHeaders": [{"fieldId": 0, "names": ["A"]}],
 "fields": [{"fieldId": 0, "tracks": [{"trackNo": 0, "frames": [
  {"frame": 0,  "data": [{"id": 0, "values": ["1"]}]},
  {"frame": 2,  "data": [{"id": 0, "values": ["SYMBOL_TICK_1"]}]},
  {"frame": 4,  "data": [{"id": 0, "values": ["SYMBOL_TICK_1"]}]},
  {"frame": 6,  "data": [{"id": 0, "values": ["2"]}]},
  {"frame": 8,  "data": [{"id": 0, "values": ["3"]}]},
  {"frame": 10, "data": [{"id": 0, "values": ["SYMBOL_NULL_CELL"]}]}]}]}]}]}
"""
SHOWN = ["1"] * 6 + ["2"] * 2 + ["3"] * 2 + [None] * 2


def shown(*frames: tuple[int, str], duration: int = 12) -> list[str | None]:
    """What a sheet of one track shows."""
    layers = parse_xdts(xdts(root(track(list(frames)), duration=duration))).layers
    return layers[0].shown(duration)


def test_the_sample():
    sheet = parse_xdts(SAMPLE.encode())
    assert (sheet.name, sheet.duration, sheet.cut, sheet.scene, sheet.fps) == ("sheet1", 12, "12", "3", None)
    (layer,) = sheet.layers
    assert layer.name == "A" and layer.shown(12) == SHOWN
    assert layer.keys() == {0: "1", 6: "2", 8: "3"} and layer.in_betweens() == (2, 4)
    assert layer.marks == (Mark(2, "in-between"), Mark(4, "in-between"))


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + SAMPLE.encode(),
        SAMPLE.replace("\n", "\r\n").encode(),
        SAMPLE.replace("Data\n", "Data  \t\r\n").encode(),
        b"\xef\xbb\xbf" + SAMPLE.replace("\n", "\r\n").encode(),
        SAMPLE.replace('"version": 5', '"version": 10, "unknown": {"a": [1]}').encode(),
        SAMPLE.replace('"id": 0, ', "").encode(),
        SAMPLE.replace('"frame": 6', '"frame": 6.0').encode(),
    ],
    ids=["mark", "crlf", "blanks", "mark and crlf", "version 10", "no id", "float"],
)
def test_the_sample_in_other_spellings(data: bytes):
    assert parse_xdts(data) == parse_xdts(SAMPLE.encode())


def test_dense_and_sparse_sheets_say_the_same():
    dense = [
        (
            frame,
            {0: "1", 2: "SYMBOL_TICK_1", 4: "SYMBOL_TICK_1", 6: "2", 8: "3", 10: "SYMBOL_NULL_CELL"}.get(
                frame, "SYMBOL_HYPHEN"
            ),
        )
        for frame in range(12)
    ]
    assert parse_xdts(xdts(root(track(dense)))).layers == parse_xdts(SAMPLE.encode()).layers


def test_entries_may_come_in_any_order():
    assert shown((8, "3"), (0, "1"), (10, "SYMBOL_NULL_CELL"), (6, "2")) == SHOWN


def test_before_its_first_entry_a_track_is_empty():
    assert shown((3, "1"), duration=5) == [None, None, None, "1", "1"]


def test_the_last_drawing_holds_to_the_end_unless_it_is_empty():
    assert shown((0, "1"), duration=3) == ["1"] * 3
    assert shown((0, "1"), (2, "SYMBOL_NULL_CELL"), duration=3) == ["1", "1", None]


def test_an_entry_at_the_end_closes_the_sheet_silently():
    with notes.collected() as said:
        assert shown((0, "1"), (3, "SYMBOL_NULL_CELL"), duration=3) == ["1"] * 3
    assert said == []


def test_entries_after_the_end_are_left_out_with_a_note():
    with notes.collected() as said:
        assert shown((0, "1"), (20, "2"), duration=3) == ["1"] * 3
    assert said == ["track 0 of the XDTS time sheet goes on at frame 20, after its end: that is left out"]


def test_an_entry_before_the_beginning_holds_from_there():
    assert shown((-3, "7"), (2, "1"), duration=4) == ["7", "7", "1", "1"]
    assert shown((-1, "8"), (-5, "7"), (2, "1"), duration=4) == ["8", "8", "1", "1"]
    assert shown((-3, "7"), (0, "1"), duration=2) == ["1", "1"]
    assert shown((-3, "SYMBOL_HYPHEN"), (1, "1"), duration=2) == [None, "1"]


def test_of_two_entries_at_one_frame_the_later_counts():
    with notes.collected() as said:
        assert shown((0, "1"), (0, "2"), duration=2) == ["2", "2"]
    assert said == ["track 0 of the XDTS time sheet has two entries at frame 0: the later one counts"]


def test_of_several_data_and_values_the_first_counts():
    value = root(track([(0, "1")]), duration=2)
    entry = value["timeTables"][0]["fields"][0]["tracks"][0]["frames"][0]
    entry["data"] = [{"id": 0, "values": ["5", "6"]}, {"id": 0, "values": ["7"]}]
    assert parse_xdts(xdts(value)).layers[0].shown(2) == ["5", "5"]


def test_ticks_change_no_drawing():
    layer = parse_xdts(xdts(root(track([(0, "1"), (1, "SYMBOL_TICK_1"), (2, "SYMBOL_TICK_2"), (3, "2")])))).layers[0]
    assert layer.shown(4) == ["1", "1", "1", "2"]
    assert layer.marks == (Mark(1, "in-between"), Mark(2, "reverse")) and layer.in_betweens() == (1,)


def test_numbers_are_one_drawing_however_they_are_written():
    assert shown((0, "0001"), (1, " 12a "), (2, "012A"), (3, "A1"), (4, "000"), duration=5) == [
        "1",
        "12a",
        "12A",
        "A1",
        "0",
    ]


def test_values_may_be_numbers_and_an_empty_one_is_an_empty_cell():
    value = root(
        {"trackNo": 0, "frames": [{"frame": 0, "data": [{"values": [3]}]}, {"frame": 1, "data": [{"values": [""]}]}]}
    )
    assert parse_xdts(xdts(value)).layers[0].shown(2) == ["3", None]


def test_an_unknown_sign_is_left_out_with_a_note():
    with notes.collected() as said:
        assert shown((0, "1"), (1, "SYMBOL_TICK_3"), duration=2) == ["1", "1"]
    assert "frame 1 of track 0" in said[0] and "'SYMBOL_TICK_3'" in said[0]


def test_the_bottom_track_comes_first_and_empty_ones_are_passed_over():
    value = root(track([(0, "2")], 2), track([(0, "1")], 0), track([], 1))
    assert [(layer.name, layer.shown(1)) for layer in parse_xdts(xdts(value)).layers] == [("A", ["1"]), ("C", ["2"])]


def test_columns_of_one_name_share_their_drawings():
    value = root(track([(0, "1")], 0), track([(0, "2"), (6, "1")], 1), names=("A", "A"))
    sheet = parse_xdts(xdts(value))
    assert [layer.name for layer in sheet.layers] == ["A", "A"] and sheet.levels() == {"A": ("1", "2")}


def test_a_track_without_a_name_is_called_by_its_number():
    with notes.collected() as said:
        sheet = parse_xdts(xdts(root(track([(0, "1")], 0), track([(0, "1")], 3), names=("",))))
    assert [layer.name for layer in sheet.layers] == ["1", "4"] and len(said) == 2


def test_dialogue_and_camera_are_named_as_not_read():
    value = root(track([(0, "1")]))
    value["timeTables"][0]["fields"].append({"fieldId": 3, "tracks": [track([(0, "Ann")])]})
    with notes.collected() as said:
        assert len(parse_xdts(xdts(value)).layers) == 1
    assert said == ["the XDTS time sheet has dialogue or camera work, which are not read: the cels are"]


def test_of_several_tables_the_first_is_read():
    value = root(track([(0, "1")]))
    value["timeTables"] *= 2
    with notes.collected() as said:
        assert len(parse_xdts(xdts(value)).layers) == 1
    assert said == ["the XDTS time sheet has 2 time tables: the first is read"]


def test_a_sheet_without_fields_is_empty():
    value = root()
    del value["timeTables"][0]["fields"]
    assert parse_xdts(xdts(value)) == TimeSheet("sheet1", 12)


def test_roles_rate_and_numbers_in_the_header():
    value = root(track([(0, "1"), (2, "2")])) | {"subversion": "p1", "header": {"cut": 7, "scene": "A-3"}}
    value["timeTables"][0]["frameRate"] = 24
    for frame, option in zip(
        value["timeTables"][0]["fields"][0]["tracks"][0]["frames"],
        ("OPTION_KEYFRAME", "OPTION_REFERENCEFRAME"),
        strict=True,
    ):
        frame["data"][0]["options"] = [option]
    sheet = parse_xdts(xdts(value))
    assert sheet.layers[0].exposures == (Exposure(0, "1", "key"), Exposure(2, "2", "reference"))
    assert (sheet.fps, sheet.cut, sheet.scene) == (24, "7", "A-3")


# --- what is written ---


def test_the_bytes_are_as_programs_want_them():
    data = xdts_bytes(parse_xdts(SAMPLE.encode()))
    first, _, rest = data.partition(b"\n")
    assert first == IDENTIFIER.encode() and b"\r" not in data
    value = json.loads(rest)
    assert value["version"] == 5 and value["header"] == {"cut": "12", "scene": "3"} and "subversion" not in value
    table = value["timeTables"][0]
    assert table["timeTableHeaders"] == [{"fieldId": 0, "names": ["A"]}]
    entries = table["fields"][0]["tracks"][0]["frames"]
    expected = [(0, "1"), (2, "SYMBOL_TICK_1"), (4, "SYMBOL_TICK_1"), (6, "2"), (8, "3"), (10, "SYMBOL_NULL_CELL")]
    assert entries == track([*expected, (12, "SYMBOL_NULL_CELL")])["frames"]


def test_a_layer_that_begins_later_begins_empty():
    value = json.loads(xdts_bytes(TimeSheet("a", 3, (layer_of_drawings("A", [None, "1", "1"]),))).partition(b"\n")[2])
    entries = value["timeTables"][0]["fields"][0]["tracks"][0]["frames"]
    assert entries == track([(0, "SYMBOL_NULL_CELL"), (1, "1"), (3, "SYMBOL_NULL_CELL")])["frames"]


@pytest.mark.parametrize(("scene", "cut"), [("", "12"), ("12345", "1"), ("A", "1"), ("١", "1")])
def test_a_header_is_of_numbers_or_left_out(scene: str, cut: str):
    assert "header" not in json.loads(xdts_bytes(TimeSheet("a", 3, scene=scene, cut=cut)).partition(b"\n")[2])


@given(timing_plans())
def test_a_sheet_is_the_same_after_a_round_trip(plan: Plan):
    sheet = sheet_of(plan)
    with notes.collected():
        assert parse_xdts(xdts_bytes(sheet)) == sheet


def test_what_is_lost_is_said():
    odd = layer_of_drawings("A", ["smile", "12ab", "1"])
    with notes.collected() as said:
        xdts_bytes(TimeSheet("a", 3, (odd, Layer("B", visible=False))))
    assert "the drawing 'smile' (and 1 more) is no number with at most one letter: OpenToonz shows" in said[0]
    assert "hidden or half-transparent" in said[1]


def test_drawings_lie_in_the_folder_of_their_layer(tmp_path: Path):
    frames = {"A": disc(3), "背景": disc(3, colour=(0, 0, 250))[[0, 0, 0]]}
    sheet, pictures = sheet_of_frames(frames)
    written = write_timesheet(tmp_path / "cut" / "shot.xdts", sheet, pictures)
    assert [str(path.relative_to(tmp_path / "cut")) for path in written] == [
        "A/A_0001.png",
        "A/A_0002.png",
        "A/A_0003.png",
        "背景/背景_0001.png",
        "shot.xdts",
    ]
    read = read_timesheet(written[-1])
    assert read.layers == sheet.layers
    for layer in read.layers:
        for frame, drawing in enumerate(layer.shown(3)):
            assert drawing is not None
            np.testing.assert_array_equal(read_cel(layer.cels[drawing]), frames[layer.name][frame])


def test_any_name_of_a_file_will_do(tmp_path: Path):
    """It names the sheet where the sheet has no name."""
    value = root(track([(0, "1")]))
    value["timeTables"][0]["name"] = " "
    for name in ("x" * 240, "a\tb", " a "):
        (tmp_path / f"{name}.xdts").write_bytes(xdts(value))
        assert read_timesheet(tmp_path / f"{name}.xdts").name in ("x" * 200, "a_b", "a")


def test_drawings_with_names_come_back(tmp_path: Path):
    layer = layer_of_drawings("A", ["eyes-2", "smile", "1"])
    with notes.collected():
        write_timesheet(
            tmp_path / "a.xdts",
            TimeSheet("a", 3, (layer,)),
            {"A": {drawing: disc()[0] for drawing in layer.drawings()}},
        )
    cels = read_timesheet(tmp_path / "a.xdts").layers[0].cels
    assert {drawing: cel.path.name for drawing, cel in cels.items()} == {
        "eyes-2": "A-eyes-2.png",
        "smile": "A-smile.png",
        "1": "A_0001.png",
    }


def test_timing_alone_needs_no_pictures(tmp_path: Path):
    assert write_timesheet(tmp_path / "a.xdts", TimeSheet("a", 3)) == [tmp_path / "a.xdts"]
    assert read_timesheet(tmp_path / "a.xdts") == TimeSheet("a", 3)


# --- what is refused ---

GOOD = root(track([(0, "1")]))


def with_table(**changes: object) -> dict[str, Any]:
    return GOOD | {"timeTables": [GOOD["timeTables"][0] | changes]}


def with_entry(entry: object) -> dict[str, Any]:
    return with_table(fields=[{"fieldId": 0, "tracks": [{"trackNo": 0, "frames": [entry]}]}])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its first line is '' instead of 'exchangeDigitalTimeSheet Save Data'"),
        (b'{"version": 5}', "its first line is '{\"version\": 5}'"),
        (b"toeiDigitalTimeSheet Save Data\n{}", "a TDTS sheet of Toei's own program"),
        (IDENTIFIER.encode() + b"\n\xff", "byte 35 is no UTF-8"),
        (SAMPLE.encode("utf-16"), "byte 0 is no UTF-8"),
        (IDENTIFIER.encode() + b'\n{"version": 5', "delimiter in line 2, column 14"),
        (IDENTIFIER.encode() + b'\n{"a": 1, "a": 2}', "the key 'a' twice"),
        (IDENTIFIER.encode() + b"\n" + b"[" * 100_000, "nested too deep"),
        (xdts([]), "the file is a list, where an object should be"),
        (xdts(GOOD | {"version": 4}), "version 4"),
        (xdts(GOOD | {"version": "5"}), "'version' of the file is the text '5', where a whole number"),
        (xdts(GOOD | {"timeTables": []}), "its 'timeTables' are empty"),
        (xdts(GOOD | {"timeTables": {}}), "'timeTables' of the file is an object, where a list"),
        (xdts(with_table(duration=None)), "'duration' of the first time table is missing"),
        (xdts(with_table(duration=0)), "'duration' of the first time table is 0"),
        (xdts(with_table(duration=10**12)), "'duration' of the first time table is out of every range"),
        (xdts(with_table(duration=10**6)), "is 1,000,000, where 1 to 100,000"),
        (xdts(with_table(duration=float("nan"))), "no finite number"),
        (xdts(with_table(frameRate=0)), "0.0 frames a second"),
        (xdts(with_table(name="x" * 300)), "300 characters"),
        (xdts(with_table(timeTableHeaders=[{"fieldId": 0, "names": ["A", 1]}])), "are not all texts"),
        (xdts(with_table(timeTableHeaders=[{"fieldId": 0, "names": ["\ud800"]}])), "characters that are no text"),
        (xdts(with_entry({"frame": "0", "data": []})), "'frame' of an entry of track 0 is the text '0'"),
        (xdts(with_entry({"frame": True, "data": []})), "'frame' of an entry of track 0 is True"),
        (xdts(with_entry({"frame": 0, "data": [[]]})), "what is said at frame 0 of track 0 is a list"),
        (xdts(with_entry({"frame": 0, "data": [{"values": [None]}]})), "the value at frame 0 of track 0 is nothing"),
        (xdts(with_entry({"frame": 0, "data": [{"values": ["x" * 201]}]})), "201 characters"),
        (xdts(with_entry(7)), "an entry of track 0 is a number"),
        (xdts(root(track([(0, "1")], -1))), "'trackNo' of a track of the cels is -1"),
        (xdts(root(*[track([(0, "1")])] * 1001)), "1,001 items: at most 1,000"),
    ],
)
def test_files_that_are_none(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "cut.xdts"
    path.write_bytes(data)
    assert message in refusal(path, "an XDTS time sheet")


def test_layers_whose_folders_would_be_one_are_said(tmp_path: Path):
    drawn = sheet_of_frames({name: disc(2) for name in ("A", "a")})
    with notes.collected() as said:
        write_timesheet(tmp_path / "cut.xdts", *drawn)
    assert any("layer 'a' is written to 'a~2/" in sentence and "give one another name" in sentence for sentence in said)
    with notes.collected() as said:
        write_timesheet(tmp_path / "other.xdts", *sheet_of_frames({"B": disc(2), "C": disc(2)}))
    assert not any("is written to" in sentence for sentence in said)
