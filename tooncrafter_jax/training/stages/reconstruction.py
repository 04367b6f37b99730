"""Stages that reconstruct clips: `decoder`, the dual-reference decoder, and `autoencoder`, from nothing (spec section 8.6).

The loss is L1 + weight·LPIPS, and from a start step a hinge GAN whose weight adapts to the reconstruction's gradient. Model and
discriminator are trained in one step on one reconstruction; differs from the published lineage, which reconstructs twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from tooncrafter_jax.diffusion.noise import Stream, clip_noise, clip_timesteps
from tooncrafter_jax.diffusion.objective import clean_from_v, noisy_target, without_rescale
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.discriminator import STATISTICS, Discriminator, DiscriminatorConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.tooncrafter import BoundModel, draw_latents
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.nn.remat import remat_policy
from tooncrafter_jax.training.components import FlatParams, as_float32, split
from tooncrafter_jax.training.configuration import TrainConfig
from tooncrafter_jax.training.stages.denoising import Denoising, Rectify
from tooncrafter_jax.training.stages.encoding import (
    clean_latents,
    conditions_of,
    ends_of,
    frame_moments,
    guided_hints,
    without_hints,
)
from tooncrafter_jax.training.stages.sketch import SketchStage
from tooncrafter_jax.training.stages.stage import (
    MODEL,
    Batch,
    Derived,
    Gradients,
    Losses,
    Metrics,
    Optimized,
    Stage,
    replace_config,
    total,
)
from tooncrafter_jax.typing import Latents, Video
from tooncrafter_jax.zoo.lpips.network import Lpips, LpipsConfig

DISCRIMINATOR = "discriminator"
PERCEPTUAL = "perceptual"
LAST_LAYER = "decoder.conv_out.kernel"
"""The layer at which the two losses' gradients are compared (spec section 8.6 says why it is a choice)."""
LAST_TEMPORAL = "decoder.conv_out_temporal.kernel"
BRANCH_ENDS = (".res.conv_out.kernel", ".attention.out.kernel")
"""Last kernels of the residual branches of the autoencoder and its decoder."""
WEIGHT_EPSILON, LARGEST_WEIGHT = 1e-4, 1e4


class Encoded(NamedTuple):
    """What a clip is decoded from.

    Attributes:
      latents: not scaled.
      references: of its first and last frame; None for a plain decoder.
      losses: what encoding adds to the loss.
      metrics: what is logged of it.
    """

    latents: Latents
    references: References | None
    losses: Losses = {}
    metrics: Metrics = {}


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
    """What the two stages have in common."""

    uses = ("autoencoder", "decoder")
    fresh = ("decoder", DISCRIMINATOR)

    def more_networks(self) -> dict[str, Network[Any]]:
        """The discriminator, and LPIPS if it has a weight."""
        more: dict[str, Network[Any]] = {
            DISCRIMINATOR: Network(
                Discriminator, DiscriminatorConfig(width=self.config.adversarial.width), dtype=self.config.dtype
            )
        }
        if self.config.adversarial.perceptual_weight:
            more[PERCEPTUAL] = Network(Lpips, LpipsConfig.vgg16(), dtype=self.config.dtype)
        return more

    def optimized(self) -> dict[str, Optimized]:
        """The model and its discriminator."""
        own = Optimized(self.config.adversarial.optimizer, _is_discriminators)
        return super().optimized() | {DISCRIMINATOR: own}

    # -------------------------------------------------------------------------------------------------- reconstructing

    def encoded(self, model: BoundModel, batch: Batch) -> Encoded:
        """What the decoder is given."""
        raise NotImplementedError

    def reconstruct(
        self, model: BoundModel, batch: Batch, frames_at_a_time: int | None = None
    ) -> tuple[Video, Encoded]:
        """(frames, what they were decoded from); with gradients to what is trained.

        The decoder works on `frames_at_a_time` frames together, with the same result, or on all; chunks are not for gradients.
        """
        with remat_policy(self.config.remat):
            given = self.encoded(model, batch)
            return model.decode_unscaled(given.latents, given.references, frames_at_a_time), given

    def sample(self, model: BoundModel, batch: Batch, frames_at_a_time: int | None = None) -> Video:
        """The clips, reconstructed."""
        return self.reconstruct(model, batch, frames_at_a_time)[0]

    def distance(
        self,
        params: FlatParams,
        video: Video,
        truth: Video,
        judged: jax.Array | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[Losses, Metrics]:
        """L1 and weight·LPIPS, averaged (the published lineage has both averages and sums; spec section 8.6).

        LPIPS is of the frames whose numbers are `judged`, or of all. Clips that are not `valid` (B,) do not count; None: all do.
        """
        l1 = mean_of_clips(jnp.abs(video - truth), valid)
        weight = self.config.adversarial.perceptual_weight
        if not weight:
            return {"l1": l1}, {"l1": l1}
        network = self.components.bind(PERCEPTUAL, params)
        if judged is not None:
            video, truth = video[:, judged], truth[:, judged]

        def of_frame(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
            return network(*pair)

        if self.config.remat != "none":
            of_frame = jax.checkpoint(of_frame)
        frames = (jnp.moveaxis(video, 1, 0), jnp.moveaxis(truth, 1, 0))
        perceptual = mean_of_clips(jnp.moveaxis(jax.lax.map(of_frame, frames), 1, 0), valid)
        return {"l1": l1, "lpips": weight * perceptual}, {"l1": l1, "lpips": perceptual}

    def judged_frames(self, batch: Batch) -> jax.Array | None:
        """Numbers of the frames that LPIPS is measured on in a step, evenly spaced from a place that the first seed draws; None
        for all.
        """
        frames, count = batch["video"].shape[1], self.config.adversarial.perceptual_frames
        if not 0 < count < frames:
            return None
        start = (batch["seed"][0] % frames).astype(jnp.int32)
        return (start + jnp.arange(count) * frames // count) % frames

    # ------------------------------------------------------------------------------------------------------- gradients

    def gradients(self, params: FlatParams, batch: Batch, key: jax.Array, step: jax.Array) -> Gradients:
        """Gradients of model and discriminator; before the start step the discriminator neither takes part nor costs time."""
        del key
        settings = self.config.adversarial
        truth = to_pixels(batch["video"])
        # The adaptive weight compares gradients at the last layer, whether or not that layer is trained.
        pulled, rest = split(params, lambda path: path == LAST_LAYER or self.is_trained(path))

        def reconstruct(some: FlatParams) -> tuple[tuple[Video, Losses], Metrics]:
            video, given = self.reconstruct(self.bound({**some, **rest}), batch)
            return (video, given.losses), given.metrics

        (video, own), pull_back, told = jax.vjp(reconstruct, pulled, has_aux=True)
        judged = self.judged_frames(batch)

        def distance(video: Video) -> tuple[jax.Array, tuple[Losses, Metrics]]:
            losses, metrics = self.distance(params, video, truth, judged)
            return total(losses), (losses, metrics)

        (_, (distances, metrics)), of_distance = jax.value_and_grad(distance, has_aux=True)(video)

        # The adaptive weight: how much stronger the reconstruction pulls at the last layer. The pull-backs need only that layer.
        def strength(cotangent: jax.Array) -> jax.Array:
            at_last = pull_back((cotangent, jax.tree.map(jnp.zeros_like, own)))[0][LAST_LAYER]
            return jnp.linalg.norm(as_float32(at_last))

        def adversary(video: Video) -> _Adversary:
            adversarial, of_adversarial = jax.value_and_grad(lambda v: -jnp.mean(self._logits(params, v)))(video)
            ratio = strength(of_distance) / (strength(of_adversarial) + WEIGHT_EPSILON)
            weight = settings.weight * jnp.clip(ratio, 0.0, LARGEST_WEIGHT)
            discriminators, others = split(params, _is_discriminators)
            hinge = jax.value_and_grad(lambda some: self._hinge(some | others, truth, video), has_aux=True)
            (judged, (statistics, judgements)), of_discriminator = hinge(discriminators)
            told = {"adversarial": adversarial, "adversarial_weight": weight, "discriminator_loss": judged} | judgements
            return _Adversary(weight * adversarial, weight * of_adversarial, of_discriminator, statistics, told)

        def nobody(video: Video) -> _Adversary:
            none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(adversary, video))
            return none._replace(statistics={path: params[path] for path in none.statistics})

        if settings.start_step < self.config.steps:
            against = jax.lax.cond(step >= settings.start_step, adversary, nobody, jax.lax.stop_gradient(video))
        else:  # it never takes part, so its gradients, which pull back twice through the decoder, are not even compiled
            against = nobody(video)
        (of_pulled,) = pull_back((of_distance + against.of_video, jax.tree.map(jnp.ones_like, own)))
        of_model, _ = split(of_pulled, self.is_trained)
        losses = distances | own | {"adversarial": against.loss}
        metrics |= told | {"psnr": psnr(video, truth)} | against.metrics
        gradients = {MODEL: of_model, DISCRIMINATOR: against.of_discriminator}
        return Gradients(losses, gradients, against.statistics, metrics)

    def validate(self, params: FlatParams, batch: Batch) -> Metrics:
        """Distance and PSNR, of all frames and of the two that are given: means over the valid clips, each with a PSNR of its own.

        So they do not depend on how the clips are cut into batches.
        """
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


class DecoderStage(Reconstruction):
    """The dual-reference decoder, with the encoder frozen; frames 0 and T - 1 are the references.

    Temporal and reference parts that a plain image decoder lacks start so that they change nothing.
    """

    trains = ("decoder",)
    may_train = ("decoder", "decoder.p3d", "decoder.har", "decoder.har.attention", "decoder.har.residual")

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """The last convolution over time, which hands frames through; all other new parts end in a layer of zeros.

        Differs from the published code: there it is drawn at random, and training would first have to find the pictures again.
        """
        if LAST_TEMPORAL not in missing:
            return {}
        kernel = np.zeros(self.components.abstract_params[LAST_TEMPORAL].shape, np.float32)
        kernel[kernel.shape[0] // 2, 0, 0] = np.eye(kernel.shape[-1])
        bias = np.zeros(kernel.shape[-1:], np.float32)
        return {
            LAST_TEMPORAL: Derived(None, lambda _: kernel),
            LAST_TEMPORAL.replace("kernel", "bias"): Derived(None, lambda _: bias),
        }

    def encoded(self, model: BoundModel, batch: Batch) -> Encoded:
        """Latents and references, without gradient to the encoder."""
        references = model.references_of(to_pixels(ends_of(batch["video"])))
        return Encoded(self.noisy(self.latents(model, batch), batch["seed"]), references)

    def latents(self, model: BoundModel, batch: Batch) -> Latents:
        """The latents that the decoder is to decode, before noise and not scaled: the true ones."""
        return jax.lax.stop_gradient(draw_latents(frame_moments(model, batch["video"]), batch["seed"]))

    def noisy(self, latents: Latents, seeds: jax.Array) -> Latents:
        """The latents with as much noise as the config asks for, by the examples' seeds."""
        if not self.config.latent_noise:
            return latents
        schedule = self.model.schedule
        share = clip_timesteps(seeds, schedule.timesteps)[:, None, None, None, None] / schedule.timesteps
        noise = clip_noise(seeds, Stream.STEP, jnp.arange(latents.shape[1]), latents.shape[2:])
        return latents + self.config.latent_noise / schedule.scale_factor * share * noise


class DenoisedDecoderStage(DecoderStage):
    """The dual-reference decoder on latents as the denoiser draws them (`config.denoised_latents`).

    A clip's latents are noised to a time that its seed draws, and the denoiser's one prediction of the clean ones is decoded: near
    the truth at early times, and what it knows of the motion from the ends alone at the last. The denoiser is frozen unless
    `config.groups` names parts of it: these learn from the pictures too. If it names the sketch encoder's, sketches guide the
    denoiser, and LPIPS is measured on guided frames first.
    """

    may_train = (*DecoderStage.may_train, *Rectify.may_train, *SketchStage.may_train)

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        self.is_guided = any(group in SketchStage.may_train for group in config.groups)
        kind = SketchStage if self.is_guided else Denoising
        self.uses = tuple(dict.fromkeys((*kind.uses, *DecoderStage.uses)))
        super().__init__(config, model, mesh)

    def judged_frames(self, batch: Batch) -> jax.Array | None:
        """As ever, but guided frames first: those of most clips, and from the drawn place on where as many have a sketch."""
        judged = super().judged_frames(batch)
        if judged is None or not self.is_guided:
            return judged
        frames = batch["video"].shape[1]
        distance = (jnp.arange(frames) - judged[0]) % frames
        return jax.lax.top_k(jnp.sum(batch["sketched"], axis=0) - distance / frames, len(judged))[1]

    def validate(self, params: FlatParams, batch: Batch) -> Metrics:
        """What every decoder's validation tells, and, if sketches guide, the same without them."""
        metrics = super().validate(params, batch)
        if not self.is_guided:
            return metrics
        alone = super().validate(params, without_hints(batch))
        return metrics | {f"{name}_without_sketches": value for name, value in alone.items()}

    def times(self, batch: Batch) -> Int[Array, "B"]:
        """The diffusion time of each clip, by its seed."""
        return clip_timesteps(batch["seed"], self.model.schedule.timesteps, self.config.last_time_share)

    def latents(self, model: BoundModel, batch: Batch) -> Latents:
        """The denoiser's prediction of the clean latents, from each clip's own time."""
        latents, times = clean_latents(model, batch), self.times(batch)
        hints = guided_hints(batch, every_clip=self.config.sketch.every_frame)
        given = conditions_of(model, batch, ends_of(latents), latents.shape[1], self.config.dtype, *hints)
        schedule = NoiseSchedule(self.model.schedule)
        noise = clip_noise(batch["seed"], Stream.INITIAL, jnp.arange(latents.shape[1]), latents.shape[2:])
        noisy = noisy_target(schedule, latents, noise, times).noisy
        v = as_float32(model.predict_v(noisy, times, given))
        clean = without_rescale(schedule, clean_from_v(schedule, noisy, v, times), times)
        return clean / self.model.schedule.scale_factor


class AutoencoderStage(Reconstruction):
    """Encoder and plain decoder from nothing, frame by frame."""

    trains = ("autoencoder", "decoder")
    may_train = ("autoencoder", "decoder")
    fresh = ("autoencoder", "decoder", DISCRIMINATOR)

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """Residual branches that end in zeros, and all other kernels times the square root of 3, which keeps the variance.

        What is drawn otherwise shrinks colours at every resolution until they drown in the branches, and the first thousands of
        steps go by in grey. Differs from the published lineage, which draws all kernels alike.
        """
        derived = {}
        for path in missing:
            name = path.partition(".")[2]
            if not path.startswith(("autoencoder.", "decoder.")) or not name.endswith("kernel"):
                continue
            factor = 0.0 if name.endswith(BRANCH_ENDS) else 3**0.5
            derived[path] = Derived(path, partial(_scaled, factor=factor))
        return derived

    def adapt(self, model: ModelConfig) -> ModelConfig:
        """The decoder without temporal and reference parts."""
        return replace_config(model, "decoder", temporal=False, references=False)

    def encoded(self, model: BoundModel, batch: Batch) -> Encoded:
        """Latents and the posterior's divergence from a normal, summed over a frame's latent and averaged over frames."""
        moments, _ = model.encode(to_pixels(batch["video"]))
        posterior = Posterior.from_moments(moments)
        terms = jnp.square(posterior.mean) + jnp.exp(posterior.logvar) - 1.0 - posterior.logvar
        divergence = 0.5 * jnp.mean(jnp.sum(terms, axis=(2, 3, 4)))
        losses = {"divergence": self.config.adversarial.kl_weight * divergence}
        return Encoded(draw_latents(moments, batch["seed"]), None, losses, {"divergence": divergence})

    def fitted_model(self, params: FlatParams, some_clips: Callable[[], Batch]) -> ModelConfig:
        """With the scale factor that gives the latents a standard deviation of 1, on which a denoiser's schedule counts."""

        @jax.jit
        @exact_float32(self.config.dtype)
        def deviation(params: FlatParams, batch: Batch) -> jax.Array:
            return jnp.std(self.encoded(self.bound(params), batch).latents)

        factor = 1.0 / max(float(deviation(params, some_clips())), 1e-6)
        return dataclasses.replace(self.model, schedule=dataclasses.replace(self.model.schedule, scale_factor=factor))


def _scaled(value: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(factor * value, np.float32)


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
