"""Meshes, and where parameters, optimizer state and batches lie on them: the one place that knows.

Axes of a mesh: `data` and `fsdp` share the batch, and `fsdp` the parameters too; `tensor` shares the heads and hidden
units of attention and feed-forward; `frames` shares the frames of a clip. Any of them may be 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from math import gcd, prod
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64, Shaped

from tooncrafter_jax.data.examples import Batch
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import View
from tooncrafter_jax.nn.logical_axes import MeshAxes
from tooncrafter_jax.typing import AnyArray, Device, Dtype, HasShape, HostArray, PyTree

AXES = ("data", "fsdp", "tensor", "frames")
"""Mesh axes, outermost first: neighbours in the last ones exchange the most."""
BATCH_AXES = ("data", "fsdp")
"""Axes that share the clips of a batch."""
ACTIVATION_RULES: dict[str, MeshAxes] = {"batch": BATCH_AXES, "frames": "frames", "pixels": "frames"}
"""Meaning of the models' logical axes while training."""

TABLE: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(attention\w*|cross_attention)\.(image_)?(query|key|value|key_value)\.kernel$", (None, "tensor")),
    (r"(attention\w*|cross_attention)\.out\.kernel$", ("tensor", None)),
    (r"feed_forward\.(gate_in|hidden)\.kernel$", (None, "tensor")),
    (r"feed_forward\.out\.kernel$", ("tensor", None)),
    (r"feed_forward\.(gate_in|hidden)\.bias$", ("tensor",)),
)
"""Path pattern -> spec; the first that matches holds. Then `fsdp` takes the largest axis that is left and that it
divides.
"""

STATE_SHARE = 0.5
"""Part of a device's memory that the state and its gradients may take where the mesh is chosen: activations need the
rest.
"""

SMALLEST_SHARDED = 2**15
"""Parameters of fewer numbers are kept whole on every device: gathering them would cost more than it saves."""


@runtime_checkable
class _State(Protocol):
    """A training state, which is a tree."""

    @property
    def trained(self) -> PyTree: ...


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """The sizes of all axes of a text such as "data:4,fsdp:8"; "auto" puts all devices on `data`.

    Raises:
      UserError: the text is malformed, names an unknown axis, or its product is not the number of devices.
    """
    sizes: dict[str, int] = dict.fromkeys(AXES, 1)
    if text == "auto":
        return sizes | {"data": devices}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\w+)\s*:\s*(\d+)\s*", part)
        if not found or found[1] not in AXES or int(found[2]) < 1:
            raise UserError(
                f"config.mesh is '{text}', which is not like 'data:4,fsdp:8' with axes out of {', '.join(AXES)}"
            )
        sizes[found[1]] = int(found[2])
    if prod(sizes.values()) != devices:
        raise UserError(f"config.mesh '{text}' is for {prod(sizes.values())} devices, but there are {devices}")
    return sizes


def make_mesh(text: str, devices: Sequence[Device] | None = None) -> Mesh:
    """The mesh of a text; see `parse_mesh`.

    On several TPU slices, `data` goes over the slow network between them first, then `fsdp`. On GPUs the last axes lie
    inside a host as far as they fit.

    Raises:
      UserError: as `parse_mesh`, or `data` and `fsdp` cannot be shared by the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = parse_mesh(text, len(devices))
    shape = tuple(sizes.values())
    if devices[0].platform != "tpu":  # XLA calls every host of GPUs a slice, which need not hold an axis of its own
        laid_out = np.asarray(devices).reshape(shape)
    elif (slices := count_slices(devices)) > 1:
        outer = gcd(sizes["data"], slices)
        inner = slices // outer
        if sizes["fsdp"] % inner:
            raise UserError(
                f"config.mesh '{text}' is for {slices} slices, but only data and fsdp may go over the network between "
                "them, and "
                f"data:{sizes['data']},fsdp:{sizes['fsdp']} cannot be shared by {slices}: make data a multiple of "
                f"{slices}"
            )
        inside = (sizes["data"] // outer, sizes["fsdp"] // inner, *shape[2:])
        across = (outer, inner, 1, 1)
        laid_out = mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
    else:
        laid_out = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(laid_out, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def count_slices(devices: Sequence[Device]) -> int:
    """How many TPU slices the devices belong to."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def automatic_mesh(state: _State, devices: Sequence[Device], memory: float | None) -> str:
    """The mesh that `config.mesh="auto"` stands for: all devices on `data`, and as many of them on `fsdp` as the state
    needs.

    The state and the gradients may take `STATE_SHARE` of a device's memory. Where they do not fit by any division, the
    finest is taken.

    Args:
      state: of the training, arrays or their shapes.
      devices: of the run.
      memory: of a device in bytes; None where it is not known, as on CPUs, which gives `data` everything.
    """
    count = len(devices)
    if memory is None:
        return f"data:{count}"
    slices = count_slices(devices) if devices[0].platform == "tpu" else 1
    divisions = [n for n in range(1, count + 1) if count % n == 0 and count // n % slices == 0]

    def fits(fsdp: int) -> bool:
        mesh = AbstractMesh((count // fsdp, fsdp, 1, 1), AXES)
        return bytes_a_device(state, mesh) + bytes_a_device(state.trained, mesh) <= STATE_SHARE * memory

    fsdp = next(filter(fits, divisions), divisions[-1])
    return f"data:{count // fsdp},fsdp:{fsdp}"


def bytes_a_device(state: PyTree, mesh: Mesh | AbstractMesh) -> int:
    """What one device holds of a training state or a part of it, by the shardings."""
    leaves, places = jax.tree.leaves(state), jax.tree.leaves(tree_shardings(state, mesh))
    return sum(
        prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, place in zip(leaves, places, strict=True)
    )


def parameter_spec(path: str, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Where a parameter is kept: by `TABLE`, then `fsdp` on the largest free axis that it divides."""
    axes: list[str | None] = [None] * len(shape)
    for pattern, spec in TABLE:
        if re.search(pattern, path):
            axes = [
                axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(spec, shape, strict=True)
            ]
            break
    if prod(shape) >= SMALLEST_SHARDED:
        free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % mesh.shape["fsdp"] == 0]
        if free:
            axes[max(free, key=lambda i: (shape[i], i))] = "fsdp"
    return PartitionSpec(*(axis if axis and mesh.shape[axis] > 1 else None for axis in axes))


def used_spec(path: str, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """Where a parameter lies while a layer computes with it: gathered over `fsdp`."""
    return PartitionSpec(*(None if axis == "fsdp" else axis for axis in parameter_spec(path, shape, mesh)))


def tree_shardings(tree: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """A sharding for every leaf of a training state: leaves under a parameter's path (moments too) lie as that
    parameter.

    Args:
      tree: arrays or their shapes, in nested containers whose keys include flat parameter paths.
      mesh: the device mesh.
    """

    def sharding(keys: tuple[Any, ...], leaf: HasShape) -> NamedSharding:
        names = [str(key.key) for key in keys if isinstance(key, jax.tree_util.DictKey)]
        path = next((name for name in reversed(names) if "." in name), None)
        spec = PartitionSpec() if path is None else parameter_spec(path, leaf.shape, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where a batch lies: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(batch: int, accumulation: int, mesh: Mesh) -> None:
    """Checks that every device gets as many clips of every micro-batch.

    Raises:
      UserError: it does not.
    """
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % (shares * accumulation):
        raise UserError(
            f"config.data.batch is {batch}, which must be a multiple of {shares * accumulation}: "
            f"{shares} (data x fsdp) times {accumulation} (accumulation)"
        )


def check_frames(frames: int, mesh: Mesh) -> None:
    """Checks that every device gets as many frames of a clip.

    Raises:
      UserError: it does not.
    """
    if frames % mesh.shape["frames"]:
        raise UserError(
            f"config.data.frames is {frames}, which must be a multiple of {mesh.shape['frames']}: as many "
            "devices share a clip by config.mesh"
        )


def process_rows(mesh: Mesh, clips: int, process: int | None = None) -> Int64[np.ndarray, "b"]:
    """Numbers of the rows of a global batch that lie on a process's devices, ascending.

    They follow from the sharding alone: processes that share the frames or the parameters of a clip hold the same rows,
    and a process's rows need not be neighbours.

    Args:
      mesh: of the devices, which need not be there.
      clips: of the global batch.
      process: which one; this one by default.
    """
    process = jax.process_index() if process is None else process
    held = batch_sharding(mesh).devices_indices_map((clips,))
    ranges = {index[0].indices(clips)[:2] for device, index in held.items() if device.process_index == process}
    return np.unique(np.concatenate([np.arange(0), *(np.arange(*one) for one in ranges)]))


def step_rows(batch: Batch) -> dict[str, HostArray]:
    """What a step is given of a loaded batch: all but the numbers of records and strides."""
    return {name: np.asarray(rows) for name, rows in batch.items() if name not in ("record", "stride")}


def put_whole(value: HostArray, place: NamedSharding) -> AnyArray:
    """On the devices, what every process has whole."""
    return jax.make_array_from_callback(value.shape, place, lambda index: value[index])


def put_everywhere(values: Mapping[str, HostArray], mesh: Mesh) -> dict[str, AnyArray]:
    """The same arrays whole on every device."""
    return {name: put_whole(value, NamedSharding(mesh, PartitionSpec())) for name, value in values.items()}


def put_batch(
    batch: Mapping[str, Shaped[np.ndarray, "b ..."]], mesh: Mesh, clips: int | None = None
) -> dict[str, AnyArray]:
    """A batch on the devices, of what each process has loaded.

    Args:
      batch: the rows of this process, as `process_rows` numbers them.
      mesh: of the devices.
      clips: of the global batch; by default those of `batch`, which is whole then.

    Raises:
      ValueError: the process has more or fewer rows than its devices hold.
    """
    given = len(next(iter(batch.values())))
    clips = given if clips is None else clips
    rows, sharding = process_rows(mesh, clips), batch_sharding(mesh)
    if given == clips:
        rows = np.arange(clips)
    if given != len(rows):
        raise ValueError(f"this process's devices hold {len(rows)} rows of a batch of {clips}, but {given} were loaded")

    def placed(values: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            start, stop, _ = index[0].indices(clips)
            first = int(np.searchsorted(rows, start))  # a device's rows are neighbours, also among those of its process
            return values[first : first + stop - start]

        return jax.make_array_from_callback((clips, *values.shape[1:]), sharding, part)

    return {name: placed(np.asarray(values)) for name, values in batch.items()}


def gathering_view(component: str, mesh: Mesh, dtype: Dtype, gradient_dtype: Dtype = jnp.float32) -> View | None:
    """What layers see of parameters: sharded ones gathered where they are used.

    What is gathered is a copy in the dtype of the computation. The gradient goes back to the shards before anything
    else is done with it, so that it is scattered while it is summed and never whole on a device. The gradient of a
    matrix or kernel is summed over the devices in the dtype in which its layer sees it (`nn.products`), which is
    `gradient_dtype`, if that is narrower than the stored parameter's. None where every layer sees what is stored.
    """
    if mesh.shape["fsdp"] == 1 and jnp.dtype(gradient_dtype) == jnp.float32:
        return None

    def view(name: str, value: jax.Array) -> jax.Array:
        path = f"{component}.{name}"
        kept, used = parameter_spec(path, value.shape, mesh), used_spec(path, value.shape, mesh)
        narrow = jnp.dtype(gradient_dtype) != jnp.float32 and value.ndim > 1
        seen = jnp.dtype(dtype) if narrow else value.dtype
        if kept == used:
            return value.astype(seen)
        return _gather(NamedSharding(mesh, kept), NamedSharding(mesh, used), jnp.dtype(dtype), seen, value)

    return view


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _gather(kept: NamedSharding, used: NamedSharding, dtype: np.dtype, seen: np.dtype, value: jax.Array) -> jax.Array:
    narrow = jax.lax.with_sharding_constraint(value.astype(dtype), kept)  # what travels is the narrow copy
    return jax.lax.with_sharding_constraint(narrow, used).astype(seen)


def _gather_forward(
    kept: NamedSharding, used: NamedSharding, dtype: np.dtype, seen: np.dtype, value: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _gather(kept, used, dtype, seen, value), jnp.zeros((0,), value.dtype)


def _gather_backward(
    kept: NamedSharding, used: NamedSharding, dtype: np.dtype, seen: np.dtype, like: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient, kept).astype(like.dtype),)


_gather.defvjp(_gather_forward, _gather_backward)
