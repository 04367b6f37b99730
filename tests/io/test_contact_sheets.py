"""A contact sheet holds every frame once, in reading order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.formats.clips import cartoon, cel, files
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_contact_sheet
from tooncrafter_jax.io.blending import cross_fade
from tooncrafter_jax.io.contact_sheets import COMPARISON_COLUMNS, write_comparison_sheet


@pytest.mark.parametrize("labels", [None, [f"frame {i}" for i in range(6)]])
def test_every_frame_is_there_once_in_reading_order(tmp_path: Path, labels: list[str] | None):
    frames = np.stack([np.full((64, 96, 3), 30 * i, np.uint8) for i in range(6)])
    write_contact_sheet(tmp_path / "a.png", frames, columns=4, labels=labels)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    corners = []
    for i in range(6):
        matches = (sheet == 30 * i).all(axis=-1)
        ys, xs = np.nonzero(matches)
        top, left = np.median(ys).astype(int) - 31, np.median(xs).astype(int) - 47
        np.testing.assert_array_equal(sheet[top : top + 64, left : left + 96], frames[i])
        corners.append((top, left))
    assert corners == sorted(corners)
    assert [row for row, _ in corners] == [corners[0][0]] * 4 + [corners[4][0]] * 2
    assert [column for _, column in corners[:2]] == [column for _, column in corners[4:]]
    band = sheet[: corners[0][0], corners[0][1] : corners[0][1] + 96]
    assert (band.min() < 100) == (labels is not None)


def test_long_labels_stay_in_their_column(tmp_path: Path):
    frames = np.full((3, 64, 96, 3), 200, np.uint8)
    write_contact_sheet(tmp_path / "a.png", frames, columns=3, labels=["", "W" * 200, ""])
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    columns = np.nonzero((sheet < 128).all(axis=-1).any(axis=0))[0]
    left = 4 + 96 + 4
    assert len(columns) and left <= columns.min() and columns.max() < left + 96
    assert columns.max() > left + 60


def test_a_comparison_has_the_cross_fade_below_each_row(tmp_path: Path):
    """11 frames: a full row and one of three, each with the cross-fade's frames below it."""
    frames = np.stack([np.full((64, 96, 3), 10 * i * i % 251, np.uint8) for i in range(11)])
    write_comparison_sheet(tmp_path / "a.png", frames)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    faded = cross_fade(frames[:1], frames[-1:], 11)[0]
    height, width = sheet.shape[0] / 4, sheet.shape[1] / COMPARISON_COLUMNS
    for index in range(11):
        row, column = divmod(index, COMPARISON_COLUMNS)
        x = int((column + 0.5) * width)
        for line, expected in ((2 * row, frames[index]), (2 * row + 1, faded[index])):
            y = int((line + 0.6) * height)
            np.testing.assert_array_equal(sheet[y, x], expected[0, 0])


@pytest.mark.parametrize("write", [write_contact_sheet, write_comparison_sheet])
def test_what_is_transparent_shows_checks(tmp_path: Path, write: Callable[..., None]):
    frames = cel(4)
    frames[..., 3][frames[..., 3] < 255] = 0
    write(tmp_path / "a.png", frames)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    shown = {tuple(int(value) for value in colour) for colour in np.unique(sheet.reshape(-1, 3), axis=0)}
    assert {(204, 204, 204), (153, 153, 153), (220, 40, 30), (255, 255, 255)} <= shown


def test_impossible_settings_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="0 columns"):
        write_contact_sheet(tmp_path / "a.png", cartoon(), columns=0)
    with pytest.raises(UserError, match="2 labels for 16 frames"):
        write_contact_sheet(tmp_path / "a.png", cartoon(), labels=["a", "b"])
    assert files(tmp_path) == []
