"""A clip on its way through a network of which most stages treat every frame by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from tooncrafter_jax.nn.chunks import Chunk, map_chunks
from tooncrafter_jax.nn.remat import run_block
from tooncrafter_jax.typing import PyTree, VideoFeatures

Stage = Callable[..., Any]


class FrameStages:
    """Runs stages on a few frames at a time; what is between two stages of frames is never whole.

    Stages wait until the clip is wanted whole. All that wait then run one after another on a chunk of frames before the
    next chunk begins. Where all frames are worked on together nothing waits, and each stage is a block of its own
    (`run_block`).

    In chunks, a stage ends before the next one begins. Left to itself, XLA for TPUs would compute the statistics of a
    normalisation, and what is made with them, in float32 and in the padded layout of the convolution before it, with
    the statistics repeated for every pixel: several times what the frames take.

    Args:
      clip: (B, T, H, W, C); must not be needed elsewhere where memory counts, as results may be written over it.
      chunk: frames at a time.

    Attributes:
      count: frames of the clip.
      chunk: of them at a time, fewer than there are; None for all.
    """

    def __init__(self, clip: VideoFeatures, chunk: Chunk) -> None:
        self.count = clip.shape[1]
        self.chunk: Chunk = None if chunk is None or chunk >= clip.shape[1] else chunk
        self._clip = clip
        self._waiting: list[tuple[Stage, tuple[PyTree, ...], tuple[PyTree, ...]]] = []

    def frames(self, stage: Stage, *others: PyTree, of_frames: tuple[PyTree, ...] = ()) -> None:
        """A stage that treats every frame by itself: stage(some frames, *others, *what belongs to these frames).

        Args:
          stage: gives frames (B, t, H', W', C'), or what the next stage takes, for frames (B, t, H, W, C).
          *others: arrays that every frame needs whole.
          of_frames: arrays with frames on axis 1, of which the stage is given those that it works on.
        """
        if self.chunk is None:
            self._clip = run_block(stage, self._clip, *others, *of_frames)
        else:
            self._waiting.append((stage, others, of_frames))

    def clip(self, stage: Stage) -> None:
        """A stage that needs all frames together."""
        self._clip = run_block(stage, self.whole())

    def whole(self) -> Float[Array, "B T H W C"]:
        """The clip after all stages so far."""
        stages, self._waiting = self._waiting, []

        def run(parts: tuple[Any, list[tuple[PyTree, ...]]]) -> VideoFeatures:
            part, of_frames = parts
            for (stage, others, _), own in zip(stages, of_frames, strict=True):
                part = jax.lax.optimization_barrier(stage(part, *others, *own))
            return part

        if stages:
            own = [of_frames for _, _, of_frames in stages]
            self._clip = map_chunks(run, (self._clip, own), 1, self.chunk, in_place=True)
        return self._clip

    def replace(self, clip: VideoFeatures) -> None:
        """Goes on with another clip, made of the one that `whole` gave."""
        self._clip = clip
