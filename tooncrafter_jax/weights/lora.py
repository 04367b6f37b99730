"""Low-rank factors (Hu et al. 2021): a kernel W acts as W + scale · A·B, scale being alpha / rank.

The factors of "unet.x.kernel" are the parameters "lora.unet.x.kernel.a" (in, rank) and ".b" (rank, out). A convolution's kernel is
the matrix that it multiplies a patch with: its rows are those of the patch, one pixel's channels after the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tooncrafter_jax.atomic_files import write_atomically
from tooncrafter_jax.errors import UserError

PREFIX = "lora."


class Lora(NamedTuple):
    """Low-rank factors of a file.

    Attributes:
      factors: parameter path -> factor.
      scale: alpha / rank.
    """

    factors: dict[str, np.ndarray]
    scale: float


def matrix_shape(kernel: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a kernel's matrix."""
    return prod(kernel[:-1]), kernel[-1]


def merge(path: str, kernel: jax.Array, params: Mapping[str, Any], scale: float) -> jax.Array:
    """What a layer computes with: the kernel with its factors' product, or the kernel itself where it has none."""
    a = params.get(f"{PREFIX}{path}.a")
    if a is None:
        return kernel
    b = params[f"{PREFIX}{path}.b"]
    update = scale * jnp.matmul(a, b, precision="highest").reshape(kernel.shape)
    return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)


def save_lora(file: Path, params: Mapping[str, Any], scale: float) -> None:
    """Writes the factors alone into a safetensors file.

    Raises:
      UserError: the file cannot be written.
    """
    factors = {path: np.asarray(value, np.float32) for path, value in params.items() if path.startswith(PREFIX)}
    write_atomically(file, save(factors, {"scale": repr(scale)}))


def load_lora(file: Path) -> Lora:
    """The factors of a file that `save_lora` wrote.

    Raises:
      UserError: it is missing, damaged, or something else.
    """
    if not Path(file).is_file():
        raise UserError(f"there is no file '{file}'")
    try:
        with safe_open(file, "numpy") as opened:
            about = opened.metadata() or {}
            names = list(opened.keys())
            return Lora({name: opened.get_tensor(name) for name in names}, float(about["scale"]))
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(f"'{file}' is damaged, or holds no low-rank factors") from error


def merged(params: Mapping[str, Mapping[str, Any]], lora: Lora) -> dict[str, dict[str, Any]]:
    """A model's parameters (component -> path -> array) with the factors merged in, for sampling.

    Raises:
      UserError: a factor fits no kernel of the model.
    """
    result: dict[str, dict[str, Any]] = {name: dict(component) for name, component in params.items()}
    factors = lora.factors
    for factor in factors:
        path, _, which = factor.removeprefix(PREFIX).rpartition(".")
        component, _, name = path.partition(".")
        kernel = result.get(component, {}).get(name)
        a, b = (factors.get(f"{PREFIX}{path}.{part}") for part in ("a", "b"))
        if kernel is None or a is None or b is None or matrix_shape(kernel.shape) != (a.shape[0], b.shape[1]):
            raise UserError(
                f"the low-rank factor '{factor}' fits no kernel of this model: it is of another architecture"
            )
        if which == "a":
            result[component][name] = merge(path, kernel, factors, lora.scale)
    return result
