"""Where parameters are while a model draws."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.sampling.test_motion_guidance import narrow, pair
from tooncrafter_jax import SamplingOptions, ToonCrafter, UserError
from tooncrafter_jax.cli.sample import build_parser
from tooncrafter_jax.sampling.residence import Residence, checked_memory
from tooncrafter_jax.sampling.sampling_mesh import sampling_mesh
from tooncrafter_jax.weights.rule import random_params

OPTIONS = SamplingOptions(steps=2, frames=4, guidance_scale=2.0, second_pass=False)


def made(devices: list[Any], memory: Any) -> tuple[ToonCrafter, dict[str, set[int]]]:
    """A model that draws noise, and for each of its components the sizes in bytes that no other has."""
    config = narrow()
    params = {
        name: {
            path: np.asarray(value)
            for path, value in random_params(
                {path: leaf.shape for path, leaf in network.abstract_params.items()}, 0
            ).items()
        }
        for name, network in config.networks().items()
    }
    sizes = {name: {value.nbytes for value in own.values()} for name, own in params.items()}
    others = {name: set().union(*(sizes[other] for other in sizes if other != name)) for name in sizes}
    alone = {name: own - others[name] for name, own in sizes.items()}
    return ToonCrafter(config, params, devices=devices, memory=memory), alone


def live() -> set[int]:
    """Sizes of all arrays on devices."""
    gc.collect()
    return {array.nbytes for array in jax.live_arrays()}


@pytest.mark.gate
@pytest.mark.parametrize("count", [1, 2])
def test_little_memory_draws_the_same_with_one_network_at_a_time(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = jax.devices("cpu")[:count]
    pairs = [pair(0), pair(1)]
    expected = made(devices, "high")[0].interpolate_pairs(pairs, OPTIONS)
    toon, alone = made(devices, "low")
    assert all(alone[name] for name in ("unet", "clip_text", "decoder"))
    seen: list[tuple[tuple[str, ...], set[str]]] = []
    place = Residence.of

    def watched(self: Residence, mesh: Any, *components: str) -> Any:
        found = place(self, mesh, *components)
        there = live()
        seen.append((components, {name for name, sizes in alone.items() if sizes and sizes <= there}))
        return found

    monkeypatch.setattr(Residence, "of", watched)
    np.testing.assert_array_equal(toon.interpolate_pairs(pairs, OPTIONS), expected)
    assert any("unet" in components for components, _ in seen)
    for components, there in seen:
        assert there <= set(components), components


def test_what_is_asked_for_again_is_not_moved_again() -> None:
    devices = jax.devices("cpu")[:2]
    held = Residence({name: {"kernel": np.full(3, number)} for number, name in enumerate("abc")}, devices, "low")
    mesh = sampling_mesh(devices, 2, 4)
    first = held.of(mesh, "a", "b")
    again = held.of(mesh, "b", "c", "of another model")
    assert set(again) == {"b", "c"}
    assert again["b"]["kernel"] is first["b"]["kernel"]
    assert held.of(mesh, "a")["a"]["kernel"] is not first["a"]["kernel"]
    held.add("d", {"kernel": np.ones(2)})
    np.testing.assert_array_equal(held.of(mesh, "d")["d"]["kernel"], 1)
    assert isinstance(held.params["d"]["kernel"], np.ndarray)


def test_a_model_is_loaded_to_the_host(tmp_path: Path) -> None:
    devices = jax.devices("cpu")[:1]
    made(devices, "high")[0].save_pretrained(tmp_path / "model")
    high, low = (
        ToonCrafter.load(tmp_path / "model", devices=devices, memory=memory, dtype="bfloat16").params
        for memory in ("high", "low")
    )
    assert low.keys() == high.keys()
    for name, own in low.items():
        assert own.keys() == high[name].keys()
        for path, value in own.items():
            assert isinstance(value, np.ndarray) and value.dtype == high[name][path].dtype
            np.testing.assert_array_equal(value, np.asarray(high[name][path]))


def test_other_amounts_are_refused() -> None:
    with pytest.raises(UserError, match="memory is 'medium': choose one of high, low"):
        checked_memory("medium")
    assert build_parser().parse_args(["--memory=low"]).memory == "low"
