"""A description of a model from anybody gives an architecture that can be built, or a sentence; nothing is built
meanwhile.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.hostile.amounts import amounts, bounded_memory, holds_for
from tests.hostile.limited import run_opening
from tests.hostile.strategies import json_values, spoilt_bytes, spoilt_values
from tooncrafter_jax.config_codec import to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.bounds import MOST_BLOCKS
from tooncrafter_jax.models.configuration import COMPONENTS, ModelConfig, from_official, small
from tooncrafter_jax.weights.store import Checkpoint

CONFIG = json.loads(json.dumps(to_dict(small())))
DESCRIPTION = {
    "format_version": 1,
    "components": list(COMPONENTS),
    "weights": {"unet": "0123"},
    "config": CONFIG,
    "provenance": {"made": "by a test"},
    "sampling": {"guidance_scale": 1.5},
}
OFFICIAL = json.loads((Path(__file__).parents[1] / "golden" / "tiny" / "config.json").read_text())


def opened(directory: Path, description: Any) -> Checkpoint | None:
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    (directory / "model.json").write_bytes(text)
    try:
        checkpoint = Checkpoint(directory)
    except UserError as error:
        assert len(str(error)) < 1000 + len(str(directory))
        return None
    sound(checkpoint.config)
    assert set(checkpoint.components) <= set(COMPONENTS) and isinstance(checkpoint.fingerprint, str)
    assert all(isinstance(part, dict) for part in (checkpoint.provenance, checkpoint.sampling, checkpoint.weights))
    return checkpoint


def sound(config: ModelConfig) -> None:
    assert 0 < config.height <= 2**14 and 0 < config.width <= 2**14
    assert 1 < config.schedule.timesteps <= 10**5
    for name in ("unet", "autoencoder", "decoder", "sketch_encoder"):
        part = getattr(config, name)
        assert len(part.multipliers) * part.blocks_per_level < MOST_BLOCKS
        assert max(part.multipliers) * part.width <= 2**16


@amounts
def test_any_description(tmp_path: Path, examples: int) -> None:
    holds_for(examples, spoilt_values(DESCRIPTION), lambda description: opened(tmp_path, description) and None)


@amounts
def test_any_number_in_a_config(tmp_path: Path, examples: int) -> None:
    holds_for(examples, spoilt_values(CONFIG), lambda c: opened(tmp_path, {**DESCRIPTION, "config": c}) and None)


@amounts
def test_any_bytes(tmp_path: Path, examples: int) -> None:
    valid = json.dumps(DESCRIPTION).encode()
    holds_for(examples, spoilt_bytes(valid) | st.binary(), lambda data: opened(tmp_path, data) and None)


@amounts
def test_any_official_config(examples: int) -> None:
    def holds(config: Any) -> None:
        try:
            sound(from_official(config, "any", "config.json"))
        except UserError as error:
            assert len(str(error)) < 1000

    holds_for(examples, spoilt_values(OFFICIAL) | json_values, holds)


def test_what_is_not_spoilt_is_read(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, DESCRIPTION)
    assert checkpoint is not None and checkpoint.config == small()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("height", 2**40, "the height is 1099511627776 pixels, which is too large: it can be 16,384 at most"),
        ("width", 10**400, "which is too large"),
        ("height", -5, "the size is -5 x 128 pixels, which is too small"),
        ("schedule.timesteps", 10**12, "schedule.timesteps is 1000000000000, which is too large: it can be 100,000"),
        ("schedule.timesteps", 1, "schedule.timesteps is 1, which is too small"),
        ("schedule.turning_step", 2**62, "schedule.turning_step is 4611686018427387904, which is too large"),
        ("schedule.linear_end", float("nan"), "schedule.linear_end is nan, which is no number"),
        ("schedule.linear_end", 1.0, "schedule.linear_end is 1.0, which is too large: it must be below 1"),
        ("schedule.scale_factor", float("inf"), "schedule.scale_factor is inf, which is no number"),
        ("schedule.scale_factor", 10**400, "schedule.scale_factor is 1000.*, which is too large"),
        ("unet.width", 2**31, "unet.width is 2147483648, which is too large"),
        ("unet.multipliers", [1] * 60, "unet.multipliers has 60 entries, which is too many"),
        ("unet.multipliers", [1] * 12, "unet.multipliers has 12 levels, which is too many"),
        ("unet.multipliers", [256, 256, 256], None),
        ("unet.transformer_depth", 32, None),
        ("clip_text.layers", 10**9, "clip_text.layers is 1000000000, which is too large"),
        ("clip_text.vocabulary_size", 2**40, "clip_text.vocabulary_size is 1099511627776, which is too large"),
        ("clip_image.mlp_ratio", float("inf"), "clip_image.mlp_ratio is inf, which is no number"),
        ("image_projector.queries_per_frame", 2**33, "image_projector.queries_per_frame is 8589934592, which"),
        ("name", "\x1b[2J", "the model's name must be at most 200 letters"),
        ("name", "x" * 10_000, "the model's name must be at most 200 letters"),
        ("schedule", [[[]]], "must be a mapping, not list"),
    ],
)
def test_a_model_of_impossible_numbers(tmp_path: Path, key: str, value: Any, message: str | None) -> None:
    config = json.loads(json.dumps(CONFIG))
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = value
    (tmp_path / "model.json").write_text(json.dumps({**DESCRIPTION, "config": config}))
    if message is None:  # large, but each by itself could be
        opened(tmp_path, {**DESCRIPTION, "config": config})
        return
    with bounded_memory(128), pytest.raises(UserError, match=message):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"format_version": 1, "format_version": 1}', "has the key 'format_version' twice"),
        (b"\xff\xfe{\x00}\x00", "is damaged"),
        (b'{"format_version": ' + b"9" * 10_000 + b"}", "is damaged"),
        (b'{"format_version": "' + b"9" * 10_000 + b'"}', r"has format 9+\.\.\., but this version reads 1"),
    ],
    ids=["deep", "twice", "utf-16", "digits", "version"],
)
def test_json_that_breaks_parsers(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "model.json").write_bytes(text)
    with pytest.raises(UserError, match=message) as error:
        Checkpoint(tmp_path)
    assert len(str(error.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"unet": 3}},
        {"weights": []},
        {"sampling": [["a", 1]]},
        {"provenance": "me"},
        {"components": ["unet"] * 99},
    ],
)
def test_sections_of_another_kind(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "model.json").write_text(json.dumps({**DESCRIPTION, **changes}))
    with pytest.raises(UserError, match="model.json is damaged"):
        Checkpoint(tmp_path)


@pytest.mark.gate
def test_a_sparse_description_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.json").open("wb") as file:
        file.truncate(20 * 2**30)
    done = run_opening("tooncrafter_jax.weights.store", "Checkpoint", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "is damaged (it has more than 16,777,216 bytes)" in done.stdout
