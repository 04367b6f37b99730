"""Sampling that motion guides: by the model's own network, or by the published weights of RIFE and HED."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import NARROW_CHANGES
from tooncrafter_jax import Pair, SamplingOptions, ToonCrafter, UserError
from tooncrafter_jax.models.configuration import COMPONENTS, ModelConfig, preset, tiny, tooncrafter_512
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.motion_network import MotionConfig
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.sampling import motion_source
from tooncrafter_jax.sampling.motion_source import missing_motion
from tooncrafter_jax.sampling.pair_sampler import PairSampler, _most_sketches
from tooncrafter_jax.sampling.request import make_options, prepare
from tooncrafter_jax.sampling.residence import Residence
from tooncrafter_jax.training.start import changed
from tooncrafter_jax.weights.rule import random_params
from tooncrafter_jax.zoo.hed.network import Hed, HedConfig

OPTIONS = {"steps": 1, "frames": 4, "guidance_scale": 1.0, "second_pass": False}
SIDE = 16


def narrow() -> ModelConfig:
    carried = NARROW_CHANGES["decoder"] | {"carried": True, "corrects_motion": True}
    return changed(preset("tiny"), NARROW_CHANGES | {"decoder": carried})


@pytest.fixture(scope="module")
def toon() -> ToonCrafter:
    config = narrow()
    params = {
        name: random_params({path: leaf.shape for path, leaf in network.abstract_params.items()}, 0)
        for name, network in config.networks().items()
    }
    device = jax.devices("cpu")[0]
    return ToonCrafter(config, jax.device_put(params, device), devices=[device])


def pair(number: int, sketches: dict[int, Any] | None = None) -> Pair:
    draw = np.random.default_rng(number)
    first, last = draw.integers(0, 255, (2, SIDE, SIDE, 3), dtype=np.uint8)
    return Pair(first, last, sketches=sketches, seed=number)


def test_pictures_are_not_carried_into_tiles() -> None:
    with pytest.raises(UserError, match="leave out one of the two"):
        SamplingOptions(**OPTIONS, motion_guidance=True, decode_tile_size=32).check(narrow())
    SamplingOptions(**OPTIONS, decode_tile_size=32).check(narrow())


@pytest.mark.gate
def test_a_clip_follows_its_own_motion_and_sketch(toon: ToonCrafter) -> None:
    guided, plain = SamplingOptions(**OPTIONS, motion_guidance=True), SamplingOptions(**OPTIONS)
    pairs = [pair(0), pair(1)]
    both = toon.interpolate_pairs(pairs, guided)
    difference = np.abs(both.astype(int) - toon.interpolate_pairs(pairs, plain))
    assert difference[:, 1:-1].max() > 10
    for one, ends in zip(both, pairs, strict=True):  # key frames are the pictures
        np.testing.assert_array_equal(one[[0, -1]], np.stack([np.asarray(ends.first), np.asarray(ends.last)]))
    np.testing.assert_allclose(toon.interpolate_pairs(pairs[1:], guided)[0], both[1], atol=1)


@pytest.mark.gate
def test_one_picture_has_no_motion(toon: ToonCrafter) -> None:
    """Alone, and among clips that are guided."""
    guided, plain = SamplingOptions(**OPTIONS, motion_guidance=True), SamplingOptions(**OPTIONS)
    one, other = (prepare(pair(number), guided, toon.config) for number in range(2))
    one = one._replace(open_end=True)
    alone = toon.sample_prepared([one], guided)[0]
    np.testing.assert_array_equal(alone, toon.sample_prepared([one], plain)[0])
    both = toon.sample_prepared([other, one], guided)
    np.testing.assert_allclose(both[1], alone, atol=1e-3)
    np.testing.assert_allclose(both[0], toon.sample_prepared([other], guided)[0], atol=1e-3)


def test_a_model_without_a_motion_network_takes_rife(metric_weights: Path) -> None:
    others = set(COMPONENTS) - {"motion"}
    assert missing_motion(tiny(), COMPONENTS) is None
    config = tooncrafter_512()
    found = missing_motion(config, others, metric_weights)
    assert found is not None
    assert {path: leaf.shape for path, leaf in found.items()} == {
        path: leaf.shape for path, leaf in config.networks()["motion"].abstract_params.items()
    }
    with pytest.raises(UserError, match="this model's motion network is missing"):
        missing_motion(replace(config, motion=tiny().motion), others)


def test_a_model_whose_motion_follows_sketches_takes_hed_too(
    metric_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_hed = {
        path: np.zeros(leaf.shape, np.float32) for path, leaf in Network(Hed, HedConfig()).abstract_params.items()
    }
    monkeypatch.setattr(motion_source, "fetch_hed_weights", lambda: Path("hed"))
    monkeypatch.setattr(motion_source, "load_hed", lambda file: of_hed)
    motion_source.published_motion.cache_clear()
    config = replace(tooncrafter_512(), motion=MotionConfig(through_sketches=True))
    found = missing_motion(config, set(COMPONENTS) - {"motion"}, metric_weights)
    motion_source.published_motion.cache_clear()
    assert found is not None
    assert {path: leaf.shape for path, leaf in found.items()} == {
        path: leaf.shape for path, leaf in config.networks()["motion"].abstract_params.items()
    }


@pytest.mark.parametrize("changes", [{"through_sketches": True}, {"refinement_widths": (8,)}, {}])
def test_sketches_reach_the_networks_that_follow_them(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the others, which would compile a second program for nothing."""
    config = replace(narrow(), motion=MotionConfig(**changes))
    pairs, options = (
        PairSampler(config, Residence({}, jax.devices("cpu")), {}, jax.devices("cpu")),
        SamplingOptions(**OPTIONS),
    )
    asked: list[Any] = []

    class Spy:
        def place(self, x: Any, *axes: str) -> Any:
            return x

        def motion(self, params: Any, ends: Any, hints: Any, *, frames: int, most_sketches: int | None) -> Motion:
            asked.append(hints)
            assert most_sketches == (None if hints is None else 1)
            return Motion(jnp.zeros((1, frames, SIDE, SIDE, 4)), jnp.zeros((1, frames, SIDE, SIDE, 1)))

    monkeypatch.setattr(pairs, "sampler", lambda *_: Spy())
    monkeypatch.setattr(pairs, "_params", lambda *_: {})
    sketch = np.full((SIDE, SIDE, 3), 255, np.uint8)
    sketch[SIDE // 2] = 0
    pairs.motion([prepare(pair(0, {1: sketch}), options, config)], options)
    assert (asked[0] is not None) == bool(changes)


@pytest.mark.parametrize(
    ("sketched", "most"), [([1], 1), ([0, 1, 15], 1), ([3, 5], 2), ([1, 2, 3], 4), (range(16), 16)]
)
def test_programs_are_made_for_few_numbers_of_sketches(sketched: Sequence[int], most: int) -> None:
    """Powers of two, of those between the ends of the clip that has most."""
    hints = np.zeros((2, 16, 8, 8, 1), np.float32)
    hints[0, 4] = hints[1, list(sketched), 3] = 1
    assert _most_sketches(hints) == most


def test_one_picture_moves_as_its_sketches_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last frame, which has a sketch like those between: behind it the picture comes once more."""
    config = replace(narrow(), motion=MotionConfig(through_sketches=True))
    pairs = PairSampler(config, Residence({}, jax.devices("cpu")), {}, jax.devices("cpu")[:1])
    options = SamplingOptions(**OPTIONS)
    frames = options.frames
    asked: dict[int, np.ndarray] = {}

    class Spy:
        def place(self, x: Any, *axes: str) -> Any:
            return x

        def motion(self, params: Any, ends: Any, hints: Any, *, frames: int, most_sketches: int) -> Motion:
            asked[frames] = hints
            assert most_sketches == int(hints[:, 1:-1].any(axis=(2, 3, 4)).sum(axis=1).max())
            here = (len(ends), frames, SIDE, SIDE)
            return Motion(jnp.full((*here, 4), float(frames)), jnp.zeros((*here, 1)))

    monkeypatch.setattr(pairs, "sampler", lambda *_: Spy())
    monkeypatch.setattr(pairs, "_params", lambda *_: {})
    monkeypatch.setattr(pairs, "_groups", lambda count: (count, [slice(0, count)]))
    sketch = np.full((SIDE, SIDE, 3), 255, np.uint8)
    sketch[SIDE // 2] = 0
    two = prepare(pair(0, {1: sketch}), options, config)
    one = prepare(pair(1, {1: sketch, frames - 1: sketch}), options, config)._replace(open_end=True)
    with_a_late_end = prepare(pair(1, {1: sketch}), options, config)._replace(open_end=True)
    assert pairs.has_motion([two, one, with_a_late_end]).tolist() == [True, True, False]
    flows, _ = pairs.motion([two, one], options)
    assert flows.shape == (2, frames, SIDE, SIDE, 4)
    assert [set(np.unique(flow)) for flow in flows] == [{frames}, {frames + 1}]
    assert asked[frames].shape[1] == frames
    np.testing.assert_array_equal(asked[frames + 1][1, :frames], one.hints)
    assert not asked[frames + 1][:, frames].any()


def test_without_weights_of_rife_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="RIFE needs its weights.*fetch-metric-weights"):
        missing_motion(tooncrafter_512(), ())


def test_no_guidance_is_the_default_as_published() -> None:
    assert not SamplingOptions().motion_guidance
    assert make_options({"motion_guidance": True}).motion_guidance
