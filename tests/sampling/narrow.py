"""A narrow model of the whole pipeline, which compiles in a third of the tiny one's time."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tests.reference import noise_params
from tests.training.small import MODEL_CHANGES, ONE_LEVEL
from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.models.configuration import ModelConfig, tiny
from tooncrafter_jax.training.start import changed
from tooncrafter_jax.typing import Device

SETTINGS: dict[str, Any] = {"height": 64, "width": 64, "steps": 3, "steps_per_chunk": 2}


def narrow(frames: int) -> ModelConfig:
    """For clips of so many frames; its latents are an eighth of the pictures, as sketches want it."""
    return changed(
        tiny(),
        MODEL_CHANGES
        | {
            "unet": MODEL_CHANGES["unet"] | ONE_LEVEL | {"temporal_length": frames},
            "sketch_encoder": MODEL_CHANGES["sketch_encoder"] | ONE_LEVEL,
            "image_projector": MODEL_CHANGES["image_projector"] | {"frames": frames},
        },
    )


NARROW = narrow(16)


def make_toon(devices: list[Device], model: ModelConfig = NARROW, **how: Any) -> ToonCrafter:
    """With random weights, which lie on all of these devices."""
    params = {name: noise_params(network) for name, network in model.networks().items()}
    params = jax.device_put(params, devices[0])
    if len(devices) > 1:
        mesh = jax.sharding.Mesh(np.asarray(devices), ("devices",))
        params = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    return ToonCrafter(model, params, dtype="float32", devices=devices, **how)


def assert_nearly_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """At most one level on 0.1 % of the values: float32 sums in another order, then truncation to bytes."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3
