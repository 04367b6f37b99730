"""Running the cases of a folder and comparing every stored array."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

import jax
import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.runtime.quick_compilation import quick_compilation
from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.verification.comparison import (
    Comparison,
    Row,
    compare,
    compare_bound,
    compare_expression,
)
from tooncrafter_jax.verification.expressions import Value, evaluate, references, take
from tooncrafter_jax.verification.folder import NOTHING, Entry, Folder
from tooncrafter_jax.verification.inputs import Inputs
from tooncrafter_jax.verification.inputs import Results as CaseResults
from tooncrafter_jax.verification.model import VerifiedModel
from tooncrafter_jax.verification.operations import OPERATIONS

DTYPES = {"float32": 1.0, "bfloat16": 2000.0, "float16": 300.0}
"""Compute dtype -> what the tolerances of float32 are multiplied by: less than the ratio of the roundings."""

MOST_WORKERS = 4
"""Cases are computed by at most this many threads."""

OnCase = Callable[[str, float], None]
"""Called with a case and the seconds that it took."""


class CaseFailed(Exception):
    """Our code raised on a case that the published code computes."""


class Results:
    """Results of cases, computed when first asked for.

    Args:
      folder: the folder.
      model: its model.
      on_case: called after each case.
    """

    def __init__(self, folder: Folder, model: VerifiedModel, on_case: OnCase | None = None) -> None:
        self._folder, self._model, self._on_case = folder, model, on_case
        self._known: dict[str, CaseResults | CaseFailed] = {}
        self._locks = {case: threading.RLock() for case in folder.cases}

    def array(self, name: str) -> HostArray:
        """A stored array."""
        return self._folder.array(name)

    def json(self, file: str) -> Value:
        """A JSON file's contents."""
        return self._folder.json(file)

    def all(self, case: str) -> CaseResults:
        """Every result of a case by name.

        Raises:
          CaseFailed: if our code cannot compute the case.
          UserError: if the case lacks an input or a setting.
        """
        with self._locks[case]:
            if case not in self._known:
                self._known[case] = self._compute(case)
            results = self._known[case]
        if isinstance(results, CaseFailed):
            raise results
        return results

    def result(self, case: str, name: str) -> Value:
        """A full result of a case; errors as of `all`, and UserError if the operation has no such result."""
        results = self.all(case)
        if name not in results:
            operation = self._folder.cases[case].operation
            raise UserError(f"{self._folder.path}: the operation '{operation}' of case '{case}' has no result '{name}'")
        return results[name]

    def forget(self, case: str) -> None:
        """Frees a case's results."""
        self._known.pop(case, None)

    def _compute(self, id: str) -> CaseResults | CaseFailed:
        case, start = self._folder.cases[id], time.perf_counter()
        try:
            return OPERATIONS[case.operation].run(self._model, Inputs(case, self))
        except (UserError, CaseFailed):
            raise
        except (
            Exception
        ) as error:  # whatever our code stumbles over is a verdict on it, and the other cases still count
            lines = str(error).strip().splitlines() or [""]
            failed = CaseFailed(f"{type(error).__name__}: {lines[0][:200]}")
            failed.__cause__ = error
            return failed
        finally:
            if self._on_case is not None:
                self._on_case(id, time.perf_counter() - start)


def verify(
    folder: Folder, *, dtype: str = "float32", only: str | None = None, on_case: OnCase | None = None
) -> list[Row]:
    """Runs every case and compares every array of a folder.

    Args:
      folder: the folder.
      dtype: compute dtype of the networks, one of `DTYPES`.
      only: a pattern; only arrays are compared whose "FILE:KEY", case or operation contains it or matches it.
      on_case: called after each case with its name and seconds.

    Returns:
      One row for every stored array that `only` selects, in the manifest's order.

    Raises:
      UserError: if the folder is broken, or nothing is selected.
    """
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype '{dtype}': choose one of {', '.join(DTYPES)}")
    _check_operations(folder)
    entries = [entry for entry in folder.entries if only is None or _selected(folder, entry, only)]
    if not entries:
        raise UserError(
            f"no array of {folder.path} matches '{only}': patterns are matched with files, arrays and operations"
        )
    results = Results(folder, VerifiedModel(folder, dtype), on_case)
    needed_by_others = _needed_by_others(folder)

    def rows_of(group: tuple[str | None, list[Entry]]) -> dict[str, Row]:
        case, members = group
        with _exact_arithmetic(dtype):
            rows = {entry.name: _row(folder, results, entry, DTYPES[dtype]) for entry in members}
        if case is not None and case not in needed_by_others:
            results.forget(case)
        return rows

    groups = sorted(_by_case(entries).items(), key=lambda group: not _is_long(folder, group[0]))
    rows: dict[str, Row] = {}
    with _compilation(), ThreadPoolExecutor(_workers()) as pool:
        futures = [pool.submit(rows_of, group) for group in groups]
        try:
            for future in futures:
                rows |= future.result()
        finally:
            for future in futures:
                future.cancel()
    return [rows[entry.name] for entry in entries]


def _workers() -> int:
    """Cases at a time: programs are compiled by one core each; an accelerator's memory is left to one case."""
    return min(MOST_WORKERS, os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1


def _is_long(folder: Folder, case: str | None) -> bool:
    """Whether a case is better begun early."""
    operation = folder.cases[case].operation if case is not None else ""
    return operation.startswith("pipeline") or operation == "unet_gradient"


def _check_operations(folder: Folder) -> None:
    for case in folder.cases.values():
        if case.operation not in OPERATIONS:
            raise UserError(
                f"the case '{case.id}' of {folder.path} has the operation '{case.operation}', which is unknown; known: "
                + ", ".join(sorted(OPERATIONS))
            )


def _selected(folder: Folder, entry: Entry, pattern: str) -> bool:
    names = [entry.name]
    if entry.case is not None:
        names += [entry.case, folder.cases[entry.case].operation]
    return any(pattern in name or fnmatchcase(name, pattern) for name in names)


def _cases_behind(entry: Entry) -> list[str]:
    """The cases whose results an entry is compared with."""
    if entry.case is not None:
        return [entry.case]
    if entry.equals is NOTHING:
        return []
    return [name for kind, name in references(entry.equals, entry.name) if kind == "case"]


def _by_case(entries: list[Entry]) -> dict[str | None, list[Entry]]:
    """Entries that share a case together, so that each is computed once and then forgotten."""
    groups: dict[str | None, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(next(iter(_cases_behind(entry)), None), []).append(entry)
    return groups


def _needed_by_others(folder: Folder) -> set[str]:
    return {
        name
        for case in folder.cases.values()
        for expression in case.inputs.values()
        for kind, name in references(expression, case.id)
        if kind == "case"
    }


def _row(folder: Folder, results: Results, entry: Entry, factor: float) -> Row:
    cases = _cases_behind(entry)
    operation = folder.cases[cases[0]].operation if cases else ""
    source = entry.case or ("data" if entry.equals is NOTHING else "expression")
    if source == "data":
        return Row(entry.file, entry.key, source)
    try:
        comparison = _compare(folder, results, entry, factor, operation)
    except CaseFailed as error:
        comparison = Comparison(None, None, None, OPERATIONS[operation].tolerance, False, str(error))
    return Row(
        entry.file,
        entry.key,
        source,
        operation,
        comparison.max_abs,
        comparison.max_rel,
        comparison.median_rel,
        comparison.tolerance,
        comparison.verdict,
        comparison.note,
    )


def _compare(folder: Folder, results: Results, entry: Entry, factor: float, operation: str) -> Comparison:
    reference = folder.array(entry.name)
    tolerance = factor * OPERATIONS[operation].tolerance if operation else None
    if entry.case is None:
        value = evaluate(entry.equals, results, f"the entry '{entry.name}' of {folder.path}")
        return compare_expression(value, reference, tolerance)
    full = results.result(entry.case, entry.result or "")
    if entry.at_most is not None:
        return compare_bound(full, float(entry.at_most))
    try:
        part = take(full, entry.slice)
    except (IndexError, ValueError) as error:
        note = f"{entry.result} has the shape {list(np.shape(full))}: {error}"
        return Comparison(None, None, None, tolerance or 0.0, False, note)
    return compare(part, reference, tolerance or 0.0)


def _exact_arithmetic(dtype: str) -> contextlib.AbstractContextManager[None]:
    """Full float32 products on accelerators, in this thread."""
    return jax.default_matmul_precision("highest") if dtype == "float32" else contextlib.nullcontext()


def _compilation() -> contextlib.AbstractContextManager[None]:
    """On the CPU, programs compile faster at the cost of their speed, since each runs only a few times."""
    return quick_compilation() if jax.default_backend() == "cpu" else contextlib.nullcontext()


def coverage(folder: Folder, rows: list[Row]) -> Counter[str]:
    """How many arrays were compared with results, checked against expressions, given, and left out."""
    counts = Counter(row.source if row.source in ("expression", "data") else "output" for row in rows)
    counts["left out"] = len(folder.entries) - len(rows)
    counts["beyond"] = sum(row.verdict == "FAIL" for row in rows)
    return counts
