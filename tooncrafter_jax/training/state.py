"""The state of a training run: everything that a step changes and a checkpoint holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Generic

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int32

from tooncrafter_jax.models.configuration import MOTION
from tooncrafter_jax.models.discriminator import STATISTICS
from tooncrafter_jax.training.optimizers import make_optimizer
from tooncrafter_jax.training.stages import Stage
from tooncrafter_jax.typing import AnyArray, Leaf, PyTree
from tooncrafter_jax.weights.lora import PREFIX, matrix_shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState(Generic[Leaf]):
    """Arrays, or what stands for them (shapes, shardings), in flat dicts by parameter path.

    Attributes:
      step: steps that were taken, skipped ones among them, () int32.
      trained: parameters that are trained, float32.
      frozen: all others, in `TrainConfig.frozen_dtype`; running statistics among them in float32.
      optimizer: name -> optax state, of trained parameters only.
      average: exponential moving average of the model's trained parameters; empty without.
      skipped: steps whose loss or gradient was not finite, () int32.
      skipped_in_a_row: how many of them are the last ones, () int32.
    """

    step: Leaf
    trained: dict[str, Leaf]
    frozen: dict[str, Leaf]
    optimizer: dict[str, PyTree]
    average: dict[str, Leaf]
    skipped: Leaf
    skipped_in_a_row: Leaf

    @property
    def updates(self: State) -> Int32[Array, ""]:
        """Steps that changed something, () int32: what schedules count, as the optimizers' own counters do."""
        return self.step - self.skipped

    @property
    def params(self) -> dict[str, Leaf]:
        """All parameters by path."""
        return {**self.trained, **self.frozen}

    @property
    def averaged_params(self) -> dict[str, Leaf]:
        """All parameters, with averages in place of what was trained; the parameters themselves without averages."""
        return {**self.trained, **self.frozen, **self.average}


State = TrainState[jax.Array]
"""Of arrays."""
AbstractState = TrainState[jax.ShapeDtypeStruct]
"""Of shapes and dtypes."""


def optimizers(stage: Stage) -> dict[str, optax.GradientTransformation]:
    """The optimizers of the stage by name."""
    return {
        name: make_optimizer(part.optimizer, stage.config.steps, part.is_trained)
        for name, part in stage.optimized().items()
    }


def stored_dtype(stage: Stage, path: str) -> np.dtype:
    """In which dtype a parameter is kept: float32 when it is trained, a statistic, or of the motion network, and
    else the config's.
    """
    is_exact = stage.trained_by_any(path) or is_statistic(path) or path.startswith(f"{MOTION}.")
    return np.dtype(np.float32 if is_exact else jnp.dtype(stage.config.frozen_dtype))


def is_statistic(path: str) -> bool:
    """Whether a parameter is a running statistic, which is not trained and yet changes with every step."""
    return path.rpartition(".")[2] in STATISTICS


def new_state(stage: Stage, params: Mapping[str, AnyArray]) -> State:
    """The state before the first step (jittable).

    Args:
      stage: what is trained.
      params: all parameters by path, low-rank factors included.
    """
    trained = {path: value for path, value in params.items() if stage.trained_by_any(path)}
    frozen = {path: value for path, value in params.items() if path not in trained}
    everything = {**trained, **frozen}
    zero = jnp.zeros((), jnp.int32)
    average = {path: value for path, value in trained.items() if stage.is_trained(path)}
    return TrainState(
        step=zero,
        trained=trained,
        frozen=frozen,
        optimizer={name: optimizer.init(everything) for name, optimizer in optimizers(stage).items()},
        average=jax.tree.map(jnp.copy, average) if stage.config.ema_decay else {},
        skipped=zero,
        skipped_in_a_row=zero,
    )


def abstract_state(stage: Stage) -> AbstractState:
    """Shapes and dtypes of the state, without any array."""
    params = dict(stage.components.abstract_params)
    for path in stage.lora_targets:
        inputs, outputs = matrix_shape(params[path].shape)
        rank = stage.lora.rank
        params[f"{PREFIX}{path}.a"] = jax.ShapeDtypeStruct((inputs, rank), jnp.float32)
        params[f"{PREFIX}{path}.b"] = jax.ShapeDtypeStruct((rank, outputs), jnp.float32)
    params |= {copy: params[path] for copy, path in stage.copies.items()}
    params = {path: jax.ShapeDtypeStruct(leaf.shape, stored_dtype(stage, path)) for path, leaf in params.items()}
    return jax.eval_shape(lambda given: new_state(stage, given), params)
