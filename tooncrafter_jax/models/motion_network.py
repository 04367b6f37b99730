"""The network that finds the motion between two key frames: RIFE's flows, bent to what sketches show.

RIFE knows the two pictures alone, and so what lies on the straight way between them. A sketch tells where things really
are: `sketched_motion` makes its frame a key, without any training. Further blocks, which are trained and start as
nothing, compare its lines with the pictures as they are carried so far, correct flows and shares from coarse to fine,
and hand what they find on to the frames before and after by convolutions over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from einops import rearrange, reduce
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.models.bounds import Need, check_numbers
from tooncrafter_jax.models.motion import Motion, both_carried
from tooncrafter_jax.models.rife import ActivatedConv, Flows, Logit, Rife, RifeConfig
from tooncrafter_jax.models.sketched_motion import CELL, InnerMotion, Known, LineFinder, through_sketches
from tooncrafter_jax.nn.layers import Conv, LayerOptions, TemporalConv
from tooncrafter_jax.nn.logical_axes import constrain
from tooncrafter_jax.nn.remat import run_block
from tooncrafter_jax.nn.warping import resized
from tooncrafter_jax.typing import Hints, Images

KNOWN = 2 * 3 + 1 + 1 + 1 + 1 + 4
"""Channels that a block of the refinement sees: both carried pictures, the sketch, whether there is one, the time, the
logit of the share, and the flows.
"""
SCALES = (1, 2, 4, 8, 16)
"""What a block may be smaller than the pictures by."""
STEM_STRIDE = 4
"""A block works at a quarter of its scale."""


@dataclass(frozen=True)
class MotionConfig:
    """Architecture; the defaults are RIFE version 4 without refinement.

    Attributes:
      flow: the part that is RIFE.
      refinement_widths: channels of each block of the refinement, coarse to fine; empty for none.
      refinement_scales: how much smaller than the pictures the input of each of them is.
      refinement_depth: pairs of convolutions, over space and over time, in the middle of each.
      enlargement: how many times larger sketches and lines are when the flows between them are estimated. RIFE was
        trained on larger pictures than a model for 128x128 pixels has.
      both_ways: whether these flows are also estimated the other way round, and both are averaged.
      through_sketches: whether frames with a sketch become keys (`sketched_motion`), before any refinement.
      guides_denoiser: whether the denoiser sees the motion (spec section 14), and not only a decoder that carries its
        references along it.
    """

    flow: RifeConfig = RifeConfig()
    refinement_widths: tuple[int, ...] = ()
    refinement_scales: tuple[int, ...] = ()
    refinement_depth: int = 6
    enlargement: int = 1
    both_ways: bool = False
    through_sketches: bool = False
    guides_denoiser: bool = True

    def check(self, need: Need) -> None:
        """Checks that the blocks can be built; `need` raises the error."""
        check_numbers("motion.flow", vars(self.flow), need)
        need(len(self.flow.widths) > 0, "motion.flow.widths is empty: give the channels of each block")
        for name, widths, scales in (
            ("flow.", self.flow.widths, self.flow.scales),
            ("refinement_", self.refinement_widths, self.refinement_scales),
        ):
            need(
                len(widths) == len(scales),
                f"motion.{name}widths has {len(widths)} entries and motion.{name}scales {len(scales)}, but each block "
                "needs both",
            )
            need(all(width > 1 for width in widths), f"motion.{name}widths is {widths}, but a block needs 2 channels")
            need(
                all(scale in SCALES for scale in scales),
                f"motion.{name}scales is {scales}, but must be of {', '.join(map(str, SCALES))}",
            )

    @property
    def follows_sketches(self) -> bool:
        """Whether sketches bend the motion; without, they are not looked at."""
        return self.through_sketches or bool(self.refinement_widths)

    @property
    def pixel_multiple(self) -> int:
        """The network pads pictures to heights and widths that are multiples of this many pixels."""
        return max(self.flow.pixel_multiple, STEM_STRIDE * max(self.refinement_scales, default=1), CELL)


class RefinementBlock(nnx.Module):
    """Corrects flows and shares of all frames of a clip at one resolution.

    Args:
      width: channels.
      depth: pairs of convolutions.
    """

    def __init__(self, width: int, depth: int, **kw: Unpack[LayerOptions]) -> None:
        self.stem = nnx.List([ActivatedConv(KNOWN, width // 2, 2, **kw), ActivatedConv(width // 2, width, 2, **kw)])
        self.body = nnx.List([ActivatedConv(width, width, **kw) for _ in range(depth)])
        self.over_time = nnx.List([TemporalConv(width, width, **kw) for _ in range(depth)])
        self.head = Conv(width, (4 + 1) * 2 * 2, zero_init=True, **kw)  # flows and logit of twice the size

    def __call__(
        self, known: Float[Array, "B N H W C"], scale: int
    ) -> tuple[Float[Array, "B N H W 4"], Float[Array, "B N H W 1"]]:
        """What is added to the flows, in pixels, and to the logit.

        Args:
          known: at full size; the flows, its last four channels, in pixels.
          scale: how much smaller the block works.
        """
        batch, _, height, width, _ = known.shape
        small = reduce(known, "b n (h p) (w q) c -> (b n) h w c", "mean", p=scale, q=scale)
        h = jnp.concatenate([small[..., :-4], small[..., -4:] / scale], axis=-1)
        for conv in self.stem:
            h = conv(h)
        for conv, over_time in zip(self.body, self.over_time, strict=True):
            mixed = over_time(rearrange(conv(h), "(b n) h w c -> b n h w c", b=batch))
            h = h + rearrange(mixed, "b n h w c -> (b n) h w c")
        y = rearrange(self.head(h).astype(jnp.float32), "m h w (c p q) -> m (h p) (w q) c", p=2, q=2)
        y = rearrange(resized(y, height, width), "(b n) h w c -> b n h w c", b=batch)
        return y[..., :4] * (2 * scale), y[..., 4:]


class MotionNetwork(nnx.Module):
    """Says where the content of each frame between two key frames lies in them, which can guide a model."""

    def __init__(self, config: MotionConfig, **kw: Unpack[LayerOptions]) -> None:
        self.config = config
        self.flow = Rife(config.flow, **kw)
        self.lines = nnx.data(LineFinder(**kw) if config.through_sketches else None)
        self.refinement = nnx.List(
            [RefinementBlock(width, config.refinement_depth, **kw) for width in config.refinement_widths]
        )

    def __call__(
        self,
        ends: Float[Array, "B 2 H W 3"],
        frames: int,
        hints: Hints | None = None,
        most_sketches: int | None = None,
    ) -> Motion:
        """The motion of a clip.

        Frame n is at the time n / (T - 1), as in the published code (spec section 14).

        Args:
          ends: the first and the last frame, in [-1, 1], of any size.
          frames: T of the clip, at least 3.
          hints: sketches that the motion is bent to, where the network follows them; an all-zero frame has none.
          most_sketches: that are between the ends of a clip, at most; None: as many as there are frames. Fewer cost
            less where the motion goes through them.

        Returns:
          Flows in pixels.
        """
        height, width = ends.shape[2:4]
        multiple = self.config.pixel_multiple
        border = ((0, -height % multiple), (0, -width % multiple), (0, 0))
        padded = jnp.pad(ends, ((0, 0), (0, 0), *border), mode="edge")
        flows, logit = self._straight(padded, frames)
        sketches = jnp.zeros((*flows.shape[:-1], 1))
        if hints is not None:
            sketches = jnp.pad(hints[:, 1:-1].astype(jnp.float32), ((0, 0), (0, 0), *border))
            if self.lines is not None:
                known = Known(padded, InnerMotion(flows, logit), sketches)
                flows, logit = through_sketches(
                    known, self.flow.estimate, self._between_lines, self.lines, most_sketches
                )
        if len(self.refinement):
            flows, logit = self._refined(padded, flows, logit, sketches)
        cut = (slice(None), slice(None), slice(height), slice(width))
        return Motion.of_frames_between(flows[cut], jax.nn.sigmoid(logit[cut]))

    def _straight(
        self, ends: Float[Array, "B 2 H W 3"], frames: int
    ) -> tuple[Float[Array, "B N H W 4"], Float[Array, "B N H W 1"]]:
        """RIFE's flows and logits for the frames between, each pair at every time."""
        between = frames - 2
        times = jnp.tile(jnp.arange(1, frames - 1, dtype=jnp.float32) / (frames - 1), ends.shape[0])
        first, last = (jnp.repeat(ends[:, i], between, axis=0) for i in range(2))
        flows, logit = (
            rearrange(x.astype(jnp.float32), "(b n) h w c -> b n h w c", n=between)
            for x in self.flow.estimate(first, last, times)
        )
        return flows, logit

    def _between_lines(self, first: Images, last: Images, times: Float[Array, "M"]) -> tuple[Flows, Logit]:
        """RIFE's flows and logits between drawings, at the size and in the directions of the configuration."""
        height, width = first.shape[1:3]
        times_larger = self.config.enlargement
        if times_larger > 1:
            first, last = (resized(x, times_larger * height, times_larger * width) for x in (first, last))
        flows, logit = (x.astype(jnp.float32) for x in self.flow.estimate(first, last, times))
        if self.config.both_ways:
            back, back_logit = (x.astype(jnp.float32) for x in self.flow.estimate(last, first, 1 - times))
            flows = (flows + jnp.roll(back, 2, axis=-1)) / 2
            logit = (logit - back_logit) / 2
        if times_larger > 1:
            flows, logit = resized(flows, height, width) / times_larger, resized(logit, height, width)
        return flows, logit

    def _refined(
        self,
        ends: Float[Array, "B 2 H W 3"],
        flows: Float[Array, "B N H W 4"],
        logit: Float[Array, "B N H W 1"],
        sketches: Float[Array, "B N H W 1"],
    ) -> tuple[Float[Array, "B N H W 4"], Float[Array, "B N H W 1"]]:
        between = flows.shape[1]
        drawn = jnp.broadcast_to(jnp.any(sketches > 0, axis=(2, 3, 4), keepdims=True), sketches.shape)
        times = jnp.arange(1, between + 1, dtype=jnp.float32) / (between + 1)
        time = jnp.broadcast_to(times[None, :, None, None, None], sketches.shape)
        given = [sketches, drawn.astype(jnp.float32), time]
        for block, scale in zip(self.refinement, self.config.refinement_scales, strict=True):
            carried = both_carried(ends[:, 0], ends[:, 1], flows)
            known = jnp.concatenate([*carried, *given, logit, flows], axis=-1)
            more, more_logit = run_block(
                partial(block, scale=scale), constrain(known, "batch", "frames", None, None, None)
            )
            flows, logit = flows + more, logit + more_logit
        return flows, logit
