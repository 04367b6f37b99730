"""Picture files that Pillow does not write by itself, made byte by byte."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bytes(header: bytes, *chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def png_of(values: np.ndarray, depth: int, *chunks: bytes, after: bytes = b"") -> bytes:
    """A PNG of grey (H, W) or RGB (H, W, 3) values of 1 to 16 bits, with more chunks before and after its pixels."""
    height, width = values.shape[:2]
    flat = values.reshape(height, -1)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        bits = (flat[..., None] >> np.arange(depth)[::-1]) & 1
        rows = [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", width, height, depth, 2 if values.ndim == 3 else 0, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return png_bytes(header, *chunks, pixels, after)


def rgb_profile(
    primaries: tuple[float, ...], gamma: float, title: str = "Made in a test", grey: bool = False, size: int = 0
) -> bytes:
    """An ICC profile of version 2 for a display: one gamma, and three primaries given as XYZ (D50), nine numbers.

    `size` fills it up to so many bytes.
    """

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = title.encode() + b"\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249),
    }
    if grey:
        tags[b"kTRC"] = curve
    else:
        for index, colour in enumerate((b"r", b"g", b"b")):
            tags[colour + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*primaries[3 * index : 3 * index + 3])
            tags[colour + b"TRC"] = curve
    if size:
        tags[b"fill"] = b"data" + bytes(8) + bytes(size)
    table, data, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    space = b"GRAY" if grey else b"RGB "
    header = struct.pack(">I4sI4s4s4s12x4s", 0, b"test", 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + fixed(0.9642, 1, 0.8249)
    whole = header.ljust(128, b"\0") + table + data
    return struct.pack(">I", len(whole)) + whole[4:]


DISPLAY_P3 = (0.51512, 0.24120, -0.00105, 0.29198, 0.69225, 0.04189, 0.15710, 0.06657, 0.78407)
ADOBE_RGB = (0.60974, 0.31111, 0.01947, 0.20528, 0.62567, 0.06087, 0.14919, 0.06322, 0.74457)
SRGB = (0.43607, 0.22249, 0.01392, 0.38515, 0.71687, 0.09708, 0.14307, 0.06061, 0.71410)
"""Colorants adapted to D50, as those profiles have them."""
