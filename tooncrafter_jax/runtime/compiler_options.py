"""What the compiler is told of the processor that a program will run on."""

from __future__ import annotations

import functools
import platform

import jax

from tooncrafter_jax.typing import Device

OWN_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""On the CPU, sums and maxima by the library YNNPACK, but matrix products by XLA's own, Eigen's.

By default both are YNNPACK's, whose float32 products of many rows take up to twice as long on x86 (docs/precision.md).
"""


def compiler_options(device: Device) -> dict[str, str]:
    """Options of `jax.jit(compiler_options=...)` for programs of one kind of device; none for most.

    Args:
      device: one of those that the program runs on.
    """
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return OWN_PRODUCTS if device.platform == "cpu" and is_x86 and are_known() else {}


@functools.cache
def are_known() -> bool:
    """Whether this release of the compiler has `OWN_PRODUCTS`: they are experimental, unknown ones an error."""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda x: x, compiler_options=OWN_PRODUCTS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
