"""Which model is loaded, in which dtype, on which devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import any_path, url_of
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.nn.platform import platform_of
from tooncrafter_jax.sampling.request import make_options
from tooncrafter_jax.typing import Device, DeviceParams, Dtype, HostParams, JsonObject, Params
from tooncrafter_jax.weights.hub import fetched_model
from tooncrafter_jax.weights.hub_download import BY_ENVIRONMENT, Access
from tooncrafter_jax.weights.hub_names import parse_name
from tooncrafter_jax.weights.lora import Lora
from tooncrafter_jax.weights.rule import random_params
from tooncrafter_jax.weights.store import REQUIRED_COMPONENTS, Checkpoint

DTYPES = ("float32", "bfloat16", "float16")
"""What a model can compute in."""
BUNDLED = Path(__file__).parents[1] / "bundled"
"""Models that come with the package, by name."""
DEFAULT_MODEL = "small"
"""The bundled model that is used where none is named."""


def find_checkpoint(
    source: str | Path,
    components: Iterable[str] = REQUIRED_COMPONENTS,
    *,
    quiet: bool = False,
    access: Access = BY_ENVIRONMENT,
) -> Checkpoint:
    """The checkpoint directory of this path, of the bundled model of this name, or of the published one of this name;
    reads no tensors yet.

    A path that exists comes first, then a bundled model. A published one is fetched if it is not here yet.

    Args:
      source: path, URL of a bucket, or name.
      components: what it must hold.
      quiet: whether a download shows no progress.
      access: how the hub is reached.

    Raises:
      UserError: if there is none, it is damaged or incomplete, or it cannot be fetched.
    """
    path = fetched_model(source, quiet=quiet, access=access)
    if path is None:
        path = any_path(source) if url_of(source) else Path(source)
    if not path.exists() and (BUNDLED / str(source)).is_dir():
        path = BUNDLED / str(source)
    if not path.exists() and path.name == str(source):
        raise UserError(
            f"there is no model '{source}': give a checkpoint directory that `tooncrafter convert` wrote, "
            f"'{DEFAULT_MODEL}', which comes with the package, or a published model (`tooncrafter fetch --list`)"
        )
    if not path.exists() and parse_name(str(source)) is not None:
        raise UserError(f"no checkpoint directory {path}: for a repository of that name write hf://{source}")
    checkpoint = Checkpoint(path)
    checkpoint.require(components)
    return checkpoint


def sampling_of(checkpoint: Checkpoint, factors: Lora | None = None) -> JsonObject:
    """How a model is sampled if nothing else is said: as its directory says, and above that its low-rank factors.

    Raises:
      UserError: one of them holds an option that there is not, or of another type; names the file.
    """
    make_options(checkpoint.sampling, where=f"the sampling of '{checkpoint.directory}'")
    if factors is None:
        return checkpoint.sampling
    make_options(factors.sampling, where=f"the sampling of '{factors.file}'")
    return {**checkpoint.sampling, **factors.sampling}


def load_components(
    checkpoint: Checkpoint,
    components: Iterable[str],
    networks: Mapping[str, AnyNetwork],
    *,
    devices: Sequence[Device] | None,
) -> dict[str, Params]:
    """Component -> flat parameters, whole on each device, or on the host.

    Args:
      checkpoint: where they are.
      components: which of them.
      networks: component -> what its parameters must fit.
      devices: what to load them on; None for the host's memory.

    Raises:
      UserError: a component is missing, damaged or misshaped, or the memory does not suffice.
    """
    if devices is None:
        return {name: _on_host(checkpoint, name, networks[name]) for name in components}
    return {
        name: checkpoint.restore(
            name,
            networks[name],
            sharding=replicated(devices),
            dtype=lambda leaf, network=networks[name]: stored_dtype(leaf.shape, network.dtype),
        )
        for name in components
    }


def _on_host(checkpoint: Checkpoint, name: str, network: AnyNetwork) -> HostParams:
    stored = checkpoint.restore_on_host(name, network)
    return {path: value.astype(stored_dtype(value.shape, network.dtype), copy=False) for path, value in stored.items()}


def random_components(
    networks: Mapping[str, AnyNetwork], compute: Dtype, seed: int, *, devices: Sequence[Device]
) -> dict[str, DeviceParams]:
    """Component -> random parameters, whole on each device, as `load_components` gives those of a checkpoint."""
    params = {}
    for name, network in networks.items():
        made = random_params({path: leaf.shape for path, leaf in network.abstract_params.items()}, seed)
        cast = {path: value.astype(stored_dtype(value.shape, compute)) for path, value in made.items()}
        params[name] = jax.device_put(cast, replicated(devices))
    return params


def default_dtype(devices: Sequence[Device] | None = None) -> str:
    """float32 on the CPU, bfloat16 on accelerators; `devices` are all by default."""
    return "float32" if platform_of((devices or jax.devices())[0]) == "cpu" else "bfloat16"


def compute_dtype(dtype: Dtype | None, devices: Sequence[Device]) -> Dtype:
    """The numpy dtype to compute with: the one given, else the devices' default.

    Raises:
      UserError: if it is none of `DTYPES`.
    """
    try:
        found = jnp.dtype(default_dtype(devices) if dtype is None else dtype)
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise UserError(f"the model does not compute in {dtype!r}: choose one of {', '.join(DTYPES)}")
    return found


def stored_dtype(shape: Sequence[int], compute: Dtype) -> Dtype:
    """The dtype in which a parameter of this shape is kept: matrices as computed with, norms and biases in float32."""
    return compute if len(shape) > 1 else jnp.float32


def replicated(devices: Sequence[Device]) -> jax.sharding.Sharding:
    """The sharding of arrays that are whole on each of these devices."""
    if len(devices) == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(Mesh(np.asarray(devices), ("devices",)), PartitionSpec())
