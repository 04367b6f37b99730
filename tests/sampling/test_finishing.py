"""Frames on their way to the user: opacity is told from one drawing, or from two with the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.io.drawn_cels import SIDE, disc, lines
from tests.io.drifting import HEIGHT, clip, difference, drifted
from tests.io.line_sheets import HEIGHT as SHEET_HEIGHT
from tests.io.line_sheets import WIDTH as SHEET_WIDTH
from tests.io.line_sheets import sheet, soiled
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import fit_image
from tooncrafter_jax.io.frames import in_range
from tooncrafter_jax.io.sizes import Colour
from tooncrafter_jax.io.transparency import over
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.finishing import Sampled, finished, sample_all
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import Pair, PreparedPair, SamplingOptions, prepare

Draw = Callable[[float], np.ndarray]
TIMES = np.linspace(0, 1, 5)
SETTINGS: dict[str, Any] = {"height": SIDE + 32, "width": SIDE + 32, "frames": 5, "fit": "pad", "alpha": True}


def prepared(seed: int = 1, **options: Any) -> tuple[PreparedPair, SamplingOptions]:
    chosen = SamplingOptions(**{**SETTINGS, **options})
    chosen.check(tiny())
    return prepare(Pair(disc(0), disc(1), seed=seed), chosen, tiny()), chosen


class Drawing:
    """Draws a cel over whatever the ends have in their corner; what it was asked for is kept."""

    def __init__(self, cel: Draw = disc) -> None:
        self.cel = cel
        self.asked: list[Sequence[PreparedPair]] = []

    def __call__(self, pairs: Sequence[PreparedPair], options: SamplingOptions, on_progress: Any) -> np.ndarray:
        self.asked.append(pairs)
        if on_progress is not None:
            on_progress(Progress(3, 10, lambda: np.zeros(0)))
        corners = [_colour(pair.ends[0, 0, 0]) for pair in pairs]
        return np.stack([[in_range(_placed(over(self.cel(at), corner), corner)) for at in TIMES] for corner in corners])


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in np.round((values + 1) * 127.5))
    return red, green, blue


def _placed(picture: np.ndarray, colour: Colour) -> np.ndarray:
    """In the middle of the clip's size, as pad does not enlarge by whole numbers: here a border of 16 pixels."""
    canvas = np.empty((SIDE + 32, SIDE + 32, 3), np.uint8)
    canvas[:] = colour
    canvas[16:-16, 16:-16] = picture
    return canvas


@pytest.mark.parametrize("twice", [False, True])
def test_opacity_is_told_from_what_was_drawn(twice: bool):
    pair, options = prepared(two_backgrounds=twice)
    draw = Drawing()
    told: list[Progress] = []
    (sampled,) = sample_all(draw, [pair], options, told.append)
    assert [(one.done, one.total) for one in told] == ([(3, 20), (13, 20)] if twice else [(3, 10)])
    cels = finished(sampled, pair, options)
    assert len(draw.asked) == 1 + twice and (sampled.again is not None) == twice
    assert {asked[0].seed for asked in draw.asked} == {1}  # the same noise
    assert cels.shape == (5, SIDE + 32, SIDE + 32, 4) and pair.cels is not None
    np.testing.assert_array_equal(cels[0], pair.cels.pictures[0])
    for at, cel in list(zip(TIMES, cels, strict=True))[1:-1]:
        true = np.pad(disc(at)[..., 3], 16)
        assert np.abs(cel[..., 3].astype(int) - true).mean() / 255 < 0.002


def test_without_alpha_frames_have_three_channels_and_background_shows():
    pair, options = prepared(alpha=False, background="#102030")
    np.testing.assert_allclose((pair.ends[0, 0, 0] + 1) * 127.5, (0x10, 0x20, 0x30), atol=1e-3)
    (sampled,) = sample_all(Drawing(), [pair], options)
    assert finished(sampled, pair, options).shape == (5, SIDE + 32, SIDE + 32, 3)


def test_a_draft_lies_over_the_background_too():
    chosen = SamplingOptions(**SETTINGS, strength=0.5)
    cels = [disc(float(at)) for at in TIMES]
    pair = prepare(Pair(disc(0), disc(1), draft=cels), chosen, tiny())
    assert pair.draft is not None
    np.testing.assert_allclose(pair.draft[2, 0, 0], pair.ends[0, 0, 0])
    papers = [over(cel, (255, 255, 255)) for cel in cels]
    with pytest.raises(UserError, match="picture 0 of the draft has no transparent pixels"):
        prepare(Pair(disc(0), disc(1), draft=papers), chosen, tiny())
    with pytest.raises(UserError, match="a draft lies over one background"):
        prepare(
            Pair(disc(0), disc(1), draft=cels), SamplingOptions(**SETTINGS, strength=0.5, two_backgrounds=True), tiny()
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": False, "two_backgrounds": True}, "add the option alpha, or leave them out"),
        ({"background": "mauve-ish"}, "'mauve-ish' is no colour"),
        ({"background": "white"}, "#ffffff is a colour of the drawing"),
    ],
)
def test_impossible_backgrounds_are_named(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        prepared(**options)


def test_colours_are_locked_and_snapped_where_that_is_asked_for():
    keys = [clip()[0], clip()[-1]]
    settings = {"frames": 9, "height": HEIGHT, "width": 128, "fit": "crop"}
    plain = SamplingOptions(**settings)
    with collected():  # of what is cut off
        pair = prepare(Pair(*keys), plain, tiny())
    true = np.stack([np.round((fit_image(frame, HEIGHT, 128) + 1) * 127.5) for frame in clip()]).astype(np.uint8)
    drawn = drifted(true, noise=1)
    sampled = Sampled(np.stack([in_range(frame) for frame in drawn]))
    found = {
        (lock, snap): finished(sampled, pair, replace(plain, lock_colours=lock, palette=snap))
        for lock in (False, True)
        for snap in (False, True)
    }
    errors = {both: float(difference(frames, true).mean()) for both, frames in found.items()}
    np.testing.assert_allclose(found[False, False], drawn, atol=1)  # values are cut off, not rounded
    assert errors[True, False] < 0.5 * errors[False, False] and errors[True, True] < 0.5 * errors[True, False]


def test_nan_is_named():
    pair, options = prepared()
    (sampled,) = sample_all(Drawing(), [pair], options)
    sampled.video[2, 5, 5] = np.nan
    with pytest.raises(UserError, match="NaN"):
        finished(sampled, pair, options)


def test_line_drawings_are_kept_white_and_grey():
    """Scans on cream paper in, a drawing on tinted paper between: white paper and grey lines in both."""
    true = np.stack([sheet(float(at)) for at in TIMES])
    options = SamplingOptions(height=SHEET_HEIGHT, width=SHEET_WIDTH, frames=5, lines=True)
    options.check(tiny())
    first, last = (soiled(true[at], (246, 236, 214)) for at in (0, -1))
    pair = prepare(Pair(first, last), options, tiny())
    sampled = Sampled(np.stack([in_range(frame) for frame in soiled(true, (231, 214, 240))]))
    for made in (np.round((pair.ends + 1) * 127.5).astype(np.uint8), finished(sampled, pair, options)):
        wanted = true[[0, -1]] if len(made) == 2 else true
        paper = wanted[..., 0] == 255
        assert (made[..., :1] == made).all() and (made[..., 0][paper] >= 254).mean() > 0.97
        assert np.abs(made.astype(int) - wanted)[wanted < 200].mean() < 7


@pytest.mark.parametrize("cel", [lines, disc])
def test_line_drawings_with_opacity_lie_on_white_if_nothing_of_them_is_white(cel: Draw):
    options = SamplingOptions(**SETTINGS, lines=True)
    pair = prepare(Pair(cel(0), cel(1)), options, tiny())
    assert pair.cels is not None and (pair.cels.background == (255, 255, 255)) == (cel is lines)
    (sampled,) = sample_all(Drawing(cel), [pair], options)
    cels = finished(sampled, pair, options)
    assert (cels[..., :1] == cels[..., :3]).all()
    for at, found in list(zip(TIMES, cels, strict=True))[1:-1]:
        assert np.abs(found[..., 3].astype(int) - np.pad(cel(at)[..., 3], 16)).mean() / 255 < 0.01


def test_line_drawings_that_are_not_asked_for_are_recognised():
    options = SamplingOptions(height=SHEET_HEIGHT, width=SHEET_WIDTH, frames=5)
    with collected() as said:
        prepare(Pair(sheet(0), sheet(1)), options, tiny())
    assert sum("look like line drawings: the option lines" in sentence for sentence in said) == 1
    with pytest.raises(UserError, match="lie on white paper"):
        replace(options, lines=True, background="green").check(tiny())
    with pytest.raises(UserError, match="the last picture is no line drawing"):
        prepare(Pair(sheet(0), clip()[0]), replace(options, lines=True, fit="crop"), tiny())
