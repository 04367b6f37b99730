"""Which weights are held in 8 bits."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import COMPONENTS, tooncrafter_512
from tooncrafter_jax.nn.quantised import QuantisedKernel
from tooncrafter_jax.sampling.model_loading import stored_dtype
from tooncrafter_jax.typing import AllParams
from tooncrafter_jax.weights.eight_bits import (
    WEIGHT_DTYPES,
    abstract_in_eight_bits,
    bytes_of,
    checked_weight_dtype,
    in_eight_bits,
    is_quantised,
)


@pytest.fixture(scope="module")
def published() -> AllParams:
    """Shapes of the published model as it is loaded to compute in bfloat16."""
    return {
        name: {
            path: jax.ShapeDtypeStruct(leaf.shape, stored_dtype(leaf.shape, jnp.bfloat16))
            for path, leaf in network.abstract_params.items()
        }
        for name, network in tooncrafter_512().networks().items()
    }


def test_bytes_of_the_published_model(published: AllParams) -> None:
    held = abstract_in_eight_bits(published, "int8")
    assert {name: (bytes_of(published[name]), bytes_of(held[name])) for name in COMPONENTS} == {
        "unet": (2_879_631_120, 1_474_262_544),
        "image_projector": (97_632_256, 97_632_256),
        "clip_text": (681_392_128, 392_833_024),
        "clip_image": (1_262_599_680, 634_928_640),
        "autoencoder": (68_383_680, 68_383_680),
        "decoder": (131_702_150, 131_702_150),
        "sketch_encoder": (728_865_952, 380_850_592),
        "motion": (10_340_240, 10_340_240),
    }


def test_what_stays_of_the_published_denoiser(published: AllParams) -> None:
    """Matrices and kernels: the first and the last layer, and what embeds time and frame rate."""
    left = {
        re.sub(r"^(down|mid|up)\..*\.embedding\.", "BLOCK.embedding.", path)
        for path, leaf in published["unet"].items()
        if len(leaf.shape) > 1 and not is_quantised("unet", path, leaf.shape)
    }
    embeddings = {f"{of}_embedding.{layer}.kernel" for of in ("time", "fps") for layer in ("hidden", "out")}
    assert left == {"conv_in.kernel", "conv_out.kernel", "BLOCK.embedding.kernel"} | embeddings
    assert is_quantised("unet", "down.0.blocks.0.spatial_res.conv_in.kernel", (3, 3, 320, 320))


def test_small_kernels_stay() -> None:
    assert is_quantised("unet", "mid.proj_in.kernel", (64, 64))
    assert not is_quantised("unet", "mid.proj_in.kernel", (64, 63))
    assert not is_quantised("unet", "mid.proj_in.bias", (4096,))
    assert not is_quantised("decoder", "mid.proj_in.kernel", (64, 64))


@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_shapes_are_those_of_what_is_made(dtype: str) -> None:
    draw = np.random.default_rng(0)
    params = {
        "unet": {"mid.proj_in.kernel": draw.standard_normal((64, 80)), "mid.norm.scale": np.ones(80)},
        "decoder": {"mid.conv.kernel": draw.standard_normal((3, 3, 64, 64))},
    }
    made = in_eight_bits(params, dtype)
    assert isinstance(made["unet"]["mid.proj_in.kernel"], QuantisedKernel)
    assert made["unet"]["mid.norm.scale"] is params["unet"]["mid.norm.scale"]
    assert made["decoder"] == params["decoder"]
    shapes = jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), made)
    abstract = abstract_in_eight_bits(params, dtype)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), abstract)
    again = in_eight_bits(made, dtype)
    assert again["unet"]["mid.proj_in.kernel"] is made["unet"]["mid.proj_in.kernel"]


@pytest.mark.parametrize("dtype", ["int4", "bfloat16", "eight", 3])
def test_other_dtypes_are_refused(dtype: object) -> None:
    with pytest.raises(UserError, match="choose one of int8, float8_e4m3fn"):
        checked_weight_dtype(dtype)


def test_dtypes_by_name_and_by_type() -> None:
    assert checked_weight_dtype(None) is None
    assert checked_weight_dtype("int8") == checked_weight_dtype(jnp.int8) == np.int8
    assert checked_weight_dtype("float8_e4m3fn") == jnp.float8_e4m3fn
