"""The header of a .safetensors file, checked whole before a byte of a tensor is read.

A file begins with the length of its header, 8 bytes; then the header, a JSON object from names to dtype, shape and
place; then the tensors' bytes, one tensor after another without holes (github.com/huggingface/safetensors, "Format").
Nothing in it is trusted: a file can come from anybody.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.json_files import RepeatedKey, is_text, parse_json

LARGEST_HEADER = 2**24
"""Bytes. The format allows 100 MB; all names of the published model take less than 0.5 MB, and JSON grows twentyfold
when read.
"""
MOST_DIMENSIONS = 8
"""Of a tensor; a convolution's kernel over space and time has 5."""
LONGEST_NAME = 1000
"""Characters of a tensor's name."""
LARGEST_DIMENSION = 2**48
"""Of a tensor, and of all its dimensions but those of 0 together; one without elements could state any other."""

_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
}


class Entry(NamedTuple):
    """A tensor in a file.

    Attributes:
      dtype: as the format names it, e.g. "BF16".
      shape: of the tensor.
      start, stop: its bytes in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
      tensors: name -> where it is.
      metadata: what else the writer has noted, text by name.
    """

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Reads and checks a header: afterwards every tensor lies inside the file, alone, with as many bytes as its shape
    has.

    Raises:
      UserError: the file is no safetensors file, is cut off, or its header contradicts itself.
      OSError: the file cannot be read.
    """
    broken = f"{path} is not a safetensors file or is cut off: copy it again"
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise UserError(broken)
        (length,) = struct.unpack("<Q", prefix)
        if length > size - 8:
            raise UserError(broken)
        if length > LARGEST_HEADER:
            raise UserError(
                f"{path} states a header of {length:,} bytes, but that of a model has at most {LARGEST_HEADER:,}: "
                "it is damaged or no weight file, copy it again"
            )
        text = file.read(length)
    try:
        content = parse_json(text.decode())  # a text: a mark of the order of bytes before it is no JSON here
    except RepeatedKey as error:
        raise UserError(f"the header of {path} is damaged, {error}: copy the file again") from error
    except ValueError as error:
        raise UserError(broken) from error
    metadata = content.pop("__metadata__", {}) if isinstance(content, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UserError(broken)
    if not all(_is_entry(entry) for entry in content.values()):
        raise UserError(broken)
    entries = {
        name: Entry(entry["dtype"], tuple(entry["shape"]), *(8 + length + place for place in entry["data_offsets"]))
        for name, entry in content.items()
    }
    _check(path, entries, 8 + length, size)
    if not is_text(json.dumps([content, metadata], ensure_ascii=False)):  # escapes can make halves of characters
        raise UserError(broken)
    return Header(entries, metadata)


def _is_entry(entry: object) -> bool:
    """Whether a tensor's entry in the header has the form that the format prescribes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list):
        return False
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *offsets)):
        return False
    return len(offsets) == 2 and offsets[0] <= offsets[1]


def _check(path: Path, entries: Mapping[str, Entry], start: int, size: int) -> None:
    """Names, shapes and places, in an order that names the plainest fault first."""
    end = max((entry.stop for entry in entries.values()), default=start)
    if end > size:
        raise UserError(
            f"{path} is cut off: it holds {size - start:,} of {end - start:,} bytes of tensors; copy it again"
        )
    for name, entry in entries.items():
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"{path} has a tensor with a name of {len(name):,} characters: it is damaged or no weight file, copy "
                "it again"
            )
        if not is_text(name):
            raise UserError(f"{path} has a tensor whose name is not text: it is damaged, copy it again")
        if len(entry.shape) > MOST_DIMENSIONS or _largest(entry.shape) > LARGEST_DIMENSION:
            raise UserError(
                f"{path} states the shape {'x'.join(map(str, entry.shape[:MOST_DIMENSIONS]))}... of {len(entry.shape)} "
                f"dimensions for the tensor {name}, which no weights have: copy the file again if it is one of weights"
            )
        bits = _BITS.get(entry.dtype)
        if bits is not None and (entry.stop - entry.start) * 8 != prod(entry.shape) * bits:
            raise UserError(f"{path} is damaged: the size of {name} does not fit its shape; copy it again")
    place = start
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != place:
            what = "lies over another" if entry.start < place else "does not follow the one before it"
            raise UserError(f"{path} is damaged: the tensor {name} {what}; copy it again")
        place = entry.stop
    if place != size:
        raise UserError(f"{path} is damaged: {size - place:,} bytes behind its tensors belong to none; copy it again")


def _largest(shape: tuple[int, ...]) -> int:
    """The largest dimension of a shape, or where it has no numbers, the product of its others."""
    return max(prod(n or 1 for n in shape) if 0 in shape else 0, *shape, 0)
