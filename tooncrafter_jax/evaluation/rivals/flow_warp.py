"""The classical rival: both pictures moved along the optical flow between them, and merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, UInt8

from tooncrafter_jax.curation.motion import DisFlow, GmFlow, OpticalFlow
from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest, end_frames, times
from tooncrafter_jax.evaluation.rivals.splatting import Splat, sampled, splat
from tooncrafter_jax.typing import HostArray, JsonObject

LEAST_IMPORTANCE = 1e-4
"""Of a pixel that the other picture contradicts: little beside one that it confirms, but far more than nothing arriving
at all, as what is uncovered is seen in one picture only.
"""
LEAST_SIDE = 64
"""Pixels that pictures have at least while their flow is measured."""
BLEND_WEIGHT = 1e-7
"""Of the pictures' blend beside what arrives: it shows where nothing does."""


@dataclass
class FlowWarp:
    """Moves every pixel of both pictures along a straight line to where it is at each time; nothing is learned, unless
    the flow is.

    Where several pixels of one picture meet, the one whose flow ends at its own colour in the other picture is seen:
    brightness constancy, as the importance of Niklaus and Liu (2020), section 3. What arrives from the two pictures is
    weighted by nearness in time, by that importance, and by how densely it arrives; so holes are filled from the other
    picture, and where nothing arrives from either, by their blend. Frames 0 and T-1 are the pictures themselves.

    Attributes:
      flow: how the flow is measured, from each picture to the other.
      strictness: importance falls by e for each 1/strictness of mean difference of colours in [0, 1].
      name, title: see `InBetweener`.
    """

    flow: OpticalFlow = field(default_factory=DisFlow)
    strictness: float = 20.0
    name: str = "flow_warp"
    title: str = "flow warp (DIS)"

    def require(self, ids: Sequence[str]) -> None:
        """Measures the flow of two small pictures, which needs all that a large one does."""
        self.flow(*np.zeros((2, LEAST_SIDE, LEAST_SIDE, 3), np.uint8))

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """The clips; see `InBetweener`."""
        first, last, frames = end_frames(requests)
        return np.stack([self._clip(*pictures, frames) for pictures in zip(first, last, strict=True)])

    def settings(self) -> JsonObject:
        """The flow's name and settings, and the strictness."""
        return {"flow": self.flow.name, **self.flow.settings(), "strictness": self.strictness}

    def _clip(self, first: np.ndarray, last: np.ndarray, frames: int) -> HostArray:
        flows = [measured(self.flow, *pictures) for pictures in ((first, last), (last, first))]
        colours = [picture.astype(np.float32) / 255 for picture in (first, last)]
        importance = [
            brightness_constancy(colours[0], colours[1], flows[0], self.strictness),
            brightness_constancy(colours[1], colours[0], flows[1], self.strictness),
        ]
        between = []
        for time in times(frames)[1:-1]:
            arrived = [
                splat(colours[end], importance[end], (flows[end] * passed).astype(np.float32))
                for end, passed in enumerate((time, 1 - time))
            ]
            merged = merge(arrived[0], arrived[1], (1 - time) * colours[0] + time * colours[1], time)
            between.append(np.floor(merged * 255 + 0.5).clip(0, 255).astype(np.uint8))
        return np.stack([first, *between, last])


def gmflow_warp() -> FlowWarp:
    """`FlowWarp` along GMFlow's flow, a learned one."""
    return FlowWarp(GmFlow(), name="flow_warp_gmflow", title="flow warp (GMFlow)")


def measured(
    flow: OpticalFlow, before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "H W 3"]
) -> Float32[np.ndarray, "H W 2"]:
    """The flow from `before` to `after` in pixels; borders of pictures too small for it are repeated."""
    height, width = before.shape[:2]
    border = ((0, max(0, LEAST_SIDE - height)), (0, max(0, LEAST_SIDE - width)), (0, 0))
    padded = [np.pad(picture, border, "edge") for picture in (before, after)]
    return np.ascontiguousarray(flow(*padded)[:height, :width])


def brightness_constancy(
    picture: Float32[np.ndarray, "H W 3"],
    other: Float32[np.ndarray, "H W 3"],
    flow: Float32[np.ndarray, "H W 2"],
    strictness: float,
) -> Float32[np.ndarray, "H W"]:
    """How far the other picture confirms the flow: 1 where it has the same colour at its end, at least
    `LEAST_IMPORTANCE`.

    Args:
      picture: in [0, 1].
      other: in [0, 1].
      flow: from `picture` to `other`, in pixels.
      strictness: see `FlowWarp`.
    """
    difference = np.abs(picture - sampled(other, flow)).mean(axis=-1)
    return np.maximum(np.exp(-strictness * difference), LEAST_IMPORTANCE).astype(np.float32)


def merge(
    from_first: Splat, from_last: Splat, blend: Float[np.ndarray, "H W 3"], time: float
) -> Float[np.ndarray, "H W 3"]:
    """One picture from what arrives from two.

    Args:
      from_first: what arrives at this time.
      from_last: what arrives at this time.
      blend: shown where nothing arrives.
      time: from 0, the first picture's, to 1.

    Returns:
      (H, W, 3) in the range of what arrives.
    """
    total, weights = BLEND_WEIGHT * blend, BLEND_WEIGHT
    for arrived, nearness in ((from_first, 1 - time), (from_last, time)):
        share = nearness / np.maximum(arrived.cover, 1)  # dense arrival is no more certain than a single pixel's
        total = total + share[..., None] * arrived.sums
        weights = weights + share * arrived.importance
    return total / np.asarray(weights)[..., None]
