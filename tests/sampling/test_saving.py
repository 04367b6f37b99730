"""Models that were written by `save_pretrained` and loaded again."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from tests.reference import noise_params
from tests.training.small import NARROW_CHANGES
from tooncrafter_jax import ToonCrafter, UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.training.start import changed
from tooncrafter_jax.typing import Device

NARROW = changed(tiny(), NARROW_CHANGES)


def make_toon(devices: list[Device]) -> ToonCrafter:
    params = {name: noise_params(network) for name, network in NARROW.networks().items()}
    return ToonCrafter(NARROW, params, dtype="float32", devices=devices, sampling={"steps": 7})


@pytest.mark.gate
def test_a_saved_model_is_the_same_model(devices: list[Device], tmp_path: Path) -> None:
    saved = make_toon(devices[:1])
    saved.save_pretrained(tmp_path / "model")
    loaded = ToonCrafter.load(tmp_path / "model", devices=devices[:1])
    assert (loaded.config, loaded.sampling) == (saved.config, saved.sampling)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(saved.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, saved.params)


@pytest.mark.gate
def test_nothing_is_overwritten_unasked(devices: list[Device], tmp_path: Path) -> None:
    toon = make_toon(devices[:1])
    toon.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="exists already"):
        toon.save_pretrained(tmp_path / "model")
    toon.save_pretrained(tmp_path / "model", overwrite=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").touch()
    with pytest.raises(UserError, match="not a checkpoint directory"):
        toon.save_pretrained(tmp_path / "own", overwrite=True)
    assert (tmp_path / "own" / "notes.txt").exists()
