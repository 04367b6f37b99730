"""`tooncrafter convert` recognises the published sketch extractor by its names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.cli.world import Command
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.weights.rule import make
from tooncrafter_jax.zoo.anime2sketch import weights as anime2sketch
from tooncrafter_jax.zoo.anime2sketch.network import Anime2Sketch, Anime2SketchConfig
from tooncrafter_jax.zoo.anime2sketch.weights import load_anime2sketch, name_table

CONFIG = Anime2SketchConfig(width=4, max_width=8, levels=3)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small extractor's file under the published names, and small the one that is expected."""
    monkeypatch.setattr(anime2sketch, "Anime2SketchConfig", lambda: CONFIG)
    shapes = {name: leaf.shape for name, leaf in Network(Anime2Sketch, CONFIG).abstract_params.items()}
    table = name_table(CONFIG)
    tensors = {name: make(name, target.official_shape(shapes[target.path])) for name, target in table.items()}
    save_file(tensors, tmp_path / "netG.safetensors")
    return tmp_path / "netG.safetensors"


def test_one_file_is_written(file: Path, tmp_path: Path, command: Command) -> None:
    own = tmp_path / "own.safetensors"
    result = command("convert", str(file), str(own), "--stored-dtype=float16")
    assert (result.code, result.err) == (0, "")
    assert "12 tensors consumed" in result.out
    assert {value.dtype for value in load_file(own).values()} == {np.dtype(np.float16)}
    for name, value in load_anime2sketch(file, CONFIG).items():
        np.testing.assert_allclose(load_anime2sketch(own, CONFIG)[name], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("flag", ["--architecture=tiny", "--variant=mog", "--list-unused"])
def test_options_of_a_model_are_refused(flag: str, file: Path, tmp_path: Path, command: Command) -> None:
    result = command("convert", str(file), str(tmp_path / "own.safetensors"), flag)
    assert result.code == 2 and f"{flag.partition('=')[0]} is of a model's files" in result.errors[0]
    assert not (tmp_path / "own.safetensors").exists()


def test_mistakes(file: Path, tmp_path: Path, command: Command) -> None:
    result = command("convert", str(file), str(tmp_path / "model"))
    assert result.code == 2 and "must end in .safetensors" in result.errors[0]
    (tmp_path / "own.safetensors").touch()
    result = command("convert", str(file), str(tmp_path / "own.safetensors"))
    assert result.code == 2 and "add --overwrite" in result.errors[0]
    assert (tmp_path / "own.safetensors").stat().st_size == 0
    assert command("convert", str(file), str(tmp_path / "own.safetensors"), "--overwrite").code == 0
