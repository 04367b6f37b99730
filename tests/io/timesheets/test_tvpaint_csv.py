"""TVPaint's CSV: as Krita and TVPaint write it, and what is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from tests.io.timesheets.sheets import Plan, disc, drawn_plans, refusal, sheet_of
from tooncrafter_jax import notes
from tooncrafter_jax.io.srgb_profile import srgb_profile
from tooncrafter_jax.io.timesheets import (
    TimeSheet,
    read_cel,
    read_timesheet,
    sheet_of_frames,
    write_timesheet,
)
from tooncrafter_jax.io.timesheets.levels import level_paths
from tooncrafter_jax.io.timesheets.tvpaint_csv import csv_bytes, parse_csv

HEAD = """UTF-8, TVPaint, "CSV 1.0"
Project Name, Width, Height, Frame Count, Layer Count, Frame Rate, Pixel Aspect Ratio, Field Mode
"""
KRITA = (
    HEAD
    + """"shot", 64, 32, 4, 2, 24.000000, 1.000000, Progressive
#Layers, "ink", "paint"
#Density, 0.500000, 1.000000
#Blending, "Color", "Multiply"
#Visible, 1, 0
#00000, "frame00001-00000.png", "frame00002-00000.png"
#00001, "frame00001-00000.png", "frame00002-00000.png"
#00002, "", "frame00002-00000.png"
#00003, "frame00001-00003.png", "frame00002-00000.png"
"""
)
TVPAINT = """UTF-8, TVPaint, "CSV 1.1"
Project Name, Width, Height, Frame Count, Layer Count, Frame Rate, Pixel Aspect Ratio, Field Mode
"cut 7", 64, 32, 5, 3, 25.000000, 1.000000, Progressive

#Layers, "ink", "rough", "paint"
#Folder, "D:\\film\\cut7.layers\\[001] ink", "D:\\film\\cut7.layers\\[002] rough", "D:\\film\\cut7.layers\\[003] paint"
#Density, 1.000000, 1.000000, 1.000000
#Blending, "Color", "Color", "Color"
#Visible, 1, 1, 1
#00001, "[001][00001] up, left.png", "[002][00001] rough.png", "[003][00001] v1.2.png"
#00002, "[001][00001] up, left.png", "[002][00001] rough.png", "[003][00001] v1.2.png"
#00003, "[001][00003] down.png", "[002][00003] rough.png"
#00004, "[003][00004] end.png"
#00005, "[001][00005] up.png", "", ""
"""


def parsed(text: str) -> TimeSheet:
    return parse_csv(text.replace("\n", "\r\n").encode(), Path("nowhere/cut.csv"))


def test_as_krita_writes_it(tmp_path: Path):
    path = tmp_path / "cut.csv"
    path.write_bytes(KRITA.replace("\n", "\r\n").encode())
    (tmp_path / "cut.frames").mkdir()
    Image.new("RGB", (64, 32), (255, 0, 0)).save(tmp_path / "cut.frames" / "frame00001-00003.png")
    with notes.collected() as said:
        sheet = read_timesheet(path)
    assert (sheet.name, sheet.duration, sheet.fps, sheet.size) == ("shot", 4, 24, (64, 32))
    paint, ink = sheet.layers  # the top one comes first in the file
    assert ink.name == "ink" and ink.opacity == 0.5 and ink.visible and not paint.visible
    assert ink.shown(4) == ["frame00001-00000"] * 2 + [None, "frame00001-00003"]
    assert paint.shown(4) == ["frame00002-00000"] * 4
    assert list(ink.cels) == ["frame00001-00003"] and read_cel(ink.cels["frame00001-00003"])[0, 0, 0] == 255
    assert said == ["the layer 'paint' of the TVPaint CSV has a blending mode, which is not read"]


def test_as_tvpaint_writes_it(tmp_path: Path):
    """Rows count from 1 and leave out layers that are empty; folders are those of another machine; labels repeat."""
    path = tmp_path / "cut7.csv"
    path.write_text(TVPAINT)
    for folder, file in (("[001] ink", "[001][00003] down"), ("[003] paint", "[003][00001] v1.2")):
        (tmp_path / "cut7.layers" / folder).mkdir(parents=True)
        Image.new("RGB", (64, 32)).save(tmp_path / "cut7.layers" / folder / f"{file}.png")
    sheet = read_timesheet(path)
    paint, rough, ink = sheet.layers
    assert (sheet.name, sheet.duration, sheet.fps) == ("cut 7", 5, 25)
    assert ink.shown(5) == ["up, left", "up, left", "down", None, "up"]
    assert rough.shown(5) == ["1", "1", "3", None, None]  # its drawings have no labels of their own
    assert paint.shown(5) == ["v1.2", "v1.2", None, "end", None]
    assert list(ink.cels) == ["down"] and list(paint.cels) == ["v1.2"] and not rough.cels


@pytest.mark.parametrize(
    "text",
    [
        KRITA.replace(", ", ";"),
        KRITA.replace(", ", ";").replace("24.000000", "24,000000"),
        KRITA.replace(", ", ","),
        "\ufeff" + KRITA,
        KRITA.replace("#Layers", "\n,,\n#Layers"),
        KRITA.replace('"frame00001-00000.png"', "frame00001-00000.png"),
        KRITA.replace("#0000", "#0001"),
        KRITA.replace('"ink", "paint"', '"ink", "paint", ').replace("UTF-8", "UTF-8"),
        KRITA.replace(" 4, 2, ", " 3, 2, "),
    ],
    ids=["semicolons", "commas in numbers", "no blanks", "mark", "empty rows", "unquoted", "from 10", "comma", "count"],
)
def test_other_spellings(text: str):
    with notes.collected():
        assert parsed(text) == parsed(KRITA)


def test_the_last_drawings_hold_to_the_frame_count():
    with notes.collected():
        assert parsed(KRITA.replace(" 4, 2, ", " 6, 2, ")).layers[1].shown(6)[3:] == ["frame00001-00003"] * 3


def test_layers_of_one_name_and_other_pictures_are_told_apart(tmp_path: Path):
    (tmp_path / "a.frames").mkdir()
    for name in ("x", "y"):
        (tmp_path / "a.frames" / name).mkdir()
        Image.new("RGB", (64, 32)).save(tmp_path / "a.frames" / name / "A_0001.png")
    text = HEAD + '"shot", 64, 32, 1, 2, 24, 1, Progressive\n#Layers, "A", "A"\n#0, "x/A_0001.png", "y\\A_0001.png"\n'
    (tmp_path / "a.csv").write_text(text)
    with notes.collected() as said:
        sheet = read_timesheet(tmp_path / "a.csv")
    assert [(layer.name, layer.drawings()) for layer in sheet.layers] == [("A", ("1",)), ("A~2", ("1",))]
    assert len(said) == 1


# --- what is written ---


def test_a_written_file_is_as_krita_writes_it(tmp_path: Path):
    frames = {"paint": disc(4)[[0, 0, 0, 0]], 'ink "a"': disc(4, colour=(0, 0, 0))[[0, 0, 1, 0]]}
    frames['ink "a"'][2] = 0
    sheet, pictures = sheet_of_frames(frames, fps=24, name="shot")
    written = write_timesheet(tmp_path / "cut.csv", sheet, pictures)
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "cut.frames/paint_0001.png",
        "cut.frames/ink _a__0001.png",
        "cut.csv",
    ]
    expected = (
        HEAD
        + """"shot", 32, 24, 4, 2, 24.000000, 1.000000, Progressive
#Layers, "ink ""a""\", "paint"
#Density, 1.000000, 1.000000
#Blending, "Color", "Color"
#Visible, 1, 1
#00000, "ink _a__0001.png", "paint_0001.png"
#00001, "ink _a__0001.png", "paint_0001.png"
#00002, "", "paint_0001.png"
#00003, "ink _a__0001.png", "paint_0001.png"
"""
    )
    assert written[-1].read_bytes() == expected.replace("\n", "\r\n").encode()
    with Image.open(written[0]) as picture:
        assert picture.info["icc_profile"] == srgb_profile()
    read = read_timesheet(written[-1])
    assert read == sheet
    for layer in read.layers:
        for drawing, frame in zip(layer.shown(4), frames[layer.name], strict=True):
            found = np.zeros_like(frame) if drawing is None else read_cel(layer.cels[drawing], read.size)
            np.testing.assert_array_equal(found, frame)


@given(drawn_plans())
def test_a_sheet_is_the_same_after_a_round_trip(plan: Plan):
    sheet = sheet_of(plan)
    data = csv_bytes(sheet, level_paths(sheet.levels(), folders=False))
    assert parse_csv(data, Path("nowhere/cut.csv")) == sheet


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is '' instead of 'UTF-8, TVPaint, ...'"),
        ("ink,paint\n1,2\n", "its first line is 'ink,paint'"),
        (HEAD, "it has no row of #Layers"),
        (KRITA.replace("#Layers", "#Names"), "it has no row of #Layers"),
        (KRITA[: KRITA.index("#00000")], "it has no row of a frame"),
        (KRITA.replace("#00002", "#00007"), "line 10 is of frame #00007, where #00002 should be"),
        (KRITA.replace("#00002", "#00001"), "line 10 is of frame #00001"),
        (KRITA.replace("#00002", "#two"), "line 10 begins with '#two', where a frame such as #00000"),
        (KRITA.replace("#00003, ", '#00003, "", "", "a.png", '), "row 3 of the frames has 5 cells for 2 layers"),
        (KRITA.replace('#00002, "", ', "#00002, "), "row 2 of the frames has 1 cells for 2 layers, and 'frame00002-"),
        (TVPAINT.replace("[003][00004]", "[004][00004]"), "'[004][00004] end.png' does not say which is its own"),
        (KRITA.replace(" 64, 32, 4", " wide, 32, 4"), "its 'Width' is 'wide', where a number should be"),
        (KRITA.replace(" 64, 32, 4", " 64.5, 32, 4"), "its 'Width' is 64.5, where a whole number should be"),
        (KRITA.replace(" 64, 32, 4", " 64, 32, 999999"), "999999 frames: it must have 1 to 100,000"),
        (KRITA.replace("24.000000", "nan"), "its 'Frame Rate' is 'nan'"),
        (KRITA.replace("24.000000", "-24"), "-24.0 frames a second"),
        (KRITA.replace("0.500000", "half"), "its '#Density' is 'half'"),
        (KRITA.replace("frame00001-00003.png", "../../secret.png"), "'../../secret.png' leads out of its folder"),
        (KRITA.replace("frame00001-00003.png", "/etc/passwd"), "'/etc/passwd' is an absolute path"),
        (KRITA.replace("frame00001-00003.png", "C:\\a.png"), "is an absolute path"),
        (KRITA.replace("frame00001-00003.png", "a\x07.png"), "characters that are no text"),
        (KRITA.replace("#Density", '#Folder, "../../etc", ""\n#Density'), "'../../etc' leads out of its folder"),
        (KRITA.replace('"ink"', f'"{"x" * 300}"'), "300 characters"),
        (KRITA.replace('"ink"', f'"{"x" * 200_000}"'), "line 4: field larger than field limit"),
        (KRITA.replace('"ink"', "," * 5000), "5,002 cells: at most 1,001"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str):
    path = tmp_path / "cut.csv"
    path.write_bytes(text.encode())
    assert message in refusal(path, "a TVPaint CSV")


def test_links_that_lead_out_are_refused(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.csv").write_text(KRITA)
    (tmp_path / "in" / "cut.frames").symlink_to(tmp_path)
    assert "'cut.frames' leads out of its folder by a link" in refusal(tmp_path / "in" / "cut.csv", "a TVPaint CSV")


def test_bytes_that_are_no_text(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(KRITA.replace("ink", "線").encode("shift-jis"))
    assert re.search(r"\(byte \d+ is no UTF-8\)", refusal(tmp_path / "a.csv", "a TVPaint CSV"))


def test_a_cell_that_is_no_name_is_refused(tmp_path: Path):
    text = KRITA.replace("frame00001-00003.png", "1" * 1001 + "!")
    with pytest.raises(ValueError, match="line 11 has a cell of 1,002 characters: at most 1,000 are read"):
        parse_csv(text.encode(), tmp_path / "a.csv")
