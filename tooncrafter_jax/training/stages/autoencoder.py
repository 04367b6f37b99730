"""The stage `autoencoder`: encoder and plain decoder from nothing (spec section 8.6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.tooncrafter import BoundModel, draw_latents
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.training.components import FlatParams
from tooncrafter_jax.training.run_config import ranged
from tooncrafter_jax.training.stages.reconstruction import (
    DISCRIMINATOR,
    Encoded,
    Reconstruction,
    ReconstructionOptions,
)
from tooncrafter_jax.training.stages.stage import Batch, Derived, replace_config

BRANCH_ENDS = (".res.conv_out.kernel", ".attention.out.kernel")
"""Last kernels of the residual branches of the autoencoder and its decoder."""


@dataclass(frozen=True)
class AutoencoderOptions(ReconstructionOptions):
    """Options of the stage `autoencoder`.

    Attributes:
      kl_weight: of the posterior's divergence.
    """

    kl_weight: float = ranged(1e-6, least=0)


class Autoencoder(Reconstruction):
    """Encoder and plain decoder from nothing, frame by frame."""

    Options: ClassVar[type] = AutoencoderOptions
    options: AutoencoderOptions
    trains = ("autoencoder", "decoder")
    may_train = ("autoencoder", "decoder")
    fresh = ("autoencoder", "decoder", DISCRIMINATOR)

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """Residual branches that end in zeros, and all other kernels times the square root of 3, which keeps the
        variance.

        What is drawn otherwise shrinks colours at every resolution until they drown in the branches, and the first
        thousands of steps go by in grey. Differs from the published lineage, which draws all kernels alike.
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
        parts = dict.fromkeys(("temporal", "references", "carried", "corrects_motion"), False)
        return replace_config(model, "decoder", **parts)

    def encoded(self, model: BoundModel, batch: Batch) -> Encoded:
        """Latents and the posterior's divergence from a normal, summed over a frame's latent and averaged over
        frames.
        """
        moments, _ = model.encode(to_pixels(batch["video"]))
        posterior = Posterior.from_moments(moments)
        terms = jnp.square(posterior.mean) + jnp.exp(posterior.logvar) - 1.0 - posterior.logvar
        divergence = 0.5 * jnp.mean(jnp.sum(terms, axis=(2, 3, 4)))
        losses = {"divergence": self.options.kl_weight * divergence}
        return Encoded(draw_latents(moments, batch["seed"]), None, losses, {"divergence": divergence})

    def fitted_model(self, params: FlatParams, some_clips: Callable[[], Batch]) -> ModelConfig:
        """With the scale factor that gives the latents a standard deviation of 1, on which a denoiser's schedule
        counts.
        """

        @jax.jit
        @exact_float32(self.config.dtype)
        def deviation(params: FlatParams, batch: Batch) -> jax.Array:
            return jnp.std(self.encoded(self.bound(params), batch).latents)

        factor = 1.0 / max(float(deviation(params, some_clips())), 1e-6)
        return dataclasses.replace(self.model, schedule=dataclasses.replace(self.model.schedule, scale_factor=factor))


def _scaled(value: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(factor * value, np.float32)
