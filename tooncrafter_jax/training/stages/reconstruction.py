"""What stages that learn from reconstructed clips have in common (spec section 8.6).

The loss is L1 + weight·LPIPS, and from a start step a hinge GAN whose weight adapts to the reconstruction's gradient.
Model and discriminator are trained in one step on one reconstruction; differs from the published lineage, which
reconstructs twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tooncrafter_jax.models.discriminator import STATISTICS, Discriminator, DiscriminatorConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.tooncrafter import BoundModel
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.remat import remat_policy
from tooncrafter_jax.training.components import FlatParams, as_float32, split
from tooncrafter_jax.training.run_config import OptimizerConfig, ranged
from tooncrafter_jax.training.stages.encoding import without_hints
from tooncrafter_jax.training.stages.stage import (
    MODEL,
    Batch,
    Gradients,
    Losses,
    Metrics,
    Optimized,
    Stage,
    total,
)
from tooncrafter_jax.typing import Latents, Video
from tooncrafter_jax.zoo.lpips.network import Lpips, LpipsConfig, LpipsNet

DISCRIMINATOR = "discriminator"
PERCEPTUAL = "perceptual"
WEIGHT_EPSILON, LARGEST_WEIGHT = 1e-4, 1e4


@dataclass(frozen=True)
class DiscriminatorOptions:
    """The discriminator's part, which Adam trains as the published autoencoder's does.

    Attributes:
      width: channels after its first convolution.
      start_step: from which it takes part; before, it neither trains nor is trained against. If the run has no such
        step, nothing of it is compiled.
      weight: factor of the adaptive weight.
      learning_rate: its own.
    """

    width: int = ranged(64, least=1)
    start_step: int = ranged(50_001, least=0)
    weight: float = ranged(0.5, least=0)
    learning_rate: float = ranged(4.5e-6, least=0)

    @property
    def optimizer(self) -> OptimizerConfig:
        """Adam as in the published autoencoder class (spec section 8.1)."""
        return OptimizerConfig(
            name="adam", learning_rate=self.learning_rate, beta1=0.5, beta2=0.9, weight_decay=0.0, clip_norm=0.0
        )


@dataclass(frozen=True)
class ReconstructionOptions:
    """Options of every stage that learns from reconstructed clips.

    Attributes:
      perceptual_weight: of LPIPS beside the L1 loss; 0 leaves it (and its weights) out.
      perceptual_network: what LPIPS compares features of: VGG16's, as the paper's lineage, or AlexNet's, which cost a
        twentieth of these.
      perceptual_frames: frames of a clip that LPIPS is measured on in a step of training, others in each; 0 for all.
      discriminator: from its start step on.
    """

    perceptual_weight: float = ranged(0.1, least=0)
    perceptual_network: LpipsNet = "vgg16"
    perceptual_frames: int = ranged(0, least=0)
    discriminator: DiscriminatorOptions = DiscriminatorOptions()


class Encoded(NamedTuple):
    """What a clip is decoded from.

    Attributes:
      latents: not scaled.
      references: of its first and last frame; None for a plain decoder.
      losses: what encoding adds to the loss.
      metrics: what is logged of it.
      motion: between the first and last frame; None where it guides nothing.
    """

    latents: Latents
    references: References | None
    losses: Losses
    metrics: Metrics
    motion: Motion | None = None


class _Adversary(NamedTuple):
    """What the discriminator contributes to a step.

    Attributes:
      loss: weighted, of the model.
      of_video: its gradient with respect to the frames.
      of_discriminator: gradients of the discriminator's own loss, by path.
      statistics: what its running statistics become.
      metrics: what is logged.
    """

    loss: jax.Array
    of_video: jax.Array
    of_discriminator: dict[str, jax.Array]
    statistics: dict[str, jax.Array]
    metrics: Metrics


class Reconstruction(Stage):
    """L1, LPIPS and a discriminator on what is decoded; a stage says of what (`encoded`)."""

    Options: ClassVar[type] = ReconstructionOptions
    needs_pixels = True
    uses = ("autoencoder", "decoder")
    fresh = ("decoder", DISCRIMINATOR)
    last_layer: ClassVar[str | None] = "decoder.conv_out.kernel"
    """Where the gradients of the two losses are compared (spec section 8.6 says why it is a choice); None: nowhere, the
    adversary's weight is the config's.
    """

    def more_networks(self) -> dict[str, Network[Any]]:
        """The discriminator, and LPIPS if it has a weight."""
        more: dict[str, Network[Any]] = {
            DISCRIMINATOR: Network(
                Discriminator, DiscriminatorConfig(width=self.options.discriminator.width), dtype=self.config.dtype
            )
        }
        if self.options.perceptual_weight:
            more[PERCEPTUAL] = Network(Lpips, LpipsConfig.of(self.options.perceptual_network), dtype=self.config.dtype)
        return more

    def optimized(self) -> dict[str, Optimized]:
        """The model and its discriminator."""
        own = Optimized(self.options.discriminator.optimizer, _is_discriminators)
        return super().optimized() | {DISCRIMINATOR: own}

    # -------------------------------------------------------------------------------------------------- reconstructing

    def encoded(self, model: BoundModel, batch: Batch) -> Encoded:
        """What the decoder is given."""
        raise NotImplementedError

    def reconstruct(
        self, model: BoundModel, batch: Batch, frames_at_a_time: int | None = None
    ) -> tuple[Video, Encoded]:
        """(frames, what they were decoded from); with gradients to what is trained.

        The decoder works on `frames_at_a_time` frames together, with the same result, or on all; chunks are not for
        gradients.
        """
        with remat_policy(self.config.remat):
            given = self.encoded(model, batch)
            video = model.decode_unscaled(given.latents, given.references, frames_at_a_time, given.motion)
            return video, given

    def sample(self, model: BoundModel, batch: Batch, frames_at_a_time: int | None = None) -> Video:
        """The clips, reconstructed."""
        return self.reconstruct(model, batch, frames_at_a_time)[0]

    def distance(
        self,
        params: FlatParams,
        video: Video,
        truth: Video,
        compared: Int[Array, "K"] | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[Losses, Metrics]:
        """L1 and weight·LPIPS, averaged (the published lineage has both averages and sums; spec section 8.6).

        LPIPS is of the frames whose numbers are `compared`, or of all. Clips that are not `valid` (B,) do not count;
        None: all do.
        """
        l1 = mean_of_clips(jnp.abs(video - truth), valid)
        weight = self.options.perceptual_weight
        if not weight:
            return {"l1": l1}, {"l1": l1}
        network = self.components.bind(PERCEPTUAL, params)
        if compared is not None:
            video, truth = video[:, compared], truth[:, compared]

        def of_frame(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
            return network(*pair)

        if self.config.remat != "none":
            of_frame = jax.checkpoint(of_frame)
        frames = (jnp.moveaxis(video, 1, 0), jnp.moveaxis(truth, 1, 0))
        perceptual = mean_of_clips(jnp.moveaxis(jax.lax.map(of_frame, frames), 1, 0), valid)
        return {"l1": l1, "lpips": weight * perceptual}, {"l1": l1, "lpips": perceptual}

    def compared_frames(self, batch: Batch) -> Int[Array, "K"] | None:
        """Numbers of the frames that LPIPS is measured on in a step, evenly spaced from a place that the first seed
        draws; None for all.

        If sketches guide, guided frames come first: those of most clips, and from the drawn place on where as many have
        a sketch.
        """
        frames, count = batch["video"].shape[1], self.options.perceptual_frames
        if not 0 < count < frames:
            return None
        start = (batch["seed"][0] % frames).astype(jnp.int32)
        if not self.is_guided:
            return (start + jnp.arange(count) * frames // count) % frames
        distance = (jnp.arange(frames) - start) % frames
        return jax.lax.top_k(jnp.sum(batch["sketched"], axis=0) - distance / frames, count)[1]

    # ------------------------------------------------------------------------------------------------------- gradients

    def gradients(self, params: FlatParams, batch: Batch, key: jax.Array, step: jax.Array) -> Gradients:
        """Gradients of model and discriminator; before the start step the discriminator neither takes part nor costs
        time.
        """
        del key
        settings = self.options.discriminator
        truth = to_pixels(batch["video"])
        # The adaptive weight compares gradients at the last layer, whether or not that layer is trained.
        leaves, rest = split(params, lambda path: path == self.last_layer or self.is_trained(path))

        def reconstruct(some: FlatParams) -> tuple[tuple[Video, Losses], Metrics]:
            video, given = self.reconstruct(self.bound({**some, **rest}), batch)
            return (video, given.losses), given.metrics

        (video, own), pull_back, of_encoding = jax.vjp(reconstruct, leaves, has_aux=True)
        compared = self.compared_frames(batch)

        def distance(video: Video) -> tuple[jax.Array, tuple[Losses, Metrics]]:
            losses, metrics = self.distance(params, video, truth, compared)
            return total(losses), (losses, metrics)

        (_, (distances, metrics)), of_distance = jax.value_and_grad(distance, has_aux=True)(video)

        # The adaptive weight: how much stronger the reconstruction pulls at the last layer. The pull-backs need only
        # that layer.
        def gradient_norm(of_video: jax.Array) -> jax.Array | float:
            if self.last_layer is None:
                return 1.0
            at_last = pull_back((of_video, jax.tree.map(jnp.zeros_like, own)))[0][self.last_layer]
            return jnp.linalg.norm(as_float32(at_last))

        def adversary(video: Video) -> _Adversary:
            adversarial, of_adversarial = jax.value_and_grad(lambda v: -jnp.mean(self._logits(params, v)))(video)
            ratio = gradient_norm(of_distance) / (gradient_norm(of_adversarial) + WEIGHT_EPSILON)
            weight = settings.weight * jnp.clip(ratio, 0.0, LARGEST_WEIGHT)
            discriminators, others = split(params, _is_discriminators)
            hinge = jax.value_and_grad(lambda some: self._hinge(some | others, truth, video), has_aux=True)
            (hinge_loss, (statistics, logits)), of_discriminator = hinge(discriminators)
            logged = {"adversarial": adversarial, "adversarial_weight": weight, "discriminator_loss": hinge_loss}
            return _Adversary(
                weight * adversarial, weight * of_adversarial, of_discriminator, statistics, logged | logits
            )

        def without(video: Video) -> _Adversary:
            none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(adversary, video))
            return none._replace(statistics={path: params[path] for path in none.statistics})

        if settings.start_step < self.config.steps:
            against = jax.lax.cond(step >= settings.start_step, adversary, without, jax.lax.stop_gradient(video))
        else:  # it never takes part, so its gradients, which pull back twice through the decoder, are not even compiled
            against = without(video)
        (of_leaves,) = pull_back((of_distance + against.of_video, jax.tree.map(jnp.ones_like, own)))
        of_model, _ = split(of_leaves, self.is_trained)
        losses = distances | own | {"adversarial": against.loss}
        metrics |= of_encoding | {"psnr": psnr(video, truth)} | against.metrics
        gradients = {MODEL: of_model, DISCRIMINATOR: against.of_discriminator}
        return Gradients(losses, gradients, against.statistics, metrics)

    def validate(self, params: FlatParams, batch: Batch) -> Metrics:
        """Distance and PSNR, of all frames and of the two that are given: means over the valid clips, each with a PSNR
        of its own; and, if sketches guide, the same without them.

        So they do not depend on how the clips are cut into batches.
        """
        metrics = self._validated(params, batch)
        if not self.is_guided:
            return metrics
        alone = self._validated(params, without_hints(batch))
        return metrics | {f"{name}_without_sketches": value for name, value in alone.items()}

    def _validated(self, params: FlatParams, batch: Batch) -> Metrics:
        video, _ = self.reconstruct(self.bound(params), batch)
        truth, valid = to_pixels(batch["video"]), batch["valid"]
        distances, metrics = self.distance(params, video, truth, valid=valid)
        ends = jnp.asarray([0, -1])
        of_clip = jax.vmap(psnr)
        return metrics | {
            "loss": total(distances),
            "psnr": mean_of_clips(of_clip(video, truth), valid),
            "psnr_of_ends": mean_of_clips(of_clip(video[:, ends], truth[:, ends]), valid),
        }

    def _logits(self, params: FlatParams, video: Video) -> jax.Array:
        return self.components.bind(DISCRIMINATOR, params)(video)

    def _hinge(
        self, params: FlatParams, truth: Video, video: Video
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Metrics]]:
        """The discriminator's loss, its running statistics after both calls, and how it judges."""
        real, statistics = self.components.bind(DISCRIMINATOR, params).logits_and_statistics(truth)
        renamed = {f"{DISCRIMINATOR}.{path}": value for path, value in statistics.items()}
        fake, statistics = self.components.bind(DISCRIMINATOR, {**params, **renamed}).logits_and_statistics(video)
        renamed = {f"{DISCRIMINATOR}.{path}": jax.lax.stop_gradient(value) for path, value in statistics.items()}
        loss = (jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))) / 2
        return loss, (renamed, {"logits_real": jnp.mean(real), "logits_fake": jnp.mean(fake)})


def _is_discriminators(path: str) -> bool:
    """Whether the discriminator's optimizer trains it: all of it but its running statistics."""
    return path.startswith(f"{DISCRIMINATOR}.") and path.rpartition(".")[2] not in STATISTICS


def mean_of_clips(values: jax.Array, valid: jax.Array | None) -> jax.Array:
    """The mean of values (B, ...) over the clips that are valid (B,), or over all; 0 where none is."""
    if valid is None:
        return jnp.mean(values)
    of_clip = jnp.mean(values.reshape(values.shape[0], -1), axis=1)
    # Not a product with 0: a clip that does not count may be anything.
    return jnp.sum(jnp.where(valid, of_clip, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


def psnr(video: Float[Array, "..."], truth: Float[Array, "..."]) -> jax.Array:
    """Peak signal-to-noise ratio in dB of frames in [-1, 1], clipped to it."""
    return -10.0 * jnp.log10(jnp.maximum(jnp.mean(jnp.square((jnp.clip(video, -1, 1) - truth) / 2)), 1e-10))
