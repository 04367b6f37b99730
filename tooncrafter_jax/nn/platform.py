"""Which platform a graph is being traced for.

Some operations have a form of their own for the CPU. The choice is made while tracing, so that a program can also be
compiled for a machine that is not there (`with tracing_for("tpu"): jitted.lower(...)`).
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax

Platform = Literal["cpu", "gpu", "tpu"]

_platform: contextvars.ContextVar[Platform | None] = contextvars.ContextVar("platform", default=None)
_cpu_forms: contextvars.ContextVar[bool] = contextvars.ContextVar("cpu_forms", default=True)


def current_platform() -> Platform:
    """The platform that the graph being traced will run on: the one of `tracing_for`, else the default device's."""
    chosen = _platform.get()
    if chosen is not None:
        return chosen
    backend = jax.default_backend()
    return "gpu" if backend in ("gpu", "cuda", "rocm") else "tpu" if backend == "tpu" else "cpu"


@contextlib.contextmanager
def tracing_for(platform: Platform) -> Iterator[None]:
    """Traces what is inside for `platform`, whatever devices this process has."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


@contextlib.contextmanager
def without_cpu_forms() -> Iterator[None]:
    """Traces what is inside with the forms that accelerators use, on the CPU too; to measure what the CPU forms are worth."""
    token = _cpu_forms.set(False)
    try:
        yield
    finally:
        _cpu_forms.reset(token)


def use_cpu_forms() -> bool:
    """Whether the graph being traced should use the forms made for the CPU."""
    return _cpu_forms.get() and current_platform() == "cpu"
