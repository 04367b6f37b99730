"""The published extractor's files are read whatever their form; what does not fit is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.reference import RuleSource, key_list
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.nn.transposed import UpConv
from tooncrafter_jax.weights.rule import make, unit_noise
from tooncrafter_jax.zoo.anime2sketch.network import Anime2Sketch, Anime2SketchConfig
from tooncrafter_jax.zoo.anime2sketch.weights import (
    convert_anime2sketch,
    is_anime2sketch,
    load_anime2sketch,
    name_table,
)
from tooncrafter_jax.zoo.network_file import network_kind

CONFIG = Anime2SketchConfig(width=4, max_width=8, levels=3)
NETWORK = Network(Anime2Sketch, CONFIG)


def official() -> dict[str, np.ndarray]:
    """A small extractor's tensors under the published names, in PyTorch's layouts, written down by hand."""
    shapes = {
        "model.model.0": (4, 3, 4, 4),
        "model.model.1.model.1": (8, 4, 4, 4),
        "model.model.1.model.3.model.1": (8, 8, 4, 4),
        "model.model.1.model.3.model.3": (8, 8, 4, 4),
        "model.model.1.model.5": (16, 4, 4, 4),
        "model.model.3": (8, 1, 4, 4),
    }
    outputs = {"model.model.0": 4, "model.model.1.model.5": 4, "model.model.3": 1}
    tensors = {f"{name}.weight": make(f"{name}.weight", shape) for name, shape in shapes.items()}
    return tensors | {f"{name}.bias": make(f"{name}.bias", (outputs.get(name, 8),)) for name in shapes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(official(), tmp_path / "netG.safetensors")
    return tmp_path / "netG.safetensors"


def assert_loaded(path: Path, **settings: Any) -> None:
    loaded = load_anime2sketch(path, CONFIG, **settings)
    assert {name: value.shape for name, value in loaded.items()} == {
        name: leaf.shape for name, leaf in NETWORK.abstract_params.items()
    }
    tensors = official()
    np.testing.assert_array_equal(
        loaded["down.1.kernel"][1, 2, 3, 5], tensors["model.model.1.model.1.weight"][5, 3, 1, 2]
    )
    np.testing.assert_array_equal(
        loaded["up.1.kernel"][1, 3, 9, 2], tensors["model.model.1.model.5.weight"][9, 2, 2, 0]
    )
    np.testing.assert_array_equal(loaded["up.2.bias"], tensors["model.model.1.model.3.model.3.bias"])


def test_every_published_tensor_has_its_place() -> None:
    """All 32 names with their shapes, nothing left over, nothing unfilled."""
    config = Anime2SketchConfig()
    shapes = {name: leaf.shape for name, leaf in Network(Anime2Sketch, config).abstract_params.items()}
    table = name_table(config)
    assert {name: t.official_shape(shapes[t.path]) for name, t in table.items()} == key_list("anime2sketch/keys.tsv")
    assert {t.path for t in table.values()} == set(shapes)


def test_an_up_convolution_scatters_as_pytorchs_does() -> None:
    """By its definition: output 2i + k - 1 receives input i times tap k."""
    x, weight = unit_noise("x", (2, 3, 2)), unit_noise("w", (2, 5, 4, 4))
    expected = np.zeros((6, 8, 5), np.float64)
    for i, j in np.ndindex(2, 3):
        for k, m in np.ndindex(4, 4):
            expected[2 * i + k, 2 * j + m] += x[i, j] @ weight[:, :, k, m]
    layer = Network(lambda _, **kw: UpConv(2, 5, **kw), None)
    kernel = name_table(CONFIG)["model.model.3.weight"].ours(weight)
    out = layer.bind({"kernel": jnp.asarray(kernel), "bias": jnp.ones(5)})(jnp.asarray(x[None]))
    np.testing.assert_allclose(out[0], expected[1:-1, 1:-1] + 1, atol=1e-5)


class TestFiles:
    def test_safetensors(self, file: Path) -> None:
        assert_loaded(file)

    def test_parallel_wrapper(self, tmp_path: Path) -> None:
        save_file({f"module.{name}": value for name, value in official().items()}, tmp_path / "m.safetensors")
        assert_loaded(tmp_path / "m.safetensors")

    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("is_zip", [True, False])
    def test_pytorch(self, tmp_path: Path, is_zip: bool, prefix: str) -> None:
        """In the zip format, and in the one before PyTorch 1.6."""
        torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
        tensors = {prefix + name: torch.from_numpy(value) for name, value in official().items()}
        torch.save(tensors, tmp_path / "netG.pth", _use_new_zipfile_serialization=is_zip)
        assert_loaded(tmp_path / "netG.pth")

    @pytest.mark.parametrize("content", [b"not a checkpoint", {"epoch": 1}, [1.0]])
    def test_old_pytorch_of_another_content(self, tmp_path: Path, content: Any) -> None:
        torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
        if isinstance(content, bytes):
            (tmp_path / "netG.pth").write_bytes(content)
        else:
            torch.save(content, tmp_path / "netG.pth", _use_new_zipfile_serialization=False)
        with pytest.raises(UserError, match="not a PyTorch checkpoint|holds no (mapping from names to )?tensors"):
            load_anime2sketch(tmp_path / "netG.pth")


def test_all_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    tensors = official()
    del tensors["model.model.0.bias"], tensors["model.model.3.weight"]
    tensors["model.model.9.weight"] = np.zeros((1,), np.float32)
    tensors["model.model.1.model.1.bias"] = np.zeros((7,), np.float32)
    tensors["model.model.1.model.5.weight"] = np.zeros((4, 16, 4, 4), np.float32)
    tensors["model.model.0.weight"] = np.zeros((4, 3), np.float32)
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(UserError) as error:
        load_anime2sketch(tmp_path / "m.safetensors", CONFIG)
    message = str(error.value)
    assert "2 missing: model.model.0.bias, model.model.3.weight" in message
    assert "1 unexpected: model.model.9.weight" in message
    assert "3 of another shape: " in message
    assert "model.model.1.model.1.bias is 7 instead of 8" in message
    assert "model.model.1.model.5.weight is 4x16x4x4 instead of 16x4x4x4" in message
    assert "model.model.0.weight is 4x3 instead of 4x3x4x4" in message


class TestOwnFile:
    @pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
    def test_what_is_written_comes_back(self, file: Path, tmp_path: Path, dtype: Any) -> None:
        own = tmp_path / "made" / "anime2sketch.safetensors"
        assert convert_anime2sketch(file, own, CONFIG, dtype=dtype) == 12
        assert network_kind(own) == "anime2sketch" and network_kind(file) is None
        again, direct = load_anime2sketch(own, CONFIG), load_anime2sketch(file, CONFIG, dtype=dtype)
        assert again.keys() == direct.keys()
        for name, value in again.items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, direct[name].astype(np.float32))

    def test_nothing_is_replaced_unasked(self, file: Path, tmp_path: Path) -> None:
        own = tmp_path / "own.safetensors"
        own.write_bytes(b"something precious")
        with pytest.raises(UserError, match="exists already: choose another name, or add --overwrite"):
            convert_anime2sketch(file, own, CONFIG)
        assert own.read_bytes() == b"something precious"
        convert_anime2sketch(file, own, CONFIG, overwrite=True)
        assert_loaded(own)

    def test_names_of_another_kind(self, file: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="must end in .safetensors"):
            convert_anime2sketch(file, tmp_path / "directory", CONFIG)

    def test_damage_is_found(self, file: Path, tmp_path: Path) -> None:
        own = tmp_path / "own.safetensors"
        convert_anime2sketch(file, own, CONFIG)
        data = bytearray(own.read_bytes())
        data[-5] ^= 1
        own.write_bytes(data)
        with pytest.raises(UserError, match="is damaged, its checksum is another"):
            load_anime2sketch(own, CONFIG)

    def test_another_architecture(self, file: Path, tmp_path: Path) -> None:
        own = tmp_path / "own.safetensors"
        convert_anime2sketch(file, own, CONFIG)
        with pytest.raises(UserError, match=r"does not fit .* 4 missing: .*down.3.kernel.* of another shape"):
            load_anime2sketch(own, Anime2SketchConfig(width=4, max_width=16, levels=4))


def test_the_model_is_not_taken_for_it() -> None:
    names: Mapping[str, tuple[int, ...]] = key_list("tiny/keys.tsv") | key_list("tiny/sketch_keys.tsv")
    assert not is_anime2sketch(RuleSource(names))
    assert is_anime2sketch(RuleSource({f"module.{name}": (1,) for name in key_list("anime2sketch/keys.tsv")}))
