"""Options of guidance: what is refused, what is told, what a record knows, and clips of a small network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.sampling.test_motion_guidance import OPTIONS, pair, toon
from tooncrafter_jax import SamplingOptions, ToonCrafter, UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.notes import collected
from tooncrafter_jax.options import as_shown, shown
from tooncrafter_jax.sampling.request import Pair, tell_texts

__all__ = ["toon"]  # the fixture of a narrow network


@pytest.mark.parametrize(
    ("interval", "sentence"),
    [
        ("1", "the guidance interval must be two noise levels of 0 or more, such as 0.3:5 or 2:inf, not '1'"),
        ("4:5", "no step has a noise level in the guidance interval 4:5: those of this run are from inf down to 0.699"),
    ],
)
def test_an_interval_that_means_nothing_is_refused(interval: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        SamplingOptions(steps=5, guidance_interval=interval).check(tiny())
    SamplingOptions(steps=5, guidance_interval="2:4").check(tiny())


def test_an_interval_without_guidance_is_told() -> None:
    with collected() as found:
        tell_texts(Pair("a", "b"), SamplingOptions(guidance_scale=1.0, guidance_interval="2:4"))
        tell_texts(Pair("a", "b"), SamplingOptions(guidance_interval="2:4"))
    assert found == ["the guidance interval has no effect: at a guidance scale of 1 there is no guidance"]


def test_a_record_knows_what_changes_a_clip() -> None:
    """An interval and times do, none are what records of before stand for; the order of branches does not."""
    before = shown(SamplingOptions())
    del before["guidance_interval"], before["timesteps"], before["solver"], before["reuse"]
    assert as_shown(SamplingOptions, before) == shown(SamplingOptions(sequential_guidance=True))
    changes: list[dict[str, Any]] = [
        {"guidance_interval": "0.3:5"},
        {"timesteps": "999,500"},
        {"solver": "heun"},
        {"reuse": "2"},
    ]
    for change in changes:
        assert as_shown(SamplingOptions, before) != shown(SamplingOptions(**change))


@pytest.mark.gate
def test_clips_of_a_network_guided_in_every_way(toon: ToonCrafter) -> None:
    """One after another is the same clip; everywhere is guidance; below the first step's level it is another clip."""

    def clip(**changes: Any) -> np.ndarray:
        settings: dict[str, Any] = {**OPTIONS, "steps": 2, "guidance_scale": 7.5, "solver": "unipc", **changes}
        options = SamplingOptions(**settings)
        return toon.interpolate_pairs([pair(0)], options)[0].astype(int)

    plain = clip()
    assert np.abs(plain - clip(sequential_guidance=True)).max() <= 1
    assert np.abs(plain - clip(guidance_interval="0:inf")).max() <= 1
    assert np.abs(plain - clip(guidance_interval="0:100")).max() > 3
    reused = np.abs(plain - clip(reuse="2"))  # the second of two steps
    assert 1 < reused.max() and reused.mean() < 40  # of weights at random, whose features change much; 23 measured
