"""An ICC profile of sRGB whose curve is a table, as some programs want it in a picture.

Sources: ICC.1:2001-04 (version 2.4 of the format); IEC 61966-2-1 (the curve of sRGB, and its primaries, adapted to D50
as the ICC's own profile of sRGB has them).
"""

from __future__ import annotations

import functools
import struct

import numpy as np

from tooncrafter_jax.io.cielab import linear_of_coded

_WHITE = (0.9642, 1.0, 0.8249)
"""D50."""
_PRIMARIES = {"r": (0.43607, 0.22249, 0.01392), "g": (0.38515, 0.71687, 0.09708), "b": (0.14307, 0.06061, 0.71410)}
"""Red, green and blue in XYZ, adapted to D50."""
_STEPS = 4096
"""Of the curve."""


@functools.cache
def srgb_profile() -> bytes:
    """The profile."""
    text = b"sRGB"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 4 + 4 + 2 + 1 + 67)
    curve = b"curv" + bytes(4) + struct.pack(f">I{_STEPS}H", _STEPS, *(_level(n / (_STEPS - 1)) for n in range(_STEPS)))
    tags = {"desc": described, "cprt": b"text" + bytes(4) + b"No copyright\0", "wtpt": _xyz(_WHITE)}
    tags |= {f"{name}XYZ": _xyz(value) for name, value in _PRIMARIES.items()}
    body, table = b"", b""
    start = 128 + 4 + 12 * (len(tags) + 3)
    for name, data in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    for name in _PRIMARIES:  # three tags share the curve
        table += struct.pack(">4sII", f"{name}TRC".encode(), start + len(body), len(curve))
    body += curve
    header = struct.pack(
        ">I4sI4s4s4s6H4s4sI4sIQI3i4s44x",
        start + len(body),
        bytes(4),
        0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        *(2026, 1, 1, 0, 0, 0),
        b"acsp",
        bytes(4),
        0,
        bytes(4),
        0,
        0,
        0,
        *map(_fixed, _WHITE),
        bytes(4),
    )
    return header + struct.pack(">I", len(tags) + 3) + table + body


def _level(value: float) -> int:
    """Light of a value, both from 0 to 1, as a whole number of 16 bits."""
    return round(65535 * float(linear_of_coded(np.asarray(value))))


def _xyz(value: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *map(_fixed, value))


def _fixed(value: float) -> int:
    return round(value * 65536)
