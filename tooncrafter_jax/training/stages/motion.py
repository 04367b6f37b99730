"""The stage `motion`: the motion network learns from key frames that are carried along its flows, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tooncrafter_jax.models.configuration import MOTION
from tooncrafter_jax.models.tooncrafter import BoundModel, condition_latents
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.remat import remat_policy
from tooncrafter_jax.training.stages.encoding import ends_of
from tooncrafter_jax.training.stages.reconstruction import (
    DISCRIMINATOR,
    Encoded,
    Reconstruction,
    ReconstructionOptions,
)
from tooncrafter_jax.training.stages.stage import Batch, ExtractorOptions, SketchSource
from tooncrafter_jax.typing import Video


@dataclass(frozen=True)
class MotionOptions(ReconstructionOptions, ExtractorOptions):
    """Options of the stage `motion`."""


class LearnedMotion(Reconstruction):
    """The refinement of the motion network, or all of it: both key frames, carried to each frame and blended, are to be
    that frame. Sketches of some frames say where things are.
    """

    Options: ClassVar[type] = MotionOptions
    options: MotionOptions
    uses = (MOTION,)
    trains = ("motion.refinement",)
    may_train = ("motion", "motion.flow", "motion.refinement")
    fresh = (MOTION, DISCRIMINATOR)
    last_layer = None

    @property
    def sketches(self) -> SketchSource:
        """As the options say."""
        return self.options.source()

    def reconstruct(
        self, model: BoundModel, batch: Batch, frames_at_a_time: int | None = None
    ) -> tuple[Video, Encoded]:
        """The key frames, carried to every frame; all frames at once."""
        del frames_at_a_time
        ends, frames = to_pixels(ends_of(batch["video"])), batch["video"].shape[1]
        with remat_policy(self.config.remat):
            motion = model.motion(ends, frames, batch.get("hints"))
        pictures = condition_latents(ends, frames)
        return motion.carried(pictures), Encoded(pictures, None, {}, {}, motion)
