"""The dual-reference 3D decoder (spec section 5); without its temporal and reference parts it is the plain KL decoder.

Memory: per-frame work runs on `frames_per_chunk` frames at a time and per-pixel work on a like share of the rows. Both
are exact: statistics over the whole clip are taken before the chunks. What stays whole is the input of the convolutions
over time and what is between the two of them; results are written over what is needed no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Unpack, cast

import jax
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.models.autoencoder import EPSILON, Middle
from tooncrafter_jax.models.carried_references import CarriedPictures, CarriedReferences, Corrections, FrameMotion
from tooncrafter_jax.models.decoder_parts import (
    DecoderConfig,
    EndFrames,
    ReferenceResidual,
    References,
    UpLevel,
    VideoBlock,
    end_frames,
    rows_per_chunk,
)
from tooncrafter_jax.models.decoder_tiles import Cut, Tiles, drawn_in_tiles
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.unet import Observer
from tooncrafter_jax.nn.chunks import Chunk, map_chunks
from tooncrafter_jax.nn.frame_stages import FrameStages
from tooncrafter_jax.nn.layers import Conv, GroupNorm, LayerOptions, TemporalConv, silu
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.nn.remat import run_block
from tooncrafter_jax.typing import Latents, Video, VideoFeatures

TILED_LEVELS = 2
"""Levels of the highest resolution that are drawn in tiles: in the published decoder those that attend to nothing, and
take nearly all memory.
"""


class Decoder(nnx.Module):
    """Latents to frames, with details of the two input frames injected at every resolution."""

    def __init__(self, config: DecoderConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        features = config.width * config.multipliers[-1]
        self.post_quantization = nnx.data(
            Conv(config.latent_channels, config.z_channels, 1, **kw) if config.post_quantization else None
        )
        self.conv_in = Conv(config.z_channels, features, **kw)
        self.mid = Middle(
            [VideoBlock(features, features, config, **kw) for _ in range(2)], features, config.norm_groups, **kw
        )
        levels: list[UpLevel] = []
        for level in reversed(range(len(config.multipliers))):
            out, blocks = config.width * config.multipliers[level], []
            for _ in range(config.blocks_per_level + 1):
                blocks.append(VideoBlock(features, out, config, **kw))
                features = out
            levels.insert(0, UpLevel(level, blocks, out, config, **kw))
        self.up = nnx.List(levels)
        self.norm_out = GroupNorm(features, config.norm_groups, epsilon=EPSILON, **kw)
        self.final_reference_residual = nnx.data(ReferenceResidual(features, **kw) if config.references else None)
        self.conv_out = Conv(features, config.image_channels, **kw)
        self.conv_out_temporal = nnx.data(
            TemporalConv(config.image_channels, config.image_channels, **kw) if config.temporal else None
        )
        self.carried_pictures = nnx.data(CarriedPictures(features, **kw) if config.carried else None)

    def prepare_references(
        self, hidden: Sequence[Float[Array, "B 2 _ _ _"]], pictures: Float[Array, "B 2 H W 3"] | None = None
    ) -> References:
        """Keys, values and residuals of the two reference frames; computed once for both decoding passes.

        Args:
          hidden: the autoencoder's hidden states of the first and the last input frame, each (B, 2, H, W, C): one a
            level from full to lowest resolution, then the first convolution's.
          pictures: these frames, in [-1, 1]; needed where they are carried along motion.

        Raises:
          ValueError: if the decoder has no reference parts.
        """
        if self.final_reference_residual is None:
            raise ValueError("this decoder was built without reference parts")
        with jax.named_scope("prepare_references"):
            levels = [
                None if row.reference is None else row.reference.prepare(h)
                for row, h in zip(self.up, hidden[:-1], strict=True)
            ]
            head = self.final_reference_residual.prepare(hidden[-1])
        if self.carried_pictures is None:
            return References(levels, head)
        return References(levels, head, list(hidden[:-1]), pictures)

    def __call__(
        self,
        latents: Latents,
        references: References | None = None,
        motion: Motion | None = None,
        *,
        frames_per_chunk: Chunk = None,
        tile_size: int | None = None,
        observe: Observer | None = None,
    ) -> Video:
        """Decodes a clip.

        Args:
          latents: (B, T, h, w, latent channels), already divided by the scale factor.
          references: from `prepare_references`; None skips every injection.
          motion: between the two reference frames, in pixels, if the references are carried; None carries nothing.
          frames_per_chunk: how many frames are worked on at a time; None for all.
          tile_size: longest side in pixels of the tiles in which the highest levels are drawn, see `decoder_tiles`;
            None for whole frames.
          observe: called with each stage's name and output; not of what is drawn in tiles.

        Returns:
          (B, T, H, W, 3), in about [-1, 1] but not clamped.

        Raises:
          ValueError: if references are to be carried into tiles, or what is needed to carry them is missing.
        """
        if self.post_quantization is not None:
            latents = self.post_quantization(latents)
        stages = FrameStages(self.conv_in(constrain(latents, "batch", "frames", None, None, None)), frames_per_chunk)

        def seen(name: str) -> None:
            if observe is not None:
                observe(name, stages.whole())

        seen("conv_in")

        # Middle.
        before, after = cast("list[VideoBlock]", list(self.mid.blocks))
        with jax.named_scope("mid"):
            before.follow(stages)
            seen("mid.blocks.0")
            stages.frames(self.mid.attention)
            seen("mid.attention")
            after.follow(stages)
            seen("mid.blocks.1")

        # Up.
        tiles = None if tile_size is None else self.tiles(latents.shape[2:4], tile_size)
        of_tiles = 0 if tiles is None else self._tiled_levels
        corrections = None
        for level in reversed(range(of_tiles, len(self.up))):
            corrections = self._up(level, stages, references, motion, corrections, seen)
            if level > of_tiles:
                self._double(level, stages, seen)
        if tiles is None:
            return self._drawn(stages, references, motion, corrections, observe)
        if self.carried_pictures is not None and motion is not None:
            raise ValueError("references are carried to whole frames alone, not into tiles")
        return drawn_in_tiles(
            partial(self._tile, stages.whole(), references),
            [*(self.up[i] for i in range(of_tiles)), self.norm_out],
            tiles,
        )

    def _up(
        self,
        level: int,
        stages: FrameStages,
        references: References | None,
        motion: Motion | None,
        corrections: Corrections | None,
        seen: Callable[[str], None],
    ) -> Corrections | None:
        """Adds the stages of a level, and gives the corrections of the motion so far."""
        row = self.up[level]
        with jax.named_scope(f"up.{level}"):
            for i, block in enumerate(row.blocks):
                block.follow(stages)
                seen(f"up.{level}.blocks.{i}")
            if row.reference is not None and references is not None:
                is_end = end_frames(stages.count)
                stages.frames(row.reference, references.levels[level], of_frames=(is_end,))
                seen(f"up.{level}.reference")
            if row.carried is not None and references is not None and motion is not None:
                corrections = self._carry(row.carried, level, stages, references, motion, corrections)
                seen(f"up.{level}.carried")
        return corrections

    def _double(self, level: int, stages: FrameStages, seen: Callable[[str], None]) -> None:
        """Adds what leads from a level to the next one."""
        with jax.named_scope(f"up.{level}"):
            stages.frames(self.up[level].doubled)
            seen(f"up.{level}.upsample")

    def _drawn(
        self,
        stages: FrameStages,
        references: References | None,
        motion: Motion | None = None,
        corrections: Corrections | None = None,
        observe: Observer | None = None,
    ) -> Video:
        """What is drawn of the last level's output."""
        of_references, is_end = None if references is None else references.head, end_frames(stages.count)
        with jax.named_scope("head"):
            if self.carried_pictures is None or references is None or motion is None:
                if observe is not None and of_references is not None:
                    observe("final_reference", self._features(stages.whole(), of_references))
                stages.frames(
                    lambda part, *of: self.conv_out(self._features(part, *of)), of_references, of_frames=(is_end,)
                )
                return self._in_time(stages.whole(), stages.chunk)
            if references.pictures is None:
                raise ValueError("pictures are carried along motion: prepare the references with them")
            stages.frames(self._features, of_references, of_frames=(is_end,))
            blend, h, pictures = self.carried_pictures, stages.whole(), references.pictures
            if observe is not None:
                observe("final_reference", h)
            drawn = run_block(lambda x: map_chunks(self.conv_out, x, 1, stages.chunk), h)
            drawn = self._in_time(drawn, stages.chunk)
            return map_chunks(
                lambda part: blend(part[0], part[1], pictures, part[2]),
                (drawn, h, FrameMotion.of(motion, corrections)),
                1,
                stages.chunk,
            )

    def _features(
        self, x: VideoFeatures, of_references: Float[Array, "B 2 H W C"] | None, is_end: EndFrames | None = None
    ) -> VideoFeatures:
        """What the last convolution draws frames of."""
        h = silu(self.norm_out(x, batch_axes=2))
        if self.final_reference_residual is None or of_references is None:
            return h
        return self.final_reference_residual(h, of_references, is_end)

    def _in_time(self, drawn: Video, chunk: Chunk) -> Video:
        """What is drawn of each frame, after the convolution over time."""
        temporal, rows = self.conv_out_temporal, rows_per_chunk(drawn, chunk)
        return drawn if temporal is None else run_block(lambda x: map_chunks(temporal, x, 2, rows), drawn)

    def _carry(
        self,
        carried: CarriedReferences,
        level: int,
        stages: FrameStages,
        references: References,
        motion: Motion,
        corrections: Corrections | None,
    ) -> Corrections | None:
        """Adds to a level what is carried to each frame, and gives the corrections of the motion so far."""
        if references.hidden is None:
            raise ValueError(
                "details are carried along motion: prepare the references with the encoder's hidden states"
            )
        h, hidden = stages.whole(), references.hidden[level]
        size = h.shape[2:4]
        before = None if corrections is None else corrections.at_size(*size)
        frames = FrameMotion.of(motion.at_size(*size), before)

        def some_frames(part: tuple[VideoFeatures, FrameMotion]) -> tuple[VideoFeatures, Corrections]:
            return run_block(carried, part[0], hidden, part[1])

        h, more = map_chunks(some_frames, (h, frames), 1, stages.chunk, in_place=True)
        stages.replace(h)
        if not self.config.corrects_motion:
            return None
        return more if before is None else Corrections(before.flows + more.flows, before.logit + more.logit)

    # ----------------------------------------------------------------------------------------------------------- tiles

    @property
    def _tiled_levels(self) -> int:
        return min(TILED_LEVELS, len(self.up) - 1)

    def tiles(self, size: tuple[int, ...], tile_size: int) -> Tiles | None:
        """How frames of latents of a size are cut, in cells of the level below those that are drawn in tiles; None for
        whole frames.
        """
        levels, reach = self._tiled_levels, 1  # of the last convolution
        for level in range(levels):
            # Two convolutions of each block, and the one after doubling; cells are twice as large below it.
            reach = -(-(reach + 2 * len(self.up[level].blocks) + 1) // 2)
        scale = 2 ** (len(self.up) - 1 - levels)
        height, width = (side * scale for side in size)
        return Tiles.of(height, width, max(1, tile_size // 2**levels), reach)

    def _tile(self, whole: VideoFeatures, references: References | None, cut: Cut) -> Video:
        """A tile of all frames, with what lies around it, of the output of the level below."""
        stages = FrameStages(cut(whole), None)
        if references is not None:  # keys and values of attention stay whole
            levels = [
                level if level is None or isinstance(level, tuple) else cut(level)
                for level in references.levels[: self._tiled_levels]
            ]
            references = References(levels, cut(references.head))
        for level in reversed(range(self._tiled_levels)):
            self._double(level + 1, stages, _unseen)
            self._up(level, stages, references, None, None, _unseen)
        return self._drawn(stages, references)


def _unseen(_: str) -> None:
    """Of what is drawn in tiles nothing is observed."""
