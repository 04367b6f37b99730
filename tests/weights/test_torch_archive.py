"""PyTorch's checkpoints are read without PyTorch as PyTorch reads them; nothing in them is run."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hostile.amounts import bounded_memory
from tests.weights.layouts import Tensors, write_checkpoint
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.weights.array_pickle import UnsafePickle
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.weights.torch_archive import TorchSource, read_tensors
from tooncrafter_jax.weights.torch_pickle import load_pickle

torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")

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


def test_views_of_a_larger_tensor() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    found = read_tensors(saved({"a": whole.T, "b": whole[1], "c": whole[:, 1:3], "d": whole[0, :2]}))
    np.testing.assert_array_equal(found["a",], whole.T)
    np.testing.assert_array_equal(found["b",], whole[1])
    np.testing.assert_array_equal(found["c",], whole[:, 1:3])
    np.testing.assert_array_equal(found["d",], whole[0, :2])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": Path("x")}, "it names pathlib"),
        ({"a": torch.zeros(2, dtype=torch.float16)}, "not float32"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "tensors of type torch.ComplexFloatStorage"),
        ({"a": 1.0}, "no dict of tensors"),
        ([torch.zeros(2)], "no dict of tensors"),
    ],
    ids=["code", "half", "complex", "number", "list"],
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


class TestFiles:
    """`TorchSource`: a file of any size, tensor by tensor."""

    def source(self, tmp_path: Path, value: Any, **settings: Any) -> TorchSource:
        torch.save(value, tmp_path / "m.ckpt", **settings)
        return TorchSource(tmp_path / "m.ckpt")

    @pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
    def test_every_type_of_number(self, tmp_path: Path, is_zip: bool) -> None:
        values = {
            name: (torch.arange(6).reshape(2, 3) % 2).to(getattr(torch, name))
            for name in (
                "float64",
                "float32",
                "float16",
                "bfloat16",
                "int64",
                "int32",
                "int16",
                "int8",
                "uint8",
                "bool",
            )
        }
        source = self.source(tmp_path, values, _use_new_zipfile_serialization=is_zip)
        for name, value in values.items():
            found = source.read(name)
            assert str(found.dtype) == name and found.shape == (2, 3)
            np.testing.assert_array_equal(found.astype(np.float64), value.to(torch.float64).numpy())

    @pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
    def test_views_share_a_storage(self, tmp_path: Path, is_zip: bool) -> None:
        whole = torch.arange(24.0).reshape(2, 3, 4)
        values = {
            "whole": whole,
            "turned": whole.permute(2, 0, 1),
            "part": whole[1, :, 1:3],
            "strided": whole[:, ::2],
            "repeated": whole[0, 0].expand(2, 4)[:, :2],
            "scalar": whole[1, 2, 3],
            "empty": whole[:0],
            "parameter": torch.nn.Parameter(whole[0]),
        }
        source = self.source(tmp_path, values, _use_new_zipfile_serialization=is_zip)
        for name, value in values.items():
            np.testing.assert_array_equal(source.read(name), value.detach().numpy(), err_msg=name)

    def test_a_file_whose_checksums_are_not_computed(self, tmp_path: Path) -> None:
        before = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)
        try:
            source = self.source(tmp_path, {"a": torch.arange(6.0)})
        finally:
            torch.serialization.set_crc32_options(before)
        np.testing.assert_array_equal(source.read("a"), np.arange(6.0))

    def test_damaged_numbers(self, tmp_path: Path) -> None:
        path = tmp_path / "m.ckpt"
        self.source(tmp_path, {"a": torch.arange(6.0)})
        data = bytearray(path.read_bytes())
        data[data.index(np.arange(6, dtype=np.float32).tobytes()) + 5] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(UserError, match="tensor a of .* cannot be read: it is damaged or cut off; copy the file"):
            TorchSource(path).read("a")

    def test_our_own_writer_writes_what_torch_reads(self, tmp_path: Path) -> None:
        """The tests' files of other layouts are written without PyTorch."""
        tensors = Tensors(TENSORS, lambda name: unit_noise(name, TENSORS[name]))
        path = write_checkpoint(tmp_path / "m.ckpt", tensors, "bfloat16", ("state_dict", "state_dict"))
        loaded = torch.load(path, weights_only=True)["state_dict"]["state_dict"]
        source = TorchSource(path)
        for name, value in loaded.items():
            np.testing.assert_array_equal(source.read(name).astype(np.float32), value.float().numpy())
        assert list(loaded) == list(TENSORS)

    def test_a_file_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "m.pth"
        for is_zip in (True, False):
            torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=is_zip)
            path.write_bytes(path.read_bytes()[:-500])
            with pytest.raises(UserError, match="is cut off: copy it again|was refused: it is (damaged or )?cut off"):
                TorchSource(path)

    def test_an_archive_of_several_disks(self, tmp_path: Path) -> None:
        """Some of Python's versions raise an error of their own where they only look for the archive's end."""
        whole, locator = saved({"a": torch.zeros(3)}), struct.pack("<4sIQI", b"PK\x06\x07", 1, 0, 2)
        (tmp_path / "m.pth").write_bytes(whole[:-22] + locator + whole[-22:])
        with pytest.raises(UserError, match="is cut off: copy it again|was refused: it is damaged"):
            TorchSource(tmp_path / "m.pth")

    def test_a_pickle_that_asks_for_memory(self, tmp_path: Path) -> None:
        """A number of the memo that is far larger than the pickle makes Python's reader allocate as many places."""
        for listing in (b"\x80\x02}r\xff\xff\xff\x7f.", b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x."):
            with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
                archive.writestr("archive/data.pkl", listing)
            with bounded_memory(64), pytest.raises(UserError, match="was refused: it is damaged"):
                TorchSource(tmp_path / "m.ckpt")

    def test_keys_that_would_be_compared_for_ever(self, tmp_path: Path) -> None:
        """A tuple that is twice in the next one, and so on sixty times, is small, and is looked through 2^60 times."""
        twice = b"2\x86" * 60
        by_number = b"q\x00h\x00\x86" * 60
        ordered = b"ccollections\nOrderedDict\n(]N" + twice + b"K\x01\x86atR."
        for listing in (
            b"}N" + twice + b"Ns.",
            b"}N" + by_number + b"Ns.",
            b"}(N" + twice + b"Nu.",
            b"(N" + twice + b"Nd.",
            b"\x8f(N" + twice + b"\x90.",
            ordered,
        ):
            with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
                archive.writestr("archive/data.pkl", b"\x80\x04" + listing)
            with pytest.raises(UserError, match="was refused: (a dict|it has the instruction)"):
                TorchSource(tmp_path / "m.ckpt")

    def test_a_storage_list_that_would_be_written_out_for_ever(self, tmp_path: Path) -> None:
        begins = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {})
        keys = b"\x80\x02(]q\x00" + b"](h\x00h\x00eq\x00" * 60 + b"l."
        path = tmp_path / "m.ckpt"
        path.write_bytes(b"".join(pickle.dumps(value, protocol=2) for value in begins) + keys)
        with pytest.raises(UserError, match="it lists other storages than its tensors are in"):
            TorchSource(path)

    def test_a_list_that_is_copied_again_and_again(self, tmp_path: Path) -> None:
        """Each instruction would make another dict of 3,000 items, and keep it."""
        items = b"](" + b"".join(b"U\x02%02xK\x01\x86" % (number % 256) for number in range(3000)) + b"e\x85q\x00"
        calls = b"ccollections\nOrderedDict\nq\x010](" + b"h\x01h\x00R" * 3000 + b"e."
        with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + items + b"0" + calls)
        with pytest.raises(UserError, match="was refused: it makes more than it holds"):
            TorchSource(tmp_path / "m.ckpt")

    def test_a_dict_of_python_2(self, tmp_path: Path) -> None:
        """It gave the items as a list of lists."""
        values = b"](](U\x01aK\x01e](U\x01bK\x02ee"
        listing = b"\x80\x02}(U\x01xccollections\nOrderedDict\n" + values + b"\x85RK\x05Nu."
        assert load_pickle(listing).value == {"x": {"a": 1, "b": 2}, 5: None}

    def test_what_a_pickle_names_cannot_be_changed(self, tmp_path: Path) -> None:
        """An instruction sets attributes on whatever is on the stack, so also on what stands for a function."""
        state = b"}X\x01\x00\x00\x00aK\x01s"
        for name in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"):
            for change in (state + b"b", b"N" + state + b"\x86b"):
                with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
                    archive.writestr("archive/data.pkl", b"\x80\x02" + name + change + b".")
                with pytest.raises(UserError, match="was refused"):
                    TorchSource(tmp_path / "m.ckpt")


def test_damage_is_found() -> None:
    data = saved(tensors())
    for damaged in (data[: len(data) // 2], b"", b"\x80\x02}."):
        with pytest.raises(UnsafePickle, match="damaged|a pickle, but not of a PyTorch checkpoint"):
            read_tensors(damaged)
    changed = bytearray(data)
    changed[data.index(unit_noise("a.0.weight", (3, 2, 4)).tobytes())] ^= 1
    with pytest.raises(UnsafePickle, match="damaged"):  # the archive has a checksum of each file
        read_tensors(bytes(changed))
