"""Shots drawn by a narrow model: on one device and on eight, with sketches, prompts and keys that are drawn through."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from tests.reference import noise_params
from tests.sampling.test_sequence import noisy, sketch
from tests.training.small import MODEL_CHANGES, ONE_LEVEL
from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.training.start import changed
from tooncrafter_jax.typing import Device

pytestmark = pytest.mark.heavy

FRAMES, SIZE = 8, 32
MODEL = changed(
    tiny(),
    MODEL_CHANGES
    | {
        "unet": MODEL_CHANGES["unet"] | ONE_LEVEL | {"temporal_length": FRAMES},
        "sketch_encoder": MODEL_CHANGES["sketch_encoder"] | ONE_LEVEL,
        "image_projector": MODEL_CHANGES["image_projector"] | {"frames": FRAMES},
    },
)
"""The least that draws a shot: clips of eight frames, as drawing through keys needs, and latents of 4 x 4."""
HOW: dict[str, Any] = {"height": SIZE, "width": SIZE, "frames": FRAMES, "steps": 1, "steps_per_chunk": 1}
KEYS = {frame: noisy(frame, SIZE) for frame in (0, 1, 5, 14)}
"""Gaps of one frame; of four, whose drawings are frames of one clip; of nine, which takes clips between its frames."""
SHOT: dict[str, Any] = {
    "prompt": {0: "walks", 5: "runs"},
    "sketches": {3: sketch(10), 9: sketch(40)},
    "timing": "ease-in-out",
    "through_keys": True,
    "seed": 5,
}


def make_toon(devices: list[Device]) -> ToonCrafter:
    params = {name: noise_params(network) for name, network in MODEL.networks().items()}
    mesh = jax.sharding.Mesh(np.asarray(devices), ("devices",))
    params = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    return ToonCrafter(MODEL, params, dtype="float32", devices=devices)


@pytest.fixture(scope="module")
def toon(devices: list[Device]) -> ToonCrafter:
    """The model on one device."""
    return make_toon(devices[:1])


@pytest.fixture(scope="module")
def shot(toon: ToonCrafter) -> np.ndarray:
    """A shot with two sketches, two prompts, and a key that is drawn through."""
    return toon.interpolate_sequence(KEYS, **SHOT, **HOW)


def difference(found: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """The largest difference in levels, and the share of values that differ."""
    apart = np.abs(found.astype(int) - expected.astype(int))
    return int(apart.max()), float((apart > 0).mean())


@pytest.mark.gate
def test_two_keys_a_clips_length_apart_are_that_clip_with_its_keys_as_they_were_drawn(toon: ToonCrafter) -> None:
    first, last = KEYS[0], KEYS[14]
    clip = toon.interpolate(first, last, "walks", {5: sketch()}, seed=5, **HOW)
    found = toon.interpolate_sequence({10: first, 17: last}, "walks", {15: sketch()}, seed=5, **HOW)
    np.testing.assert_array_equal(found, [first, *clip[1:-1], last])


@pytest.mark.gate
def test_a_shot_shows_its_keys_pixel_by_pixel(shot: np.ndarray) -> None:
    assert len(shot) == 15
    for frame, key in KEYS.items():
        np.testing.assert_array_equal(shot[frame], key)
    assert shot[1:].std() > 10


@pytest.mark.gate
def test_the_batch_changes_nothing(toon: ToonCrafter, shot: np.ndarray) -> None:
    found = difference(toon.interpolate_sequence(KEYS, **SHOT, **HOW, batch_size=1), shot)
    print(found)
    assert found[0] <= 2 and found[1] <= 1e-2


@pytest.mark.slow
def test_eight_devices_draw_the_same_shot(devices: list[Device], shot: np.ndarray) -> None:
    found = difference(make_toon(devices).interpolate_sequence(KEYS, **SHOT, **HOW), shot)
    print(found)
    assert found[0] <= 2 and found[1] <= 1e-2


@pytest.mark.slow
def test_sketches_prompts_and_drawing_through_keys_change_their_frames_alone(
    toon: ToonCrafter, shot: np.ndarray
) -> None:
    without_sketches = toon.interpolate_sequence(KEYS, **(SHOT | {"sketches": None}), **HOW)
    other_prompt = toon.interpolate_sequence(KEYS, **(SHOT | {"prompt": {0: "walks", 5: "sits"}}), **HOW)
    plain = toon.interpolate_sequence(KEYS, **(SHOT | {"through_keys": False}), **HOW)
    assert not np.array_equal(without_sketches[9], shot[9])
    assert not np.array_equal(other_prompt[9], shot[9])
    np.testing.assert_array_equal(other_prompt[:4], shot[:4])
    assert [frame for frame in range(15) if not np.array_equal(plain[frame], shot[frame])] == [4, 6, 7]
