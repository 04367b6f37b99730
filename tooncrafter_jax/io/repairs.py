"""Pictures that Pillow refuses although every pixel is there: PNG with much metadata, JPEG without its end marker."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises for a file that is not as its format says, beside DecompressionBombError and MemoryError.

Found by reading its decoders and by decoding some ten thousand damaged files of each format.
"""
MAX_FILE_BYTES = 1 << 30
"""A larger file is not read into memory to be repaired: the largest picture allowed has 0.8 GB without compression."""
MAX_PROFILE_BYTES = 16 << 20
"""Of a colour profile after decompression; printing profiles have up to about 10 MiB. Pillow allows PNG but one."""

Decoded = tuple[Image.Image, int | None]
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"


def repaired(path: str, decode: Callable[[bytes], Decoded]) -> tuple[Decoded, str] | None:
    """What a refused file holds, and how the sentence goes on that says what was done.

    Args:
      path: a PNG or JPEG file.
      decode: a file's bytes to the loaded picture; raises one of `DECODING_ERRORS` for a damaged one.

    Returns:
      None where the pixels are not there.
    """
    try:
        if os.path.getsize(path) > MAX_FILE_BYTES:
            return None
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(_PNG):
            return _png_without_metadata(data, decode)
        if data.startswith(_JPEG):
            return _jpeg_with_its_end(data, decode)
    except (MemoryError, Image.DecompressionBombError, *DECODING_ERRORS):
        return None
    return None


def _png_without_metadata(data: bytes, decode: Callable[[bytes], Decoded]) -> tuple[Decoded, str]:
    kept, dropped, profile = [_PNG], 0, None
    for kind, chunk in _png_chunks(data):
        if kind in _PNG_TEXT:
            dropped += len(chunk)
        elif kind == b"iCCP":
            profile = _inflated(chunk[8:-4].partition(b"\0")[2][1:])
        else:
            kept.append(chunk)
    image, depth = decode(b"".join(kept))
    if profile is not None:
        image.info["icc_profile"] = profile
    return (image, depth), f"has {dropped / 2**20:.1f} MiB of text, which is ignored" if dropped else (
        "has a large colour profile, which Pillow does not read by itself"
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind of each chunk, and the whole of it: length, kind, contents, checksum."""
    position = len(_PNG)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        yield data[position + 4 : position + 8], data[position:end]
        position = end


def _inflated(compressed: bytes) -> bytes:
    """A profile; what is no profile, or too large, is left as it is, and is refused where it is used."""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(compressed, MAX_PROFILE_BYTES)
    except zlib.error:
        return compressed
    return compressed if inflater.unconsumed_tail else profile


def _jpeg_with_its_end(data: bytes, decode: Callable[[bytes], Decoded]) -> tuple[Decoded, str] | None:
    """A JPEG that ends too early, if what may have followed does not matter.

    A decoder goes on with zero bits where bits are missing. So if the pixels are the same with other bits behind the
    end, none were missing.
    """
    whole = data.rstrip(b"\xff")
    found = decode(whole + _JPEG_END)
    with decode(whole + b"\xaa" * 64 + _JPEG_END)[0] as other:
        if not np.array_equal(np.asarray(found[0]), np.asarray(other)):
            return None
    return found, "lacks its end marker, but no pixel is missing"
