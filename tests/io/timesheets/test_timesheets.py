"""What all formats have in common: the registry, that nothing is replaced, and that a failed write leaves nothing."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.io.formats.clips import contents, files, largest_file
from tests.io.timesheets.sheets import disc
from tooncrafter_jax import notes
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.timesheets import (
    TIMESHEETS,
    DrawnSheet,
    Layer,
    Mark,
    TimeSheet,
    TimeSheetFormat,
    read_cel,
    read_timesheet,
    sheet_of_frames,
    timesheet_of_ending,
    write_timesheet,
)

FRAMES = {"paint": disc(6)[[0, 0, 2, 2, 0, 5]], "線": disc(6, colour=(0, 0, 0))}


@pytest.fixture
def drawn() -> DrawnSheet:
    return sheet_of_frames(FRAMES, fps=24, name="cut")


@pytest.fixture(params=TIMESHEETS)
def ending(request: pytest.FixtureRequest) -> str:
    return TIMESHEETS[request.param].endings[0]


def test_names_and_endings_lead_to_one_format():
    assert all(form.name == name and isinstance(form, TimeSheetFormat) for name, form in TIMESHEETS.items())
    endings = [ending for form in TIMESHEETS.values() for ending in form.endings]
    assert len(set(endings)) == len(endings) and all(ending == ending.lower() for ending in endings)
    for form in TIMESHEETS.values():
        assert form.endings and all(timesheet_of_ending(ending.upper()) == form.name for ending in form.endings)
    assert timesheet_of_ending("psd") is None and timesheet_of_ending("") is None


def test_cels_and_their_timing_come_back(tmp_path: Path, ending: str, drawn: DrawnSheet):
    written = write_timesheet(tmp_path / "new" / f"cut.{ending}", *drawn)
    assert sorted(str(path.relative_to(tmp_path / "new")) for path in written) == [
        name for name in files(tmp_path / "new") if (tmp_path / "new" / name).is_file()
    ]
    sheet = read_timesheet(tmp_path / "new" / f"cut.{ending}")
    assert (sheet.duration, sheet.layers) == (6, drawn.sheet.layers)
    for layer in sheet.layers:
        for drawing, frame in zip(layer.shown(6), FRAMES[layer.name], strict=True):
            assert drawing is not None
            np.testing.assert_array_equal(read_cel(layer.cels[drawing], sheet.size), frame)
    assert len(sheet.layers[0].cels) == 3 and len(sheet.layers[1].cels) == 6


def test_opaque_pictures_are_kept_as_they_are(tmp_path: Path, ending: str):
    opaque = FRAMES["paint"][..., :3]
    write_timesheet(tmp_path / f"a.{ending}", *sheet_of_frames({"A": opaque}, fps=24))
    layer = read_timesheet(tmp_path / f"a.{ending}").layers[0]
    found = read_cel(layer.cels["1"])
    np.testing.assert_array_equal(found[..., :3], opaque[0])
    assert (found[..., 3] == 255).all()


def test_nothing_that_is_there_is_replaced(tmp_path: Path, ending: str, drawn: DrawnSheet):
    write_timesheet(tmp_path / f"cut.{ending}", *drawn)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="would be replaced, but no record says that this program wrote it"):
        write_timesheet(tmp_path / f"cut.{ending}", *drawn)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("name", "other"), [("cut.xdts", "paint"), ("cut.csv", "cut.frames")])
def test_a_folder_in_the_way_is_left_alone(tmp_path: Path, name: str, other: str, drawn: DrawnSheet):
    (tmp_path / other).mkdir()
    (tmp_path / other / "mine.png").write_text("mine")
    with pytest.raises(UserError, match=f"'.*{other}' would be replaced"):
        write_timesheet(tmp_path / name, *drawn)
    assert files(tmp_path) == [other, f"{other}/mine.png"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, ending: str, drawn: DrawnSheet):
    (tmp_path / "mine").write_text("mine")
    with largest_file(100), pytest.raises(UserError, match="cannot be written") as error:
        write_timesheet(tmp_path / f"cut.{ending}", *drawn)
    assert isinstance(error.value.__cause__, OSError) and error.value.__cause__.errno == errno.EFBIG
    assert files(tmp_path) == ["mine"]


def test_a_sheet_that_cannot_be_written_takes_its_drawings_along(tmp_path: Path, drawn: DrawnSheet):
    """The sheet comes after its drawings, and is longer than the longest of these (those of a CSV have a profile)."""
    with largest_file(450), pytest.raises(UserError, match=r"cut\.xdts' cannot be written"):
        write_timesheet(tmp_path / "cut.xdts", *drawn)
    assert files(tmp_path) == []


class Drawing(Mapping[str, np.ndarray]):
    """Drawings that are made when they are asked for."""

    def __init__(self, drawings: Mapping[str, np.ndarray]) -> None:
        self.drawings, self.made = drawings, []

    def __getitem__(self, name: str) -> np.ndarray:
        self.made.append(name)
        return self.drawings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.drawings)

    def __len__(self) -> int:
        return len(self.drawings)


@pytest.mark.usefixtures("unchecked_types")  # the check itself asks for some
def test_each_drawing_is_asked_for_once(tmp_path: Path, ending: str, drawn: DrawnSheet):
    lazy = {name: Drawing(drawings) for name, drawings in drawn.pictures.items()}
    write_timesheet(tmp_path / f"cut.{ending}", drawn.sheet, lazy)
    assert [drawings.made for drawings in lazy.values()] == [["1", "2", "3"], ["1", "2", "3", "4", "5", "6"]]


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({}, "the drawing '1' of the layer 'paint' has no picture"),
        ({"paint": disc(1)[0]}, "the drawing '1' of the layer 'paint'"),
        ({"paint": {"1": disc(1)[0].astype(np.float32)}}, "is no picture: give uint8"),
        ({"paint": {"1": disc(1)[0][..., :2]}}, "has 2 channels: give 3, or 4 with opacity"),
    ],
)
def test_drawings_that_are_none(tmp_path: Path, ending: str, drawn: DrawnSheet, pictures, message: str):
    with pytest.raises(UserError, match=message):
        write_timesheet(tmp_path / f"cut.{ending}", drawn.sheet, pictures)
    assert files(tmp_path) == []


@pytest.mark.parametrize("ending", ["oca", "csv"])
def test_formats_that_need_pictures_say_so(tmp_path: Path, ending: str, drawn: DrawnSheet):
    with pytest.raises(UserError, match="give the drawings, or write XDTS"):
        write_timesheet(tmp_path / f"cut.{ending}", drawn.sheet)
    wide = {"paint": {**drawn.pictures["paint"], "2": disc(1, width=40)[0]}, "線": drawn.pictures["線"]}
    with pytest.raises(UserError, match="'2' of the layer 'paint' is 40 x 24 pixels, but the sheet is 32 x 24"):
        write_timesheet(tmp_path / f"cut.{ending}", drawn.sheet, wide)
    assert files(tmp_path) == []


def test_what_a_format_has_no_place_for_is_said(tmp_path: Path, ending: str):
    sheet, pictures = sheet_of_frames({"A": disc(3)})
    layer = Layer("A", sheet.layers[0].exposures[:2], (Mark(2, "in-between"),))
    with notes.collected() as said:
        write_timesheet(tmp_path / f"a.{ending}", TimeSheet("a", 3, (layer,)), pictures)
    form, read = TIMESHEETS[ending], read_timesheet(tmp_path / f"a.{ending}")
    assert any("has no place for marks" in note for note in said) == (not form.has_marks)
    assert ("the sheet has no rate: 24 frames a second are written" in said) == form.has_rate
    assert read.fps == (24 if form.has_rate else None)
    assert read.layers == (layer if form.has_marks else replace(layer, marks=()),)


def test_paths_that_are_none(tmp_path: Path, drawn: DrawnSheet):
    with pytest.raises(UserError, match=r"none.xdts' does not exist: check the path"):
        read_timesheet(tmp_path / "none.xdts")
    with pytest.raises(UserError, match=r"ends in '.psd', which is none of a time sheet: use .xdts, .oca, .csv"):
        read_timesheet(tmp_path / "a.psd")
    with pytest.raises(UserError, match=r"a' has no ending, which"):
        write_timesheet(tmp_path / "a", *drawn)
    with pytest.raises(UserError, match="unknown time sheet 'psd': choose of xdts, oca, csv"):
        read_timesheet(tmp_path / "a.xdts", form="psd")
    with pytest.raises(UserError, match="'gs://shots/a.csv' cannot be a URL here"):
        write_timesheet("gs://shots/a.csv", *drawn)
    (tmp_path / "a.xdts").mkdir()
    with pytest.raises(UserError, match=r"cannot be read as an XDTS time sheet \(Is a directory\)"):
        read_timesheet(tmp_path / "a.xdts")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_timesheet(tmp_path / "file" / "a.xdts", *drawn)
    assert read_timesheet(write_timesheet(tmp_path / "b.txt", *drawn, form="xdts")[-1], form="xdts").duration == 6
