"""Variants of known faults are ranked in the right order, and each is told."""

from __future__ import annotations

import numpy as np
import pytest

from tests.io.drifting import FRAMES, clip, drifted
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.blending import cross_fade
from tooncrafter_jax.io.frames import in_range
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.picking import Picking, candidate_sheet, judged, picked, picked_clips
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import Pair, PreparedPair, SamplingOptions

TRUE = clip()
FIRST, LAST = TRUE[0], TRUE[-1]


def flickering(levels: int) -> np.ndarray:
    """Every other frame is brighter; the ends are as they are."""
    made = TRUE.astype(int)
    made[1:-1:2] += levels
    return made.clip(0, 255).astype(np.uint8)


def of_wrong_keys(levels: int) -> np.ndarray:
    """Ends that are drawn darker, and the way between them."""
    made = TRUE.astype(int)
    return (made - levels).clip(0, 255).astype(np.uint8)


def jumping(at: int) -> np.ndarray:
    """Nothing happens until a frame, and then all."""
    return np.stack([FIRST if frame < at else LAST for frame in range(FRAMES)])


def faded(share: float) -> np.ndarray:
    """The motion with a cross-fade over it."""
    blend = cross_fade(FIRST[None], LAST[None], FRAMES)[0]
    return np.round((1 - share) * TRUE + share * blend).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "from_best"),
    [
        ("keys", [TRUE, of_wrong_keys(6), of_wrong_keys(20)]),
        ("flicker", [TRUE, flickering(5), flickering(15)]),
        ("ghosts", [TRUE, faded(0.5), faded(1)]),
        ("unevenness", [TRUE, np.concatenate([TRUE[:3], TRUE[[2, 2]], TRUE[[8] * 4]]), jumping(5)]),
    ],
)
def test_each_measure_orders_its_fault_and_so_does_the_score(name: str, from_best: list[np.ndarray]):
    judgements = [judged(frames, FIRST, LAST) for frames in from_best]
    values = [getattr(one, name) for one in judgements]
    scores = [one.score for one in judgements]
    assert values == sorted(values) and len(set(values)) == 3
    assert scores == sorted(scores) and scores[2] > scores[0] + 1


def test_measures_have_their_values_where_these_are_known():
    true, fade, jump = (judged(frames, FIRST, LAST) for frames in (TRUE, faded(1), jumping(5)))
    assert true.keys == 0 and true.flicker == 0 and true.unevenness < 0.5 and true.ghosts < 0.1
    assert fade.ghosts > 0.5 and fade.unevenness < 0.2
    assert jump.unevenness == pytest.approx(FRAMES - 2) and jump.ghosts == 0
    assert judged(flickering(15), FIRST, LAST).flicker > 3
    still = np.repeat(FIRST[None], 5, axis=0)
    assert judged(still, FIRST, FIRST) == (0, 0, 0, 0)


def test_with_one_picture_alone_the_last_frame_is_not_judged():
    of_first = judged(TRUE, FIRST, None)
    assert of_first.keys == 0 and of_first.ghosts == 0
    assert judged(flickering(15), FIRST, None).score > of_first.score


def test_cels_are_judged_over_white():
    opaque = np.concatenate([TRUE, np.full((*TRUE.shape[:3], 1), 255, np.uint8)], -1)
    assert judged(opaque, FIRST, LAST) == judged(TRUE, FIRST, LAST)


def test_the_best_are_kept_and_every_variant_is_told():
    clips = [flickering(15), TRUE, faded(1), drifted(TRUE)]
    pair = PreparedPair(np.stack([in_range(FIRST), in_range(LAST)]), None, "", 40, 8)
    picking = Picking(4, 2)
    variants = picking.variants(pair)
    with collected() as said:
        found = picked(clips, variants, picking, "ab")
    assert found[0].number == 1 and [one.seed for one in variants] == [40, 41, 42, 43]
    assert [one.rank for one in found] == [1, 2, 3, 4] and [one.is_kept for one in found] == [True, True, False, False]
    assert len(said) == 4 and all(sentence.startswith("ab: seed 4") for sentence in said)
    assert said[0].endswith(", kept") and said[3].endswith("not kept") and "seed 41 is number 1" in said[0]
    assert found[0].plain()["seed"] == 41 and found[0].plain()["kept"] is True
    frames, columns, labels = candidate_sheet(clips, found)
    assert len(frames) == len(labels) == 4 * columns and labels[0] == "1. seed 41: kept"
    np.testing.assert_array_equal(frames[0], TRUE[0])


def test_equal_variants_keep_their_order():
    pair = PreparedPair(np.stack([in_range(FIRST), in_range(LAST)]), None, "", 1, 8)
    picking = Picking(3, 1)
    with collected():
        found = picked([TRUE, TRUE, TRUE], picking.variants(pair), picking)
    assert [one.number for one in found] == [0, 1, 2]


def test_the_picked_clips_of_several_pairs_follow_each_other():
    picking = Picking(2, 1)
    pairs = [PreparedPair(np.stack([in_range(FIRST), in_range(LAST)]), None, "", seed, 8) for seed in (1, 2, 1, 2)]
    with collected() as said:
        kept = picked_clips([TRUE, flickering(15), flickering(5), TRUE], pairs, picking)
    assert len(kept) == 2 and all(clip is TRUE for clip in kept)
    assert [sentence.partition(":")[0] for sentence in said] == ["pair 0", "pair 0", "pair 1", "pair 1"]
    with pytest.raises(UserError, match="3 clips are not 2 variants of each pair"):
        picked_clips([TRUE] * 3, pairs[:3], picking)


def test_pairs_that_are_not_variants_are_refused_before_they_are_drawn():
    toon, pair = ToonCrafter(tiny(), {}, dtype="float32"), Pair(FIRST, LAST)
    with pytest.raises(UserError, match="3 clips are not 2 variants of each pair: give each pair 2 times"):
        toon.interpolate_pairs([pair] * 3, SamplingOptions(), picking=Picking(2, 1))


@pytest.mark.parametrize(
    ("samples", "pick", "words"),
    [
        (1, 1, "nothing to pick from with 1 samples"),
        (3, 4, "4 of 3 samples cannot be picked"),
        (3, 0, "0 of 3 samples cannot be picked"),
        (1000, 1, "too many to be drawn together"),
    ],
)
def test_what_cannot_be_picked_is_refused(samples: int, pick: int, words: str):
    with pytest.raises(UserError, match=words):
        Picking(samples, pick)
