"""Reading sketches: which of paper and lines is dark, whatever the paper is, and sheets without any line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import read_sheet

HEIGHT, WIDTH = 96, 128


def sheet(paper: int, ink: int, noise: int = 0) -> np.ndarray:
    """A circle and a line that touches the edge, about 4 % ink."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    lines = (np.abs(np.hypot(y - 48, x - 64) - 30) < 1.5) | (np.abs(y - 20) < 1)
    values = np.where(lines, ink, paper)[..., None].repeat(3, axis=-1)
    values = values + np.random.default_rng(0).integers(-noise, noise + 1, values.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def transparent(colour: int, opacity: int = 255) -> np.ndarray:
    """Lines of one colour on transparent paper."""
    drawn = sheet(0, 255)[..., 0] > 0
    picture = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    picture[drawn] = (colour, colour, colour, opacity)
    return picture


@pytest.mark.parametrize(
    ("picture", "dark"),
    [
        (sheet(255, 0), True),
        (sheet(0, 255), False),
        (sheet(235, 110, noise=12), True),  # a pencil drawing that was scanned
        (sheet(30, 200, noise=12), False),  # chalk on a board
        (sheet(255, 200), True),
        (transparent(0), True),
        (transparent(255), False),
        (transparent(40, opacity=160), True),
    ],
    ids=["ink", "bright", "pencil", "chalk", "faint", "dark-on-nothing", "bright-on-nothing", "translucent"],
)
def test_polarity_is_recognised(picture, dark):
    read = read_sheet(picture)
    assert (read.dark_lines, read.recognised) == (dark, dark)
    assert 0.01 < read.ink < 0.06
    lines = read.grey < 128 if dark else read.grey > 128
    if abs(int(picture[..., 0].max()) - int(picture[..., 0].min())) == 255:
        np.testing.assert_array_equal(lines, sheet(0, 255)[..., 0] > 0)


def test_filled_shapes_are_ink_where_the_edge_is_paper():
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    picture[10:-10, 20:-50] = 0  # 34 % of the sheet
    assert read_sheet(picture).dark_lines
    assert not read_sheet(255 - picture).dark_lines


def test_a_sheet_with_a_transparent_margin_is_opaque_paper():
    picture = np.dstack([sheet(255, 0), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    picture[:8, :, 3] = picture[-8:, :, 3] = 0
    picture[:8], picture[-8:] = 0, 0  # with nothing behind it, as many programs store it
    read = read_sheet(picture)
    assert read.dark_lines and (read.grey[:8] == 255).all()


@pytest.mark.parametrize(
    "picture",
    [
        np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        sheet(250, 250, noise=10),
        np.zeros((HEIGHT, WIDTH, 4), np.uint8),
        np.full((HEIGHT, WIDTH, 4), (255, 255, 255, 255), np.uint8),
    ],
    ids=["white", "black", "noise", "transparent", "opaque"],
)
@pytest.mark.parametrize("dark", [None, True, False])
def test_a_blank_sheet_is_refused(picture, dark):
    with pytest.raises(UserError, match="is blank"):
        read_sheet(picture, dark)


def test_a_sheet_that_may_be_blank_becomes_white_paper():
    grey = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for picture in (grey, np.zeros((HEIGHT, WIDTH, 4), np.uint8)):
        read = read_sheet(picture, may_be_blank=True)
        assert read.ink == 0 and (read.grey == 255).all() and read.dark_lines
    drawn = read_sheet(sheet(255, 0), may_be_blank=True)
    assert drawn.ink > 0 and drawn.recognised is True


def test_white_lines_on_transparency_are_not_put_on_white_without_a_word():
    with pytest.raises(UserError, match="blank with dark lines: it has bright lines on transparent paper"):
        read_sheet(transparent(255), dark_lines=True)


@pytest.mark.parametrize("share", [0.45, 0.5, 0.6])
def test_what_may_be_either_is_refused(share):
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    picture[: round(HEIGHT * share)] = 0
    with pytest.raises(UserError, match=f"could have dark or bright lines, {100 * share:.0f} % of it is dark"):
        read_sheet(picture)
    assert read_sheet(picture, dark_lines=True).recognised is None


def test_translucent_strokes_of_several_colours_are_read():
    """None of them is as opaque as it is transparent."""
    picture = transparent(220, opacity=80)
    drawn = np.flatnonzero(picture[..., 3])
    picture.reshape(-1, 4)[drawn[::3], :3] = 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a median of nothing
        assert read_sheet(picture).dark_lines
