"""PyTorch's checkpoint files, read without PyTorch: tensors in place, one at a time, and nothing in them is ever run.

Since version 1.6 such a file is a zip archive of files that are not compressed: a pickle that says how the tensors are
made (`torch_pickle`), and one file of plain bytes for each storage. Before, it was a series of pickles with the
storages' bytes behind them.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostArray, Tensors
from tooncrafter_jax.weights.array_pickle import UnsafePickle
from tooncrafter_jax.weights.safetensors_header import LONGEST_NAME
from tooncrafter_jax.weights.torch_pickle import Storage, TensorRecord, load_pickle, span

LARGEST_LISTING = 2**26
"""Bytes of the pickle that says how a checkpoint's tensors are made; that of the published model has less than 1 MB."""
DEEPSPEED_PREFIX_LENGTH = 16
"""Characters in front of every name in a DeepSpeed file, `_forward_module.` (spec section 1)."""
_ZIP_MAGIC, _ZIP_HEADER, _LITTLE = b"PK\x03\x04", 30, b"little"
_LEGACY_MAGIC, _LEGACY_PROTOCOL, _COUNT = 0x1950A86A20F9469CFC6C, 1001, 8
"""The first two numbers of a file from before version 1.6, and how many bytes say how long a storage is
(torch.serialization).
"""

Opener = Callable[[], io.BufferedIOBase]
"""Opens the file once more."""


class _Place(NamedTuple):
    """Where the bytes of a storage are.

    Attributes:
      start: in the file.
      length: in bytes.
      checksum: CRC-32 of the bytes; None where the file has none.
    """

    start: int
    length: int
    checksum: int | None


class _Container:
    """A checkpoint file of either layout: what its pickle describes, and the bytes of its storages.

    Raises:
      UnsafePickle: if it is damaged, or holds anything but tensors and plain values.
    """

    def __init__(self, open_file: Opener) -> None:
        self._open = open_file
        with open_file() as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            self._find, self.content = _read_zip(file) if is_zip else _read_legacy(file)

    def read(self, record: TensorRecord) -> HostArray:
        """A tensor.

        Raises:
          UnsafePickle: if its bytes are damaged.
          OSError: if they cannot be read.
        """
        storage, size = record.storage, record.storage.dtype.itemsize
        count = prod(record.shape)
        if count == 0:
            return np.zeros(record.shape, storage.dtype)
        if count > storage.numbers:
            raise UnsafePickle("a tensor states more numbers than the file holds for it")
        with self._open() as file:
            place = self._find(file, storage)
            if place.length != storage.numbers * size:
                raise UnsafePickle("a storage has another size than stated")
            part = _Place(place.start + record.offset * size, span(record) * size, None)
            raw = _bytes_at(file, place if part.length == place.length else part)
        flat = np.frombuffer(raw, storage.dtype)
        if record.strides == _contiguous(record.shape):
            return flat.reshape(record.shape)
        steps = [stride * size for stride in record.strides]
        return np.lib.stride_tricks.as_strided(flat, record.shape, steps, writeable=False)


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a row-major tensor."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


Find = Callable[[io.BufferedIOBase, Storage], _Place]
"""Looks up where a storage's bytes are."""


def _read_zip(file: io.BufferedIOBase) -> tuple[Find, Any]:
    """What tells where storages are, and what the pickle describes.

    Raises:
      UnsafePickle: if the archive is damaged or not laid out as PyTorch does it: every file as it is, none twice, and
        no huge listing; so that it cannot unfold into more than it is.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            count = len(archive.infolist())
    except Exception as error:  # BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError, ...
        raise UnsafePickle(f"it is damaged or cut off ({type(error).__name__})") from error
    if len(entries) < count:
        raise UnsafePickle("it is damaged, as it has files twice")
    _check_entries(list(entries.values()), file.seek(0, io.SEEK_END))
    listings = [name for name in entries if name.endswith("/data.pkl")]
    if len(listings) != 1:
        raise UnsafePickle("it is a zip archive, but not of a PyTorch checkpoint")
    folder = listings[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and not _is_little(file, _place_of(file, order)):
        raise UnsafePickle("its numbers are in the order of big-endian machines")

    def find(file: io.BufferedIOBase, storage: Storage) -> _Place:
        if f"{folder}data/{storage.key}" not in entries:
            raise UnsafePickle("a storage is missing")
        return _place_of(file, entries[f"{folder}data/{storage.key}"])

    return find, load_pickle(_bytes_at(file, _place_of(file, entries[listings[0]]))).value


def _is_little(file: io.BufferedIOBase, place: _Place) -> bool:
    return place.length == len(_LITTLE) and _bytes_at(file, place) == _LITTLE


def _place_of(file: io.BufferedIOBase, entry: zipfile.ZipInfo) -> _Place:
    """Where the bytes of a file in an archive are; PyTorch may leave its checksum out, which then is 0."""
    file.seek(entry.header_offset)
    header = file.read(_ZIP_HEADER)
    if len(header) < _ZIP_HEADER or header[:4] != _ZIP_MAGIC:
        raise UnsafePickle("it is damaged or cut off")
    start = entry.header_offset + _ZIP_HEADER + sum(struct.unpack("<HH", header[26:30]))
    return _Place(start, entry.file_size, entry.CRC or None)


def _bytes_at(file: io.BufferedIOBase, place: _Place) -> bytes:
    """The bytes there, checked if there is a checksum of them."""
    file.seek(place.start)
    found = file.read(place.length)
    if len(found) != place.length or (place.checksum is not None and zlib.crc32(found) != place.checksum):
        raise UnsafePickle("it is damaged or cut off")
    return found


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise UnsafePickle("files in it are compressed")
    if not all(0 <= entry.header_offset < size for entry in entries):
        raise UnsafePickle("it is damaged or cut off")
    if any(entry.flag_bits & 1 for entry in entries):
        raise UnsafePickle("files in it are encrypted")
    if sum(entry.file_size for entry in entries) > size:
        raise UnsafePickle("files in it lie over one another")
    largest = max((entry.file_size for entry in entries if entry.filename.endswith("/data.pkl")), default=0)
    if largest > LARGEST_LISTING:
        raise UnsafePickle(f"it has a listing of {largest:,} bytes")


def _read_legacy(file: io.BufferedIOBase) -> tuple[Find, Any]:
    """The same of a file from before PyTorch 1.6: five pickles, and for each storage its length and its bytes."""
    file.seek(0)
    head = file.read(LARGEST_LISTING)
    magic = load_pickle(head)
    if magic.value != _LEGACY_MAGIC:
        raise UnsafePickle("it is a pickle, but not of a PyTorch checkpoint")
    protocol = load_pickle(head, magic.end)
    system = load_pickle(head, protocol.end)
    content = load_pickle(head, system.end)
    keys = load_pickle(head, content.end)
    if protocol.value != _LEGACY_PROTOCOL or not isinstance(system.value, Mapping):
        raise UnsafePickle("it is of a version of the format that nobody writes")
    if system.value.get("little_endian") is not True:
        raise UnsafePickle("its numbers are in the order of big-endian machines")
    named = keys.value if isinstance(keys.value, list) else [None]
    listed = [key for key in named if isinstance(key, str)]
    if len(listed) < len(named) or sorted(listed) != sorted(content.storages):
        raise UnsafePickle("it lists other storages than its tensors are in")
    places, end = dict[str, _Place](), keys.end
    for key in listed:
        storage = content.storages[key]
        length = storage.numbers * storage.dtype.itemsize
        places[key] = _Place(end + _COUNT, length, None)
        file.seek(end)
        if file.read(_COUNT) != struct.pack("<q", storage.numbers):
            raise UnsafePickle("it is damaged or cut off: a storage has another size than stated")
        end += _COUNT + length
    if end > file.seek(0, io.SEEK_END):
        raise UnsafePickle("it is cut off")
    return lambda file, storage: places[storage.key], content.value


def read_tensors(data: bytes) -> Tensors:
    """The float32 tensors of a checkpoint that holds one dict of them.

    Args:
      data: the file.

    Returns:
      The name, split at its dots -> the tensor.

    Raises:
      UnsafePickle: if the file holds or names anything but a dict of float32 tensors, or is damaged.
    """
    container = _Container(lambda: io.BytesIO(data))
    content = container.content
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, TensorRecord) for name, value in content.items()
    ):
        raise UnsafePickle("it is no dict of tensors")
    if any(value.storage.dtype != np.float32 for value in content.values()):
        raise UnsafePickle("it holds tensors that are not float32")
    return {tuple(name.split(".")): container.read(value) for name, value in content.items()}


def _is_zip(file: io.BufferedIOBase) -> bool:
    """Whether a zip archive's end is there."""
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # Python 3.11 raises it where an archive of several disks is claimed
        return False


class TorchSource:
    """Tensors of a PyTorch checkpoint, each read from its place when it is asked for.

    Args:
      path: a file with a `state_dict` (possibly nested twice), a DeepSpeed `module`, or the tensors themselves.

    Attributes:
      where: the file, for messages.
      shapes: name -> shape.

    Raises:
      UserError: if the file is damaged or holds anything but tensors and plain values.
      OSError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        with path.open("rb") as file:
            start = file.read(4)
            complete = _is_zip(file) if start == _ZIP_MAGIC else start[:1] == b"\x80"
        if not complete:
            raise UserError(f"{path} is not a PyTorch checkpoint in zip format or is cut off: copy it again")
        try:
            self._container = _Container(lambda: path.open("rb"))
        except UnsafePickle as error:
            raise UserError(
                f"{path} was refused: {error}; copy it again if it is damaged, else ask for a .safetensors file"
            ) from error
        self._tensors = _unwrapped(self._container.content, self.where)
        self.shapes = {name: record.shape for name, record in self._tensors.items()}

    def read(self, name: str) -> HostArray:
        """The tensor of this name in the file's dtype.

        Raises:
          UserError: if it is damaged, or states more numbers than the file holds for it.
        """
        try:
            return self._container.read(self._tensors[name])
        except UnsafePickle as error:
            raise UserError(
                f"the tensor {name} of {self.where} cannot be read: {error}; copy the file again"
            ) from error
        except OSError as error:
            raise UserError(f"cannot read {self.where} ({error.strerror}): check the disk that it is on") from error


def _unwrapped(content: object, where: str) -> dict[str, TensorRecord]:
    """The name -> tensor mapping inside a checkpoint's wrappers (spec section 1)."""
    for _ in range(2):
        if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
            content = content["state_dict"]
    if isinstance(content, Mapping) and isinstance(content.get("module"), Mapping):
        content = {str(name)[DEEPSPEED_PREFIX_LENGTH:]: value for name, value in content["module"].items()}
    if not isinstance(content, Mapping):
        raise UserError(f"{where} holds no mapping from names to tensors: name a file of weights")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, TensorRecord)}
    if not tensors:
        raise UserError(f"{where} holds no tensors: name a file of weights")
    longest = max(map(len, tensors))
    if longest > LONGEST_NAME:
        raise UserError(
            f"{where} has a tensor with a name of {longest:,} characters: it is damaged or no weight file, copy it "
            "again"
        )
    return tensors
