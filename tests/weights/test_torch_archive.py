"""PyTorch's checkpoints are read without PyTorch, and what is not a dict of float32 tensors is refused."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tooncrafter_jax.weights.array_pickle import UnsafePickle
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.weights.torch_archive import read_tensors

torch = pytest.importorskip("torch", reason="needs the extra 'convert'")

TENSORS = {"a.0.weight": (3, 2, 4), "a.0.bias": (3,), "b": ()}


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def tensors() -> dict[str, Any]:
    return {name: torch.from_numpy(unit_noise(name, shape)) for name, shape in TENSORS.items()}


@pytest.mark.parametrize("container", [dict, collections.OrderedDict])
def test_tensors_are_those_of_torch(container: type) -> None:
    found = read_tensors(saved(container(tensors())))
    assert list(found) == [tuple(name.split(".")) for name in TENSORS]
    for name, shape in TENSORS.items():
        np.testing.assert_array_equal(found[tuple(name.split("."))], unit_noise(name, shape))


def test_a_modules_state_with_its_attributes() -> None:
    layer = torch.nn.Linear(2, 3)
    found = read_tensors(saved(layer.state_dict()))
    np.testing.assert_array_equal(found["weight",], layer.weight.detach().numpy())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": Path("x")}, "it names pathlib"),
        ({"a": torch.zeros(2, dtype=torch.float16)}, "it names torch.HalfStorage"),
        ({"a": 1.0}, "no dict of tensors"),
        ([torch.zeros(2)], "no dict of tensors"),
        ({"a": torch.zeros(2, 3).T}, "row-major order"),
        ({"a": torch.zeros(4)[1:]}, "row-major order"),
        ({"a": torch.zeros(4)[:2]}, "does not fit its bytes"),
    ],
    ids=["code", "half", "number", "list", "transposed", "view", "part"],
)
def test_anything_else_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(UnsafePickle, match=reason):
        read_tensors(saved(value))


def test_a_function_is_named_not_called() -> None:
    """A pickle that would run a command."""

    class Command:
        def __reduce__(self) -> Any:
            return print, ("ran",)

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Command()}, protocol=2))
    with pytest.raises(UnsafePickle, match="it names (__builtin__|builtins).print"):
        read_tensors(file.getvalue())


def test_damage_is_found() -> None:
    data = saved(tensors())
    for damaged in (data[: len(data) // 2], b"", b"\x80\x02}."):
        with pytest.raises(UnsafePickle, match="damaged"):
            read_tensors(damaged)
    changed = bytearray(data)
    changed[data.index(unit_noise("a.0.weight", (3, 2, 4)).tobytes())] ^= 1
    with pytest.raises(UnsafePickle, match="damaged"):  # the archive has a checksum of each file
        read_tensors(bytes(changed))
