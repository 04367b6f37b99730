"""Motion that goes through what sketches show: a frame with a sketch becomes a key between the two pictures.

The lines of both pictures are drawn as sketches are, and RIFE's flows from a sketch to them say where everything on it
lies in the pictures. Where the lines of what is carried so are nearer to the sketch than those of RIFE's own way, that
flow is taken, so nothing is learned for this. Frames between are then carried from the drawn frames beside them, and
their flows are put together to flows to the two pictures. This goes beyond the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from einops import rearrange, reduce, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from tooncrafter_jax.models.motion import both_carried, logit_of
from tooncrafter_jax.nn.layers import Conv, LayerOptions
from tooncrafter_jax.nn.warping import resized, warped

MEAN_RGB = (122.67892, 116.66877, 104.00699)
"""What VGG-16 subtracts from pixels of 0 to 255; the network reads them as blue, green, red."""
MARGIN = 2
"""Pixels that a picture is continued by: what the two convolutions reach."""
CELL = 4
"""Side of the cells whose lines are compared, in pixels."""
NEIGHBOURS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Weights of cells in a row: which flows are taken is decided by a neighbourhood, or patterns are torn."""
SHARPNESS_OF_SHARES, SHARPNESS_OF_FLOWS = 40.0, 80.0
"""Logits for a difference of lines of 1, the whole range being 2: which picture shows a place, and which flow."""
EPSILON = 1e-6

Estimate = Callable[
    [Float[Array, "M H W 3"], Float[Array, "M H W 3"], Float[Array, "M"]],
    tuple[Float[Array, "M H W 4"], Float[Array, "M H W 1"]],
]
"""Flows and the logit of the share at times between two pictures, as `Rife.estimate`."""
Lines = Callable[[Float[Array, "*B H W 3"]], Float[Array, "*B H W 1"]]
"""Lines of pictures, as `LineFinder`."""


class LineFinder(nnx.Module):
    """Thin lines of pictures: the first output of HED (Xie & Tu, ICCV 2015), which draws the sketches in training."""

    def __init__(self, width: int = 64, **kw: Unpack[LayerOptions]) -> None:
        self.convs = nnx.List([Conv(3, width, **kw), Conv(width, width, **kw)])
        self.side = Conv(width, 1, 1, **kw)

    def __call__(self, images: Float[Array, "*B H W 3"]) -> Float[Array, "*B H W 1"]:
        """Probabilities of a line, of pictures in [-1, 1]."""
        flat = images.reshape(-1, *images.shape[-3:])
        border = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
        pixels = (jnp.pad(flat.astype(jnp.float32), border, mode="edge") + 1) * 127.5 - jnp.asarray(MEAN_RGB)
        h = pixels[..., ::-1]
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        lines = jax.nn.sigmoid(self.side(h).astype(jnp.float32))[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        return lines.reshape(*images.shape[:-1], 1)


class InnerMotion(NamedTuple):
    """Flows to the first and to the last picture, and the logit of the first one's share, of the frames between.

    Attributes:
      flows: (B, N, H, W, 4) in pixels.
      logit: (B, N, H, W, 1).
    """

    flows: Float[Array, "B N H W 4"]
    logit: Float[Array, "B N H W 1"]


class Known(NamedTuple):
    """What is known of clips before their sketches are followed.

    Attributes:
      ends: the first and the last frame, in [-1, 1].
      straight: the motion without sketches.
      sketches: bright lines on black, 0 to 1; all zeros where there is none.
    """

    ends: Float[Array, "B 2 H W 3"]
    straight: InnerMotion
    sketches: Float[Array, "B N H W 1"]


def through_sketches(
    known: Known, estimate: Estimate, between_lines: Estimate, lines: Lines, most: int | None = None
) -> InnerMotion:
    """The motion of the frames between two pictures, through the sketches of some of them.

    Args:
      known: pictures, straight motion and sketches.
      estimate: finds flows between two pictures.
      between_lines: finds flows between two drawings of lines.
      lines: finds the lines of pictures.
      most: sketches that a clip has at most, all that flows between lines are found for; None: as many as frames.

    Returns:
      The motion; of clips without a sketch as it was.
    """
    is_drawn = jnp.any(known.sketches > 0, axis=(2, 3, 4))
    count = is_drawn.shape[1]
    if most is None or most >= count:
        of_drawn = _motion_of_drawn(known, between_lines, lines)
    else:
        order = jnp.argsort(~is_drawn, axis=1, stable=True)  # the drawn ones first
        some = _taken(known.straight, order[:, :most])
        sketches = jnp.take_along_axis(known.sketches, order[:, :most, None, None, None], axis=1)
        found = _motion_of_drawn(Known(known.ends, some, sketches), between_lines, lines)
        of_drawn = _taken(found, jnp.minimum(jnp.argsort(order, axis=1), most - 1))
    drawn = _chosen(is_drawn, of_drawn, known.straight)
    between = _motion_between_drawn(known.ends, drawn, is_drawn, estimate)
    has_sketch = jnp.any(is_drawn, axis=1, keepdims=True)
    return _chosen(has_sketch & ~is_drawn, between, drawn)


def _chosen(of_first: Bool[Array, "B N"], first: InnerMotion, second: InnerMotion) -> InnerMotion:
    where = of_first[:, :, None, None, None]
    return InnerMotion(*(jnp.where(where, one, other) for one, other in zip(first, second, strict=True)))


def _taken(motion: InnerMotion, numbers: Int[Array, "B K"]) -> InnerMotion:
    """The motion of some of the frames."""
    return InnerMotion(*(jnp.take_along_axis(x, numbers[:, :, None, None, None], axis=1) for x in motion))


def _blended(ends: Float[Array, "B 2 H W 3"], motion: InnerMotion) -> Float[Array, "B N H W 3"]:
    first, last = both_carried(ends[:, 0], ends[:, 1], motion.flows)
    share = jax.nn.sigmoid(motion.logit)
    return share * first + (1 - share) * last


def _motion_of_drawn(known: Known, between_lines: Estimate, lines: Lines) -> InnerMotion:
    """The motion of the frames that have a sketch; that of the others means nothing."""
    ends, straight, sketches = known
    count = sketches.shape[1]

    def as_pictures(x: Float[Array, "*B H W 1"]) -> Float[Array, "*B H W 3"]:
        return jnp.repeat(1 - 2 * x, 3, axis=-1)

    of_ends = as_pictures(lines(ends))
    of_first, of_last = (repeat(of_ends[:, end], "b h w c -> (b n) h w c", n=count) for end in range(2))
    drawn = rearrange(as_pictures(sketches), "b n h w c -> (b n) h w c")
    at_end, at_start = jnp.ones(len(drawn)), jnp.zeros(len(drawn))
    to_first, _ = between_lines(of_first, drawn, at_end)
    to_last, _ = between_lines(drawn, of_last, at_start)
    found = jnp.concatenate([to_first[..., :2], to_last[..., 2:]], axis=-1)
    flows = rearrange(found.astype(jnp.float32), "(b n) h w c -> b n h w c", n=count)

    def misses(pictures: Float[Array, "B N H W 3"]) -> Float[Array, "B N H W 1"]:
        return 2 * jnp.abs(lines(pictures) - sketches)

    of_first, of_last = (misses(carried) for carried in both_carried(ends[:, 0], ends[:, 1], flows))
    nearer = SHARPNESS_OF_SHARES * _over_cells(of_last - of_first)
    bent = InnerMotion(flows, straight.logit + nearer)
    better = misses(_blended(ends, straight)) - misses(_blended(ends, bent))
    part = jax.nn.sigmoid(SHARPNESS_OF_FLOWS * _over_cells(better, NEIGHBOURS))
    return InnerMotion(part * flows + (1 - part) * straight.flows, straight.logit + part * nearer)


def _over_cells(x: Float[Array, "B N H W 1"], weights: Sequence[float] = (1.0,)) -> Float[Array, "B N H W 1"]:
    """Means over cells, smooth from one to the next.

    Args:
      x: (B, N, H, W, 1), multiples of a cell high and wide.
      weights: of the cells around each in a row, and in a column; an odd number that adds up to 1.
    """
    batch, _, height, width, _ = x.shape
    cells = reduce(x, "b n (h p) (w q) c -> (b n) h w c", "mean", p=CELL, q=CELL)
    reach = len(weights) // 2
    padded = jnp.pad(cells, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    rows, around = jnp.zeros_like(padded[:, : cells.shape[1]]), jnp.zeros_like(cells)
    for place, weight in enumerate(weights):
        rows += weight * padded[:, place : place + cells.shape[1]]
    for place, weight in enumerate(weights):
        around += weight * rows[:, :, place : place + cells.shape[2]]
    return rearrange(resized(around, height, width), "(b n) h w c -> b n h w c", b=batch)


def _motion_between_drawn(
    ends: Float[Array, "B 2 H W 3"], drawn: InnerMotion, is_drawn: Bool[Array, "B N"], estimate: Estimate
) -> InnerMotion:
    """The motion of each frame between the drawn ones beside it, as flows to the two pictures."""
    batch, count = is_drawn.shape
    pictures = jnp.concatenate([ends[:, :1], _blended(ends, drawn), ends[:, 1:]], axis=1)
    ends_of_axis = ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0))
    flows = jnp.pad(drawn.flows, ends_of_axis)
    share = jnp.pad(jax.nn.sigmoid(drawn.logit), ends_of_axis).at[:, 0].set(1.0)
    before, after = _neighbours(is_drawn)

    def at(x: Float[Array, "B T H W C"], number: Int[Array, "B N"]) -> Float[Array, "M H W C"]:
        return rearrange(jnp.take_along_axis(x, number[:, :, None, None, None], axis=1), "b n h w c -> (b n) h w c")

    numbers = jnp.arange(1, count + 1)
    times = ((numbers - before) / (after - before)).reshape(-1)
    between, logit = estimate(at(pictures, before), at(pictures, after), times)
    blend = jax.nn.sigmoid(logit.astype(jnp.float32))
    total_flows, weights = 0.0, 0.0
    for number, flow, part in ((before, between[..., :2], blend), (after, between[..., 2:], 1 - blend)):
        flow = flow.astype(jnp.float32)
        further, of_first = warped(at(flows, number), flow), part * warped(at(share, number), flow)
        weight = jnp.concatenate([of_first, part - of_first], axis=-1) + EPSILON
        total_flows += jnp.repeat(weight, 2, axis=-1) * (further + jnp.tile(flow, 2))
        weights += weight
    found = total_flows / jnp.repeat(weights, 2, axis=-1)
    logit = logit_of(weights[..., :1] / jnp.sum(weights, axis=-1, keepdims=True))
    return InnerMotion(*(rearrange(x, "(b n) h w c -> b n h w c", b=batch) for x in (found, logit)))


def _neighbours(is_drawn: Bool[Array, "B N"]) -> tuple[Int[Array, "B N"], Int[Array, "B N"]]:
    """Numbers of the frames before and after each one between that are drawn or at the ends, counted in the clip."""
    count = is_drawn.shape[1]
    numbers = jnp.arange(1, count + 1)
    last = jax.lax.cummax(jnp.where(is_drawn, numbers, 0), axis=1)
    next_one = jax.lax.cummin(jnp.where(is_drawn, numbers, count + 1), axis=1, reverse=True)
    before = jnp.pad(last, ((0, 0), (1, 0)))[:, :-1]
    after = jnp.pad(next_one, ((0, 0), (0, 1)), constant_values=count + 1)[:, 1:]
    return before, after
