"""The text detector's published file is read whatever its form; what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.reference import RuleSource, key_list
from tests.zoo.craft_inputs import SMALL, tensors
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.zoo.craft.network import Craft, CraftConfig
from tooncrafter_jax.zoo.craft.weights import check_craft, convert_craft, counters, is_craft, load_craft, name_table
from tooncrafter_jax.zoo.network_file import write_network

NETWORK = Network(Craft, SMALL)


def saved(directory: Path, values: dict[str, np.ndarray], prefix: str = "") -> Path:
    save_file({prefix + name: value for name, value in values.items()}, directory / "craft.safetensors")
    return directory / "craft.safetensors"


def assert_loaded(path: Path) -> None:
    check_craft(path, SMALL)
    loaded, official = load_craft(path, SMALL), tensors()
    assert {name: value.shape for name, value in loaded.items()} == {
        name: leaf.shape for name, leaf in NETWORK.abstract_params.items()
    }
    for path_, name in {
        "levels.1.1.norm.scale": "basenet.slice1.11.weight",
        "levels.2.0.norm.mean": "basenet.slice2.15.running_mean",
        "levels.2.2.conv.bias": "basenet.slice3.20.bias",
        "levels.3.2.norm.variance": "basenet.slice4.31.running_var",
        "ups.2.refine.norm.bias": "upconv3.conv.4.bias",
        "head.4.bias": "conv_cls.8.bias",
    }.items():
        np.testing.assert_array_equal(loaded[path_], official[name])
    assert loaded["fc6.kernel"][0, 2, 5, 6] == official["basenet.slice5.1.weight"][6, 5, 0, 2]


def test_every_published_tensor_has_its_place() -> None:
    """All 154 names with their shapes, nothing left over, nothing unfilled."""
    config = CraftConfig()
    shapes = {name: leaf.shape for name, leaf in Network(Craft, config).abstract_params.items()}
    table = name_table(config)
    found = {name: to.official_shape(shapes[to.path]) for name, to in table.items()}
    assert found | dict.fromkeys(counters(config), ()) == key_list("craft/keys.tsv")
    assert sorted(to.path for to in table.values()) == sorted(shapes)


class TestFiles:
    @pytest.mark.parametrize(("prefix", "counted"), [("", True), ("module.", False)])
    def test_safetensors(self, tmp_path: Path, prefix: str, counted: bool) -> None:
        assert_loaded(saved(tmp_path, tensors(counted=counted), prefix))

    @pytest.mark.parametrize(
        ("is_zip", "prefix", "counted"), [(True, "module.", True), (False, "module.", True), (True, "", False)]
    )
    def test_pytorch(self, tmp_path: Path, is_zip: bool, prefix: str, counted: bool) -> None:
        """In the zip format, and in the one before PyTorch 1.6."""
        torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
        values = {prefix + name: torch.from_numpy(value) for name, value in tensors(counted=counted).items()}
        torch.save(values, tmp_path / "craft.pth", _use_new_zipfile_serialization=is_zip)
        assert_loaded(tmp_path / "craft.pth")


@pytest.mark.parametrize("read", [load_craft, check_craft])
class TestMisfits:
    def test_all_that_does_not_fit_is_named_at_once(self, tmp_path: Path, read: Any) -> None:
        values = tensors()
        del values["conv_cls.0.bias"], values["basenet.slice1.1.running_var"]
        values["upconv4.conv.0.weight"] = np.zeros((3, 4, 1, 1), np.float32)
        values["basenet.slice5.2.num_batches_tracked"] = np.zeros((), np.int64)
        with pytest.raises(UserError) as error:
            read(saved(tmp_path, values), SMALL)
        message = str(error.value)
        assert "2 missing: basenet.slice1.1.running_var, conv_cls.0.bias" in message
        assert "1 unexpected: basenet.slice5.2.num_batches_tracked" in message
        assert "1 of another shape: upconv4.conv.0.weight is 3x4x1x1 instead of 3x6x1x1" in message

    def test_another_network(self, tmp_path: Path, read: Any) -> None:
        path = saved(tmp_path, {"last_conv.0.weight": np.zeros(1, np.float32)})
        with pytest.raises(UserError, match=r"does not hold CRAFT, .*: name the published craft_mlt_25k\.pth$"):
            read(path, SMALL)

    def test_another_network_of_ours(self, tmp_path: Path, read: Any) -> None:
        write_network(tmp_path / "hed.safetensors", "hed", {"a": np.zeros(1, np.float32)}, {})
        with pytest.raises(UserError, match="holds hed, not the parameters of craft"):
            read(tmp_path / "hed.safetensors", SMALL)

    def test_an_own_file_that_is_damaged(self, tmp_path: Path, read: Any) -> None:
        convert_craft(saved(tmp_path, tensors()), tmp_path / "own.safetensors", SMALL)
        data = bytearray((tmp_path / "own.safetensors").read_bytes())
        data[-5] ^= 1
        (tmp_path / "own.safetensors").write_bytes(data)
        with pytest.raises(UserError, match="is damaged, its checksum is another"):
            read(tmp_path / "own.safetensors", SMALL)


def test_an_own_file_comes_back(tmp_path: Path) -> None:
    assert convert_craft(saved(tmp_path, tensors()), tmp_path / "own.safetensors", SMALL) == len(
        NETWORK.abstract_params
    )
    assert_loaded(tmp_path / "own.safetensors")


def test_the_model_is_not_taken_for_it() -> None:
    assert not is_craft(RuleSource(key_list("tiny/keys.tsv") | key_list("anime2sketch/keys.tsv")))
    assert is_craft(RuleSource(key_list("craft/keys.tsv")))


def test_values_that_a_dtype_does_not_hold_are_named(tmp_path: Path) -> None:
    values = tensors()
    values["conv_cls.8.bias"] = values["conv_cls.8.bias"] + np.float32(1e6)
    path = saved(tmp_path, values)
    with pytest.raises(UserError, match="conv_cls.8.bias of .* has values that float16 does not hold"):
        load_craft(path, SMALL, dtype=np.float16)
    convert_craft(path, tmp_path / "ours.safetensors", SMALL)
    with pytest.raises(UserError, match="head.4.bias of .* has values that float16 does not hold"):
        load_craft(tmp_path / "ours.safetensors", SMALL, dtype=np.float16)
