"""Sampling with weights in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.sampling.test_motion_guidance import narrow, pair
from tooncrafter_jax import SamplingOptions, ToonCrafter, UserError
from tooncrafter_jax.nn.quantised import QuantisedKernel
from tooncrafter_jax.sampling.batch.model_source import ModelSource
from tooncrafter_jax.weights.eight_bits import bytes_of, in_eight_bits
from tooncrafter_jax.weights.rule import random_params

OPTIONS: dict[str, Any] = {"steps": 3, "frames": 4, "guidance_scale": 2.0, "second_pass": False}


def random_weights() -> dict[str, dict[str, np.ndarray]]:
    return {
        name: {
            path: np.asarray(value)
            for path, value in random_params(
                {path: leaf.shape for path, leaf in network.abstract_params.items()}, 0
            ).items()
        }
        for name, network in narrow().networks().items()
    }


def dequantised(params: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Weights of full width with the values of those in 8 bits."""
    return {
        name: {
            path: np.asarray(value.dequantised("float32")) if isinstance(value, QuantisedKernel) else value
            for path, value in own.items()
        }
        for name, own in in_eight_bits(params, "int8").items()
    }


@pytest.mark.gate
@pytest.mark.parametrize(
    ("count", "memory", "more"),
    [(8, "low", {}), (1, "high", {"reuse": "2", "sequential_guidance": True})],
)
def test_clips_are_those_of_the_dequantised_weights(count: int, memory: Any, more: dict[str, Any]) -> None:
    """Over devices that share the frames of a clip, moved from the host; and with what nests loops and branches."""
    devices, options = jax.devices("cpu")[:count], SamplingOptions(**OPTIONS, **more)
    pairs, params = [pair(0), pair(1)], random_weights()
    toon = ToonCrafter(narrow(), params, devices=devices, memory=memory, weight_dtype="int8")
    expected = ToonCrafter(narrow(), dequantised(params), devices=devices)
    got, wanted = (model.interpolate_pairs(pairs, options).astype(int) for model in (toon, expected))
    assert np.abs(got - wanted).max() <= 1
    assert wanted.std() > 1
    for model, dtype in ((toon, np.int8), (expected, np.float32)):
        kernel = jax.tree.leaves(model.params["unet"]["mid.blocks.0.spatial_res.conv_in.kernel"])[0]
        assert kernel.dtype == dtype
        assert isinstance(kernel, np.ndarray) == (model is toon and memory == "low")


def test_a_model_is_loaded_in_eight_bits_and_not_saved(tmp_path: Path) -> None:
    devices, params = jax.devices("cpu")[:2], random_weights()
    ToonCrafter(narrow(), params, devices=devices).save_pretrained(tmp_path / "model")
    toon = ToonCrafter.load(tmp_path / "model", devices=devices, dtype="bfloat16", weight_dtype="float8_e4m3fn")
    assert toon.weight_dtype is not None and toon.weight_dtype.name == "float8_e4m3fn"
    held = toon.params["unet"]["mid.blocks.0.spatial_res.conv_in.kernel"]
    assert isinstance(held, QuantisedKernel)
    assert all(set(leaf.devices()) == set(devices) for leaf in jax.tree.leaves(toon.params))
    assert toon.params["unet"]["conv_in.kernel"].dtype == "bfloat16"
    assert toon.params["unet"]["mid.blocks.0.spatial_res.norm_in.scale"].dtype == np.float32
    plain = ToonCrafter.load(tmp_path / "model", devices=devices, dtype="bfloat16").params
    assert bytes_of(toon.params["unet"]) < 0.7 * bytes_of(plain["unet"])
    with pytest.raises(UserError, match="held in float8_e4m3fn are not saved: load the model without weight_dtype"):
        toon.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_records_say_how_weights_are_held() -> None:
    record = ModelSource("small", weight_dtype="int8").described().record
    assert record["weight_dtype"] == "int8"
    assert dict(ModelSource("small").described().record) == {
        key: value for key, value in record.items() if key != "weight_dtype"
    }


def test_other_dtypes_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UserError, match="weights are not held in 'int4': choose one of int8, float8_e4m3fn"):
        ToonCrafter.load("small", weight_dtype="int4")
