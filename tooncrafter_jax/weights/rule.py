"""Deterministic weights for parity checks: every value is a function of a tensor's official name and shape.

The rule: take prod(shape) raw 64-bit outputs of numpy's PCG64 seeded with crc32(name); keep the upper 24 bits of the
upper 40 as a uniform number of mean 0 and variance 1; scale and shift it by the kind of the tensor. Raw PCG64 streams
are frozen by numpy's compatibility policy. Reference numbers are made with these weights, so they need not be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from math import prod, sqrt

import numpy as np

from tooncrafter_jax.typing import HostArray, HostParams

SKETCH_PREFIX = "control_model."
"""Prefix under which the sketch encoder's tensors are generated."""


def unit_noise(name: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike = np.float32) -> HostArray:
    """Uniform noise of mean 0 and variance 1 that depends on `name` and `shape` only."""
    generator = np.random.PCG64(zlib.crc32(name.encode()))
    raw = np.asarray(generator.random_raw(prod(shape)))
    unit = (raw >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
    return (unit * sqrt(3.0)).reshape(shape).astype(dtype)


def offset_and_scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of the tensor called `name`."""
    if name.endswith("weight") and len(shape) >= 2 and not name.endswith("token_embedding.weight"):
        gain = 2.0 if "input_hint_block" in name else 1.0
        return 0.0, gain / sqrt(prod(shape[1:]))
    if name.endswith(".weight") and len(shape) == 1:
        return 1.0, 0.1
    return 0.0, 0.1 if name.endswith("bias") else 0.5


def make(name: str, shape: tuple[int, ...]) -> HostArray:
    """The float32 tensor called `name`, in the official layout."""
    offset, scale = offset_and_scale(name, tuple(shape))
    return np.asarray(offset + scale * unit_noise(name, tuple(shape), np.float64), np.float32)


def random_params(shapes: Mapping[str, tuple[int, ...]], seed: int) -> HostParams:
    """Parameters of a usual size for our own paths and layouts, made on the host in no time.

    Matrices and convolutions keep the variance of what passes through; layers that training starts at zero are random
    too.

    Args:
      shapes: path -> shape; kernels have their outputs last.
      seed: other seeds give other values.
    """

    def value(path: str, shape: tuple[int, ...]) -> HostArray:
        noise = unit_noise(f"{seed}:{path}", shape)
        if path.endswith("kernel"):
            return noise * np.float32(1.0 / sqrt(prod(shape[:-1])))
        return noise * np.float32(0.1) + np.float32(path.endswith("scale"))

    return {path: value(path, tuple(shape)) for path, shape in shapes.items()}
