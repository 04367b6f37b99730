"""What training starts from: a checkpoint directory, fresh weights, or a part of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tooncrafter_jax.config_codec import from_dict, to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig, preset
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.training import lora
from tooncrafter_jax.training.configuration import TrainConfig
from tooncrafter_jax.training.sharding import tree_shardings
from tooncrafter_jax.training.stages import Stage
from tooncrafter_jax.training.stages.reconstruction import PERCEPTUAL
from tooncrafter_jax.training.state import TrainState, abstract_state, new_state, stored_dtype
from tooncrafter_jax.weights.metric_weights import load_lpips
from tooncrafter_jax.weights.store import Checkpoint


def architecture(config: TrainConfig) -> ModelConfig:
    """The architecture of a run: of its checkpoints or preset, with the config's changes.

    Of several checkpoints each tells the architecture of the components that those before it lack, and the first one the rest.

    Raises:
      UserError: there is no such checkpoint or preset, or a change names something unknown.
    """
    checkpoints = start_checkpoints(config)
    if not checkpoints:
        return changed(preset(config.model), config.model_changes)
    holders = component_holders(checkpoints)
    model = replace(checkpoints[0].config, **{name: getattr(holder.config, name) for name, holder in holders.items()})
    return changed(model, config.model_changes)


def start_checkpoints(config: TrainConfig) -> list[Checkpoint]:
    """The checkpoints of `config.start`, in its order; one whose own name has a comma is taken as it is.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    if not config.start:
        return []
    names = [config.start] if Path(config.start).exists() else config.start.split(",")
    return [Checkpoint(Path(name.strip())) for name in names]


def component_holders(checkpoints: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Component -> the first checkpoint that holds it."""
    return {name: checkpoint for checkpoint in reversed(checkpoints) for name in checkpoint.components}


def changed(model: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    """An architecture with nested changes.

    Raises:
      UserError: a change names something unknown, or has the wrong type.
    """
    values = to_dict(model)

    def apply(target: dict[str, Any], updates: Mapping[str, Any]) -> None:
        for key, value in updates.items():
            if isinstance(value, Mapping) and isinstance(target.get(key), dict):
                apply(target[key], value)
            else:
                target[key] = value

    apply(values, changes)
    result = from_dict(ModelConfig, values, "config.model_changes")
    result.check("config.model_changes")
    return result


def start_params(stage: Stage) -> dict[str, np.ndarray]:
    """All parameters that a stage starts from, on the host: restored, derived from others, or fresh.

    Raises:
      UserError: the checkpoint lacks a component, or is of another architecture; LPIPS' weights were not fetched.
    """
    config, components = stage.config, stage.components
    params: dict[str, Any] = {}
    checkpoints = start_checkpoints(config)
    if checkpoints:
        holders = component_holders(checkpoints)
        for name in (name for name in stage.uses if name in holders):
            # Of a component that may be restored in part, later checkpoints give what the first holder lacks.
            givers = [c for c in checkpoints if name in c.components] if _is_flexible(name, stage) else [holders[name]]
            for giver in reversed(givers):
                params |= _restore(giver, name, components.networks[name], stage)
        checkpoints[-1].require(name for name in stage.uses if name not in holders and name not in stage.fresh)
    if PERCEPTUAL in components.networks:
        loaded = load_lpips("vgg16")
        params |= {f"{PERCEPTUAL}.{path}": np.asarray(value) for path, value in loaded.params.items()}
    missing = set(components.abstract_params) - set(params)
    if missing:
        names = sorted({path.split(".")[0] for path in missing})
        fresh = components.init(config.seed, names)
        params |= {path: fresh[path] for path in missing}
        params |= stage.derive(params, missing)
    if stage.lora_targets:
        params |= lora.init(config.lora, components.abstract_params, stage.lora_targets, config.seed)
    return params


def _restore(checkpoint: Checkpoint, name: str, network: Network[Any], stage: Stage) -> dict[str, Any]:
    """A component of a checkpoint; a decoder that lacks temporal or reference parts, or has more, gives what it has."""
    host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    stored_config = getattr(checkpoint.config, name)
    stored = Network(network._module, stored_config)
    if not _is_flexible(name, stage):
        _check_same(stored_config, getattr(stage.model, name), name, checkpoint)
    restored = checkpoint.restore(name, stored, sharding=host)
    wanted = network.abstract_params
    fitting = {path: value for path, value in restored.items() if path in wanted and value.shape == wanted[path].shape}
    return {f"{name}.{path}": np.asarray(value) for path, value in fitting.items()}


def _is_flexible(name: str, stage: Stage) -> bool:
    """Whether a component need not have all parts in a checkpoint."""
    return name == "decoder" and name in stage.fresh


def _check_same(stored: Any, wanted: Any, name: str, checkpoint: Checkpoint) -> None:
    if not is_dataclass(stored) or stored == wanted:
        return
    differing = [f.name for f in fields(stored) if getattr(stored, f.name) != getattr(wanted, f.name)]
    ignorable = {"dropout"}
    if set(differing) - ignorable:
        raise UserError(
            f"{checkpoint.directory} has another {name} than the config asks for (they differ in {', '.join(differing)})"
        )


def start_state(stage: Stage, mesh: Mesh) -> TrainState:
    """The state before the first step, on the mesh, every array put straight where it is kept.

    Raises:
      UserError: see `start_params`.
    """
    shapes = abstract_state(stage)
    shardings = tree_shardings(shapes, mesh)
    places = {**shardings.trained, **shardings.frozen}
    params = {}
    for path, value in start_params(stage).items():
        value = np.asarray(value, jnp.dtype(stored_dtype(stage, path)))
        params[path] = jax.make_array_from_callback(value.shape, places[path], lambda index, value=value: value[index])
    return jax.jit(lambda given: new_state(stage, given), out_shardings=shardings)(params)
