"""OCA: the published layout, where its pictures are and how they lie on the sheet, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from tests.io.timesheets.sheets import Plan, disc, drawn_plans, refusal, sheet_of
from tooncrafter_jax import notes
from tooncrafter_jax.io.timesheets import (
    CelFile,
    TimeSheet,
    read_cel,
    read_timesheet,
    sheet_of_frames,
    write_timesheet,
)
from tooncrafter_jax.io.timesheets.levels import level_paths
from tooncrafter_jax.io.timesheets.oca import oca_bytes, parse_oca

SAMPLE = """{"ocaVersion": "1.1.0", "originApp": "Krita", "originAppVersion": "5.2", "name": "bird", "frameRate": 25,
 "width": 64, "height": 32, "startTime": 10, "endTime": 22, "colorDepth": "U8", "backgroundColor": [1, 1, 1, 0],
 "layers": [
 {"name": "Sky", "type": "paintlayer", "fileType": "png", "blendingMode": "normal", "animated": false,
  "position": [31, 15], "width": 64, "height": 32, "opacity": 1.0, "visible": true, "childLayers": [], "frames": [
   {"name": "Sky_00000", "fileName": "bird.oca/Sky/Sky_00000.png", "frameNumber": 0, "opacity": 1.0,
    "position": [31, 15], "width": 64, "height": 32, "duration": 1}]},
 {"name": "Group", "type": "grouplayer", "blendingMode": "normal", "opacity": 1.0, "frames": [], "childLayers": [
  {"name": "Bird", "type": "paintlayer", "fileType": "png", "blendingMode": "multiply", "animated": true,
   "opacity": 0.5, "visible": false, "childLayers": [], "frames": [
    {"name": "Bird_00010", "fileName": "Group\\\\Bird\\\\Bird_00010.png", "frameNumber": 10, "opacity": 0.5,
     "position": [20, 12], "width": 16, "height": 8, "duration": 2},
    {"name": "Bird_00012", "fileName": "Group\\\\Bird\\\\Bird_00012.png", "frameNumber": 12, "opacity": 0.5,
     "position": [0, 12], "width": 16, "height": 8, "duration": 3},
    {"name": "_blank", "fileName": "", "frameNumber": 15, "position": [0, 0], "width": 0, "height": 0, "duration": 2},
    {"name": "Bird_00010", "fileName": "Group\\\\Bird\\\\Bird_00010.png", "frameNumber": 17, "opacity": 0.5,
     "position": [20, 12], "width": 16, "height": 8, "duration": 3}]}]}]}
"""
BIRD = ["Bird_00010"] * 2 + ["Bird_00012"] * 3 + [None] * 2 + ["Bird_00010"] * 3 + [None] * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sample with its pictures."""
    folder = tmp_path / "bird.oca"
    for name, colour, size in (
        ("Sky/Sky_00000", (0, 0, 255), (64, 32)),
        ("Group/Bird/Bird_00010", (255, 0, 0), (16, 8)),
        ("Group/Bird/Bird_00012", (0, 255, 0), (16, 8)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(folder / f"{name}.png")
    (folder / "bird.oca").write_text(SAMPLE)
    return folder


def test_the_sample(folder: Path):
    with notes.collected() as said:
        sheet = read_timesheet(folder)
        assert read_timesheet(folder / "bird.oca") == sheet
    assert (sheet.name, sheet.duration, sheet.fps, sheet.size) == ("bird", 12, 25, (64, 32))
    sky, bird = sheet.layers
    assert sky.shown(12) == ["Sky_00000"] * 12
    assert bird.shown(12) == BIRD and not bird.visible and bird.opacity == 0.5
    assert said == ["the layer 'Bird' of the OCA folder has a blending mode, which is not read"]


def test_pictures_lie_where_their_centres_are(folder: Path):
    with notes.collected():
        sheet = read_timesheet(folder)
    sky, bird = sheet.layers
    np.testing.assert_array_equal(read_cel(sky.cels["Sky_00000"], sheet.size), np.full((32, 64, 4), (0, 0, 255, 255)))
    expected = np.zeros((32, 64, 4))
    expected[8:16, 12:28] = (255, 0, 0, 255)
    np.testing.assert_array_equal(read_cel(bird.cels["Bird_00010"], sheet.size), expected)
    expected[...] = 0
    expected[8:16, :8] = (0, 255, 0, 255)  # half of it is beyond the sheet's left side
    np.testing.assert_array_equal(read_cel(bird.cels["Bird_00012"], sheet.size), expected)
    assert read_cel(bird.cels["Bird_00012"]).shape == (8, 16, 4)


@pytest.mark.parametrize("centre", [(-100, 5), (500, 5), (5, -(2**31)), (5, 2**31)])
def test_pictures_beyond_the_sheet_are_not_seen(folder: Path, centre: tuple[int, int]):
    cel = CelFile(folder / "Group" / "Bird" / "Bird_00010.png", centre)
    assert not read_cel(cel, (64, 32)).any()


def test_a_description_may_be_called_otherwise(folder: Path):
    (folder / "bird.oca").rename(folder / "bird.json")
    with notes.collected():
        sheet = read_timesheet(folder)
        assert read_timesheet(folder / "bird.json") == sheet and len(sheet.layers[1].cels) == 2
        moved = folder.rename(folder.with_name("flight.oca"))
        (moved / "bird.json").rename(moved / "other.oca")
        assert read_timesheet(moved) == sheet
        assert len(read_timesheet(moved).layers[0].cels) == 1  # its path begins with the folder's former name


def test_missing_pictures_are_left_out(folder: Path):
    (folder / "Group" / "Bird" / "Bird_00012.png").unlink()
    with notes.collected():
        assert list(read_timesheet(folder).layers[1].cels) == ["Bird_00010"]


def description(frames: list[dict[str, Any]], **layer: Any) -> dict[str, Any]:
    return {
        "ocaVersion": "1.1.0",
        "endTime": 6,
        "width": 64,
        "height": 32,
        "layers": [{"name": "A", "frames": frames} | layer],
    }


def shown(*frames: dict[str, Any], **layer: Any) -> list[str | None]:
    return parse_oca(json.dumps(description(list(frames), **layer)).encode()).layers[0].shown(6)


def test_layers_are_hidden_and_transparent_as_their_groups():
    layer = {"name": "A", "opacity": 0.5, "frames": [{"name": "1"}]}
    group = {"name": "G", "type": "grouplayer", "opacity": 0.5, "visible": False, "childLayers": [layer, layer]}
    sheet = parse_oca(json.dumps({"ocaVersion": "1", "endTime": 2, "layers": [group, layer]}).encode())
    assert [(layer.name, layer.visible, layer.opacity) for layer in sheet.layers] == [
        *[("A", False, 0.25)] * 2,
        ("A", True, 0.5),
    ]


def test_defaults():
    sheet = parse_oca(json.dumps({"ocaVersion": "1.0.0", "layers": []}).encode(), "shot")
    assert sheet == TimeSheet("shot", 240, fps=24, size=(1920, 1080))
    assert shown({"name": "1", "frameNumber": 2}) == [None, None, "1", None, None, None]
    layer = parse_oca(json.dumps(description([{"name": "1"}])).encode()).layers[0]
    assert layer.visible and layer.opacity == 1 and layer.cels == {"1": CelFile(Path("A/1.png"))}


def test_a_frame_before_the_beginning_reaches_in_and_one_after_the_end_is_cut():
    assert shown({"name": "1", "frameNumber": -2, "duration": 4}, {"name": "2", "frameNumber": 5, "duration": 9}) == [
        "1",
        "1",
        None,
        None,
        None,
        "2",
    ]


def test_both_names_of_a_blank_frame():
    frames = [{"name": name, "frameNumber": n, "duration": 2} for n, name in ((0, "_blank"), (2, "a"), (4, "_blank_"))]
    assert shown(*frames) == [None, None, "a", "a", None, None]


def test_two_frames_at_once_are_cut_with_a_note():
    with notes.collected() as said:
        assert shown({"name": "1", "duration": 6}, {"name": "2", "frameNumber": 2, "duration": 4})[:3] == [
            "1",
            "1",
            "2",
        ]
    assert "the layer 'A' of the OCA folder shows two frames at once" in said[0]


def test_drawings_of_one_name_and_several_pictures_are_told_apart():
    frames = [
        {"name": "a", "fileName": "A/1.png", "frameNumber": 0},
        {"name": "a", "fileName": "A/2.png", "frameNumber": 1},
        {"name": "a", "fileName": "A/1.png", "frameNumber": 2, "position": [4, 4]},
        {"name": "a", "fileName": "A/1.png", "frameNumber": 3},
    ]
    assert shown(*frames) == ["a", "a~2", "a~3", "a", None, None]


def test_layers_of_one_name_and_other_pictures_are_told_apart():
    value = description([{"name": "1", "fileName": "A/1.png"}])
    value["layers"] += [
        {"name": "A", "frames": [{"name": "1", "fileName": "X/1.png"}]},
        {"name": "A", "frames": [{"name": "1", "fileName": "A/1.png"}]},
    ]
    with notes.collected() as said:
        sheet = parse_oca(json.dumps(value).encode())
    assert [layer.name for layer in sheet.layers] == ["A", "A~2", "A"]
    assert said == ["two layers 'A' have other drawings: the upper one is called 'A~2'"]


# --- what is written ---


def test_a_written_folder_is_as_the_specification_has_it(tmp_path: Path):
    frames = {"paint": disc(4)[[0, 0, 0, 0]], "ink": disc(4, colour=(0, 0, 0))[[0, 0, 1, 0]]}
    frames["ink"][2] = 0
    sheet, pictures = sheet_of_frames(frames, fps=12, name="shot")
    written = write_timesheet(tmp_path / "cut.oca", sheet, pictures)
    assert [str(path.relative_to(tmp_path / "cut.oca")) for path in written] == [
        "paint/paint_0001.png",
        "ink/ink_0001.png",
        "cut.oca",
    ]
    value = json.loads(written[-1].read_text(encoding="utf-8"))
    assert {key: value[key] for key in ("name", "frameRate", "width", "height", "startTime", "endTime")} == {
        "name": "shot",
        "frameRate": 12,
        "width": 32,
        "height": 24,
        "startTime": 0,
        "endTime": 4,
    }
    paint, ink = value["layers"]
    box = {"position": [16, 12], "width": 32, "height": 24, "opacity": 1.0}
    one = {"name": "1", "fileName": "ink/ink_0001.png", **box}
    blank = {"name": "_blank", "fileName": "", "position": [0, 0], "width": 0, "height": 0, "opacity": 1.0}
    assert paint["frames"] == [
        {"name": "1", "fileName": "paint/paint_0001.png", "frameNumber": 0, "duration": 4, **box}
    ]
    assert ink["frames"] == [
        {**one, "frameNumber": 0, "duration": 2},
        {**blank, "frameNumber": 2, "duration": 1},
        {**one, "frameNumber": 3, "duration": 1},
    ]
    read = read_timesheet(tmp_path / "cut.oca")
    assert read == sheet
    for layer in read.layers:
        for drawing, frame in zip(layer.shown(4), frames[layer.name], strict=True):
            found = np.zeros_like(frame) if drawing is None else read_cel(layer.cels[drawing], read.size)
            np.testing.assert_array_equal(found, frame)


@given(drawn_plans())
def test_a_sheet_is_the_same_after_a_round_trip(plan: Plan):
    sheet = sheet_of(plan)
    assert parse_oca(oca_bytes(sheet, level_paths(sheet.levels()))) == sheet


# --- what is refused ---


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the file is a list"),
        ({"version": "5.0", "project": {}}, "it has no 'layers' and 'ocaVersion'"),
        (description([]) | {"endTime": 0}, "from frame 0 to frame 0"),
        (description([]) | {"startTime": -(10**6)}, "from frame -1,000,000 to frame 6"),
        (description([]) | {"endTime": "6"}, "'endTime' of the file is the text '6'"),
        (description([]) | {"frameRate": 0}, "0.0 frames a second"),
        (description([]) | {"frameRate": float("inf")}, "'frameRate' of the file is no finite number"),
        (description([]) | {"width": 0}, "0 x 32 pixels"),
        (description([]) | {"width": 10**6}, "1000000 x 32 pixels"),
        (description([]) | {"layers": 3}, "'layers' of the file is a number"),
        (description([], opacity=2), "'opacity' of the layer 'A' is 2"),
        (description([], visible=1), "'visible' of the layer 'A' is a number, where true or false"),
        (description([], name="A\u0007"), "characters that are no text"),
        (description([3]), "frame 0 of the layer 'A' is a number"),  # pyright: ignore[reportArgumentType]
        (description([{"name": "1", "duration": -1}]), "'duration' of frame 0 of the layer 'A' is -1"),
        (description([{"name": "1", "frameNumber": 1e300}]), "'frameNumber' of frame 0 of the layer 'A'"),
        (description([{"name": "1", "position": ["a", 1]}]), "'position' of frame 0 of the layer 'A' is the text 'a'"),
        (description([{"name": "1", "fileName": "../../etc/passwd.png"}]), "leads out of its folder"),
        (description([{"name": "1", "fileName": "..\\..\\a.png"}]), "leads out of its folder"),
        (description([{"name": "1", "fileName": "/etc/passwd"}]), "'/etc/passwd' is an absolute path"),
        (description([{"name": "1", "fileName": "C:\\a.png"}]), "is an absolute path"),
        (description([{"name": "1", "fileName": "\\\\server\\a.png"}]), "is an absolute path"),
        (description([{"name": "1", "fileName": "a\u0000.png"}]), "is no name of a file"),
        (description([{"name": "SYMBOL_TICK_1"}]), "a sign of time sheets"),
        (description([], childLayers=[{"name": "x", "frames": 1}]), "'frames' of the layer 'x' is a number"),
    ],
)
def test_descriptions_that_are_none(tmp_path: Path, value: Any, message: str):
    folder = tmp_path / "a.oca"
    folder.mkdir()
    (folder / "a.oca").write_text(json.dumps(value))
    assert message in refusal(folder, "an OCA folder")


def test_groups_that_are_too_deep(tmp_path: Path):
    layer: dict[str, Any] = {"name": "A", "frames": []}
    for _ in range(40):
        layer = {"name": "G", "type": "grouplayer", "childLayers": [layer]}
    (tmp_path / "a.oca").write_text(json.dumps({"ocaVersion": "1", "layers": [layer]}))
    assert "is a group in 32 others, which is too deep" in refusal(tmp_path / "a.oca", "an OCA folder")


def test_links_that_lead_out_are_refused(folder: Path, tmp_path: Path):
    Image.new("RGB", (64, 32)).save(tmp_path / "secret.png")
    (folder / "Sky" / "Sky_00000.png").unlink()
    (folder / "Sky" / "Sky_00000.png").symlink_to(tmp_path / "secret.png")
    assert "'Sky/Sky_00000.png' leads out of its folder by a link" in refusal(folder, "an OCA folder")


def test_a_folder_without_a_description(tmp_path: Path):
    (tmp_path / "a.oca").mkdir()
    said = refusal(tmp_path / "a.oca", "an OCA folder")
    assert "holds no files that end in .oca or .json, where one should be" in said
    for name in ("b.json", "c.json"):
        (tmp_path / "a.oca" / name).write_text("{}")
    assert "holds 2 files that end in" in refusal(tmp_path / "a.oca", "an OCA folder")
