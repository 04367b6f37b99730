"""Weight files are read whatever their kind and precision; what is wrong with one is said in words."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.reference import RuleSource
from tests.weights.layouts import Tensors, write_checkpoint
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.weights.hub_names import HubName, parse_name
from tooncrafter_jax.weights.rule import make
from tooncrafter_jax.weights.sources import TensorSource, open_source

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7, "b.bias": np.asarray([1.5, -2.0], np.float32)}


def by_hand(path: Path, header: Any, data: bytes) -> Path:
    """A safetensors file from its definition: length of the header, header, data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def check(source: TensorSource, tensors: Mapping[str, np.ndarray] = TENSORS) -> None:
    assert dict(source.shapes) == {name: value.shape for name, value in tensors.items()}
    for name, value in tensors.items():
        read = source.read(name)
        assert read.dtype == value.dtype
        np.testing.assert_array_equal(read, value)


class TestSafetensors:
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_dtypes(self, tmp_path: Path, dtype: Any) -> None:
        tensors = {name: value.astype(dtype) for name, value in TENSORS.items()}
        save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
        check(open_source(tmp_path / "m.safetensors"), tensors)

    def test_bfloat16(self, tmp_path: Path) -> None:
        """The upper half of a float32's bits."""
        value = np.asarray([1.0, -2.5, 3.140625], np.float32)
        data = (value.view(np.uint32) >> 16).astype("<u2").tobytes()
        header = {"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
        source = open_source(by_hand(tmp_path / "m.safetensors", header, data))
        check(source, {"x": value.astype(ml_dtypes.bfloat16)})

    def test_scalars_and_order(self, tmp_path: Path) -> None:
        header = {
            "later": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]},
            "first": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        }
        data = np.asarray([1, 2, 3], np.float32).tobytes()
        source = open_source(by_hand(tmp_path / "m.safetensors", header, data))
        check(source, {"first": np.asarray([1, 2], np.float32), "later": np.asarray(3, np.float32)})

    @pytest.mark.parametrize("kept", [4, 30])
    def test_cut_off_in_the_header(self, tmp_path: Path, kept: int) -> None:
        save_file(TENSORS, tmp_path / "m.safetensors")
        (tmp_path / "m.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:kept])
        with pytest.raises(UserError, match="is not a safetensors file or is cut off: copy it again"):
            open_source(tmp_path / "m.safetensors")

    def test_cut_off_in_the_tensors(self, tmp_path: Path) -> None:
        save_file(TENSORS, tmp_path / "m.safetensors")
        (tmp_path / "m.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:-5])
        with pytest.raises(UserError, match="is cut off: it holds 27 of 32 bytes"):
            open_source(tmp_path / "m.safetensors")

    @pytest.mark.parametrize(
        "header",
        [
            b"\xff\xfe not json",
            [],
            {"x": 3},
            {"x": {"dtype": "F32", "shape": [1]}},
            {"x": {"dtype": "F32", "data_offsets": [0, 4]}},
            {"x": {"dtype": "F32", "shape": [1], "data_offsets": "04"}},
            {"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
            {"x": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
        ],
    )
    def test_garbage(self, tmp_path: Path, header: Any) -> None:
        with pytest.raises(UserError, match="is not a safetensors file or is cut off"):
            open_source(by_hand(tmp_path / "m.safetensors", header, bytes(8)))

    def test_random_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "m.safetensors").write_bytes(np.random.default_rng(0).bytes(1000))
        with pytest.raises(UserError, match="is not a safetensors file"):
            open_source(tmp_path / "m.safetensors")

    def test_sizes_that_do_not_fit(self, tmp_path: Path) -> None:
        header = {"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}
        with pytest.raises(UserError, match="damaged: the size of x does not fit its shape"):
            open_source(by_hand(tmp_path / "m.safetensors", header, bytes(8)))

    def test_types_that_are_no_weights(self, tmp_path: Path) -> None:
        header = {"x": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}
        with pytest.raises(UserError, match="tensors of type F8_E4M3"):
            open_source(by_hand(tmp_path / "m.safetensors", header, bytes(8)))


class Marker:
    """Creates a file when it is unpickled by anything that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class TestCkpt:
    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch", reason="needs the extra 'torch-data'")

    @pytest.fixture
    def tensors(self, torch: Any) -> dict[str, Any]:
        return {name: torch.from_numpy(value.copy()) for name, value in TENSORS.items()}

    @pytest.mark.parametrize("layout", ["bare", "state_dict", "nested", "deepspeed", "lightning"])
    def test_layouts(self, torch: Any, tensors: dict[str, Any], tmp_path: Path, layout: str) -> None:
        """DeepSpeed writes a prefix of 16 characters before every name, `_forward_module.`."""
        content = {
            "bare": tensors,
            "state_dict": {"state_dict": tensors},
            "nested": {"state_dict": {"state_dict": tensors}},
            "deepspeed": {"module": {f"_forward_module.{name}": value for name, value in tensors.items()}},
            "lightning": {
                "epoch": 3,
                "global_step": 9,
                "state_dict": tensors,
                "hyper_parameters": {"a": [1, "b", None]},
            },
        }[layout]
        torch.save(content, tmp_path / "m.ckpt")
        check(open_source(tmp_path / "m.ckpt"))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, torch: Any, tensors: dict[str, Any], tmp_path: Path, dtype: str) -> None:
        torch.save({name: value.to(getattr(torch, dtype)) for name, value in tensors.items()}, tmp_path / "m.pt")
        numpy_dtype = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
        check(open_source(tmp_path / "m.pt"), {name: value.astype(numpy_dtype) for name, value in TENSORS.items()})

    def test_views_of_a_larger_tensor(self, torch: Any, tmp_path: Path) -> None:
        whole = torch.arange(12.0).reshape(3, 4)
        torch.save({"x": whole.T, "y": whole[1]}, tmp_path / "m.pth")
        numpy = np.arange(12, dtype=np.float32).reshape(3, 4)
        check(open_source(tmp_path / "m.pth"), {"x": numpy.T, "y": numpy[1]})

    def test_code_is_never_run(self, torch: Any, tensors: dict[str, Any], tmp_path: Path) -> None:
        """The file would make a directory if it were unpickled like any other."""
        marker, path = tmp_path / "it ran", tmp_path / "m.ckpt"
        torch.save({"state_dict": tensors, "callbacks": Marker(marker)}, path)
        with pytest.raises(UserError, match="was refused: it names .*, which is no tensor and could run code"):
            open_source(path)
        assert not marker.exists()
        torch.load(path, weights_only=False)
        assert marker.is_dir()  # the trap is a real one

    def test_cut_off(self, torch: Any, tensors: dict[str, Any], tmp_path: Path) -> None:
        torch.save(tensors, tmp_path / "m.ckpt")
        (tmp_path / "m.ckpt").write_bytes((tmp_path / "m.ckpt").read_bytes()[:-100])
        with pytest.raises(UserError, match="not a PyTorch checkpoint in zip format or is cut off"):
            open_source(tmp_path / "m.ckpt")

    @pytest.mark.parametrize(
        ("content", "message"), [([1, 2], "no mapping from names to tensors"), ({"a": 1}, "holds no tensors")]
    )
    def test_no_tensors(self, torch: Any, tmp_path: Path, content: Any, message: str) -> None:
        torch.save(content, tmp_path / "m.ckpt")
        with pytest.raises(UserError, match=message):
            open_source(tmp_path / "m.ckpt")

    def test_a_zip_that_is_no_checkpoint(self, torch: Any, tmp_path: Path) -> None:
        import zipfile

        with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
            archive.writestr("readme.txt", "hello")
        with pytest.raises(UserError, match="was refused: it is a zip archive, but not of a PyTorch checkpoint"):
            open_source(tmp_path / "m.ckpt")


def test_checkpoints_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # what `import torch` then finds is that there is none
    shapes = {name: value.shape for name, value in TENSORS.items()}
    tensors = Tensors(shapes, lambda name: TENSORS[name])
    for wrappers in ((), ("state_dict",), ("state_dict", "state_dict")):
        check(open_source(write_checkpoint(tmp_path / "m.ckpt", tensors, wrappers=wrappers)))
    prefixed = tensors.prefixed("_forward_module.")
    check(open_source(write_checkpoint(tmp_path / "m.ckpt", prefixed, wrappers=("module",))))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.safetensors", None, "no file .*missing.safetensors"),
        ("empty.ckpt", b"", "is empty"),
        ("weights.gguf", b"GGUF", "is of an unknown kind: a weight file ends in .safetensors"),
        ("m.ckpt", b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS, .*: run git lfs pull"),
        ("m.safetensors", b"<!DOCTYPE html>", "is a web page, not a weight file: download the file itself"),
        ("m.ckpt.part", b"PK", "is a download that is not finished"),
    ],
)
def test_files_that_cannot_be_weights(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / name)


def test_endings_in_capitals(tmp_path: Path) -> None:
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "Model.SAFETENSORS")
    assert dict(open_source(tmp_path / "Model.SAFETENSORS").shapes) == {"a": (3,)}
    (tmp_path / "Model.CKPT").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is not a PyTorch checkpoint in zip format or is cut off"):
        open_source(tmp_path / "Model.CKPT")
    assert parse_name("owner/name/Model.CKPT") == HubName("owner/name", None, "Model.CKPT")


def test_a_directory_is_no_weight_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory, not a weight file"):
        open_source(tmp_path)


def test_the_weight_rule() -> None:
    """Frozen for ever: reference numbers were made with it. The values are of the published rule, computed by hand."""
    source = RuleSource({"x.weight": (2, 3), "x.bias": (2,)})
    check(source, {name: make(name, shape) for name, shape in source.shapes.items()})
    import zlib

    raw = np.random.PCG64(zlib.crc32(b"x.bias")).random_raw(2)
    unit = [((int(r) >> 40) / 2**23 - 1) * 3**0.5 for r in raw]
    np.testing.assert_allclose(source.read("x.bias"), [0.1 * u for u in unit], rtol=1e-6)
