"""The sketch extractor gives the reference's lines."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.reference import GOLDEN, RuleSource, channels_first, key_list, noise_params
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.nn.transposed import UpConv
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo.anime2sketch.network import Anime2Sketch, Anime2SketchConfig, instance_norm
from tooncrafter_jax.zoo.anime2sketch.weights import name_table
from tooncrafter_jax.zoo.network_file import map_tensors

TOLERANCE = 1e-4
"""Largest difference from the reference, whose values before the tanh have a standard deviation of 2.9; the order of
summation makes 1.5e-5. Another epsilon of the normalisation, slope or order of the skip's channels shows at 1e-3 or
more.
"""


@cache
def network() -> Network[Anime2Sketch]:
    return Network(Anime2Sketch, Anime2SketchConfig())


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "anime2sketch" / "anime2sketch.npz") as arrays:
        return dict(arrays)


@cache
def params() -> dict[str, jax.Array]:
    """The published architecture's parameters, made by the weight rule."""
    source = RuleSource(key_list("anime2sketch/keys.tsv"))
    mapped = map_tensors(source, name_table(network().config), network())
    return {path: jnp.asarray(value) for path, value in mapped.items()}


@cache
def before_tanh(name: str, height: int, width: int) -> np.ndarray:
    """What the network gives for a picture of the reference, (1, 1, H, W)."""
    picture = np.clip(0.5 * unit_noise(f"fixture.anime2sketch.{name}", (1, 3, height, width)), -1, 1)

    @jax.jit
    def run(params: Any, images: Any) -> Any:
        return network().bind(params).before_tanh(images)

    return channels_first(run(params(), np.moveaxis(picture, 1, -1)))


def test_the_architecture_is_the_published_one() -> None:
    assert network().parameter_count == 54_405_505 and len(network().abstract_params) == 32
    assert Anime2SketchConfig().widths == (64, 128, 256, 512, 512, 512, 512, 512)
    assert Anime2SketchConfig().pixel_multiple == 256


def test_a_square_picture_equals_the_reference() -> None:
    out = before_tanh("image", 256, 256)[:, :, ::2, ::2]
    assert np.abs(out - golden()["before_tanh"]).max() < TOLERANCE
    assert np.abs(np.tanh(out) - golden()["out"]).max() < TOLERANCE


def test_a_wide_picture_equals_the_reference() -> None:
    out = np.tanh(before_tanh("wide", 256, 512))[:, :, ::4, ::4]
    assert np.abs(out - golden()["out_wide"]).max() < TOLERANCE


@cache
def small() -> Network[Anime2Sketch]:
    return Network(Anime2Sketch, Anime2SketchConfig(width=4, max_width=8, levels=3))


def test_the_result_is_the_tanh() -> None:
    @jax.jit
    def run(params: Any, images: Any) -> Any:
        extractor = small().bind(params)
        return extractor(images), extractor.before_tanh(images)

    out, before = run(noise_params(small()), unit_noise("picture", (2, 8, 16, 3)))
    assert out.shape == (2, 8, 16, 1)
    np.testing.assert_allclose(out, np.tanh(before), atol=1e-6)


def test_fresh_transposed_convolutions_are_bounded_by_their_outputs() -> None:
    """PyTorch's fan-in of a transposed convolution counts the channels that it makes: 16 taps times 4 of them here."""
    layer = Network(lambda _, **kw: UpConv(16, 4, **kw), None)
    kernel = np.abs(dict(layer.drawn(0))["kernel"])
    assert kernel.shape == (4, 4, 16, 4)
    assert 0.99 * 64**-0.5 < kernel.max() <= 64**-0.5


def test_instance_norm_is_per_picture_and_channel() -> None:
    x = unit_noise("x", (2, 3, 5, 4)) * np.float32(0.1) + np.arange(4, dtype=np.float32) * 100
    wide = x.astype(np.float64)
    deviations = wide - wide.mean((1, 2), keepdims=True)
    expected = deviations / np.sqrt((deviations**2).mean((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(instance_norm(jnp.asarray(x)), expected, atol=1e-3)  # values of 300 in float32
