"""Which platform a graph is being traced for.

Some operations have a form of their own for the CPU. The choice is made while tracing, so that a program can also be
compiled for a machine that is not there (`with tracing_for("tpu"): jitted.lower(...)`). It is part of the key by which
JAX remembers what it has traced: a function that was traced for the CPU before is traced anew.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from tooncrafter_jax.typing import Device, Dtype

Platform = Literal["cpu", "gpu", "tpu"]


class Target(NamedTuple):
    """What a graph is traced for.

    Attributes:
      platform: the kind of device.
      cudnn_attention: whether it has cuDNN's fused attention: an NVIDIA GPU of the Ampere generation or a newer one.
    """

    platform: Platform
    cudnn_attention: bool = False


AMPERE = 8
"""Major compute capability of the first NVIDIA GPUs that cuDNN's attention, and bfloat16 itself, run on."""

_target = jax.make_user_context(default_value=None)
_cpu_forms = jax.make_user_context(default_value=True)


def current_platform() -> Platform:
    """The platform that the graph being traced will run on: the one of `tracing_for`, else the default device's."""
    return current_target().platform


def current_target() -> Target:
    """The same, and what it is able to do."""
    return _target.value or target_of(jax.devices()[0])


def platform_of(device: Device) -> Platform:
    """The platform of a device."""
    return _platform_called(device.platform)


def target_of(device: Device) -> Target:
    """What a device really is, by what it says of itself: ROCm calls its devices GPUs too, and has no cuDNN."""
    platform = platform_of(device)
    return Target(platform, platform == "gpu" and _is_nvidia(device) and _generation(device) >= AMPERE)


def _is_nvidia(device: Device) -> bool:
    version = str(getattr(getattr(device, "client", None), "platform_version", "")).lower()
    return device.platform != "rocm" and "rocm" not in version


def _generation(device: Device) -> int:
    """The major compute capability of an NVIDIA GPU; 0 if it has none that is known, as an AMD one ("gfx90a")."""
    found = re.match(r"(\d+)\.\d+", str(getattr(device, "compute_capability", "")))
    return int(found[1]) if found else 0


def _platform_called(name: str) -> Platform:
    return "gpu" if name in ("gpu", "cuda", "rocm") else "tpu" if name == "tpu" else "cpu"


@contextlib.contextmanager
def tracing_for(platform: Platform) -> Iterator[None]:
    """Traces what is inside for `platform`, whatever devices this process has; a GPU is a recent one of NVIDIA's."""
    with _target(Target(platform, cudnn_attention=platform == "gpu")):
        yield


@contextlib.contextmanager
def tracing_on(device: Device) -> Iterator[None]:
    """Traces what is inside for the platform of this device, unless `tracing_for` says otherwise."""
    with _target(_target.value or target_of(device)):
        yield


@contextlib.contextmanager
def exact_float32(dtype: Dtype) -> Iterator[None]:
    """Traces what is inside with float32 products that are float32, if that is the `dtype` of the computation.

    By default accelerators round the operands of float32 products to 7 (TPU) or 10 bits (GPU), which is quicker; a CPU
    does not. A gradient that is taken inside has the same products. Also a decorator of functions that are to be
    jitted.
    """
    coarse_by_default = current_platform() != "cpu"
    with contextlib.ExitStack() as stack:
        if coarse_by_default and jnp.dtype(dtype) == jnp.float32:
            stack.enter_context(jax.default_matmul_precision("highest"))
        yield


@contextlib.contextmanager
def without_cpu_forms() -> Iterator[None]:
    """Traces what is inside with the forms that accelerators use, on the CPU too; to measure what the CPU forms are
    worth.
    """
    with _cpu_forms(False):
        yield


def use_cpu_forms() -> bool:
    """Whether the graph being traced should use the forms made for the CPU."""
    return _cpu_forms.value and current_platform() == "cpu"
