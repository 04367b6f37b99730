"""The sketch encoder gives the reference's residuals, and the denoiser takes them as the reference does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_networks import CONTROL_SHAPES, ints, run_unet, values
from tests.reference import NETWORK_TOLERANCE, channels_first, deviation, golden, noise, tiny_params
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.sketch_encoder import HINT_DOWNSCALING, SketchEncoder, SketchEncoderConfig

pytestmark = pytest.mark.heavy


def context() -> jax.Array:
    return values("fixture.sketch.context", 1, 333, 64)


def hints() -> dict[str, jax.Array]:
    """The reference's sketches (1, 16, 64, 128, 1), all of them and three of them."""
    arrays = golden("sketch")
    dense = arrays["hint_uint8"][None, ..., None].astype(np.float32) / np.float32(255)
    sparse = np.zeros_like(dense)
    sparse[:, arrays["sparse_frames"]] = dense[:, arrays["sparse_frames"]]
    return {"dense": jnp.asarray(dense), "sparse": jnp.asarray(sparse)}


@cache
def controls(kind: str) -> tuple[list[jax.Array], jax.Array]:
    """The residuals and the hint features for one kind of sketches."""
    params = tiny_params("sketch_encoder")
    x = jnp.asarray(noise("fixture.sketch.x", (1, 4, 16, 8, 16)))
    return _compiled()(params, x, ints(*golden("sketch")["timesteps"]), context(), hints()[kind])


@cache
def _compiled() -> Any:
    network = tiny().networks()["sketch_encoder"]

    @jax.jit
    def run(params: Any, x: Any, timesteps: Any, context: Any, hints: Any) -> Any:
        encoder = network.bind(params)
        features = encoder.hint_features(hints)
        return encoder(x, timesteps, encoder.context_keys(context), features), features

    return run


@pytest.mark.gate
def test_hint_features_equal_the_reference() -> None:
    features = channels_first(controls("dense")[1][0])
    assert deviation(features[[0, 7], ::8], golden("sketch")["hint_features"]) < NETWORK_TOLERANCE


@pytest.mark.parametrize("place", range(13))
def test_residuals_equal_the_reference(place: int) -> None:
    arrays = golden("sketch")
    dense, sparse = (controls(kind)[0][place] for kind in ("dense", "sparse"))
    assert dense.shape == (1, 16, *CONTROL_SHAPES[place])
    assert deviation(channels_first(dense[0])[[0, 7], ::8], arrays[f"dense/control_{place}"]) < NETWORK_TOLERANCE
    assert deviation(channels_first(sparse[0])[7:8, ::16], arrays[f"sparse/control_{place}"]) < NETWORK_TOLERANCE
    for kind, value in (("dense", dense), ("sparse", sparse)):
        np.testing.assert_allclose(np.std(value, ddof=1), arrays[f"{kind}/control_std"][place], rtol=1e-5)


@pytest.mark.gate
def test_the_controlled_denoiser_equals_the_reference() -> None:
    """Two clips that differ in their sketches alone: all frames guided, and three; control scale 0.6."""
    arrays = golden("sketch")
    x = noise("fixture.sketch.x", (1, 4, 16, 8, 16))
    concat = noise("fixture.sketch.concat", (1, 4, 16, 8, 16)) * np.float32(0.5)
    clip = np.concatenate([x, concat], axis=-1)

    def run(first: list[jax.Array], second: list[jax.Array]) -> np.ndarray:
        twice = (jnp.repeat(jnp.asarray(value), 2, axis=0) for value in (clip, arrays["timesteps"].astype(np.int32)))
        both = [jnp.concatenate(pair) for pair in zip(first, second, strict=True)]
        rates = jnp.repeat(jnp.asarray(arrays["fs"], jnp.int32), 2, axis=0)
        latents, times = twice
        out, _ = run_unet()(latents, times, jnp.repeat(context(), 2, axis=0), rates, both)
        return channels_first(out)

    dense, sparse = (controls(kind)[0] for kind in ("dense", "sparse"))
    out = run([0.6 * c for c in dense], [0.6 * c for c in sparse])
    assert deviation(out[:1], arrays["out_dense_scale_0.6"]) < NETWORK_TOLERANCE
    assert deviation(out[1:], arrays["out_sparse_scale_0.6"]) < NETWORK_TOLERANCE
    out = run([0 * c for c in dense], dense)
    assert deviation(out[:1], arrays["out_no_control"]) < NETWORK_TOLERANCE
    assert deviation(out[1:], arrays["out_dense_scale_1.0"]) < NETWORK_TOLERANCE


def test_frames_are_independent() -> None:
    """A frame's residuals depend on its own sketch and latents alone."""
    dense, sparse = (controls(kind)[0] for kind in ("dense", "sparse"))
    kept = golden("sketch")["sparse_frames"]
    for with_all, with_some in zip(dense, sparse, strict=True):
        difference = np.abs(with_all - with_some).max((0, 2, 3, 4))
        assert difference[kept].max() < 1e-5
        assert np.delete(difference, kept).min() > 1e-3


@pytest.mark.gate
def test_new_taps_add_nothing() -> None:
    """All 1x1 convolutions and the last hint convolution begin at zero, so that training starts from the bare
    denoiser.
    """
    config = SketchEncoderConfig(width=32, multipliers=(1,), blocks_per_level=1, attention_levels=(), head_dim=8)
    network = Network(SketchEncoder, config)
    params = dict(network.drawn(0))
    zero = {path.removesuffix(".kernel") for path, v in params.items() if path.endswith("kernel") and not v.any()}
    assert {"skip_taps.0", "skip_taps.1", "mid_tap", "hint.convs.7"} <= zero
    assert not {f"hint.convs.{i}" for i in range(7)} & zero


@pytest.mark.parametrize("downscaling", [HINT_DOWNSCALING, 16])
def test_hints_are_as_much_larger_than_latents_as_pictures_are(downscaling: int) -> None:
    network = Network(SketchEncoder, replace(tiny().sketch_encoder, hint_downscaling=downscaling))
    shape = jax.eval_shape(
        lambda params, hints: network.bind(params).hint_features(hints),
        network.abstract_params,
        jax.ShapeDtypeStruct((1, 2, 64, 128, 1), jnp.float32),
    ).shape
    assert shape == (1, 2, 64 // downscaling, 128 // downscaling, 64)
