"""One pair spread over eight devices. The model is narrow: of the tiny one, eight copies alone would be 2.6 GB."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.reference import noise_params
from tests.training.small import FRAMES, SIZE, config
from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.training.start import architecture
from tooncrafter_jax.typing import Device


def small_clip(devices: list[Device]) -> np.ndarray:
    small = architecture(config("no clips"))
    params = {name: noise_params(network) for name, network in small.networks().items()}
    mesh = Mesh(np.asarray(devices), ("devices",), axis_types=(AxisType.Auto,))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 255, (2, 4, 4, 3), np.uint8)
    first, last = np.kron(coarse, np.ones((1, SIZE // 4, SIZE // 4, 1), np.uint8))
    toon = ToonCrafter(small, params, dtype="float32", devices=devices)
    return toon.interpolate(
        first,
        last,
        "walking man",
        seed=5,
        height=SIZE,
        width=SIZE,
        frames=FRAMES,
        steps=3,
        steps_per_chunk=2,
    )


@pytest.mark.gate
def test_eight_devices_give_the_same_clip(devices: list[Device]) -> None:
    """Two guidance branches, and the frames in four parts; sums in another order may move a value that is cut to a byte
    by one.
    """
    alone, spread = small_clip(devices[:1]), small_clip(devices)
    assert alone.shape == (FRAMES, SIZE, SIZE, 3) and alone.std() > 10
    difference = np.abs(alone.astype(int) - spread.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3
