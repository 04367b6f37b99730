"""Names of drawings: what programs call files, and what is found in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tooncrafter_jax import notes
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.timesheets import drawing_file_name, find_levels, level_files, parse_drawing_file
from tooncrafter_jax.io.timesheets.levels import (
    STYLES,
    DrawingFile,
    Style,
    drawing_name,
    level_paths,
    safe_name,
    unique_names,
)


def put(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()


@pytest.mark.parametrize(
    ("name", "level", "drawing"),
    [
        ("A.0001.png", "A", "1"),  # OpenToonz
        ("A_0001.png", "A", "1"),  # OpenToonz, Clip Studio Paint with a prefix
        ("A.0012a.tif", "A", "12a"),
        ("A-1.png", "A", "1"),  # Harmony
        ("A-10.PNG", "A", "10"),
        ("A0001.png", "A", "1"),
        ("a b_0007.png", "a b", "7"),
        ("cut12_A_0001.png", "cut12_A", "1"),
        ("scene12.png", "scene", "12"),
        ("12_0001.png", "12", "1"),
        ("frame00001-00000.png", "frame00001", "0"),
        ("背景_0001.png", "背景", "1"),
        ("0012.png", "", "12"),
        ("12a.png", "", "12a"),
    ],
)
def test_names_of_numbered_drawings(name: str, level: str, drawing: str):
    assert parse_drawing_file(name) == DrawingFile(level, drawing)
    assert parse_drawing_file(name, level or "B") == DrawingFile(level or "B", drawing)


@pytest.mark.parametrize("name", ["A.png", "smile.png", "A-smile.png", ".png", "_1.png", "A_1ab.png", "A_1_.png"])
def test_names_of_no_numbered_drawing(name: str):
    assert parse_drawing_file(name) is None


@pytest.mark.parametrize(
    ("name", "level", "drawing"),
    [
        ("A-smile.png", "A", "smile"),
        ("A-smile2.png", "A", "smile2"),
        ("A-B-1.png", "A", None),  # of the level A-B
        ("A-B-1.png", "A-B", "1"),
        ("A_B_0001.png", "A", None),
        ("A1_0001.png", "A", None),
        ("A10001.png", "A1", None),  # of the level A
        ("A1_0001.png", "A1", "1"),
        ("B_0001.png", "A", None),
        ("A_smile.png", "A", None),
        ("A-.png", "A", None),
        ("A_x_0001.png", "A/x", "1"),
    ],
)
def test_names_of_a_known_level(name: str, level: str, drawing: str | None):
    assert parse_drawing_file(name, level) == (drawing and DrawingFile(level, drawing))


def test_letters_and_their_marks_are_one_however_they_are_stored():
    assert parse_drawing_file("ガ_0001.png", "ガ") == DrawingFile("ガ", "1")


@pytest.mark.usefixtures("unchecked_types")
def test_names_that_are_made():
    assert [drawing_file_name("A", "12a", style) for style in STYLES] == ["A_0012a.png", "A.0012a.png", "A-12a.png"]
    assert drawing_file_name("A", "12345") == "A_12345.png"
    assert drawing_file_name("A", "smile", "opentoonz", "tif") == "A-smile.tif"
    with pytest.raises(UserError, match="unknown style of names 'toonz': choose of underscore, opentoonz, harmony"):
        drawing_file_name("A", "1", "toonz")  # pyright: ignore[reportArgumentType]


@given(
    st.text(max_size=40), st.from_regex(r"(0|[1-9][0-9]{0,7})[A-Za-z]?", fullmatch=True), st.sampled_from(list(STYLES))
)
def test_a_made_name_is_read_again(level: str, drawing: str, style: Style):
    name = drawing_file_name(level, drawing, style)
    assert parse_drawing_file(name, level) == DrawingFile(level, drawing)
    assert "/" not in name and "\\" not in name and len(name.encode()) <= 255 and name == name.strip()


@given(st.text(max_size=300))
def test_safe_names_are_one_part_of_a_path(text: str):
    name = safe_name(text)
    assert name not in ("", ".", "..") and len(name.encode()) <= 200
    assert not set(name) & set('/\\:*?"<>|\0\n') and safe_name(name) == name


@pytest.mark.parametrize(
    ("text", "name"), [("..", "_"), ("", "_"), ("con", "_con"), ("LPT1.x", "_LPT1.x"), ("a/../b", "a_.._b")]
)
def test_names_that_no_system_takes(text: str, name: str):
    assert safe_name(text) == name


def test_one_name_for_a_drawing():
    assert [drawing_name(text) for text in ("0001", " 12a ", "000", "0a", "A1", "1ab", "-1")] == [
        *("1", "12a", "0", "0a", "A1", "1ab", "-1"),
    ]


def test_no_name_twice():
    assert unique_names(["a.png", "A.png", "a.png", "a~2.png", "b.png"]) == [
        *("a.png", "A~2.png", "a~3.png", "a~2~2.png", "b.png"),
    ]


@given(st.lists(st.sampled_from(["a.x", "A.x", "a~2.x", "a~3.x", "b.x"]), max_size=12))
def test_unique_names_are(names: list[str]):
    found = unique_names(names)
    assert len({name.casefold() for name in found}) == len(names)


def test_paths_of_levels():
    levels = {"A": ("1", "smile"), "a": ("1",), "B/C": ("2b",), "none": ()}
    assert level_paths(levels) == {
        "A": {"1": "A/A_0001.png", "smile": "A/A-smile.png"},
        "a": {"1": "a~2/a_0001.png"},
        "B/C": {"2b": "B_C/B_C_0002b.png"},
        "none": {},
    }
    assert level_paths({"A": ("1",), "a": ("1",)}, folders=False) == {
        "A": {"1": "A_0001.png"},
        "a": {"1": "a_0001~2.png"},
    }


# --- what is found ---


def test_a_levels_files_are_in_its_folder_or_beside_the_sheet(tmp_path: Path):
    put(tmp_path, "A/A_0010.png", "A/A_0002.png", "A/0003a.jpg", "A/A-smile.png", "A/B_0001.png", "A/notes.txt")
    put(tmp_path, "A_0001.png", "B.0001.png", "B-2.png", "0005.png")
    assert level_files(tmp_path, "A") == {
        "3a": tmp_path / "A" / "0003a.jpg",
        "2": tmp_path / "A" / "A_0002.png",
        "10": tmp_path / "A" / "A_0010.png",
        "smile": tmp_path / "A" / "A-smile.png",
    }
    assert level_files(tmp_path, "B") == {"1": tmp_path / "B.0001.png", "2": tmp_path / "B-2.png"}
    assert level_files(tmp_path, "C") == level_files(tmp_path / "none", "A") == {}


def test_drawings_that_are_no_numbers_are_found_by_their_names(tmp_path: Path):
    put(tmp_path, "A/A_0001.png", "A/A-eyes-2.png", "B-eyes-2.png", "A-mouth.png")
    assert level_files(tmp_path, "A", ("1", "eyes-2", "mouth")) == {
        "1": tmp_path / "A" / "A_0001.png",
        "eyes-2": tmp_path / "A" / "A-eyes-2.png",
    }
    assert level_files(tmp_path, "B", ("eyes-2",)) == {"eyes-2": tmp_path / "B-eyes-2.png"}
    assert level_files(tmp_path, "B") == {}


def test_two_files_of_one_drawing_are_told(tmp_path: Path):
    put(tmp_path, "A_0001.png", "A.0001.png")
    with notes.collected() as said:
        assert level_files(tmp_path, "A") == {"1": tmp_path / "A.0001.png"}
    assert said == [f"'{tmp_path / 'A.0001.png'}' and 'A_0001.png' are both called the drawing '1': the first is taken"]


def test_all_levels_of_a_folder(tmp_path: Path):
    put(tmp_path, "A_0002.png", "A_0001.png", "B-1.png", "0001.png", "cover.png", "A_0003.xdts")
    (tmp_path / "D_0001.png").mkdir()
    assert find_levels(tmp_path) == {
        "": {"1": tmp_path / "0001.png"},
        "A": {"1": tmp_path / "A_0001.png", "2": tmp_path / "A_0002.png"},
        "B": {"1": tmp_path / "B-1.png"},
    }


@pytest.mark.parametrize("level", ["..", "../outside", "/etc", "", ".", "a\0b", "x" * 5000])
def test_levels_that_lead_out_find_nothing(tmp_path: Path, level: str):
    put(tmp_path, "outside/A_0001.png", "outside_0001.png", "inside/x.png", "1.png")
    assert level_files(tmp_path / "inside", level) == {}


def test_links_that_lead_out_are_left_out(tmp_path: Path):
    put(tmp_path, "secret.png", "in/A_0002.png")
    (tmp_path / "in" / "A_0001.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "A_0003.png").symlink_to(tmp_path / "in" / "A_0002.png")
    (tmp_path / "in" / "B").symlink_to(tmp_path)
    put(tmp_path, "B_0001.png")
    with notes.collected() as said:
        assert sorted(level_files(tmp_path / "in", "A")) == ["2", "3"]
        assert level_files(tmp_path / "in", "B") == {}
    links = (tmp_path / "in" / "A_0001.png", tmp_path / "in" / "B")
    assert said == [f"'{link}' is a link that leads out of its folder: it is left out" for link in links]
