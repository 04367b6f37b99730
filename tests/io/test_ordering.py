"""Numbered files in the order of their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.ordering import by_last_number, by_numbers, pictures_in


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png", "12.png"],
        ["a.png", "b.png", "c2.png", "c10.png"],
        ["0_a.png", "0_b.png", "1_a.png", "10_a.png"],
        ["scene2_frame1.png", "scene2_frame10.png", "scene10_frame1.png"],
        ["01.png", "1.png", "02.png"],
        ["²_2.png", "²_10.png", "٣.png"],
    ],
)
def test_numbers_count_as_numbers(names: list[str]):
    assert [path.name for path in sorted(map(Path, reversed(names)), key=by_numbers)] == names


def test_frames_of_one_sequence_go_by_their_last_number():
    names = ["cover.png", "last_000.png", "first_001.png", "middle_010.png"]
    assert [path.name for path in sorted(map(Path, reversed(names)), key=by_last_number)] == names


def test_pictures_of_a_folder_are_those_that_are_called_so(tmp_path: Path):
    for name in ("b.png", "a.JPG", ".c.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == ["a.JPG", "b.png"]


@pytest.mark.parametrize("name", ["gone", "a\0b", "\ud800"])
def test_a_folder_that_cannot_be_read_is_one_sentence(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="cannot read the folder .*: "):
        pictures_in(tmp_path / name)
