"""What all stages have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
from jax.sharding import Mesh

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.training import lora
from tooncrafter_jax.training.components import Components, Params, split
from tooncrafter_jax.training.configuration import OptimizerConfig, TrainConfig
from tooncrafter_jax.weights.groups import in_groups
from tooncrafter_jax.weights.lora import PREFIX

Batch = Mapping[str, jax.Array]
"""A global batch as the loader makes it, on the devices; see `data.examples.Batch`."""
Metrics = dict[str, jax.Array]
"""Scalars, and arrays of sums whose name ends in `_by_time`; micro-batches are averaged."""

MODEL = "model"
"""Name of the player that every stage has."""


class Derived(NamedTuple):
    """What a parameter starts from that no checkpoint gives.

    Attributes:
      source: path of the parameter that it is made of; its own for what is freshly drawn; None for nothing.
      make: the source's value (or None) -> its value, of numpy or JAX arrays.
    """

    source: str | None
    make: Callable[[Any], Any]

    def value(self, params: Params) -> Any:
        """Its value, given its source's."""
        return self.make(None if self.source is None else params[self.source])


class Gradients(NamedTuple):
    """What a stage computes on a micro-batch.

    Attributes:
      loss: of the model, for finding non-finite steps.
      of: player -> gradients of its trained parameters, by path.
      statistics: parameters that are not trained but change with every step (batch normalisation), by path.
      metrics: what is logged.
    """

    loss: jax.Array
    of: dict[str, dict[str, jax.Array]]
    statistics: dict[str, jax.Array]
    metrics: Metrics


class Stage:
    """A loss, the parameters that it trains, and what training starts from.

    Attributes:
      config: the run's.
      model: the architecture, with what the stage changes in it.
      components: the networks, over one flat dict of parameters.
      is_trained: whether a parameter path is trained by the model's player.
    """

    uses: tuple[str, ...] = ()
    """Components that the stage needs."""
    trains: ClassVar[tuple[str, ...]] = ()
    """Groups that it trains unless the config says otherwise."""
    may_train: ClassVar[tuple[str, ...]] = ()
    """Groups that it is able to train."""
    fresh: ClassVar[tuple[str, ...]] = ()
    """Components that need not be in the checkpoint that training starts from."""
    is_guided: bool = False
    """Whether batches carry `hints` (B, T, H, W, 1), the sketches of some frames."""

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        self.config, self.model, self.mesh = config, self.adapt(model), mesh
        groups = config.groups or self.trains
        for key, named in (("groups", groups), ("optimizer.group_rates", config.optimizer.factors)):
            wrong = [name for name in named if name not in self.may_train]
            if wrong:
                raise UserError(
                    f"config.{key} has '{wrong[0]}', which the stage '{config.stage}' cannot train; it can train "
                    f"{', '.join(self.may_train)}"
                )
        networks = self.model.networks(config.dtype, attention=config.attention)
        chosen = {name: networks[name] for name in self.uses} | self.more_networks()
        self.components = Components(chosen, mesh, config.lora, config.gradient_dtype)
        self.is_chosen: Callable[[str], bool] = in_groups(groups)
        self.is_trained = self.is_chosen
        self.lora_targets: list[str] = []
        if config.lora.rank:
            self.lora_targets = lora.targets(config.lora, self.components.abstract_params, self.is_chosen)
            self.is_trained = lambda path: path.startswith(PREFIX)

    # Hooks that stages override.

    def adapt(self, model: ModelConfig) -> ModelConfig:
        """The architecture that the stage builds."""
        return model

    def more_networks(self) -> dict[str, Network[Any]]:
        """Networks beside the model's components."""
        return {}

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """What starts otherwise than freshly drawn, of the paths that no checkpoint gives."""
        return {}

    def loss(self, params: Params, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        """The model's loss on a micro-batch; `key` turns dropout on."""
        raise NotImplementedError

    # What the trainer uses.

    def players(self) -> dict[str, tuple[OptimizerConfig, Callable[[str], bool]]]:
        """Name -> (optimizer, whether a path is trained by it)."""
        return {MODEL: (self.config.optimizer, self.is_trained)}

    def trained_by_any(self, path: str) -> bool:
        """Whether a parameter is trained at all."""
        return any(is_trained(path) for _, is_trained in self.players().values())

    def gradients(self, params: Params, batch: Batch, key: jax.Array, step: jax.Array) -> Gradients:
        """Loss and gradients on a micro-batch; gradients are taken for trained parameters only."""
        del step
        trained, frozen = split(params, self.is_trained)
        function = jax.value_and_grad(lambda some: self.loss(some | frozen, batch, key), has_aux=True)
        (loss, metrics), gradients = function(trained)
        return Gradients(loss, {MODEL: gradients}, {}, metrics | {"loss": loss})

    def fitted_model(self, params: Params, some_clips: Callable[[], Batch]) -> ModelConfig:
        """The architecture with what is found out about it after training; `some_clips` reads a batch."""
        del params, some_clips
        return self.model

    def validate(self, params: Params, batch: Batch) -> Metrics:
        """What is logged of a validation batch, without dropout."""
        loss, metrics = self.loss(params, batch, None)
        return metrics | {"loss": loss}


def replace_config(model: ModelConfig, component: str, **changes: Any) -> ModelConfig:
    """The architecture with some values of one component changed."""
    return dataclasses.replace(model, **{component: dataclasses.replace(getattr(model, component), **changes)})
