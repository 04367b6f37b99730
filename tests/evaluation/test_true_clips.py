"""The windows of an evaluation are those of the rule, and the same in every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.evaluation.small_set import LENGTHS, drawing, make_set
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.true_clips import TrueClips, WindowRule, seed_of

SMALL: dict[str, Any] = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    return make_set(tmp_path_factory.mktemp("set"))


def number_of(clip_id: str) -> int:
    return int(clip_id.split("/")[0].removeprefix("film "))


@pytest.mark.parametrize(("start", "stride"), [("first", 1), ("middle", 2), ("middle", 3)])
def test_frames_are_those_of_the_rule(clips: ClipSet, start: str, stride: int) -> None:
    true = TrueClips(clips, WindowRule(16, stride=stride, start=start, **SMALL))  # pyright: ignore
    assert len(true) == len(LENGTHS) - 1 and true.left_out == 1
    for clip in true:
        length = LENGTHS[number_of(clip.id)]
        used = max(step for step in range(1, stride + 1) if 15 * step < length)  # the largest that fits
        first = 0 if start == "first" else (length - 1 - 15 * used) // 2
        expected = drawing(number_of(clip.id), length)[first : first + 15 * used + 1 : used]
        assert np.abs(clip.video.astype(int) - expected).mean() < 2  # but for JPEG
        assert clip.fps == 24 // used
        assert clip.prompt == f"square {number_of(clip.id)}"


def test_the_window_of_most_motion_is_found(clips: ClipSet) -> None:
    """The square is fast in the last third of its clip."""
    for clip in TrueClips(clips, WindowRule(16, start="motion", **SMALL)):
        length = LENGTHS[number_of(clip.id)]
        if length >= 50:
            pictures = drawing(number_of(clip.id), length)
            starts = [start for start in range(length - 15) if np.abs(clip.video[0] - 1.0 * pictures[start]).mean() < 2]
            assert starts and max(starts) + 15 > 2 * length // 3 + 8


def test_a_limit_takes_clips_from_everywhere(clips: ClipSet) -> None:
    everything, some = TrueClips(clips, WindowRule(16, **SMALL)), TrueClips(clips, WindowRule(16, **SMALL), 3)
    assert [everything.ids.index(clip_id) for clip_id in some.ids] == [0, 2, 4]
    assert some.fingerprint != everything.fingerprint


def test_sizes_are_those_of_training(clips: ClipSet) -> None:
    assert TrueClips(clips, WindowRule(16, height=16, width=24))[0].video.shape == (16, 16, 24, 3)


def test_seeds_belong_to_ids() -> None:
    assert seed_of("a/0") == seed_of("a/0") != seed_of("a/1")
    assert len({seed_of(f"clip {index}") for index in range(1000)}) == 1000


def test_mistakes(clips: ClipSet) -> None:
    with pytest.raises(UserError, match="no clip of the split 'test' .* has 100 frames"):
        TrueClips(clips, WindowRule(100, **SMALL))
    with pytest.raises(UserError, match="--stride is 0, but must be at least 1"):
        WindowRule(stride=0)
    with pytest.raises(UserError, match="--limit is -1"):
        TrueClips(clips, WindowRule(16, **SMALL), -1)
