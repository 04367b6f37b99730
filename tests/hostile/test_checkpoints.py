"""PyTorch's files from anybody: tensors or a sentence; nothing unfolds, nothing runs."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hostile.amounts import amounts, bounded_memory, holds_for
from tests.hostile.strategies import spoilt_bytes
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.weights.array_pickle import UnsafePickle, read_arrays
from tooncrafter_jax.weights.sources import open_source
from tooncrafter_jax.weights.torch_archive import read_tensors

torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")


def saved(value: Any, **settings: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **settings)
    return file.getvalue()


def rezipped(data: bytes, compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> bytes:
    """The same archive with the listing replaced."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(file, "w", compression) as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, replaced.get("listing", content) if name.endswith("data.pkl") else content)
    return file.getvalue()


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
VALID, LEGACY = saved(TENSORS), saved(TENSORS, _use_new_zipfile_serialization=False)


def is_read_or_refused(path: Path) -> None:
    try:
        source = open_source(path)
        assert all(source.read(name).shape == shape for name, shape in source.shapes.items())
    except UserError:
        pass


@amounts
@pytest.mark.parametrize("valid", [VALID, LEGACY], ids=["zip", "before 1.6"])
def test_any_checkpoint(tmp_path: Path, examples: int, valid: bytes) -> None:
    path = tmp_path / "m.ckpt"

    def holds(data: bytes) -> None:
        path.write_bytes(data)
        is_read_or_refused(path)

    holds_for(examples, spoilt_bytes(valid), holds)


@amounts
def test_any_listing(tmp_path: Path, examples: int) -> None:
    """The pickle inside is spoilt, and the archive is whole."""
    path = tmp_path / "m.ckpt"
    with zipfile.ZipFile(io.BytesIO(VALID)) as archive:
        listing = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))

    def holds(text: bytes) -> None:
        path.write_bytes(rezipped(VALID, listing=text))
        is_read_or_refused(path)

    holds_for(examples, spoilt_bytes(listing), holds)


@amounts
def test_any_archive_and_pickle_of_a_package(examples: int) -> None:
    def archive(data: bytes) -> None:
        try:
            assert all(value.dtype == np.float32 for value in read_tensors(data).values())
        except UnsafePickle:
            pass

    def arrays(data: bytes) -> None:
        try:
            assert all(value.dtype == np.float32 for value in read_arrays(data).values())
        except UnsafePickle:
            pass

    holds_for(examples, spoilt_bytes(VALID), archive)
    pickled = pickle.dumps({"a": {"b": np.ones((2, 3), np.float32)}}, protocol=4)
    holds_for(examples, spoilt_bytes(pickled), arrays)


def test_an_archive_that_unfolds(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    path.write_bytes(rezipped(VALID, zipfile.ZIP_DEFLATED, listing=b"\x80\x02" + b"0" * 300_000_000))
    assert path.stat().st_size < 2**20
    with bounded_memory(128), pytest.raises(UserError, match="was refused: files in it are compressed"):
        open_source(path)


def test_a_tensor_without_numbers_of_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    torch.save({"a": torch.zeros(1).as_strided((0, 2**30), (1, 0)), "b": torch.zeros(1)}, path)
    assert open_source(path).read("a").shape == (0, 2**30)
    torch.save({"a": torch.zeros(1).as_strided((0, 2**31, 2**31), (1, 0, 0)), "b": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="a tensor states a shape that no weights have"):
        open_source(path)


def test_a_tensor_of_more_numbers_than_there_are(tmp_path: Path) -> None:
    """A stride of 0 repeats one number 2^40 times; it may be stated, but is never made."""
    path = tmp_path / "m.ckpt"
    torch.save({"a": torch.ones(1).expand(2**40)}, path)
    source = open_source(path)
    with bounded_memory(256), pytest.raises(UserError, match="a tensor states more numbers than the file holds"):
        source.read("a")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, dtype=torch.complex64), "of type torch.ComplexFloatStorage, which no weights have"),
        (torch.eye(2).to_sparse(), "it names torch._utils._rebuild_sparse_tensor"),
        (torch.ones(2, device="meta"), "it names torch._utils._rebuild_meta_tensor_no_storage"),
    ],
    ids=["complex", "sparse", "meta"],
)
def test_tensors_that_are_no_weights(tmp_path: Path, tensor: Any, message: str) -> None:
    path = tmp_path / "m.ckpt"
    torch.save({"a": tensor}, path)
    with pytest.raises(UserError, match=message):
        open_source(path).read("a")
