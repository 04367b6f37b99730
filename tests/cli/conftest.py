"""Fixtures of the tests of the commands. Imports the package inside functions only, as tests/conftest.py does."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.cli.world import Command, Result, World


@pytest.fixture(scope="session")
def weight_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model's two files, as they would be published."""
    from tests.cli.world import write_rule_file

    directory = tmp_path_factory.mktemp("weights")
    return {
        "model": write_rule_file(directory / "model.safetensors", "keys.tsv"),
        "sketch_encoder": write_rule_file(directory / "sketch_encoder.safetensors", "sketch_keys.tsv"),
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, weight_files: dict[str, Path]) -> Path:
    """The tiny model with its sketch encoder as a checkpoint directory; not to be written to."""
    from tooncrafter_jax.models.configuration import tiny
    from tooncrafter_jax.weights.convert import convert

    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    for file in weight_files.values():
        convert(file, directory, tiny(), dtype=np.float16)
    return directory


@pytest.fixture
def world(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Files to work on, and a sampler that costs nothing in place of the tiny model's."""
    from tests.cli.world import FakeModel, World

    model = FakeModel()
    model.install(monkeypatch)
    return World(tmp_path, checkpoint, model, monkeypatch)


@pytest.fixture
def empty(world: World) -> World:
    """The same, with nothing where results go."""
    for path in world.out.iterdir():
        path.unlink()
    return world


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls a command of `tooncrafter`, as the shell would."""
    from tests.cli.world import Result
    from tooncrafter_jax.__main__ import main as package_main
    from tooncrafter_jax.cli.common import run

    def call(name: str, *argv: str) -> Result:
        capsys.readouterr()
        code = run(package_main, [name, *argv])
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each picture was decoded, by its file's name."""
    from PIL import Image

    count: Counter[str] = Counter()
    real = Image.open

    def counting(file: Any, *arguments: Any, **settings: Any) -> Image.Image:
        count[Path(getattr(file, "name", str(file))).name] += 1
        return real(file, *arguments, **settings)

    monkeypatch.setattr(Image, "open", counting)
    return count


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a checksum of each file was made, by its name."""
    count: Counter[str] = Counter()
    real = hashlib.file_digest

    def counting(file: Any, *arguments: Any) -> Any:
        count[Path(file.name).name] += 1
        return real(file, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return count
