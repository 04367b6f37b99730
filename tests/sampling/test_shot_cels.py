"""Shots of cels: every key comes back as it was drawn, all drawings lie over one background, and colours are locked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.io.drawn_cels import SIDE, disc
from tests.sampling.narrow import NARROW
from tests.sampling.test_sequence import Blend
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.transparency import over
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.sequence import Shot, ShotOptions
from tooncrafter_jax.sampling.shot_drawing import draw_shot
from tooncrafter_jax.sampling.shot_preparation import prepare_shot

KEYS = {0: 0.2, 8: 0.6, 16: 0.4}
"""Frame -> where the disc is."""


def cel(at: float) -> np.ndarray:
    return disc(at)[16:80, 16:80]


def options(**changes: Any) -> SamplingOptions:
    settings: dict[str, Any] = {"height": 64, "width": 64, "frames": 16, "alpha": True}
    return SamplingOptions(**{**settings, **changes})


def drawn(shot: Shot, chosen: SamplingOptions, blend: Blend | None = None) -> np.ndarray:
    with collected():
        prepared = prepare_shot(shot, chosen, NARROW)
    return draw_shot(prepared, chosen, blend or Blend(shift=0))


@pytest.mark.parametrize("exposure", [1, 2])
def test_keys_are_exact_while_they_are_held_and_all_lies_over_one_background(exposure: int):
    blend = Blend(shift=0)
    video = drawn(Shot({frame: cel(at) for frame, at in KEYS.items()}, exposure=exposure), options(), blend)
    assert video.shape == (17, 64, 64, 4)
    for frame, at in KEYS.items():
        for held in range(frame, min(frame + exposure, 17)):
            np.testing.assert_array_equal(video[held], cel(at))
    corners = {tuple(pair.ends[:, 0, 0].ravel()) for pair in blend.pairs}
    assert len(corners) == 1
    assert (video[:, 0, 0, 3] == 0).all() and (video[4, 32, 20:28, 3] > 0).any()
    if exposure == 2:
        np.testing.assert_array_equal(video[2], video[3])


def test_a_shot_that_shows_decoded_keys_has_their_opacity_recovered():
    keys = {frame: cel(at) for frame, at in KEYS.items()}
    video = drawn(Shot(keys, options=ShotOptions(exact_keys=False)), options())
    for frame, at in KEYS.items():
        difference = np.abs(video[frame, ..., 3].astype(int) - cel(at)[..., 3])
        assert difference.mean() / 255 < 0.004


def test_a_key_without_opacity_is_named():
    keys = {0: cel(0.2), 8: over(cel(0.6), (255, 255, 255))}
    with pytest.raises(UserError, match="the key on frame 8 has no transparent pixels"):
        drawn(Shot(keys), options())


def test_colours_of_every_clip_are_locked():
    """The sampler shifts all colours by the seed, which a lock takes out."""
    keys = {0: np.full((SIDE, SIDE, 3), 90, np.uint8), 40: np.full((SIDE, SIDE, 3), 150, np.uint8)}
    chosen = options(alpha=False)
    drifting = drawn(Shot(keys, seed=5), chosen, Blend(shift=0.02))
    locked = drawn(Shot(keys, seed=5), options(alpha=False, lock_colours=True), Blend(shift=0.02))
    way = np.linspace(90, 150, 41)[:, None, None, None]
    assert np.abs(drifting - way)[1:-1].mean() > 5 and np.abs(locked - way)[1:-1].mean() < 2
