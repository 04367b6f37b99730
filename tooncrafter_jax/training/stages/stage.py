"""What all stages have in common."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Int32

from tooncrafter_jax.data.embeddings import ENCODERS
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import MOTION, ModelConfig
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.models.tooncrafter import BoundModel
from tooncrafter_jax.training.components import Components, FlatParams, split
from tooncrafter_jax.training.lora import LoraConfig, targets
from tooncrafter_jax.training.run_config import OptimizerConfig, TrainConfig
from tooncrafter_jax.typing import AnyArray, DeviceParams, JsonObject, Key, PyTree, Scalar, Video
from tooncrafter_jax.weights.groups import in_groups
from tooncrafter_jax.weights.lora import PREFIX

Batch = Mapping[str, AnyArray]
"""A global batch as the loader makes it, on the devices; see `data.examples.Batch`."""
Metrics = dict[str, AnyArray]
"""Scalars, and arrays of sums whose name ends in `_by_time`; micro-batches are averaged."""

Extractor = Literal["anime2sketch", "hed", "hed_fused"]
"""Names of what draws sketches; see `sketches.load_extractor`."""

Losses = dict[str, Scalar]
"""Terms of a loss by name, each with its weight in it; their sum is what is learnt."""

MODEL = "model"
"""Name of the optimizer that every stage has: of the model's own parameters."""


class Derived(NamedTuple):
    """What a parameter starts from that no checkpoint gives.

    Attributes:
      source: path of the parameter that it is made of; its own for what is freshly drawn; None for nothing.
      make: the source's value (or None) -> its value, of numpy or JAX arrays.
    """

    source: str | None
    make: Callable[[PyTree], PyTree]

    def value(self, params: FlatParams) -> Any:
        """Its value, given its source's."""
        return self.make(None if self.source is None else params[self.source])


class Gradients(NamedTuple):
    """What a stage computes on a micro-batch.

    Attributes:
      losses: of the model, by name.
      by_optimizer: name of an optimizer -> gradients of what it trains, by path.
      statistics: parameters that are not trained but change with every step (batch normalisation), by path.
      metrics: what is logged.
    """

    losses: Losses
    by_optimizer: dict[str, DeviceParams]
    statistics: DeviceParams
    metrics: Metrics

    @property
    def loss(self) -> Scalar:
        """The sum of the losses."""
        return total(self.losses)


class Optimized(NamedTuple):
    """Parameters with an optimizer of their own.

    Attributes:
      optimizer: its config.
      is_trained: whether a parameter path is among them.
    """

    optimizer: OptimizerConfig
    is_trained: Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Of a stage that has none."""


@dataclasses.dataclass(frozen=True)
class SketchSource:
    """Where the sketches of batches come from.

    Attributes:
      extractor: draws them from the frames: a name that `sketches.load_extractor` knows.
      weights: file of its weights; empty for those that were fetched.
      every_frame: a sketch for every frame instead of those that the loader chose.
    """

    extractor: Extractor
    weights: str
    every_frame: bool


@dataclasses.dataclass(frozen=True)
class ExtractorOptions:
    """Options of a stage whose sketches are drawn from the frames.

    Attributes:
      extractor: draws them.
      weights: file of the extractor's weights; empty for those that were fetched.
    """

    extractor: Extractor = "anime2sketch"
    weights: str = ""

    def source(self, *, every_frame: bool = False) -> SketchSource:
        """Where the sketches come from, of every frame or of those that the loader chose."""
        return SketchSource(self.extractor, self.weights, every_frame)


class Stage:
    """A loss, the parameters that it trains, and what training starts from.

    Attributes:
      config: the run's.
      options: those of the stage in it.
      model: the architecture, with what the stage changes in it.
      components: the networks, over one flat dict of parameters.
      is_trained: whether a parameter path is trained by the model's optimizer.
      copies: path of a frozen copy -> the path of the trained parameter that it starts as; `derive` says so too.
    """

    Options: ClassVar[type] = NoOptions
    """A frozen dataclass of what can be chosen of this stage alone, `config.STAGE` of a config file."""
    uses: tuple[str, ...] = ()
    """Components that the stage needs."""
    trains: ClassVar[tuple[str, ...]] = ()
    """Groups that it trains unless the config says otherwise."""
    may_train: ClassVar[tuple[str, ...]] = ()
    """Groups that it is able to train."""
    fresh: tuple[str, ...] = ()
    """Components that need not be in the checkpoint that training starts from."""
    reads_embeddings: ClassVar[bool] = False
    """Whether embeddings (`config.data.embeddings`) can stand for what its frozen encoders would make of clips."""
    fewest_frames: ClassVar[int] = 1
    """Of a clip."""
    needs_pixels: bool = False
    """Whether batches must have pixels where embeddings are read, too."""
    follows_motion: ClassVar[bool] = False
    """Whether motion can guide what the stage computes (`config.motion_share`)."""
    options: Any

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        self.config, self.mesh = config, mesh
        self.options = self.Options() if config.options is None else config.options
        self.model = self.adapt(model)
        if config.motion_share:
            if not self.follows_motion:
                raise UserError(
                    f"config.motion_share is {config.motion_share}, but motion guides nothing in the stage "
                    f"'{config.stage}': set it to 0"
                )
            self.uses, self.fresh, self.needs_pixels = (*self.uses, MOTION), (*self.fresh, MOTION), True
        groups = config.groups or self.trains
        self._check(groups)
        networks = self.model.networks(config.dtype, attention=config.attention)
        chosen = {name: networks[name] for name in self.uses} | self.more_networks()
        self.components = Components(chosen, mesh, self.lora, config.gradient_dtype)
        for group in groups:
            if not any(map(in_groups([group]), self.components.abstract_params)):
                raise UserError(
                    f"the stage '{config.stage}' is to train '{group}', of which this architecture has no parameters: "
                    "change config.groups or config.model_changes"
                )
        self.is_chosen: Callable[[str], bool] = in_groups(groups)
        self.is_trained = self.is_chosen
        self.lora_targets: list[str] = []
        self.copies: dict[str, str] = {}
        if self.lora.rank:
            if config.optimizer.group_rates:
                raise UserError("config.optimizer.group_rates means nothing to low-rank factors, which are in no group")
            self.lora_targets = targets(self.lora, self.components.abstract_params, self.is_chosen, config.stage)
            self.is_trained = lambda path: path.startswith(PREFIX)

    def _check(self, groups: Sequence[str]) -> None:
        """Checks that the stage can train these groups on the config's data.

        Raises:
          UserError: it cannot.
        """
        config, data = self.config, self.config.data
        for key, named in (("groups", groups), ("optimizer.group_rates", config.optimizer.factors)):
            wrong = [name for name in named if name not in self.may_train]
            if wrong:
                raise UserError(
                    f"config.{key} has '{wrong[0]}', which the stage '{config.stage}' cannot train; it can train "
                    f"{', '.join(self.may_train)}"
                )
        if MOTION in self.uses and data.frames < 3:
            raise UserError(
                f"config.data.frames is {data.frames}, but motion needs a frame between two others: set at least 3"
            )
        if data.frames < self.fewest_frames:
            raise UserError(
                f"config.data.frames is {data.frames}, but the stage '{config.stage}' learns what lies between two "
                f"frames: set at least {self.fewest_frames}"
            )
        if not data.embeddings:
            return
        if not self.reads_embeddings:
            raise UserError(
                f"config.data.embeddings is set, but the stage '{config.stage}' cannot learn from embeddings: leave it "
                "empty"
            )
        embedded = [name for name in groups if name in ENCODERS]
        if embedded:
            raise UserError(
                f"config.groups has '{embedded[0]}', which learns nothing where config.data.embeddings stands for what "
                "it makes of clips: leave out one of the two"
            )

    # Hooks that stages override.

    def adapt(self, model: ModelConfig) -> ModelConfig:
        """The architecture that the stage builds."""
        return model

    @property
    def lora(self) -> LoraConfig:
        """Low-rank adaptation of what is trained; of rank 0 for none."""
        return LoraConfig()

    @property
    def sampling(self) -> JsonObject:
        """Options of sampling that suit what is trained, over those of the start."""
        return {}

    @property
    def sketches(self) -> SketchSource | None:
        """Where batches get their `hints` (B, T, H, W, 1) from, the sketches of some frames; None where nothing
        guides.
        """
        return None

    def more_networks(self) -> dict[str, AnyNetwork]:
        """Networks beside the model's components."""
        return {}

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """What starts otherwise than freshly drawn, of the paths that no checkpoint gives."""
        return {}

    def losses(self, model: BoundModel, batch: Batch, key: Key | None) -> tuple[Losses, Metrics]:
        """The model's losses on a micro-batch, and what is logged beside them; `key` turns dropout on."""
        raise NotImplementedError

    def optimized(self) -> dict[str, Optimized]:
        """Name of an optimizer -> what it trains, and how."""
        return {MODEL: Optimized(self.config.optimizer, self.is_trained)}

    def gradients(self, params: FlatParams, batch: Batch, key: Key, step: Int32[Array, ""]) -> Gradients:
        """Losses and gradients on a micro-batch; gradients are taken for trained parameters only."""
        del step
        trained, frozen = split(params, self.is_trained)
        function = jax.value_and_grad(lambda some: self.loss(some | frozen, batch, key), has_aux=True)
        (_, (losses, metrics)), gradients = function(trained)
        return Gradients(losses, {MODEL: gradients}, {}, metrics)

    def sample(self, model: BoundModel, batch: Batch, frames_at_a_time: int | None = None) -> Video:
        """What the model makes of a batch, to be looked at while training: frames in about [-1, 1].

        The decoder works on `frames_at_a_time` frames together, or on all.
        """
        raise NotImplementedError

    # What the trainer uses.

    @property
    def is_guided(self) -> bool:
        """Whether sketches guide the stage."""
        return self.sketches is not None

    def bound(self, params: FlatParams) -> BoundModel:
        """The networks of the model with these parameters, for one trace."""
        return BoundModel(self.model, lambda component: self.components.bind(component, params))

    def loss(self, params: FlatParams, batch: Batch, key: Key | None) -> tuple[Scalar, tuple[Losses, Metrics]]:
        """The sum of `losses`, and what it is made of."""
        losses, metrics = self.losses(self.bound(params), batch, key)
        return total(losses), (losses, metrics)

    def trained_by_any(self, path: str) -> bool:
        """Whether a parameter is trained at all."""
        return any(part.is_trained(path) for part in self.optimized().values())

    def fitted_model(self, params: FlatParams, some_clips: Callable[[], Batch]) -> ModelConfig:
        """The architecture with what is found out about it after training; `some_clips` reads a batch."""
        del params, some_clips
        return self.model

    def validate(self, params: FlatParams, batch: Batch) -> Metrics:
        """What is logged of a validation batch, without dropout."""
        loss, (_, metrics) = self.loss(params, batch, None)
        return metrics | {"loss": loss}


def total(losses: Losses) -> Scalar:
    """The sum of losses, in their order."""
    return functools.reduce(operator.add, losses.values())


def replace_config(model: ModelConfig, component: str, **changes: object) -> ModelConfig:
    """The architecture with some values of one component changed."""
    return dataclasses.replace(model, **{component: dataclasses.replace(getattr(model, component), **changes)})
