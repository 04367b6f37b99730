"""RIFE gives the pictures and flows of the package that its weights come from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import GOLDEN, noise_params
from tests.zoo.rife_inputs import TIMES, pairs
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.rife import Rife, RifeConfig
from tooncrafter_jax.nn.warping import resized, warped
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo.metric_weights import load_rife

PICTURE_TOLERANCE = 5e-5
"""Of values in [0, 1]: 6e-6 was seen; the package places its grid of pixels in [-1, 1], which rounds to 1e-5 of a
pixel.
"""
FLOW_TOLERANCE = 1e-3
"""Pixels: 7e-5 was seen, with flows up to 60."""
STEP = 5


@cache
def packaged() -> dict[str, np.ndarray]:
    """What tests/golden/rife/make.py wrote."""
    with np.load(GOLDEN / "rife" / "packaged.npz") as arrays:
        return dict(arrays)


@cache
def compiled() -> Any:
    network = Network(Rife, RifeConfig())

    def run(params: Any, first: Any, last: Any, times: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            module = network.bind(params)
            return module(first, last, times), module.estimate(first, last, times)[0]

    return jax.jit(run)


@cache
def ours(weights: Path) -> dict[str, np.ndarray]:
    """Everything that is stored, from one batch of all pairs and times: near and far pairs side by side."""
    names = [(name, time) for name in pairs() for time in TIMES]
    first, last = (np.stack([pairs()[name][end] for name, _ in names]) * 2 - 1 for end in (0, 1))
    times = np.asarray([time for _, time in names], np.float32)
    pictures, flows = compiled()(load_rife(weights).params, first, last, times)
    found: dict[str, np.ndarray] = {}
    for i, (name, time) in enumerate(names):
        found[f"{name}/{time:.3f}/picture"] = (np.asarray(pictures[i]) + 1) / 2
        found[f"{name}/{time:.3f}/flows"] = np.asarray(flows[i])
    return found


@pytest.mark.gate
@pytest.mark.parametrize("name", pairs())
def test_pictures_and_flows_equal_the_packaged_network(metric_weights: Path, name: str) -> None:
    stored = {key: value for key, value in packaged().items() if key.startswith(f"{name}/")}
    assert len(stored) == 2 * len(TIMES)
    for key, value in stored.items():
        tolerance = PICTURE_TOLERANCE if key.endswith("picture") else FLOW_TOLERANCE
        np.testing.assert_allclose(ours(metric_weights)[key][::STEP, ::STEP], value, rtol=0, atol=tolerance)


def test_the_far_pair_needs_half_the_resolution(metric_weights: Path) -> None:
    """Else the branch would not be tested; at the usual scales its flows are others by pixels."""
    network, params = load_rife(metric_weights)

    def first_try(params: Any, first: Any, last: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return network.bind(params).estimate_flows(first, last, jnp.asarray([0.5]), RifeConfig().scales)

    first, last = (end[None] * 2 - 1 for end in pairs()["far"])
    flows, _, far = jax.jit(first_try)(params, first, last)
    assert bool(far[0])
    assert np.abs(np.asarray(flows[0])[::STEP, ::STEP] - packaged()["far/0.500/flows"]).max() > 1


def test_slopes_differ_for_negative_values_alone() -> None:
    """With weights made by rule: a network of another size, whose stem's slopes are set to 1, is linear there."""
    network = Network(Rife, RifeConfig(widths=(4, 4), scales=(2, 1), depth=1))
    params = noise_params(network)
    block = network.bind({k: jnp.ones_like(v) if k.endswith("slope") else v for k, v in params.items()}).blocks[0]
    x = jnp.asarray(unit_noise("x", (1, 16, 16, 7)))
    zero = block(jnp.zeros_like(x), None, 2)[0]
    np.testing.assert_allclose(
        np.asarray(block(-x, None, 2)[0] - zero), -np.asarray(block(x, None, 2)[0] - zero), atol=1e-4
    )
    bent = network.bind(params).blocks[0]
    assert np.abs(np.asarray(bent(-x, None, 2)[0] + bent(x, None, 2)[0] - 2 * bent(0 * x, None, 2)[0])).max() > 0.01


class TestResampling:
    def test_warping_takes_from_where_the_flow_points(self) -> None:
        """Whole pixels, half pixels, and beyond the border."""
        image = unit_noise("image", (1, 5, 7, 2))
        flow = np.zeros((1, 5, 7, 2), np.float32)
        flow[0, 1, 2] = (3, 1)
        flow[0, 2, 2] = (0.5, 0)
        flow[0, 3, 3] = (0.25, -0.5)
        flow[0, 4, 6] = (9, 9)
        flow[0, 0, 0] = (-9, 0)
        found = np.asarray(warped(jnp.asarray(image), jnp.asarray(flow)))
        expected = image.copy()
        expected[0, 1, 2] = image[0, 2, 5]
        expected[0, 2, 2] = (image[0, 2, 2] + image[0, 2, 3]) / 2
        upper, lower = (0.75 * image[0, row, 3] + 0.25 * image[0, row, 4] for row in (2, 3))
        expected[0, 3, 3] = (upper + lower) / 2
        np.testing.assert_allclose(found, expected, atol=1e-6)

    @pytest.mark.parametrize("scale", [2, 4, 8])
    def test_shrinking_takes_the_two_middle_pixels(self, scale: int) -> None:
        x = unit_noise("x", (2, 16, 16, 3))
        middle = slice(scale // 2 - 1, scale // 2 + 1)
        cells = x.reshape(2, 16 // scale, scale, 16 // scale, scale, 3)[:, :, middle, :, middle]
        np.testing.assert_allclose(resized(jnp.asarray(x), 16 // scale, 16 // scale), cells.mean((2, 4)), atol=1e-6)
