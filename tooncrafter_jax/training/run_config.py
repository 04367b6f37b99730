"""The frozen config of a training run. `training.configuration` reads it from a config file; each stage adds options of
its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, Literal

from tooncrafter_jax.data.examples import LoaderConfig
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn.attention import Backend
from tooncrafter_jax.nn.remat import RematPolicy
from tooncrafter_jax.typing import JsonObject
from tooncrafter_jax.weights.groups import in_groups

DtypeName = Literal["float32", "bfloat16"]


def ranged(default: float | int, *, least: float | int, most: float | int = inf, below: float | int = inf) -> Any:
    """A field of a config whose value must lie in a range, or below its end; `check_ranges` tells."""
    return field(default=default, metadata={"range": (least, most, below)})


def check_ranges(config: object, where: str) -> None:
    """Checks the fields of a config that have a range, and those of configs in it.

    Raises:
      UserError: a value is out of its range; `where` leads to it.
    """
    if not dataclasses.is_dataclass(config):
        return
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if one.name != "options":
            check_ranges(value, f"{where}.{one.name}")
        least, most, below = one.metadata.get("range", (None, None, None))
        if least is None or (least <= value <= most and value < below):
            continue
        wanted = (
            f"in [{least}, {most}]" if most < inf else f"in [{least}, {below})" if below < inf else f"at least {least}"
        )
        raise UserError(f"{where}.{one.name} must be {wanted}, not {value}")


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer of trained parameters.

    Attributes:
      name: `adamw` (decoupled weight decay, as published), `adam`, or `muon` (orthogonalised momentum for kernels,
        AdamW with Nesterov's momentum for the rest, both with updates of about AdamW's size; arXiv 2502.16982).
      learning_rate: after the warm-up.
      schedule: what follows the warm-up: `constant` (as published, spec section 8.2) or `cosine` to 0 at the last step.
        Steps that are skipped because they are not finite do not count in it.
      warmup_steps: of linear growth from 0.
      beta1, beta2, epsilon: of Adam.
      weight_decay: of AdamW and Muon; biases and the scales of norms decay too, as published.
      clip_norm: largest global norm of the trained gradients; 0 for no clipping.
      group_rates: factors of the learning rate by parameter group, e.g. "decoder.har.residual:20" where new layers are
        to learn faster than those that know something already; for a parameter of several groups they multiply.
    """

    name: Literal["adamw", "adam", "muon"] = "adamw"
    learning_rate: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = ranged(0, least=0)
    beta1: float = ranged(0.9, least=0, below=1)
    beta2: float = ranged(0.999, least=0, below=1)
    epsilon: float = ranged(1e-8, least=0)
    weight_decay: float = ranged(0.01, least=0)
    clip_norm: float = ranged(0.5, least=0)
    group_rates: str = ""

    def __post_init__(self):
        in_groups(self.factors)

    @property
    def factors(self) -> dict[str, float]:
        """Group -> factor, of `group_rates`.

        Raises:
          UserError: if the text has another form.
        """
        found = {}
        for item in filter(None, self.group_rates.split(",")):
            group, _, factor = item.partition(":")
            try:
                found[group.strip()] = float(factor)
            except ValueError:
                found[group.strip()] = 0.0
            if not 0.0 < found[group.strip()] < inf:
                raise UserError(
                    f"config.optimizer.group_rates has '{item.strip()}', which must be a group and a factor above 0, "
                    "such as decoder.har:20"
                )
        return found

    def rate_factor(self, path: str) -> float:
        """The factor of a parameter's learning rate."""
        return prod((factor for group, factor in self.factors.items() if in_groups([group])(path)), start=1.0)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
      stage: what is trained and by which loss: a name of `training.stages.registry`.
      model: preset whose architecture is built; with `start`, the checkpoint's architecture is built instead.
      model_changes: nested values that differ from that architecture, e.g. {"decoder": {"temporal": False}}.
      start: checkpoint directory that training starts from, or several, separated by commas, each of which gives what
        those before it lack: a component, or parts of a decoder or of a motion network; empty for freshly initialised
        weights.
      groups: names of the trained parameter groups (`weights.groups`); empty for those that the stage
        trains by itself.
      motion_share: of the clips that motion between their key frames guides, in the denoiser and in a decoder that
        carries its references; 0 for no motion guidance, below 1 where one model is to work with and without.
      steps: length of the run.
      seed: of initialisation and dropout; data order and noise have the seed of `data`.
      data: what is read and how.
      validation: split that the validation loss is taken on; empty for none.
      validate_every, validation_batches: how often, and on how many batches.
      optimizer: of the trained parameters.
      accumulation: micro-batches that a step's batch is cut into.
      ema_decay: of the average of trained parameters; 0 for none.
      max_skipped_steps: a run stops after so many steps in a row whose loss or gradient is not finite.
      mesh: device axes such as "data:4,fsdp:8"; "auto" shares the parameters over as many devices as their memory asks
        for.
      dtype: of the computation.
      frozen_dtype: in which frozen parameters are kept.
      gradient_dtype: in which devices sum the gradients of matrices and kernels; bfloat16 halves that traffic
        (docs/precision.md).
      remat: what the backward pass keeps; see `nn.remat`.
      attention: the back end that attention is computed with where it can be, `auto` elsewhere; see `nn.attention`.
      log_every, save_every, sample_every: in steps; 0 for never.
      keep_last: newest checkpoints kept.
      keep_every: checkpoints of multiples of this are kept for good; 0 for none.
      options: of the stage: what its own `Options` declares, read from `config.STAGE` (`config.decoder.latent_noise`).
    """

    stage: str = "rectify"
    model: str = "tooncrafter_512"
    model_changes: JsonObject = field(default_factory=dict)
    start: str = ""
    groups: tuple[str, ...] = ()
    motion_share: float = ranged(0.0, least=0, most=1)
    steps: int = ranged(50_000, least=1)
    seed: int = ranged(20230211, least=0)
    data: LoaderConfig = LoaderConfig()
    validation: str = ""
    validate_every: int = ranged(1000, least=1)
    validation_batches: int = ranged(8, least=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    accumulation: int = ranged(1, least=1)
    ema_decay: float = ranged(0.0, least=0, below=1)
    max_skipped_steps: int = ranged(20, least=1)
    mesh: str = "auto"
    dtype: DtypeName = "bfloat16"
    frozen_dtype: DtypeName = "bfloat16"
    gradient_dtype: DtypeName = "float32"
    remat: RematPolicy = "blocks"
    attention: Backend = "auto"
    log_every: int = ranged(50, least=1)
    save_every: int = ranged(1000, least=0)
    sample_every: int = ranged(500, least=0)
    keep_last: int = ranged(2, least=1)
    keep_every: int = ranged(0, least=0)
    options: Any = None

    def __post_init__(self):
        in_groups(self.groups)
        check_ranges(self, "config")
        check_ranges(self.options, f"config.{self.stage}")
        if not self.optimizer.learning_rate > 0:
            raise UserError(f"config.optimizer.learning_rate must be above 0, not {self.optimizer.learning_rate}")
