"""The stage `sketch`: the sketch encoder beside a frozen denoiser (spec sections 7, 8.1 and 8.7)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions
from tooncrafter_jax.training.components import FlatParams
from tooncrafter_jax.training.stages.denoising import Denoising
from tooncrafter_jax.training.stages.encoding import conditions_of, guided_hints, without_hints
from tooncrafter_jax.training.stages.stage import Batch, Derived, Metrics
from tooncrafter_jax.typing import Latents


class SketchStage(Denoising):
    """Trains the sketch encoder on frames' own sketches; unguided frames get the empty image.

    The encoder starts as the spatial encoder half of the denoiser, which is Stable Diffusion 2.1's. The trainer draws the batch's
    hints with the config's extractor before the step; see `training.hints`.
    """

    uses = (*Denoising.uses, "sketch_encoder")
    trains = ("sketch",)
    may_train = ("sketch", "sketch.added")
    fresh = ("sketch_encoder",)
    is_guided = True

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """The encoder's layers that the denoiser has too, and hint convolutions that begin otherwise than published."""
        derived = self._scaled_hints(missing) if self.config.sketch.hint_start == "scaled" else {}
        shapes = self.components.abstract_params
        for path in missing:
            name = path.removeprefix("sketch_encoder.")
            source = f"unet.{name}"
            if name == path or source not in shapes:
                continue
            given, wanted = shapes[source].shape, shapes[path].shape
            if name == "conv_in.kernel":  # the channels of the noisy latent, without the condition latent's
                derived[path] = Derived(source, partial(_first_channels, count=wanted[2]))
            elif given == wanted:
                derived[path] = Derived(source, lambda value: value)
        return derived

    def _scaled_hints(self, missing: Collection[str]) -> dict[str, Derived]:
        """Kernels of the new hint convolutions, normal with variance 4 / fan-in: SiLU halves small values."""
        key = jax.random.key(self.config.seed)
        initialise = jax.nn.initializers.variance_scaling(4.0, "fan_in", "normal")
        paths = sorted(path for path in missing if path.startswith("sketch_encoder.hint.") and path.endswith(".kernel"))

        def hint(number: int, shape: tuple[int, ...]) -> Derived:
            return Derived(None, lambda _: initialise(jax.random.fold_in(key, number), shape))

        return {path: hint(i, self.components.abstract_params[path].shape) for i, path in enumerate(paths)}

    def conditions(self, model: BoundModel, batch: Batch, ends: Float[Array, "B 2 h w C"], frames: int) -> Conditions:
        """The denoiser's, and the sketches of the clips that have some."""
        hints, scale = guided_hints(batch, every_clip=self.config.sketch.every_frame)
        return conditions_of(model, batch, ends, frames, self.config.dtype, hints, scale)

    def predict(
        self,
        model: BoundModel,
        noisy: Latents,
        times: Int[Array, "B"],
        conditions: Conditions,
        key: jax.Array | None = None,
    ) -> Latents:
        """The denoiser's v with the encoder's residuals; the denoiser, which is frozen, has no dropout."""
        return super().predict(model, noisy, times, conditions, None if conditions.sketch is None else key)

    def validate(self, params: FlatParams, batch: Batch) -> Metrics:
        """Beside the guided loss, that of the denoiser alone on the same clips, times and noise."""
        alone, _ = self.loss(params, without_hints(batch), None)
        return super().validate(params, batch) | {"loss_without_sketches": alone}


def _first_channels(kernel: Any, count: int) -> Any:
    return kernel[:, :, :count]
