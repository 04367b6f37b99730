"""Checkpoint directories: `model.json` and, for each component, an orbax tree or (small models) a safetensors file.

A directory is written under a temporary name and renamed when it is whole, so that an interrupted write is never taken
for a checkpoint. In a bucket, where nothing can be renamed, `model.json` goes first and comes last. A component is
restored alone, straight into its sharding and dtype.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from flax import nnx
from safetensors.numpy import save

from tooncrafter_jax.config_codec import from_dict, to_dict
from tooncrafter_jax.errors import UserError, is_out_of_memory, out_of_memory, printable
from tooncrafter_jax.io.atomic_files import replace_directory, write_and_sync
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.paths import AnyPath, GivenPath, any_path, copy_file, copy_tree
from tooncrafter_jax.models.configuration import COMPONENTS, OPTIONAL_COMPONENTS, ModelConfig
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import AnyArray, DeviceParams, Dtype, HostArray, HostParams, JsonObject, Params
from tooncrafter_jax.weights.checkpoint_directory import (
    MODEL_FILE,
    Version,
    clear_checkpoint,
    component_file,
    disk_errors,
    is_checkpoint,
    is_of_checkpoint,
    partial_name,
    remove_abandoned,
    restore_abandoned,
    retired_name,
    version_of,
)
from tooncrafter_jax.weights.misfit import check_shapes
from tooncrafter_jax.weights.sources import SafetensorsSource

REQUIRED_COMPONENTS = tuple(name for name in COMPONENTS if name not in OPTIONAL_COMPONENTS)
"""What a model must hold to sample."""
FORMAT_VERSION = 1
_WITHOUT_COPIES = ocp.type_handlers.create_type_handler_registry(
    (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False))
)
LARGEST_DESCRIPTION = 2**24
"""Bytes of a `model.json`, whose provenance grows with every model that was trained on."""


class CheckpointWriter:
    """Writes a checkpoint directory component by component; a context manager that publishes it at a clean end.

    Args:
      directory: the result; must not exist unless `overwrite`, and must then be a checkpoint directory.
      config: the architecture.
      provenance: where the weights come from, kept in `model.json`.
      overwrite: whether an existing checkpoint directory is replaced.
      safetensors: one file a component instead of a tree, which is simpler to hand on, but is read whole.
      sampling: options that suit this model better than the published ones, by their names in
        `sampling.request.SamplingOptions`.
      before: what was there when the writing was decided on (`version_of`); None: what is there now. Where something
        else is there at the end, it stays, and what was written is lost.

    Raises:
      UserError: if the directory exists already or cannot be written, or another process has written it meanwhile.
    """

    def __init__(
        self,
        directory: GivenPath,
        config: ModelConfig,
        provenance: JsonObject,
        *,
        overwrite: bool = False,
        safetensors: bool = False,
        sampling: JsonObject | None = None,
        before: Version | None = None,
    ) -> None:
        self.directory = directory = any_path(directory)
        self._config, self._provenance, self._safetensors = config, dict(provenance), safetensors
        self._sampling = dict(sampling or {})
        self._components: list[str] = []
        self._weights: dict[str, str] = {}
        self._temporary = partial_name(directory) if isinstance(directory, Path) else directory
        with disk_errors(directory):
            if isinstance(directory, Path):
                remove_abandoned(directory)
            self._before = version_of(directory) if before is None else before
            if directory.exists():
                if not overwrite:
                    raise UserError(f"{directory} exists already: choose another directory, or add --overwrite")
                if not is_checkpoint(directory):
                    raise UserError(
                        f"{directory} is not a checkpoint directory and will not be overwritten: choose another one"
                    )
                if not isinstance(directory, Path):
                    clear_checkpoint(directory)
            self._temporary.mkdir(parents=True, exist_ok=not isinstance(directory, Path))

    def __enter__(self) -> CheckpointWriter:
        return self

    def write(self, component: str, params: Params) -> None:
        """Writes one component's flat parameters.

        Args:
          component: its name.
          params: dotted path -> array, on devices or the host; of several processes, one writes and gives host arrays.

        Raises:
          UserError: if the disk is full or the like.
        """
        self._components.append(component)
        self._weights[component] = fingerprint(params)
        if self._safetensors:
            on_host = {path: np.ascontiguousarray(value) for path, value in params.items()}
            file, data = component_file(self._temporary, component), save(on_host)
            with disk_errors(self.directory):
                if isinstance(file, Path):
                    write_and_sync(str(file), data)
                else:
                    file.write_bytes(data)
            return
        with disk_errors(self.directory), _quiet():
            # Compressing copies everything in memory, and so does orbax with host arrays unless it is told not to.
            on_host = all(isinstance(value, np.ndarray) for value in params.values())
            settings: dict[str, Any] = {"type_handler_registry": _WITHOUT_COPIES} if on_host else {}
            handler = ocp.PyTreeCheckpointHandler(use_compression=False, **settings)
            with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
                checkpointer.save(self._temporary / component, args=ocp.args.PyTreeSave(dict(params)))

    def copy(self, source: AnyPath, components: Iterable[str]) -> None:
        """Takes over components of another checkpoint directory as they are."""
        weights = Checkpoint(source).weights
        for component in components:
            with disk_errors(self.directory):
                if component_file(source, component).is_file():
                    copy_file(component_file(source, component), component_file(self._temporary, component))
                else:
                    copy_tree(source / component, self._temporary / component)
            self._components.append(component)
            if component in weights:
                self._weights[component] = weights[component]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._discard()
            return
        description = {
            "format_version": FORMAT_VERSION,
            "components": [name for name in COMPONENTS if name in self._components],
            "weights": self._weights,
            "config": to_dict(self._config),
            "provenance": self._provenance,
        } | ({"sampling": self._sampling} if self._sampling else {})
        try:
            with disk_errors(self.directory):
                (self._temporary / MODEL_FILE).write_text(json.dumps(description, indent=1) + "\n")
                if not isinstance(self.directory, Path) or not isinstance(self._temporary, Path):
                    return
                if version_of(self.directory) not in ((), self._before):
                    raise UserError(f"{self.directory} was written by another process meanwhile: run the same again")
                replace_directory(self._temporary, self.directory, is_of_checkpoint, retired_name(self.directory))
        finally:
            if isinstance(self._temporary, Path):
                self._discard()

    def _discard(self) -> None:
        if isinstance(self._temporary, Path):
            shutil.rmtree(self._temporary, ignore_errors=True)
        else:
            clear_checkpoint(self._temporary)


class Checkpoint:
    """A checkpoint directory opened for reading.

    Attributes:
      directory: where it is.
      config: the architecture.
      components: names of the components it holds.
      provenance: where the weights come from.
      weights: component -> fingerprint of its parameters, where the directory says so.
      sampling: options that suit the model; whoever samples may choose others.

    Raises:
      UserError: if the directory is missing, is no checkpoint, is of a newer format, or holds a config of sizes that do
        not fit.
    """

    def __init__(self, directory: GivenPath) -> None:
        self.directory: AnyPath = any_path(directory)
        directory = self.directory
        file = directory / MODEL_FILE
        try:
            if isinstance(directory, Path):
                restore_abandoned(directory)
            if not directory.exists():
                raise UserError(f"no checkpoint directory {directory}: check the path, or convert a model into it")
            if not file.is_file():
                raise UserError(
                    f"{directory} is not a checkpoint directory (it has no {MODEL_FILE}); for published weight files "
                    "run tooncrafter convert first"
                )
            description = read_json(file, LARGEST_DESCRIPTION)
            version = description["format_version"]
            if version != FORMAT_VERSION:
                raise UserError(
                    f"{directory} has format {printable(version, 20)}, but this version reads {FORMAT_VERSION}: "
                    "update tooncrafter-jax"
                )
            self.components: tuple[str, ...] = tuple(description["components"])
            config, self.provenance = description["config"], _mapping(description, "provenance")
            self.weights: dict[str, str] = _mapping(description, "weights")
            self.sampling: dict[str, object] = _mapping(description, "sampling")
            if not all(isinstance(value, str) for value in self.weights.values()):
                raise ValueError("its fingerprints are no texts")
            if len(self.components) > len(COMPONENTS):
                raise ValueError("it names too many components")
        except OSError as error:
            raise UserError(f"cannot read {file} ({error.strerror}): check who may read it") from error
        except KeyError as error:
            raise UserError(f"{file} is damaged, it has no {error}: convert the model again") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{file} is damaged ({printable(error, 200)}): convert the model again") from error
        strange = [name for name in self.components if name not in COMPONENTS]
        if strange:
            raise UserError(
                f"{file} names the component {printable(repr(strange[0]), 50)}, which this version does not know: "
                "update tooncrafter-jax"
            )
        self.config: ModelConfig = from_dict(ModelConfig, config, f"the config in {file}")
        self.config.check(f"the config in {file}")

    @property
    def fingerprint(self) -> str:
        """Stands for the values of all parameters: another one means another model; empty where it is not known."""
        if not self.weights:
            return ""
        return hashlib.sha256(json.dumps(sorted(self.weights.items())).encode()).hexdigest()[:16]

    def require(self, components: Iterable[str] = REQUIRED_COMPONENTS) -> None:
        """Checks that the components are there.

        Raises:
          UserError: naming those that are not.
        """
        missing = [name for name in components if name not in self.components]
        if missing:
            raise UserError(f"{self.directory} holds no {', '.join(missing)}: convert the full model into it")

    def restore(
        self,
        component: str,
        network: Network[nnx.Module],
        *,
        only: Container[str] | None = None,
        sharding: jax.sharding.Sharding | Mapping[str, jax.sharding.Sharding] | None = None,
        dtype: Dtype | Callable[[jax.ShapeDtypeStruct], Dtype] | Mapping[str, Dtype] | None = None,
    ) -> DeviceParams:
        """One component's flat parameters, each read straight into its sharding and dtype; a process reads only its
        shards.

        Args:
          component: its name.
          network: what the parameters must fit.
          only: paths of the parameters that are read; all without.
          sharding: for all parameters or by path; the default device without.
          dtype: of the result, for all, by parameter or by path; the network's `param_dtype` without.

        Raises:
          UserError: if the tree is damaged, tensors are missing, left over or misshaped, or the memory
            does not suffice.
        """
        if sharding is None:
            sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        leaves = _chosen(network, only)

        def arguments(name: str, leaf: jax.ShapeDtypeStruct) -> ocp.ArrayRestoreArgs:
            return ocp.ArrayRestoreArgs(
                sharding=sharding if isinstance(sharding, jax.sharding.Sharding) else sharding[name],
                global_shape=leaf.shape,
                dtype=jnp.dtype(_dtype_of(name, leaf, dtype)),  # pyright: ignore
            )

        target = {name: arguments(name, leaf) for name, leaf in leaves.items()}
        return self._read(component, network, target, ocp.options.MultiprocessingOptions())

    def restore_on_host(
        self, component: str, network: Network[nnx.Module], *, only: Container[str] | None = None
    ) -> HostParams:
        """One component's flat parameters as they are stored, in the memory of this process alone.

        Args:
          component: its name.
          network: what the parameters must fit.
          only: paths of the parameters that are read; all without.

        Raises:
          UserError: see `restore`.
        """
        target = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in _chosen(network, only)}
        return self._read(component, network, target, _alone())

    def _read(
        self,
        component: str,
        network: Network[nnx.Module],
        target: Mapping[str, ocp.RestoreArgs],
        processes: ocp.options.MultiprocessingOptions,
    ) -> dict[str, Any]:
        """The parameters for which orbax' arguments are given."""
        self.require([component])
        path, where = self.directory / component, f"{component} in {self.directory}"
        damaged = f"{where} is damaged or incomplete: convert it again"
        if component_file(self.directory, component).is_file():
            return _read_file(component_file(self.directory, component), network, where, target)
        if not path.is_dir():
            raise UserError(damaged)
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=processes)
        with _quiet(), ocp.Checkpointer(handler, multiprocessing_options=processes) as checkpointer:
            try:
                stored = dict(checkpointer.metadata(path).item_metadata.tree)  # pyright: ignore
            except Exception as error:  # orbax has no common class for what a damaged directory can raise
                raise UserError(damaged) from error
            check_shapes(
                {name: tuple(leaf.shape) for name, leaf in stored.items()},
                {name: leaf.shape for name, leaf in network.abstract_params.items()},
                where,
            )
            if not target:
                return {}
            chosen = ocp.args.PyTreeRestore(
                item=target, restore_args=target, partial_restore=len(target) < len(network.abstract_params)
            )
            try:
                return checkpointer.restore(path, args=chosen)
            except Exception as error:
                if is_out_of_memory(error):
                    raise out_of_memory(f"to load {where}", "load it with dtype bfloat16") from error
                raise UserError(damaged) from error


def _chosen(network: Network[nnx.Module], only: Container[str] | None) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: leaf for name, leaf in network.abstract_params.items() if only is None or name in only}


def _dtype_of(
    name: str,
    leaf: jax.ShapeDtypeStruct,
    dtype: Dtype | Callable[[jax.ShapeDtypeStruct], Dtype] | Mapping[str, Dtype] | None,
) -> Dtype:
    if isinstance(dtype, Mapping):
        return dtype[name]
    if callable(dtype) and not isinstance(dtype, type):
        return dtype(leaf)
    return dtype or leaf.dtype


def _mapping(description: JsonObject, key: str) -> dict[str, Any]:
    """A section of `model.json` that may be left out."""
    value = description.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"its {key} is no object")
    return value


def _read_file(
    file: AnyPath, network: Network[nnx.Module], where: str, target: Mapping[str, ocp.RestoreArgs]
) -> dict[str, Any]:
    """Parameters of a safetensors file, tensor by tensor, in their shardings and dtypes, or on the host as they are."""
    with contextlib.ExitStack() as stack:
        try:
            if not isinstance(file, Path):
                local = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tooncrafter-"))) / file.name
                copy_file(file, local)
                file = local
            stored = SafetensorsSource(file)
        except (UserError, OSError) as error:
            about = f" ({error})" if isinstance(error, UserError) else ""
            raise UserError(f"{where} is damaged or incomplete: fetch or write it again{about}") from error
        check_shapes(stored.shapes, {name: leaf.shape for name, leaf in network.abstract_params.items()}, where)

        def place(name: str, arguments: ocp.RestoreArgs) -> AnyArray | HostArray:
            value = stored.read(name)
            if not isinstance(arguments, ocp.ArrayRestoreArgs):
                return value
            value, where_to = value.astype(arguments.dtype), arguments.sharding
            assert isinstance(where_to, jax.sharding.Sharding)
            return jax.make_array_from_callback(value.shape, where_to, lambda index: value[index])

        return {name: place(name, arguments) for name, arguments in target.items()}


def _alone() -> ocp.options.MultiprocessingOptions:
    """For a process of several that writes host arrays by itself, without waiting for the others."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"alone_{me}"
    )


def fingerprint(params: Params) -> str:
    """Stands for the paths, dtypes and values of parameters; drawn at random where this process has not all of them."""
    whole = hashlib.sha256()
    for path, value in sorted(params.items()):
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            return secrets.token_hex(8)
        whole.update(f"{path} {value.dtype} {value.shape} ".encode())
        whole.update(np.ascontiguousarray(np.asarray(value)).view(np.uint8).data)
    return whole.hexdigest()[:16]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax's progress messages off the terminal."""
    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in ("absl", "orbax")]
    verbosity = absl_logging.get_verbosity()
    for logger, _ in loggers:
        logger.setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(verbosity)
        for logger, level in loggers:
            logger.setLevel(level)
