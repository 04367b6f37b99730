"""Low-rank factors that say how to sample with them, as those of the stage `distill` do."""

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.model_source import ModelSource
from tooncrafter_jax.sampling.model_loading import find_checkpoint
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.weights.lora import matrix_shape, save_lora


def factors():
    """Of one kernel of the bundled model."""
    checkpoint = find_checkpoint("small")
    shapes = checkpoint.config.networks()["unet"].abstract_params
    path = next(path for path in shapes if path.endswith("attention.out.kernel"))
    inputs, outputs = matrix_shape(shapes[path].shape)
    return {
        f"lora.unet.{path}.a": np.ones((inputs, 2), np.float32),
        f"lora.unet.{path}.b": np.zeros((2, outputs), np.float32),
    }


def test_their_options_win_over_the_models(tmp_path):
    file = tmp_path / "lora.safetensors"
    save_lora(file, factors(), 1.0, {"solver": "lcm", "steps": 4})
    own = find_checkpoint("small").sampling
    expected = {**own, "solver": "lcm", "steps": 4}
    assert expected != own and ModelSource("small", lora=file).described().sampling == expected
    assert ToonCrafter.load("small", lora=file).sampling == expected


def test_options_that_are_none_are_told_before_anything_is_loaded(tmp_path):
    file = tmp_path / "lora.safetensors"
    save_lora(file, factors(), 1.0, {"solvre": "lcm"})
    for load in (lambda: ToonCrafter.load("small", lora=file), ModelSource("small", lora=file).described):
        with pytest.raises(UserError, match=r"lora.safetensors' has no key 'solvre'; did you mean 'solver'"):
            load()
