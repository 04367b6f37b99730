"""Low-rank factors (Hu et al. 2021): a kernel W acts as W + scale · A·B, scale being alpha / rank.

The factors of "unet.x.kernel" are the parameters "lora.unet.x.kernel.a" (in, rank) and ".b" (rank, out). A
convolution's kernel is the matrix that it multiplies a patch with: its rows are those of the patch, one pixel's
channels after the other's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.paths import AnyPath, GivenPath, local_path
from tooncrafter_jax.typing import AnyArray, DeviceParams, HostParams, JsonObject, Params
from tooncrafter_jax.weights.sources import SafetensorsSource

PREFIX = "lora."
LARGEST_FACTORS = 2**31
"""Bytes of a file's factors: for every kernel of the published model of rank 64 they are an eighth of it."""


class Lora(NamedTuple):
    """Low-rank factors of a file.

    Attributes:
      factors: parameter path -> factor.
      scale: alpha / rank.
      sampling: options that suit the model with the factors, over its own, by their names in
        `sampling.request.SamplingOptions`.
      file: where they were read.
    """

    factors: HostParams
    scale: float
    sampling: JsonObject
    file: Path


def matrix_shape(kernel: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a kernel's matrix."""
    return prod(kernel[:-1]), kernel[-1]


def merge(path: str, kernel: AnyArray, params: Params, scale: float) -> AnyArray:
    """What a layer computes with: the kernel with its factors' product, or the kernel itself where it has none."""
    a = params.get(f"{PREFIX}{path}.a")
    if a is None:
        return kernel
    b = params[f"{PREFIX}{path}.b"]
    update = scale * jnp.matmul(a, b, precision="highest").reshape(kernel.shape)
    return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)


def save_lora(file: AnyPath, params: Params, scale: float, sampling: JsonObject | None = None) -> None:
    """Writes the factors alone into a safetensors file, and the scale and the options of sampling as its metadata.

    Raises:
      UserError: the file cannot be written.
    """
    factors = {path: np.asarray(value, np.float32) for path, value in params.items() if path.startswith(PREFIX)}
    about = {"scale": repr(scale)} | ({"sampling": json.dumps(dict(sampling))} if sampling else {})
    write_atomically(file, save(factors, about))


def load_lora(file: GivenPath) -> Lora:
    """The factors of a file that `save_lora` wrote.

    Raises:
      UserError: it is missing, damaged, or something else; nothing large is read before its header has been checked.
    """
    file = local_path(file)
    if not file.is_file():
        raise UserError(f"there is no file '{file}': check the path")
    try:
        source = SafetensorsSource(file)
        scale = float(source.metadata["scale"])
        sampling = json.loads(source.metadata.get("sampling", "{}"))
        if not isinstance(sampling, dict):
            raise UserError("its options of sampling are no object")
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}): check who may read it") from error
    except (UserError, KeyError, ValueError, RecursionError) as error:
        about = f" ({error})" if isinstance(error, UserError) else ""
        raise UserError(f"'{file}' is damaged, or holds no low-rank factors{about}: name another file") from error
    if not math.isfinite(scale):
        raise UserError(
            f"'{file}' states a scale of {scale} for its low-rank factors: train it again, or name another file"
        )
    for name, shape in source.shapes.items():
        if not name.startswith(PREFIX) or not name.endswith((".a", ".b")) or len(shape) != 2:
            raise UserError(f"'{file}' holds the tensor {name}, which is no low-rank factor: name another file")
    if source.bytes > LARGEST_FACTORS:
        raise UserError(
            f"'{file}' states {source.bytes:,} bytes of low-rank factors, more than a model of ours can have: "
            "name another file"
        )
    factors = {name: source.read(name) for name in source.shapes}
    spoilt = [name for name, factor in factors.items() if not np.isfinite(factor.astype(np.float32)).all()]
    if spoilt:
        raise UserError(f"'{file}' has values in {spoilt[0]} that are not finite: train it again, or name another file")
    return Lora(factors, scale, sampling, file)


def merged(params: Mapping[str, Mapping[str, AnyArray]], lora: Lora) -> dict[str, DeviceParams]:
    """A model's parameters (component -> path -> array) with the factors merged in, for sampling.

    Raises:
      UserError: a factor fits no kernel of the model.
    """
    result: dict[str, DeviceParams] = {name: dict(component) for name, component in params.items()}
    factors = lora.factors
    for factor in factors:
        path, _, which = factor.removeprefix(PREFIX).rpartition(".")
        component, _, name = path.partition(".")
        kernel = params.get(component, {}).get(name)
        a, b = (factors.get(f"{PREFIX}{path}.{part}") for part in ("a", "b"))
        shapes = None if a is None or b is None or a.shape[1] != b.shape[0] else (a.shape[0], b.shape[1])
        if kernel is None or matrix_shape(kernel.shape) != shapes:
            raise UserError(
                f"the low-rank factor '{factor}' fits no kernel of this model, as it is of another "
                "architecture: name the model that it was trained on"
            )
        if which == "a":
            result[component][name] = merge(path, kernel, factors, lora.scale)
    return result
