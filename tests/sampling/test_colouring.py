"""Colouring by reference: a sketch for every frame, one reference or two, and an end of which nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.io.drawn_cels import disc
from tests.sampling.test_request import drawing, lines
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.frames import in_range
from tooncrafter_jax.io.transparency import over
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.finishing import Sampled, finished
from tooncrafter_jax.sampling.pair_sampler import known_ends
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch, make_pairs, prepare, references_of

OPTIONS = SamplingOptions(height=64, width=128, frames=4)
BLANK = np.full((96, 192, 3), 240, np.uint8)


def test_one_reference_is_the_first_frame_and_leaves_the_last_one_open():
    with collected() as said:
        pair = prepare(Pair(drawing(), None, sketches=[lines(), BLANK, lines(), lines()]), OPTIONS, tiny())
    assert pair.open_end and pair.hints is not None and pair.hints.shape == (4, 64, 128, 1)
    np.testing.assert_array_equal(pair.ends[0], pair.ends[1])
    assert not pair.hints[1].any()
    assert all(pair.hints[frame].max() > 0.9 and pair.hints[frame].min() == 0 for frame in (0, 2, 3))
    assert [sentence for sentence in said if "sketches" in sentence] == [
        "the sketches for frames 1 are blank: nothing guides these",
        "the sketches have dark lines on bright paper: 6.2 to 6.2 % of each is ink",
    ]


def test_two_references_are_both_ends():
    with collected():
        pair = prepare(Pair(drawing(), drawing()[::-1].copy(), sketches=[lines()] * 4), OPTIONS, tiny())
    assert not pair.open_end and not np.array_equal(pair.ends[0], pair.ends[1])


def test_only_open_ends_are_unknown_to_the_denoiser():
    pairs = [prepare(Pair(drawing(), last, sketches=[lines()] * 4), OPTIONS, tiny()) for last in (None, drawing())]
    ends = np.ones((2, 2, 4, 8, 4), np.float32)
    known = known_ends(ends, pairs)
    assert known[0, 0].all() and not known[0, 1].any() and known[1].all() and ends.all()


def test_polarities_of_a_series_are_told():
    bright, dark = lines(dark=False), lines()
    for sketches, words in (
        ([bright] * 4, "the sketches are read as bright lines on dark paper"),
        ([dark, bright, dark, dark], "for frames 1 are read as bright lines on dark paper, the others as dark"),
    ):
        with collected() as said:
            pair = prepare(Pair(drawing(), None, sketches=sketches), OPTIONS, tiny())
        assert pair.hints is not None and all(0.02 < hint.mean() < 0.2 for hint in pair.hints)
        assert any(words in sentence for sentence in said)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Pair(drawing(), None), "every frame needs a sketch, and frame 0 has none"),
        (Pair(drawing(), None, sketches={0: lines(), 1: lines(), 3: lines()}), "frame 2 has none"),
        (Pair(drawing(), None, sketches=[lines()] * 3), "there are 3 sketches for the 4 frames"),
        (Pair(drawing(), drawing(), sketches=[lines()] * 5), "there are 5 sketches for the 4 frames"),
        (Pair(drawing(), None, sketches=[BLANK] * 4), "all sketches are blank"),
        (Pair(drawing(), None, sketches=[lines(64, 64)] * 4), "the sketch for frame 0 is 64 x 64"),
    ],
)
def test_what_cannot_be_coloured_is_refused(pair: Pair, words: str):
    with pytest.raises(UserError, match=words):
        prepare(pair, OPTIONS, tiny())


def test_an_open_end_with_opacity_is_what_was_drawn():
    options = SamplingOptions(height=96 + 32, width=96 + 32, frames=3, fit="pad", alpha=True)
    sketch = np.full((96, 96, 3), 255, np.uint8)
    sketch[40:44, 20:70] = 0
    with collected():
        pair = prepare(Pair(disc(0), None, sketches=[sketch] * 3), options, tiny())
    assert pair.cels is not None
    below = pair.cels.background
    canvas = np.empty((3, 128, 128, 3), np.uint8)
    canvas[:] = below
    for frame, at in enumerate((0, 0.5, 1)):
        canvas[frame, 16:-16, 16:-16] = over(disc(at), below)
    cels = finished(Sampled(np.stack([in_range(frame) for frame in canvas])), pair, options)
    np.testing.assert_array_equal(cels[0], pair.cels.pictures[0])
    assert np.abs(cels[2, ..., 3].astype(int) - np.pad(disc(1)[..., 3], 16)).mean() / 255 < 0.002


def test_a_list_of_drawings_is_of_one_clip_and_a_list_of_lists_of_several():
    one, two = [lines()] * 4, {2: lines()}
    (single,) = make_pairs(drawing(), None, "", one, 1, 8)
    assert single.sketches is one and single.last is None
    (stacked,) = make_pairs(drawing(), None, "", np.stack(one), 1, 8)
    assert isinstance(stacked.sketches, np.ndarray) and len(stacked.sketches) == 4
    (wrapped,) = make_pairs(drawing(), drawing(), "", [two], 1, 8)
    assert wrapped.sketches is two
    several = make_pairs([drawing()] * 3, [None, drawing(), None], "", [one, None, one], 1, 8)
    assert [pair.sketches is one for pair in several] == [True, False, True]
    assert [pair.last is None for pair in several] == [True, False, True]


def test_references_are_one_or_two():
    assert references_of("a.png") == ("a.png", None) == references_of(["a.png"])
    assert references_of(["a.png", "b.png"]) == ("a.png", "b.png")
    for wrong in ([], ["a", "b", "c"]):
        with pytest.raises(UserError, match=f"there are {len(wrong)} references"):
            references_of(wrong)


def test_a_sketch_of_a_series_keeps_its_own_polarity():
    with collected():
        pair = prepare(Pair(drawing(), None, sketches=[Sketch(lines(), dark_lines=True)] * 4), OPTIONS, tiny())
    assert pair.hints is not None and 0.02 < pair.hints.mean() < 0.2
