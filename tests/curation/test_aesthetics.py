"""The aesthetic head is applied to CLIP's vectors, and only where it belongs to them."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.curation import small_clip
from tests.curation.film_files import scene
from tooncrafter_jax.curation.aesthetics import OFF, Aesthetics, load_head
from tooncrafter_jax.curation.clip_model import load_clip
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.errors import UserError

LAION_LAYERS = {"layers.0": (8, 16), "layers.2": (6, 8), "layers.4": (4, 6), "layers.6": (4, 4), "layers.7": (1, 4)}
"""The shape of LAION's "improved" predictor, narrower; the numbers that are missing are those of dropout."""


def layers(shapes: dict[str, tuple[int, int]], seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes.items():
        stem = f"{name}." if name else ""
        found[stem + "weight"] = random.normal(size=shape).astype(np.float32)
        found[stem + "bias"] = random.normal(size=shape[:1]).astype(np.float32)
    return found


def clip_of(*seeds: int, **fields):
    return clip_of_pictures(np.stack([scene(seed) for seed in seeds]), fps=2.0, id="a", source="a", **fields)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_clip.saved(tmp_path_factory.mktemp("clip"), small_clip.tensors())


def test_layers_one_after_another(tmp_path):
    values = layers(LAION_LAYERS)
    save_file(values, tmp_path / "head.safetensors")
    weight, bias = load_head(tmp_path / "head.safetensors")
    x = np.random.default_rng(1).normal(size=16)
    y = x
    for name in LAION_LAYERS:
        y = values[f"{name}.weight"] @ y + values[f"{name}.bias"]
    assert x @ weight + bias == pytest.approx(y[0], rel=1e-5)


def test_layers_are_in_the_order_of_their_numbers(tmp_path):
    values = layers({"layers.10": (1, 3), "layers.2": (3, 16)})
    save_file(values, tmp_path / "head.safetensors")
    weight, _ = load_head(tmp_path / "head.safetensors")
    np.testing.assert_allclose(weight, (values["layers.10.weight"] @ values["layers.2.weight"])[0], rtol=1e-5)


def test_the_mean_over_first_middle_and_last_frame(tmp_path, weights):
    values = layers({"": (1, small_clip.SPACE)})
    save_file(values, tmp_path / "linear.safetensors")
    clip = clip_of(1, 2, 3, 4, 5, scores={"motion": 3.0})
    scores = Aesthetics(weights, tmp_path / "linear.safetensors")(clip).scores
    vectors = load_clip(weights).of_pictures(clip.decode([0, 2, 4]))
    expected = (vectors @ values["weight"][0] + values["bias"]).mean()
    assert scores["aesthetic"] == pytest.approx(expected, abs=1e-5)
    assert scores["motion"] == 3.0
    assert math.isfinite(Aesthetics(weights, tmp_path / "linear.safetensors")(clip_of(1)).scores["aesthetic"])


def test_a_head_of_another_clip_is_refused(tmp_path, weights):
    save_file(layers({"": (1, 768)}), tmp_path / "head.safetensors")
    with pytest.raises(UserError, match="reads 768 numbers, but .* gives 16"):
        Aesthetics(weights, tmp_path / "head.safetensors")(clip_of(1))


@pytest.mark.parametrize(
    "shapes",
    [
        {"": (2, 16)},
        {"layers.0": (8, 16), "layers.1": (1, 9)},
        {},
    ],
)
def test_what_is_no_head_is_refused(tmp_path, shapes):
    save_file(
        layers(shapes) | {"other": np.zeros(1, np.float32)} if not shapes else layers(shapes),
        tmp_path / "h.safetensors",
    )
    with pytest.raises(UserError, match="is no aesthetic head"):
        load_head(tmp_path / "h.safetensors")


def test_without_weights_it_is_off_and_says_so(tmp_path, weights):
    clip = clip_of(1)
    for stage in (Aesthetics(), Aesthetics(weights), Aesthetics(head=tmp_path / "head.safetensors")):
        assert stage(clip) is clip
        assert stage.off == OFF and stage.settings() == {"off": OFF}


def test_it_is_a_stage_with_settings(tmp_path, weights):
    for seed in (0, 1):
        save_file(layers({"": (1, 16)}, seed), tmp_path / f"{seed}.safetensors")
    stages = [pickle.loads(pickle.dumps(Aesthetics(weights, tmp_path / f"{seed}.safetensors"))) for seed in (0, 1)]
    assert stages[0].off == "" and isinstance(stages[0], Stage)
    assert json.loads(json.dumps(stages[0].settings())) == stages[0].settings() != stages[1].settings()
    with pytest.raises(UserError, match="cannot be read"):
        Aesthetics(weights, tmp_path / "missing.safetensors").settings()
