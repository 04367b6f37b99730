"""`tooncrafter convert`: what it prints and what it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cli.world import Command, rule_tensors, write_hollow_file
from tests.reference import GOLDEN, key_list
from tests.weights import layouts
from tooncrafter_jax.models.configuration import COMPONENTS, OPTIONAL_COMPONENTS, tiny
from tooncrafter_jax.weights.official import SCHEDULE_BUFFERS
from tooncrafter_jax.weights.sources import SafetensorsSource
from tooncrafter_jax.weights.store import Checkpoint

PUBLISHED = tuple(name for name in COMPONENTS if name != "motion")
"""Components of which there are published files."""


@pytest.fixture(scope="module")
def model_of_both_files(checkpoint: Path) -> Checkpoint:
    return Checkpoint(checkpoint)


@pytest.mark.gate
def test_counts_components_and_kept_ones_are_printed(weight_files: dict[str, Path], tmp_path: Path, command: Command):
    directory = tmp_path / "model"
    result = command("convert", str(weight_files["model"]), str(directory), "--architecture=tiny", "--list-unused")
    assert result.code == 0 and result.err == ""
    consumed, unused, buffers = map(int, re.findall(r"(\d+) (?:tensors consumed|unused by|schedule)", result.out))
    assert consumed + unused + buffers == len(key_list("tiny/keys.tsv"))
    assert buffers == len(SCHEDULE_BUFFERS)
    listed = re.findall(r"^  unused: (\S+) \((.+)\)$", result.out, re.MULTILINE)
    assert len(listed) == unused and {name for name, _ in listed} <= set(key_list("tiny/keys.tsv"))
    printed = dict(re.findall(r"^  (\w+) +(\d+) tensors$", result.out, re.MULTILINE))
    assert list(printed) == [name for name in COMPONENTS if name not in OPTIONAL_COMPONENTS]
    assert sum(map(int, printed.values())) == consumed

    result = command("convert", str(weight_files["sketch_encoder"]), str(directory), "--architecture=tiny")
    assert f"{len(key_list('tiny/sketch_keys.tsv'))} tensors consumed, 0 unused" in result.out
    assert f"kept from before: {', '.join(printed)}" in result.out
    assert Checkpoint(directory).components == PUBLISHED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_no_name_of_a_tensor_reaches_the_terminal_as_it_is(tmp_path: Path, command: Command):
    """What is unused is named by the file, which anybody could have written."""
    tensors = rule_tensors("keys.tsv") | {"first_stage.\x1b[2J": np.zeros(1, np.float16)}
    save_file(tensors, tmp_path / "model.safetensors")
    argv = [str(tmp_path / "model.safetensors"), str(tmp_path / "model"), "--architecture=tiny", "--list-unused"]
    result = command("convert", *argv)
    assert "\x1b" not in result.out + result.err
    assert "first_stage.\\x1b[2J" in result.out + result.err


def test_the_description_says_where_the_weights_come_from(model_of_both_files: Checkpoint):
    assert model_of_both_files.config == tiny()
    assert model_of_both_files.provenance["converted_from"] == "sketch_encoder.safetensors"
    assert model_of_both_files.provenance["before"]["converted_from"] == "model.safetensors"


def test_bfloat16_is_written_and_restored(weight_files: dict[str, Path], tmp_path: Path, command: Command):
    argv = [
        str(weight_files["sketch_encoder"]),
        str(tmp_path / "half"),
        "--architecture=tiny",
        "--stored-dtype=bfloat16",
    ]
    assert command("convert", *argv).code == 0
    network = tiny().networks()["sketch_encoder"]
    params = Checkpoint(tmp_path / "half").restore("sketch_encoder", network, dtype=jnp.bfloat16)
    tensors = rule_tensors("sketch_keys.tsv")
    ours = np.asarray(params["time_embedding.hidden.bias"])
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, tensors["time_embed.0.bias"].astype(jnp.bfloat16))
    written = sum(file.stat().st_size for file in (tmp_path / "half").rglob("*") if file.is_file())
    assert written < 2.2 * sum(tensor.size for tensor in tensors.values())


def test_overwrite_replaces_a_component_and_keeps_the_others(
    weight_files: dict[str, Path], tmp_path: Path, command: Command
):
    tensors = rule_tensors("sketch_keys.tsv")
    save_file({name: tensor + np.float16(1) for name, tensor in tensors.items()}, tmp_path / "other.safetensors")
    directory = tmp_path / "model"
    for file, change in ((weight_files["sketch_encoder"], []), (tmp_path / "other.safetensors", ["--overwrite"])):
        assert command("convert", str(file), str(directory), "--architecture=tiny", *change).code == 0
    network = tiny().networks()["sketch_encoder"]
    first = next(iter(Checkpoint(directory).restore("sketch_encoder", network).values()))
    assert np.asarray(first).mean() > 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other.safetensors"]


def test_an_architecture_in_the_published_codes_keys(weight_files: dict[str, Path], tmp_path: Path, command: Command):
    config = f"--architecture={GOLDEN / 'tiny' / 'config.json'}"
    result = command("convert", str(weight_files["sketch_encoder"]), str(tmp_path / "model"), config)
    assert result.code == 0, result.err
    assert Checkpoint(tmp_path / "model").config.sketch_encoder == tiny().sketch_encoder


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch):
    from tooncrafter_jax.weights.store import CheckpointWriter

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointWriter, "write", interrupt)
    file = write_hollow_file(tmp_path / "sketch.safetensors", key_list("tiny/sketch_keys.tsv"))
    result = command("convert", str(file), str(tmp_path / "model"), "--architecture=tiny")
    assert result.code == 130 and "model is as it was before" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sketch.safetensors"]


def test_several_files_are_one_model(tmp_path: Path, command: Command):
    whole = layouts.model()
    parts = {
        "pruned": layouts.without_clip(whole),
        "clip": layouts.open_clip(whole),
        "text": layouts.transformers_text(whole),
    }
    files = {name: layouts.write_safetensors(tmp_path / name, of, "float16") for name, of in parts.items()}
    files = {name: str(path.rename(path.with_suffix(".safetensors"))) for name, path in files.items()}
    directory, tiny_size = str(tmp_path / "model"), ["--architecture=tiny", "--stored-dtype=float16"]
    alone = command("convert", files["pruned"], directory, *tiny_size)
    assert alone.code == 2 and "lacks CLIP (clip_text, clip_image)" in alone.err and "laion" in alone.err
    result = command("convert", *files.values(), directory, *tiny_size, "--list-unused")
    assert result.code == 2 and f"{files['text']} gives nothing that" in result.err
    result = command("convert", files["pruned"], files["text"], files["clip"], directory, *tiny_size, "--list-unused")
    assert result.code == 0, result.err
    assert f"note: clip_text is taken from {files['text']}" in result.err
    assert f"unused: {files['clip']}: token_embedding.weight (clip_text is taken from {files['text']})" in result.out
    counts = map(int, re.findall(r"(\d+) (?:tensors consumed|unused by|schedule)", result.out))
    assert sum(counts) == sum(len(SafetensorsSource(Path(file)).shapes) for file in files.values())
    Checkpoint(directory).require()


def test_a_variant_is_stored_with_its_options(weight_files: dict[str, Path], tmp_path: Path, command: Command):
    argv = [str(weight_files["model"]), str(tmp_path / "model"), "--architecture=tiny", "--stored-dtype=float16"]
    result = command("convert", *argv, "--variant=mog")
    assert result.code == 0 and "flows of EMA-VFI" in result.err and "--fps=24" in result.err
    assert Checkpoint(tmp_path / "model").sampling["motion_guidance"] is True
    assert "'magi'" in command("convert", *argv, "--variant=magi").err


def test_model_json_is_readable(checkpoint: Path):
    description = json.loads((checkpoint / "model.json").read_text())
    assert description["format_version"] == 1 and description["components"] == list(PUBLISHED)
