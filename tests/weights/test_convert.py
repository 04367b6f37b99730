"""A published file becomes a checkpoint directory, and a sketch encoder is added to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.reference import key_list, tiny_params
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.weights.convert import Conversion, convert
from tooncrafter_jax.weights.official import SCHEDULE_BUFFERS
from tooncrafter_jax.weights.rule import make
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

FULL = ("unet", "image_projector", "clip_text", "clip_image", "autoencoder", "decoder")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model and its sketch encoder as the published files are laid out, in half precision."""
    folder = tmp_path_factory.mktemp("files")
    buffers = NoiseSchedule().buffers()
    model = {
        name: buffers[name] if name in SCHEDULE_BUFFERS else make(name, shape).astype(ml_dtypes.bfloat16)
        for name, shape in key_list("tiny/keys.tsv").items()
    }
    sketch = {
        name: make(f"control_model.{name}", shape).astype(ml_dtypes.bfloat16)
        for name, shape in key_list("tiny/sketch_keys.tsv").items()
    }
    paths = {"model": folder / "model.safetensors", "sketch": folder / "sketch_encoder.safetensors"}
    save_file(model, paths["model"])
    save_file(sketch, paths["sketch"])
    return paths


@pytest.fixture(scope="module")
def converted(
    files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig
) -> tuple[Path, Conversion, list[tuple[str, int]]]:
    """The full model as a checkpoint directory in bfloat16; what was reported; the components in order."""
    directory, seen = tmp_path_factory.mktemp("converted") / "tiny", []
    report = convert(
        files["model"],
        directory,
        tiny_config,
        dtype=ml_dtypes.bfloat16,
        on_component=lambda name, count: seen.append((name, count)),
    )
    return directory, report, seen


def same_as_rule(directory: Path, component: str, config: ModelConfig) -> None:
    """The component holds the rule's values, rounded to bfloat16."""
    found = Checkpoint(directory).restore(component, config.networks()[component])
    for path, value in tiny_params(component).items():
        rounded = np.asarray(value).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(found[path]), rounded, err_msg=path)


def test_the_full_model(converted: tuple[Path, Conversion, list[tuple[str, int]]], tiny_config: ModelConfig) -> None:
    directory, report, seen = converted
    assert report.components == FULL and report.kept == ()
    assert report.buffers == 13
    assert report.consumed + report.buffers + len(report.unused) == len(key_list("tiny/keys.tsv"))
    assert [name for name, _ in seen] == list(FULL) and sum(count for _, count in seen) == report.consumed
    checkpoint = Checkpoint(directory)
    assert checkpoint.components == FULL and checkpoint.config == tiny_config
    assert checkpoint.provenance["converted_from"] == "model.safetensors"
    checkpoint.require()
    same_as_rule(directory, "decoder", tiny_config)
    same_as_rule(directory, "image_projector", tiny_config)


def test_a_sketch_encoder_is_added_and_replaced_only_on_request(
    converted: tuple[Path, Conversion, list[tuple[str, int]]], files: dict[str, Path], tiny_config: ModelConfig
) -> None:
    directory, _, _ = converted
    report = convert(files["sketch"], directory, tiny_config, dtype=ml_dtypes.bfloat16)
    assert report.components == ("sketch_encoder",) and report.kept == FULL and report.consumed == 340
    checkpoint = Checkpoint(directory)
    assert checkpoint.components == (*FULL, "sketch_encoder")
    assert checkpoint.provenance["converted_from"] == "sketch_encoder.safetensors"
    assert checkpoint.provenance["before"]["converted_from"] == "model.safetensors"
    same_as_rule(directory, "sketch_encoder", tiny_config)
    same_as_rule(directory, "image_projector", tiny_config)  # what was there is still there

    with pytest.raises(UserError, match="holds sketch_encoder already: add --overwrite to replace it"):
        convert(files["sketch"], directory, tiny_config)
    report = convert(files["sketch"], directory, tiny_config, dtype=ml_dtypes.bfloat16, overwrite=True)
    assert report.kept == FULL
    assert Checkpoint(directory).components == (*FULL, "sketch_encoder")

    with pytest.raises(UserError, match="has another architecture .tiny. than wider"):
        convert(files["sketch"], directory, replace(tiny_config, name="wider"), overwrite=True)
    with pytest.raises(UserError, match="exists already: choose another directory, or add --overwrite"):
        convert(files["model"], directory, tiny_config)
    same_as_rule(directory, "image_projector", tiny_config)
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_a_sketch_encoder_alone(files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig) -> None:
    convert(files["sketch"], tmp_path / "sketch", tiny_config)
    checkpoint = Checkpoint(tmp_path / "sketch")
    assert checkpoint.components == ("sketch_encoder",)
    with pytest.raises(UserError, match="holds no unet"):
        checkpoint.require()
    same_as_rule(tmp_path / "sketch", "sketch_encoder", tiny_config)


def test_what_is_added_leaves_the_sampling_options_that_suit_the_model(
    files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig
) -> None:
    own = {"steps": 1, "exact_last_step": True}
    with CheckpointWriter(tmp_path / "model", tiny_config, {}, sampling=own) as writer:
        writer.write("image_projector", tiny_params("image_projector"))
    convert(files["sketch"], tmp_path / "model", tiny_config)
    checkpoint = Checkpoint(tmp_path / "model")
    assert checkpoint.components == ("image_projector", "sketch_encoder") and checkpoint.sampling == own


def test_a_file_that_does_not_fit_writes_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit this architecture"):
        convert(files["sketch"], tmp_path / "model", ModelConfig())
    assert not list(tmp_path.iterdir())


def test_no_cpu_backend_is_needed(
    files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With JAX_PLATFORMS=cuda there is none; tensors go from the file to the disk without a device."""

    def none(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Unknown backend cpu")

    for name in ("device_put", "devices", "local_devices"):
        monkeypatch.setattr(jax, name, none)
    convert(files["sketch"], tmp_path / "model", tiny_config)
    monkeypatch.undo()
    same_as_rule(tmp_path / "model", "sketch_encoder", tiny_config)
