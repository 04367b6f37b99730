"""Pickles of arrays are read exactly, and nothing in them is ever run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tooncrafter_jax.weights.array_pickle import UnsafePickle, read_arrays

NESTED = {
    "params": {
        "a/b": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7},
        "column major": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    },
    "scalar": np.asarray(1.5, np.float32),
    "none": np.zeros((0, 3), np.float32),
}


class Trap:
    """Makes a directory when it is unpickled by anything that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_are_read_exactly(protocol: int) -> None:
    found = read_arrays(pickle.dumps(NESTED, protocol=protocol))
    assert set(found) == {("params", "a/b", "kernel"), ("params", "column major"), ("scalar",), ("none",)}
    for path, array in found.items():
        expected: Any = NESTED
        for key in path:
            expected = expected[key]
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_names_of_numpys_module(module: bytes) -> None:
    """Version 2 has moved it; files of either version are read with either."""
    text = pickle.dumps({"a": np.ones(2, np.float32)}, protocol=3)
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        text = text.replace(b"c" + name + b"\n", b"c" + module + b"\n")
    assert module + b"\n" in text
    np.testing.assert_array_equal(read_arrays(text)[("a",)], [1, 1])


def test_code_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "it ran"
    data = pickle.dumps({"a": np.ones(2, np.float32), "b": Trap(trap)}, protocol=4)
    with pytest.raises(UnsafePickle, match="it names posix.mkdir, which is no array"):
        read_arrays(data)
    assert not trap.exists()
    pickle.loads(data)
    assert trap.is_dir()  # the trap is a real one


@pytest.mark.parametrize(
    "name", ["builtins eval", "numpy load", "numpy.core.multiarray scalar", "os _reconstruct", "builtins dtype"]
)
def test_other_names_are_refused(name: str) -> None:
    """Only numpy's own three names, in numpy's own modules."""
    with pytest.raises(UnsafePickle, match=f"it names {name.replace(' ', '.')}"):
        read_arrays(f"c{name.replace(' ', chr(10))}\n.".encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.ones(2, np.float64)}, "not of little-endian float32"),
        ({"a": np.ones(2, ">f4")}, "not of little-endian float32"),
        ({"a": np.asarray([{}, []], object)}, "not of little-endian float32"),
        ({"a": [np.ones(2, np.float32)]}, "a is neither a dict nor an array"),
        ({"a": {"b": 3}}, "a/b is neither a dict nor an array"),
        ({1: np.ones(2, np.float32)}, "its whole is neither a dict nor an array"),
        ("text", "its whole is neither a dict nor an array"),
    ],
)
def test_other_contents_are_refused(content: Any, message: str) -> None:
    with pytest.raises(UnsafePickle, match=message):
        read_arrays(pickle.dumps(content, protocol=4))


def test_a_shape_that_does_not_fit() -> None:
    data = pickle.dumps({"a": np.ones((5, 7), np.float32)}, protocol=4)
    assert data.count(b"K\x05K\x07\x86") == 1
    with pytest.raises(UnsafePickle, match="an array's shape does not fit its bytes"):
        read_arrays(data.replace(b"K\x05K\x07\x86", b"K\x05K\x08\x86"))


def test_damaged_pickles() -> None:
    data = pickle.dumps(NESTED, protocol=4)
    for length in range(0, len(data), 29):
        with pytest.raises(UnsafePickle):
            read_arrays(data[:length])
