"""Files of ToonCrafter's relatives, from the file to what they are used for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.weights import layouts
from tooncrafter_jax import ToonCrafter
from tooncrafter_jax.models.configuration import ModelConfig, tiny
from tooncrafter_jax.models.motion_network import MotionConfig
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling.motion_source import published_motion
from tooncrafter_jax.weights.convert import convert
from tooncrafter_jax.weights.relatives import VARIANTS


def published_flow() -> ModelConfig:
    """The tiny model; its flows are those that a published model takes."""
    return replace(tiny(), motion=MotionConfig())


@pytest.mark.slow
def test_a_file_of_mog_is_sampled_with_motion_guidance(
    tmp_path: Path, metric_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps; the other options are those that were stored when its file was converted."""
    (tmp_path / "tooncrafter_jax").mkdir()
    (tmp_path / "tooncrafter_jax" / "metric_weights").symlink_to(metric_weights)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    published_motion.cache_clear()
    file = layouts.write_checkpoint(tmp_path / "ani.ckpt", layouts.model(), "float16", ("state_dict",))
    with collected() as notes:
        convert(file, tmp_path / "mog", published_flow(), dtype=np.float16)
    assert any("is taken for a model of mog by its name" in note for note in notes)
    toon = ToonCrafter.load(tmp_path / "mog", devices=jax.devices("cpu")[:1])
    assert toon.sampling == VARIANTS["mog"].sampling
    first, last = np.random.default_rng(0).integers(0, 255, (2, 64, 128, 3), dtype=np.uint8)
    shared = {"steps": 2, "frames": 4, "guidance_scale": 1.0, "second_pass": False}
    guided = toon.interpolate(first, last, **shared)
    plain = toon.interpolate(first, last, motion_guidance=False, **shared)
    assert guided.shape == plain.shape == (4, 64, 128, 3)
    assert np.abs(guided[1:-1].astype(int) - plain[1:-1]).max() > 10
