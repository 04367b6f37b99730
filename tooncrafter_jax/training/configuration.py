"""The frozen config of a training run, read once from a config file's ConfigDict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, Literal

from ml_collections import ConfigDict

from tooncrafter_jax.config_codec import from_dict, to_dict
from tooncrafter_jax.data.examples import LoaderConfig
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn.attention import Backend
from tooncrafter_jax.nn.remat import RematPolicy
from tooncrafter_jax.weights.groups import in_groups

StageName = Literal["base", "rectify", "sketch", "decoder", "autoencoder"]
DtypeName = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class SketchConfig:
    """Where the sketches of the stage `sketch` come from.

    Attributes:
      extractor: draws them from the frames: a name that `data.sketches.load_extractor` knows.
      weights: file of the extractor's weights; empty for those that were fetched.
      every_frame: a sketch for every frame instead of a few (the paper's ZeroGate ablation).
      hint_start: how a new encoder's hint convolutions begin. `zeros` as published: default kernels, the last one zero. `scaled`:
        all so large that a drawing keeps its contrast through the eight of them. What the encoder adds to the denoiser is zero at
        step 0 either way.
    """

    extractor: Literal["anime2sketch", "hed", "hed_fused"] = "anime2sketch"
    weights: str = ""
    every_frame: bool = False
    hint_start: Literal["zeros", "scaled"] = "zeros"


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer of trained parameters.

    Attributes:
      name: `adamw` (decoupled weight decay, as published), `adam`, or `muon` (orthogonalised momentum for kernels, AdamW with
        Nesterov's momentum for the rest, both with updates of about AdamW's size; arXiv 2502.16982).
      learning_rate: after the warm-up.
      schedule: what follows the warm-up: `constant` (as published, spec section 8.2) or `cosine` to 0 at the last step. Steps
        that are skipped because they are not finite do not count in it.
      warmup_steps: of linear growth from 0.
      beta1, beta2, epsilon: of Adam.
      momentum: of Muon.
      weight_decay: of AdamW and Muon; biases and the scales of norms decay too, as published.
      clip_norm: largest global norm of the trained gradients; 0 for no clipping.
      group_rates: factors of the learning rate by parameter group, e.g. "decoder.har.residual:20" where new layers are to learn
        faster than those that know something already; for a parameter of several groups they multiply.
    """

    name: Literal["adamw", "adam", "muon"] = "adamw"
    learning_rate: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    momentum: float = 0.95
    weight_decay: float = 0.01
    clip_norm: float = 0.5
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
class LoraConfig:
    """Low-rank adaptation: instead of chosen kernels, small factors beside them are trained.

    Attributes:
      rank: of the factors; 0 for no adaptation.
      alpha: the product of the factors is scaled by alpha / rank.
      targets: parts of paths; kernels of the trained groups whose path contains one of them are adapted, those of convolutions
        too (e.g. "conv_").
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("attention.", "feed_forward.")

    @property
    def scale(self) -> float:
        """Factor of the product."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class AdversarialConfig:
    """The discriminator's part in the stages `decoder` and `autoencoder` (spec section 8.6).

    Attributes:
      width: channels after the discriminator's first convolution.
      start_step: from which the discriminator takes part; before, it neither trains nor is trained against. If the run has no such
        step, nothing of it is compiled.
      weight: factor of the adaptive weight.
      perceptual_weight: of LPIPS beside the L1 loss; 0 leaves it (and its weights) out.
      perceptual_frames: frames of a clip that LPIPS is measured on in a step of training, others in each; 0 for all.
      kl_weight: of the posterior's divergence; used by `autoencoder` only.
      optimizer: the discriminator's.
    """

    width: int = 64
    start_step: int = 50_001
    weight: float = 0.5
    perceptual_weight: float = 0.1
    perceptual_frames: int = 0
    kl_weight: float = 1e-6
    optimizer: OptimizerConfig = OptimizerConfig(
        name="adam", learning_rate=4.5e-6, beta1=0.5, beta2=0.9, weight_decay=0.0, clip_norm=0.0
    )


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
      stage: what is trained and by which loss; see `training.stages`.
      model: preset whose architecture is built; with `start`, the checkpoint's architecture is built instead.
      model_changes: nested values that differ from that architecture, e.g. {"decoder": {"temporal": False}}.
      start: checkpoint directory that training starts from, or several, separated by commas, each of which gives what those before
        it lack: a component, or parts of a decoder; empty for freshly initialised weights.
      groups: names of the trained parameter groups (`weights.groups`); empty for all that the stage can train.
      bypass_temporal: skips the temporal layers in the training forward (variant III of the paper's Table 3).
      steps: length of the run.
      seed: of initialisation and dropout; data order and noise have `data.seed`.
      data: what is read and how.
      sketch: of stages that sketches guide.
      validation: split that the validation loss is taken on; empty for none.
      validate_every, validation_batches: how often, and on how many batches.
      optimizer: of the trained parameters.
      adversarial: of the stages with a discriminator.
      latent_noise: standard deviation up to which the stage `decoder` adds noise to a clip's latents, in units of the scaled
        latents, drawn evenly from 0 on, in validation too; 0 as published. A denoiser's latents are never quite the true ones: a
        decoder that has met noise takes more from its references.
      denoised_latents: the stage `decoder` decodes what the denoiser, which `start` must hold, makes of a clip's latents after they
        are noised to a random time; False as published. `groups` may name the denoiser's and the sketch encoder's too then, which
        learn from the pictures.
      last_time_share: of the clips, in [0, 1], that are noised to the last diffusion time, where a prediction rests on what is
        given alone; the others' times are drawn evenly; 0 as published. For models that are to sample in one step or few.
      lora: low-rank adaptation.
      accumulation: micro-batches that a step's batch is cut into.
      ema_decay: of the average of trained parameters; 0 for none.
      max_skipped_steps: a run stops after so many steps in a row whose loss or gradient is not finite.
      mesh: device axes such as "data:4,fsdp:8"; "auto" puts all devices on `data`.
      dtype: of the computation.
      frozen_dtype: in which frozen parameters are kept.
      gradient_dtype: in which devices sum the gradients of matrices and kernels; bfloat16 halves that traffic (docs/precision.md).
      remat: what the backward pass keeps; see `nn.remat`.
      attention: the back end that attention is computed with where it can be, `auto` elsewhere; see `nn.attention`.
      log_every, save_every, sample_every: in steps; 0 for never.
      keep_last: newest checkpoints kept.
      keep_every: checkpoints of multiples of this are kept for good; 0 for none.
      log_norms: whether norms of gradients and parameters are logged by group.
    """

    stage: StageName = "rectify"
    model: str = "tooncrafter_512"
    model_changes: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    groups: tuple[str, ...] = ()
    bypass_temporal: bool = False
    steps: int = 50_000
    seed: int = 20230211
    data: LoaderConfig = LoaderConfig()
    sketch: SketchConfig = SketchConfig()
    validation: str = ""
    validate_every: int = 1000
    validation_batches: int = 8
    optimizer: OptimizerConfig = OptimizerConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    latent_noise: float = 0.0
    denoised_latents: bool = False
    last_time_share: float = 0.0
    lora: LoraConfig = LoraConfig()
    accumulation: int = 1
    ema_decay: float = 0.0
    max_skipped_steps: int = 20
    mesh: str = "auto"
    dtype: DtypeName = "bfloat16"
    frozen_dtype: DtypeName = "bfloat16"
    gradient_dtype: DtypeName = "float32"
    remat: RematPolicy = "blocks"
    attention: Backend = "auto"
    log_every: int = 50
    save_every: int = 1000
    sample_every: int = 500
    keep_last: int = 2
    keep_every: int = 0
    log_norms: bool = True

    def __post_init__(self):
        in_groups(self.groups)
        for name, least in _SMALLEST.items():
            if getattr(self, name) < least:
                raise UserError(f"config.{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"config.ema_decay must be in [0, 1), not {self.ema_decay}")
        if not self.optimizer.learning_rate > 0:
            raise UserError(f"config.optimizer.learning_rate must be above 0, not {self.optimizer.learning_rate}")
        frames = self.adversarial.perceptual_frames
        if frames < 0:
            raise UserError(f"config.adversarial.perceptual_frames must be at least 0 (0: all), not {frames}")
        if not self.latent_noise >= 0:
            raise UserError(f"config.latent_noise must be at least 0, not {self.latent_noise}")
        if self.latent_noise and self.stage != "decoder":
            raise UserError(f"config.latent_noise means nothing to the stage '{self.stage}'")
        if self.denoised_latents and self.stage != "decoder":
            raise UserError(f"config.denoised_latents means nothing to the stage '{self.stage}'")
        if not 0 <= self.last_time_share <= 1:
            raise UserError(f"config.last_time_share must be in [0, 1], not {self.last_time_share}")
        if self.last_time_share and self.stage in ("autoencoder", "decoder") and not self.denoised_latents:
            raise UserError(f"config.last_time_share means nothing to the stage '{self.stage}', which has no denoiser")
        if self.bypass_temporal and self.stage not in ("rectify", "base"):
            raise UserError(f"config.bypass_temporal means nothing to the stage '{self.stage}'")
        if self.lora.rank and self.stage != "rectify":
            raise UserError(f"config.lora works with the stage 'rectify', not '{self.stage}'")
        if self.lora.rank and self.optimizer.group_rates:
            raise UserError("config.optimizer.group_rates means nothing to config.lora, whose factors are in no group")


_SMALLEST = {
    "steps": 1,
    "accumulation": 1,
    "max_skipped_steps": 1,
    "log_every": 1,
    "save_every": 0,
    "sample_every": 0,
    "keep_last": 1,
    "keep_every": 0,
    "validate_every": 1,
    "validation_batches": 1,
}


def train_config(values: Mapping[str, Any]) -> TrainConfig:
    """The config of nested plain values, such as `ConfigDict.to_dict()` gives.

    Raises:
      UserError: for an unknown key (naming the nearest right one), a value of the wrong type or out of range.
    """
    return from_dict(TrainConfig, values, "config")


def default_config() -> ConfigDict:
    """Every key with its default, for a config file to change, e.g. by `config.steps = 1000`."""
    return ConfigDict(_with_tuples(to_dict(TrainConfig())))


def _with_tuples(value: Any) -> Any:
    """Nested values with tuples for lists, which the command line cannot change."""
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
