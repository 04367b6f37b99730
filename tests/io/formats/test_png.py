"""Folders of frames: lossless, in the order of their names, and never over somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.formats.clips import cartoon, contents, files, largest_file, noise
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_png_sequence
from tooncrafter_jax.io.formats import FORMATS


def test_it_is_lossless_and_replaces_an_older_longer_one(tmp_path: Path):
    directory = tmp_path / "deep" / "frames"
    frames = cartoon(12)
    paths = write_png_sequence(f"{directory}/", frames)
    assert [os.path.basename(path) for path in paths] == [f"frame_{i:02d}.png" for i in range(12)]
    for path, frame in zip(paths, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), frame)

    (directory / "notes.txt").write_text("mine")
    (directory / "other_05.png").write_text("mine")
    assert FORMATS["png"].files(directory) == [f"frames/frame_{i:02d}.png" for i in range(12)]
    with pytest.raises(UserError, match=r"frame_00.png.*no record says that this program wrote it"):
        write_png_sequence(directory, frames[::-1][:3])
    np.testing.assert_array_equal(np.asarray(Image.open(directory / "frame_00.png")), frames[0])
    write_png_sequence(directory, frames[::-1][:3], replaces=[os.path.basename(path) for path in paths])
    expected = ["frame_00.png", "frame_01.png", "frame_02.png", "notes.txt", "other_05.png"]
    assert files(directory) == expected and files(tmp_path / "deep") == ["frames", *(f"frames/{n}" for n in expected)]
    np.testing.assert_array_equal(np.asarray(Image.open(directory / "frame_00.png")), frames[-1])


def test_numbers_sort_by_name(tmp_path: Path):
    paths = write_png_sequence(tmp_path / "f", np.zeros((101, 8, 8, 3), np.uint8), stem="ab")
    assert sorted(paths) == paths and paths[-1].endswith("ab_100.png") and paths[0].endswith("ab_000.png")


def test_a_replacement_that_fails_half_way_leaves_the_old_frames(tmp_path: Path):
    write_png_sequence(tmp_path / "frames", cartoon(3))
    before = contents(tmp_path)
    replaces = [name.removeprefix("frames/") for name in before]
    with largest_file(2000), pytest.raises(UserError, match="frames' cannot be written.*File too large"):
        write_png_sequence(tmp_path / "frames", noise(), replaces=replaces)
    assert contents(tmp_path) == before and not list(tmp_path.glob(".*"))
    write_png_sequence(tmp_path / "frames", noise(), replaces=replaces)
    assert contents(tmp_path) != before


def test_a_file_in_the_way(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="'[^']*file'"):
        write_png_sequence(tmp_path / "file", cartoon(2))
    assert files(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_permissions_are_the_usual_ones(tmp_path: Path):
    old = os.umask(0o022)
    try:
        write_png_sequence(tmp_path / "frames", cartoon(1))
    finally:
        os.umask(old)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("frames", "frames/frame_00.png")] == [0o755, 0o644]


def test_a_relative_name_without_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_png_sequence("frames", cartoon(1))
    assert files(tmp_path) == ["frames", "frames/frame_00.png"]
