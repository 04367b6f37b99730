"""Thresholds: which clips they drop, and what their version tells."""

import dataclasses
import math
from typing import Any

import pytest

from tests.curation.fakes import make_clip
from tooncrafter_jax.curation.thresholds import CRITERIA, REASONS, Thresholds
from tooncrafter_jax.data.records import SCORES
from tooncrafter_jax.errors import UserError

GOOD = {"motion": 1.0, "text_area": 0.05, "aesthetic": 4.5, "agreement": 0.2}


def _reason(frames: int = 16, thresholds: Thresholds | None = None, **scores: float) -> str | None:
    return (thresholds or Thresholds()).reason_to_drop(make_clip("a", 1, frames, scores=GOOD | scores))


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({}, None),
        ({"frames": 15}, "too-short"),
        ({"motion": 0.99}, "static"),
        ({"text_area": 0.0501}, "text"),
        ({"aesthetic": 4.4}, "low-aesthetic"),
        ({"agreement": 0.19}, "caption-mismatch"),
        ({"motion": 0.0, "text_area": 1.0}, "static"),
    ],
)
def test_a_value_on_the_threshold_is_kept_and_one_beyond_is_dropped_for_the_first_reason(measured, reason):
    assert _reason(**measured) == reason


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: criterion.score)
def test_what_was_not_measured_never_drops_a_clip_nor_does_a_threshold_that_is_off(criterion):
    unknown: dict[str, Any] = {criterion.score: math.nan}
    assert _reason(**unknown) is None
    terrible: dict[str, Any] = {criterion.score: -1e9 if criterion.at_least else 1e9}
    assert _reason(**terrible) == criterion.reason
    assert _reason(thresholds=Thresholds(**{criterion.limit: None}), **terrible) is None


def test_every_score_has_a_criterion_and_every_reason_a_meaning():
    assert {criterion.score for criterion in CRITERIA} == set(SCORES)
    assert {criterion.reason for criterion in CRITERIA} < set(REASONS)


def test_the_version_tells_thresholds_apart():
    versions = {Thresholds().version}
    for field in dataclasses.fields(Thresholds):
        for value in (None, 1):
            versions.add(dataclasses.replace(Thresholds(), **{field.name: value}).version)
    assert len(versions) == 2 * len(dataclasses.fields(Thresholds))  # min_motion is 1 already
    assert Thresholds(min_aesthetic=4).version == Thresholds(min_aesthetic=4.0).version
    assert Thresholds.from_json(Thresholds(min_motion=None, min_frames=9).as_json()) == Thresholds(9, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_motion": math.nan}, "min_motion is nan"),
        ({"max_text_area": 5}, "from 0 to 1"),
        ({"min_beauty": 1}, "no threshold 'min_beauty'"),
        ({"min_motion": "much"}, "'much'"),
    ],
)
def test_impossible_thresholds_are_reported(values, message):
    with pytest.raises(UserError, match=message):
        Thresholds.from_json(values)
