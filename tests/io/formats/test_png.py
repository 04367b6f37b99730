"""Folders of frames: lossless, in the order of their names, and never over somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.formats.clips import cartoon, contents, files, noise
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_png_sequence
from tooncrafter_jax.io.formats import FORMATS


def test_it_is_lossless_and_knows_its_frames_among_other_files(tmp_path: Path):
    directory = tmp_path / "deep" / "frames"
    frames = cartoon(12)
    write_png_sequence(f"{directory}/", frames)
    names = [f"frame_{i:02d}.png" for i in range(12)]
    assert files(tmp_path / "deep") == ["frames", *(f"frames/{name}" for name in names)]
    for name, frame in zip(names, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(directory / name)), frame)
    (directory / "notes.txt").write_text("mine")
    (directory / "other_05.png").write_text("mine")
    assert FORMATS["png"].files(directory) == [f"frames/{name}" for name in names]


def test_opacity_and_the_colours_below_it_are_kept(tmp_path: Path):
    frames = noise(count=3)
    frames = np.concatenate([frames, frames[..., :1] // 128 * 255], axis=-1)
    write_png_sequence(tmp_path / "frames", frames)
    read = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "frames").iterdir())]
    np.testing.assert_array_equal(np.stack(read), frames)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path):
    write_png_sequence(tmp_path / "frames", cartoon(3))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"frames' would be replaced.*no record says that this program wrote it"):
        write_png_sequence(tmp_path / "frames", noise())
    assert contents(tmp_path) == before and not list(tmp_path.glob(".*"))


def test_numbers_sort_by_name(tmp_path: Path):
    write_png_sequence(tmp_path / "f", np.zeros((101, 8, 8, 3), np.uint8))
    assert files(tmp_path / "f") == [f"frame_{i:03d}.png" for i in range(101)]


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
