"""What tests of sampling share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax.monitoring
import pytest


@pytest.fixture
def compilations() -> Iterator[Callable[[], int]]:
    """Returns how many programs were lowered or compiled since the test began (a persistent cache would hide the
    latter).
    """
    count = 0

    def listen(event: str, duration: float, **_: Any) -> None:
        nonlocal count
        count += event in (
            "/jax/core/compile/jaxpr_to_mlir_module_duration",
            "/jax/core/compile/backend_compile_duration",
        )

    listener: Any = listen
    jax.monitoring.register_event_duration_secs_listener(listener)
    yield lambda: count
    jax.monitoring.unregister_event_duration_listener(listener)
