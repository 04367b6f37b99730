"""Models by name, and a real one behind the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.world import FakeModel as PatchedModel
from tests.serving.world import PAIR, pair, serving
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.model_source import ModelSource
from tooncrafter_jax.serving.answers import model_answer
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.devices import ServedModel
from tooncrafter_jax.serving.models import LoadedModel, named, parse_models
from tooncrafter_jax.serving.server import batch_size_for


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["small"], {"small": "small"}),
        (["film=/models/film/"], {"film": "/models/film/"}),
        (["/models/film/", "b=small"], {"film": "/models/film/", "b": "small"}),
        (["Doubiiu/ToonCrafter"], {"ToonCrafter": "Doubiiu/ToonCrafter"}),
    ],
)
def test_what_models_are_called(values: list[str], expected: dict[str, str]) -> None:
    assert parse_models(values) == expected


@pytest.mark.parametrize("values", [["a=x", "a=y"], ["x/a", "y/a"], ["=x"], ["a="], [""]])
def test_names_that_are_none(values: list[str]) -> None:
    with pytest.raises(UserError):
        parse_models(values)


@pytest.mark.parametrize(
    ("devices", "platform", "wanted", "size"),
    [(1, "cpu", None, 1), (8, "cpu", None, 1), (1, "gpu", None, 8), (4, "tpu", None, 32), (1, "gpu", 12, 8)],
)
def test_how_many_clips_are_drawn_together(devices: int, platform: str, wanted: int | None, size: int) -> None:
    assert batch_size_for(devices, platform, wanted) == size


def test_a_model_is_loaded_when_it_first_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched = PatchedModel()
    patched.install(monkeypatch)
    model = LoadedModel("film", ModelSource("small"), "float32", "auto")
    assert isinstance(model, ServedModel) and model.made_by == {}
    answer = model_answer(model)
    assert "path" not in answer.record and str(Path.cwd()) not in answer.model_dump_json()
    with serving(tmp_path, model) as server:
        client = server.client()
        options = {"height": 128, "width": 128, "frames": 5}
        job = client.wait(client.submit(pair(model="film", options=options), PAIR)["id"])
    assert patched.batches == [1] and job["made_by"]["platform"] == "cpu" and "seconds" not in job["made_by"]
    with pytest.raises(UserError, match="choose one of film"):
        named({"film": model}, "small")


@pytest.mark.slow
def test_a_real_model_draws_what_it_draws_locally(tmp_path: Path) -> None:
    model = LoadedModel("small", ModelSource("small"), "float32", "auto")
    options = {"height": 128, "width": 128, "frames": 16, "steps": 2}
    with serving(tmp_path / "data", model, batch_size=2) as server:
        client = Client(server.url)  # it waits for the compiler
        jobs = [client.submit(pair(seed, options=options), PAIR)["id"] for seed in (1, 2)]
        for id in jobs:
            client.wait(id)
        drawn = [client.frames(id) for id in jobs]
    from tooncrafter_jax import ToonCrafter

    for name, data in PAIR.items():
        (tmp_path / name).write_bytes(data)
    toon = ToonCrafter.load("small", dtype="float32")
    for seed, frames in zip((1, 2), drawn, strict=True):
        alone = toon.interpolate(tmp_path / "a", tmp_path / "b", seed=seed, steps=2)
        assert np.abs(frames.astype(int) - alone).max() <= 2  # sums of another order, in bytes
