"""The stage `sketch`: the sketch encoder beside a frozen denoiser (spec sections 7, 8.1 and 8.7)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from tooncrafter_jax.diffusion.noise import GENERATOR
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.tooncrafter import BoundModel, Conditions
from tooncrafter_jax.training.components import FlatParams
from tooncrafter_jax.training.run_config import TrainConfig, ranged
from tooncrafter_jax.training.stages.denoising import Denoising
from tooncrafter_jax.training.stages.encoding import guided_hints, without_hints
from tooncrafter_jax.training.stages.stage import Batch, Derived, ExtractorOptions, Metrics, SketchSource
from tooncrafter_jax.typing import AnyArray, Hints, HostArray, Key, Latents


@dataclass(frozen=True)
class SketchOptions(ExtractorOptions):
    """Options of the stage `sketch`, beside those of `ExtractorOptions`.

    Attributes:
      every_frame: a sketch for every frame instead of a few (the paper's ZeroGate ablation).
      hint_start: how a new encoder's hint convolutions begin. `zeros` as published: default kernels, the last one zero.
        `scaled`: all so large that a drawing keeps its contrast through the eight of them. What the encoder adds to the
        denoiser is zero at step 0 either way.
      last_time_share: of the clips that are noised to the last diffusion time, where a prediction rests on what is
        given alone; the others' times are drawn evenly; 0 as published. For models that are to sample in one step or
        few.
    """

    every_frame: bool = False
    hint_start: Literal["zeros", "scaled"] = "zeros"
    last_time_share: float = ranged(0.0, least=0, most=1)


class Sketch(Denoising):
    """Trains the sketch encoder on frames' own sketches; unguided frames get the empty image.

    The encoder starts as the spatial encoder half of the denoiser, which is Stable Diffusion 2.1's. The trainer draws
    the batch's hints with the config's extractor before the step; see `training.hints`.
    """

    Options = SketchOptions
    options: SketchOptions
    uses = (*Denoising.uses, "sketch_encoder")
    trains = ("sketch",)
    may_train = ("sketch", "sketch.added")
    fresh = ("sketch_encoder",)
    needs_pixels = True

    def __init__(self, config: TrainConfig, model: ModelConfig, mesh: Mesh | None = None) -> None:
        super().__init__(config, model, mesh)
        self.last_time_share = self.options.last_time_share

    @property
    def sketches(self) -> SketchSource:
        """As the options say."""
        return self.options.source(every_frame=self.options.every_frame)

    def derive(self, missing: Collection[str]) -> dict[str, Derived]:
        """The encoder's layers that the denoiser has too, and hint convolutions that begin otherwise than published."""
        derived = self._scaled_hints(missing) if self.options.hint_start == "scaled" else {}
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
        key = jax.random.key(self.config.seed, impl=GENERATOR)
        initialise = jax.nn.initializers.variance_scaling(4.0, "fan_in", "normal")
        paths = sorted(path for path in missing if path.startswith("sketch_encoder.hint.") and path.endswith(".kernel"))

        def hint(number: int, shape: tuple[int, ...]) -> Derived:
            return Derived(None, lambda _: initialise(jax.random.fold_in(key, number), shape))

        return {path: hint(i, self.components.abstract_params[path].shape) for i, path in enumerate(paths)}

    def hints(self, batch: Batch) -> tuple[Hints | None, Float[Array, "B"] | None]:
        """The sketches of the clips that have some."""
        return guided_hints(batch, every_clip=self.options.every_frame)

    def predict(
        self,
        model: BoundModel,
        noisy: Latents,
        times: Int[Array, "B"],
        conditions: Conditions,
        key: Key | None = None,
    ) -> Latents:
        """The denoiser's v with the encoder's residuals; the denoiser, which is frozen, has no dropout."""
        return super().predict(model, noisy, times, conditions, None if conditions.sketch is None else key)

    def validate(self, params: FlatParams, batch: Batch) -> Metrics:
        """Beside the guided loss, that of the denoiser alone on the same clips, times and noise."""
        alone, _ = self.loss(params, without_hints(batch), None)
        return super().validate(params, batch) | {"loss_without_sketches": alone}


def _first_channels(kernel: AnyArray | HostArray, count: int) -> AnyArray | HostArray:
    return kernel[:, :, :count]
