"""A model gets each request's own prompt, seed and frame rate, and the requests' size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tooncrafter_jax.evaluation.baselines.generative import Generative, InterpolatesPairs

from tests.evaluation.baselines.scenes import sliding_square
from tooncrafter_jax.evaluation.baselines.in_betweener import ClipRequest, InBetweener
from tooncrafter_jax.pipeline import ToonCrafter
from tooncrafter_jax.requests import Pair, SamplingOptions

FIRST, LAST = sliding_square()[[0, -1]]


class Recorder:
    """In place of a model: keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Pair], SamplingOptions]] = []

    def interpolate_pairs(self, pairs: Sequence[Pair], options: SamplingOptions) -> Any:
        self.asked.append((list(pairs), options))
        height, width = options.height or 0, options.width or 0
        return np.full((len(pairs), options.frames, height, width, 3), 7, np.uint8)


def test_requests_become_pairs() -> None:
    model = Recorder()
    rival = Generative(model, SamplingOptions(steps=5, height=320), name="ours")
    video = rival([ClipRequest("a", FIRST, LAST, 12, "a ball", 4, 24), ClipRequest("b", LAST, FIRST, 12)])
    (pairs, options) = model.asked[0]
    assert (options.frames, options.height, options.width, options.steps) == (12, 96, 128, 5)
    assert [(p.prompt, p.seed, p.fps, p.sketches) for p in pairs] == [("a ball", 4, 24, None), ("", 123, 10, None)]
    assert pairs[1].first is LAST and pairs[1].last is FIRST
    assert video.shape == (2, 12, 96, 128, 3) and (video == 7).all()


def test_it_is_a_rival_and_tooncrafter_is_such_a_model() -> None:
    rival = Generative(Recorder())
    assert isinstance(rival, InBetweener) and (rival.name, rival.title) == ("tooncrafter", "tooncrafter")
    assert issubclass(ToonCrafter, InterpolatesPairs)
    assert rival.settings()["steps"] == 50 and "height" not in rival.settings()
