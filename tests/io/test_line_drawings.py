"""Paper becomes white and lines grey, of a scan and of what was drawn; what is so already stays value by value."""

from __future__ import annotations

import numpy as np
import pytest

from tests.io.drifting import scene
from tests.io.line_sheets import TONE, clip, sheet, soiled
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.line_drawings import as_line_drawing, grey_cels, kept_lines, looks_like_lines
from tooncrafter_jax.notes import collected

CREAM = (246, 236, 214)


def paper_and_error(made: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Share of the true paper that is white, and the mean difference where there are lines."""
    paper = true[..., 0] == 255
    lines = true[..., 0] < 200
    return float((made[..., 0][paper] == 255).mean()), float(np.abs(made.astype(int) - true)[lines].mean())


@pytest.mark.parametrize("tone", [False, True])
def test_a_clean_sheet_stays_value_by_value(tone: bool):
    frames = clip(tone)
    with collected() as said:
        np.testing.assert_array_equal(as_line_drawing(frames[0], "a"), frames[0])
        np.testing.assert_array_equal(kept_lines(frames, [frames[0], frames[-1]]), frames)
    assert not said


def test_a_scan_on_cream_paper_becomes_grey_lines_on_white():
    true = sheet(0.3)
    made = as_line_drawing(soiled(true, CREAM), "a")
    white, error = paper_and_error(made, true)
    assert (made[..., :1] == made).all()
    assert white > 0.98 and error < 5  # noise of 1.5 levels, and the paper's estimate


def test_a_drawn_clip_has_the_paper_of_its_keys():
    """Frames between with a tint and grey paper; those of the keys are clean."""
    true = clip()
    drawn = soiled(true, (231, 214, 240), shade=0.15, noise=2)
    drawn[[0, -1]] = true[[0, -1]]
    made = kept_lines(drawn, [true[0], true[-1]])
    np.testing.assert_array_equal(made[[0, -1]], true[[0, -1]])
    assert (made[..., :1] == made).all()
    for found, wanted in zip(made, true, strict=True):
        white, error = paper_and_error(found, wanted)
        assert white > 0.98 and error < 6


def test_a_tone_that_moves_stays_a_tone():
    true = clip(tone=True)
    made = kept_lines(soiled(true, (235, 235, 235)), [true[0], true[-1]])
    inside = np.stack([np.median(one[true_one == TONE]) for one, true_one in zip(made, true, strict=True)])
    np.testing.assert_allclose(inside, TONE, atol=8)  # its neighbours' paper is known to 2 %


def test_a_line_that_neither_key_has_stays():
    true = clip()
    true[3, 10:14, 20:140] = 90
    made = kept_lines(true, [true[0], true[-1]])
    np.testing.assert_allclose(made[3, 10:14, 20:140], 90, atol=3)


def test_what_is_no_line_drawing_is_refused_by_name():
    with pytest.raises(UserError, match="'night.png' has dark paper.*invert"):
        as_line_drawing(255 - sheet(0), "'night.png'")
    with pytest.raises(UserError, match="'house.png' is no line drawing: .* % of it has colours"):
        as_line_drawing(scene(0), "'house.png'")
    greys = np.repeat([60, 160, 240], [18, 20, 26]).astype(np.uint8)
    with pytest.raises(UserError, match="'greys.png' is no line drawing: only 31 % of it is paper"):
        as_line_drawing(np.tile(greys[None, :, None], (64, 1, 3)), "'greys.png'")


def test_coloured_lines_become_grey_and_a_line_says_so():
    picture = sheet(0).copy()
    picture[78:82] = np.where(picture[78:82] < 128, (220, 30, 30), picture[78:82])
    with collected() as said:
        made = as_line_drawing(picture, "'a.png'")
    assert (made[..., :1] == made).all()
    assert len(said) == 1 and said[0].startswith("'a.png' has colours on")


def test_line_drawings_are_recognised():
    blank = np.full((64, 64, 3), 255, np.uint8)
    painted = np.full((64, 64, 3), 255, np.uint8)
    painted[20:40, 20:40] = (200, 30, 40)
    drawings = {"clean": sheet(0), "scanned": soiled(sheet(0), CREAM, shade=0)}
    others = {"blank": blank, "painted": painted, "scene": scene(0), "dark": 255 - sheet(0)}
    assert all(looks_like_lines(picture) for picture in drawings.values())
    assert not any(looks_like_lines(picture) for picture in others.values())


def test_grey_cels_keep_their_opacity():
    cels = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 4)).astype(np.uint8)
    made = grey_cels(cels)
    np.testing.assert_array_equal(made[..., 3], cels[..., 3])
    assert (made[..., :1] == made[..., :3]).all()
