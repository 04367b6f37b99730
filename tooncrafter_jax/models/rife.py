"""RIFE version 4: the picture between two others at any time, from flows estimated coarse to fine (Huang et al., ECCV
2022).

Four blocks, each at twice the resolution of the one before, estimate how far the picture in between lies from both
ends, and which of the two shows more at each pixel. The released version 4 draws the result from the two warped
pictures alone: the paper's refinement is in the checkpoint, but not used. `zoo.metric_weights.load_rife` reads the
published weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from tooncrafter_jax.nn.layers import Conv, LayerOptions
from tooncrafter_jax.nn.transposed import UpConv
from tooncrafter_jax.nn.warping import resized, warped
from tooncrafter_jax.typing import Images

FAR = 32.0
"""Pixels: where the second block moves both flows by more than this, motion is too large for the first, and everything
is estimated anew at half the resolution (version 4's inference).
"""

Flows = Float[Array, "N H W 4"]
"""To the first picture, right and down, then to the last, in pixels."""
Logit = Float[Array, "N H W 1"]
"""Logit of the first picture's share."""


@dataclass(frozen=True)
class RifeConfig:
    """Architecture; the defaults are version 4's.

    Attributes:
      widths: channels of each block.
      scales: how much smaller than the pictures the input of each block is.
      depth: convolutions in the middle of a block.
    """

    widths: tuple[int, ...] = (192, 128, 96, 64)
    scales: tuple[int, ...] = (8, 4, 2, 1)
    depth: int = 8

    @property
    def pixel_multiple(self) -> int:
        """Height and width must be multiples of this many pixels: a block halves twice, also at half the resolution."""
        return 8 * max(self.scales)


class ActivatedConv(nnx.Module):
    """A 3x3 convolution, then a leaky ReLU with a slope learned for each channel."""

    def __init__(self, in_features: int, features: int, stride: int = 1, **kw: Unpack[LayerOptions]) -> None:
        self.conv = Conv(in_features, features, stride=stride, **kw)
        self.slope = nnx.Param(jnp.full((features,), 0.25, kw.get("param_dtype", jnp.float32)))

    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N h w D"]:
        """Maps (N H W in) to (N H/stride W/stride features)."""
        x = self.conv(x)
        return jnp.where(x >= 0, x, self.slope[...].astype(x.dtype) * x)


class FlowBlock(nnx.Module):
    """Estimates a correction of flows and mask at one resolution."""

    def __init__(self, in_features: int, width: int, depth: int, **kw: Unpack[LayerOptions]) -> None:
        self.stem = nnx.List(
            [ActivatedConv(in_features, width // 2, 2, **kw), ActivatedConv(width // 2, width, 2, **kw)]
        )
        self.body = nnx.List([ActivatedConv(width, width, **kw) for _ in range(depth)])
        self.head = UpConv(width, 5, **kw)

    def __call__(
        self, x: Float[Array, "N H W C"], flows: Flows | None, scale: int
    ) -> tuple[Float[Array, "N H W 4"], Float[Array, "N H W 1"]]:
        """Corrections of flows and mask.

        Args:
          x: (N, H, W, C) what is known so far, at full size.
          flows: the flows so far; None for the first block.
          scale: how much smaller the block works.
        """
        height, width = x.shape[1:3]
        h = resized(x, height // scale, width // scale)
        if flows is not None:
            h = jnp.concatenate([h, resized(flows, height // scale, width // scale) / scale], axis=-1)
        for conv in self.stem:
            h = conv(h)
        skip = h
        for conv in self.body:
            h = conv(h)
        y = resized(self.head(h + skip).astype(jnp.float32), height, width)
        return y[..., :4] * (2 * scale), y[..., 4:]


class Rife(nnx.Module):
    """Draws the pictures between pairs of pictures."""

    def __init__(self, config: RifeConfig, **kw: Unpack[LayerOptions]) -> None:
        known = (7, *[12] * (len(config.widths) - 1))  # two pictures and the time; then also mask and flows
        self.config = config
        self.blocks = nnx.List(
            [
                FlowBlock(features, width, config.depth, **kw)
                for features, width in zip(known, config.widths, strict=True)
            ]
        )

    def __call__(self, first: Images, last: Images, times: Float[Array, "B"]) -> Images:
        """The pictures at these times.

        Args:
          first: (B, H, W, 3) in [-1, 1], H and W multiples of `RifeConfig.pixel_multiple`.
          last: the same.
          times: (B,) from 0, the first picture, to 1, the last.

        Returns:
          (B, H, W, 3) in [-1, 1], float32.
        """
        flows, mask = self.estimate(first, last, times)
        share = jax.nn.sigmoid(mask)
        return warped(first, flows[..., :2]) * share + warped(last, flows[..., 2:]) * (1 - share)

    def estimate(self, first: Images, last: Images, times: Float[Array, "B"]) -> tuple[Flows, Logit]:
        """Flows and logit; the arguments are those of `__call__`."""
        scales = self.config.scales
        flows, mask, far = self.estimate_flows(first, last, times, scales)
        far = far[:, None, None, None]

        def anew(_: Any) -> tuple[Flows, Logit]:
            coarse = self.estimate_flows(first, last, times, tuple(2 * scale for scale in scales))
            return jnp.where(far, coarse[0], flows), jnp.where(far, coarse[1], mask)

        return jax.lax.cond(far.any(), anew, lambda _: (flows, mask), None)

    def estimate_flows(
        self, first: Images, last: Images, times: Float[Array, "B"], scales: tuple[int, ...]
    ) -> tuple[Flows, Logit, Bool[Array, "B"]]:
        """Flows and logit, and for each pair whether it moves too far for these scales."""
        pictures = [(x.astype(jnp.float32) + 1) / 2 for x in (first, last)]
        time = jnp.broadcast_to(times.astype(jnp.float32)[:, None, None, None], (*first.shape[:3], 1))
        flows, mask = self.blocks[0](jnp.concatenate([*pictures, time], axis=-1), None, scales[0])
        far = jnp.zeros(first.shape[0], bool)
        for i, scale in enumerate(scales[1:], 1):
            moved = [warped(pictures[0], flows[..., :2]), warped(pictures[1], flows[..., 2:])]
            more, more_mask = self.blocks[i](jnp.concatenate([*moved, time, mask], axis=-1), flows, scale)
            if i == 1:
                reach = jnp.abs(more).max(axis=(1, 2))
                far = (reach[:, :2].max(axis=-1) > FAR) & (reach[:, 2:].max(axis=-1) > FAR)
            flows, mask = flows + more, mask + more_mask
        return flows, mask, far
