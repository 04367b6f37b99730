"""How many examples a property is tried with, and how much memory it may take."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
"""In the gate; fewer in its environments beside the main one."""

MEBI = 2**20

amounts = pytest.mark.parametrize(
    "examples",
    [pytest.param(EXAMPLES, id="gate"), pytest.param(10_000, id="many", marks=pytest.mark.slow)],
)
"""A few hundred examples in the gate, thousands behind the marker `slow`."""


def holds_for(
    examples: int, strategy: SearchStrategy[Any], holds: Callable[[Any], None], mebibytes: int | None = 512
) -> None:
    """Tries a property with examples of a strategy; none of them finds more memory than that (None: any)."""
    with bounded_memory(mebibytes) if mebibytes else contextlib.nullcontext():
        settings(max_examples=examples)(given(strategy)(holds))()


@contextlib.contextmanager
def bounded_memory(mebibytes: int) -> Iterator[None]:
    """Whatever would grow this process by more ends in a `MemoryError`, which no reader may let through."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + mebibytes * MEBI, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
