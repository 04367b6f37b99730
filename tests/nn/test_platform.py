"""The platform that a graph is traced for, and what JAX remembers of it."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from tooncrafter_jax.nn.platform import (
    current_platform,
    platform_of,
    tracing_for,
    tracing_on,
    use_cpu_forms,
    without_cpu_forms,
)

GPU = SimpleNamespace(platform="cuda")


def test_a_function_is_traced_anew_for_another_platform() -> None:
    seen: list[tuple[str, bool]] = []

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        seen.append((current_platform(), use_cpu_forms()))
        return x + 1

    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    traced.trace(shape)
    with tracing_for("tpu"):
        traced.trace(shape)
        traced.trace(shape)
    with without_cpu_forms():
        traced.trace(shape)
    traced.trace(shape)
    assert seen == [("cpu", True), ("tpu", False), ("cpu", False)]


def test_a_device_decides_unless_a_platform_is_asked_for() -> None:
    assert platform_of(GPU) == "gpu"
    with tracing_on(GPU):
        assert current_platform() == "gpu"
        with tracing_on(jax.devices("cpu")[0]):
            assert current_platform() == "gpu", "what is asked for outside holds inside"
    with tracing_for("tpu"), tracing_on(GPU):
        assert current_platform() == "tpu"
    assert current_platform() == "cpu"


def test_the_platform_ends_with_its_context() -> None:
    with pytest.raises(RuntimeError), tracing_for("tpu"):
        raise RuntimeError
    assert current_platform() == "cpu"
