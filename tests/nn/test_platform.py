"""The platform that a graph is traced for, and what JAX remembers of it."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from tooncrafter_jax.nn.platform import (
    current_platform,
    current_target,
    platform_of,
    target_of,
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


def device(platform: str, capability: str | None = None, version: str = "PJRT C API\ncuda 12090") -> SimpleNamespace:
    """What JAX exposes of a device; AMD's are called GPUs too, and have the architecture for a compute capability."""
    attributes = {} if capability is None else {"compute_capability": capability}
    return SimpleNamespace(platform=platform, client=SimpleNamespace(platform_version=version), **attributes)


@pytest.mark.parametrize(
    ("one", "platform", "has_cudnn"),
    [
        (device("gpu", "9.0"), "gpu", True),
        (device("gpu", "8.0"), "gpu", True),
        (device("cuda", "12.0"), "gpu", True),
        (device("gpu", "7.5"), "gpu", False),
        (device("gpu", "7.0"), "gpu", False),
        (device("gpu", "gfx942", "PJRT C API\nrocm 60300"), "gpu", False),
        (device("rocm", "9.0", "rocm 60300"), "gpu", False),
        (device("gpu", "9.0", "rocm 60300"), "gpu", False),
        (device("gpu"), "gpu", False),
        (device("tpu", version="TFRT TPU v5 lite"), "tpu", False),
        (device("cpu", version="cpu"), "cpu", False),
    ],
)
def test_a_device_is_what_it_says_of_itself(one: SimpleNamespace, platform: str, has_cudnn: bool) -> None:
    assert target_of(one) == (platform, has_cudnn)
    with tracing_on(one):
        assert current_target() == (platform, has_cudnn)


def test_a_gpu_that_is_not_there_is_a_recent_one_of_nvidia() -> None:
    with tracing_for("gpu"):
        assert current_target().cudnn_attention
    with tracing_for("tpu"):
        assert not current_target().cudnn_attention


def test_the_platform_ends_with_its_context() -> None:
    with pytest.raises(RuntimeError), tracing_for("tpu"):
        raise RuntimeError
    assert current_platform() == "cpu"
