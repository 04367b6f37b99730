"""Comparing one array with its reference: errors, the scale that they are relative to, and a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jax.typing import ArrayLike

from tooncrafter_jax.typing import HostArray, JsonObject
from tooncrafter_jax.verification.expressions import Value

Verdict = Literal["ok", "FAIL", "given"]

FEW_VALUES = 16
"""Arrays of fewer values have no meaningful standard deviation; their scale is their largest magnitude."""
SMALLEST_DEVIATION = 1e-2
"""Share of the largest magnitude below which a standard deviation is no scale: float32 itself would be too coarse."""
EXPRESSION_TOLERANCE = 1e-6
"""Largest error of a stored input that repeats an expression, relative to 1 or its largest magnitude."""
FLOAT64_TOLERANCE = 1e-8
"""Largest error of an array stored in float64, relative to its scale."""


@dataclass(frozen=True)
class Row:
    """The verdict on one stored array.

    Attributes:
      file, key: where it is stored.
      source: the case that it belongs to, or "expression" or "data" for an input.
      operation: of the case, else empty.
      max_abs: largest absolute error; None where nothing was compared.
      max_rel: the same relative to the array's scale.
      median_rel: median of the errors relative to each reference value, of those that are not 0.
      tolerance: what `max_rel` may be (0: equal; for a bounded rounding error: what the value may be).
      verdict: "ok", "FAIL", or "given" for original data that is not derived from anything.
      note: why it failed, if not by its error.
    """

    file: str
    key: str
    source: str
    operation: str = ""
    max_abs: float | None = None
    max_rel: float | None = None
    median_rel: float | None = None
    tolerance: float | None = None
    verdict: Verdict = "given"
    note: str = ""

    def as_json(self) -> JsonObject:
        """A plain dict; numbers that JSON does not know become texts."""
        return {
            name: str(value) if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Comparison:
    """Errors and verdict; see `Row`."""

    max_abs: float | None
    max_rel: float | None
    median_rel: float | None
    tolerance: float
    ok: bool
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """In one word."""
        return "ok" if self.ok else "FAIL"


def scale_of(reference: HostArray) -> float:
    """What errors of an array are relative to: its standard deviation where it has one, else its largest magnitude.

    1 for an array of zeros, so that its errors are absolute.
    """
    values = np.asarray(reference, np.float64)
    values = values[np.isfinite(values)]
    largest = float(np.abs(values).max(initial=0.0))
    if values.size < FEW_VALUES:
        return largest or 1.0
    return max(float(values.std()), SMALLEST_DEVIATION * largest) or 1.0


def compare(ours: Value, reference: HostArray, tolerance: float, *, scale: float | None = None) -> Comparison:
    """Compares a computed array with the stored one.

    Args:
      ours: what our code makes.
      reference: what is stored; whole numbers and texts must be equal.
      tolerance: largest error of a floating-point array relative to its scale.
      scale: replaces `scale_of(reference)`.
    """
    ours = np.asarray(ours)
    if ours.shape != reference.shape:
        return Comparison(None, None, None, tolerance, False, f"shape {list(ours.shape)}, not {list(reference.shape)}")
    if reference.dtype.kind in "US" or ours.dtype.kind in "US":
        return _exact(ours.astype(str), reference.astype(str))
    if reference.dtype.kind in "iub":
        return _exact(ours, reference)
    mine, theirs = ours.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)), 0.0, np.abs(mine - theirs))
    error = np.where(np.isnan(error), np.inf, error)
    largest = float(error.max(initial=0.0))
    scale = scale_of(reference) if scale is None else scale
    counted = np.isfinite(theirs) & (theirs != 0)
    median = float(np.median(error[counted] / np.abs(theirs[counted]))) if counted.any() else 0.0
    if reference.dtype == np.float64:
        tolerance = min(tolerance, FLOAT64_TOLERANCE)
    return Comparison(largest, largest / scale, median, tolerance, largest / scale <= tolerance)


def compare_bound(ours: ArrayLike, bound: float) -> Comparison:
    """Checks that a rounding error is at most `bound`; its reference value is another machine's rounding."""
    largest = float(np.max(np.abs(np.asarray(ours, np.float64)), initial=0.0))
    return Comparison(largest, None, None, bound, largest <= bound)


def compare_expression(value: Value, reference: HostArray, tolerance: float | None = None) -> Comparison:
    """Compares a stored input with the expression that it repeats.

    Args:
      value: what the expression gives.
      reference: what is stored.
      tolerance: that of the operation, if the expression is a result of one; else equal within `EXPRESSION_TOLERANCE`.
    """
    if tolerance is not None:
        return compare(value, reference, tolerance)
    largest = float(np.abs(reference).max(initial=0.0)) if reference.dtype.kind == "f" else 0.0
    return compare(value, reference, EXPRESSION_TOLERANCE, scale=max(1.0, largest))


def _exact(ours: np.ndarray, reference: np.ndarray) -> Comparison:
    different = ours != reference
    if not different.any():
        return Comparison(0.0, 0.0, 0.0, 0.0, True)
    if reference.dtype.kind in "iub" and ours.dtype.kind in "iub":
        error = np.abs(ours.astype(np.float64) - reference.astype(np.float64)).max()
        return Comparison(float(error), None, None, 0.0, False, f"{different.sum()} of {different.size} differ")
    return Comparison(None, None, None, 0.0, False, f"{different.sum()} of {different.size} differ")
