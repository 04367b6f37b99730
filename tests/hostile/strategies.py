"""Valid files, spoilt: random bytes alone end at the first check of a reader."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

EXTREMES = (
    -1,
    0,
    1,
    2,
    7,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
)
"""Lengths and counts at the borders of what integers of some width hold."""
NUMBERS = (*EXTREMES, -(2**31), -5, float("nan"), float("inf"), float("-inf"), -0.0, 1e308, 5e-324, 0.5)
TEXTS = (
    "",
    "../../etc/passwd",
    "/etc/passwd",
    "a\x00b",
    "\x1b[2J\x1b]0;owned\x07",
    "\ud800",
    "\u202egnp.exe",
    "<script>alert(1)</script>",
    "![x](http://example.invalid/x.png)",
    "`` ` ``",
    "a|b\nc",
    "x" * 3000,
    "\U0001f600",
)
"""What names and captions from anybody can hold."""

numbers = st.sampled_from(NUMBERS) | st.integers(-(2**70), 2**70) | st.floats()
texts = st.sampled_from(TEXTS) | st.text(max_size=20)
scalars = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)


@st.composite
def spoilt_bytes(draw: st.DrawFn, valid: bytes | st.SearchStrategy[bytes]) -> bytes:
    """Bytes of a valid file with a few faults: flipped bits, cuts, repeats, and lengths of extreme values."""
    data = bytearray(valid if isinstance(valid, bytes) else draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(("flip", "byte", "cut", "remove", "repeat", "number", "text"))):
            case "flip":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "byte":
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place:]
            case "remove":
                del data[place : place + draw(st.integers(1, 64))]
            case "repeat":
                data[place:place] = data[place : place + draw(st.integers(1, 64))]
            case "number":
                width = draw(st.sampled_from((2, 4, 8)))
                number = draw(st.sampled_from(EXTREMES)) % 256**width
                data[place : place + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
            case _:
                data[place:place] = draw(st.text(max_size=8)).encode(errors="surrogatepass")
    return bytes(data)


@st.composite
def spoilt_values(draw: st.DrawFn, valid: Any) -> Any:
    """A nested value as JSON has them with a few of its parts replaced, removed or repeated."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        value = _spoil(draw, value)
    return value


def _spoil(draw: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        match draw(st.sampled_from(("deeper", "deeper", "deeper", "remove", "rename"))):
            case "remove":
                return {k: v for k, v in value.items() if k != key}
            case "rename":
                return {draw(texts) if k == key else k: v for k, v in value.items()}
        return {k: _spoil(draw, v) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(value) - 1))
        match draw(st.sampled_from(("deeper", "deeper", "remove", "repeat"))):
            case "remove":
                return value[:place] + value[place + 1 :]
            case "repeat":
                return value[:place] + value[place:] * 2
        return [*value[:place], _spoil(draw, value[place]), *value[place + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and draw(st.integers(0, 3)):
        return draw(numbers)
    return draw(texts if isinstance(value, str) and draw(st.booleans()) else json_values)
