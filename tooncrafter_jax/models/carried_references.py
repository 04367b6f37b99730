"""Details of both reference frames, carried along the motion to every frame of the dual-reference decoder.

The published decoder hands details to the first and the last frame alone. Here, at every level, features of the
references are taken from where the flows point to, and a convolution that starts at zero adds them; with
`corrects_motion` the flows themselves are corrected on the way, from what the latents say of each frame. At the end the
two pictures are carried along the corrected flows, and each pixel is a blend of what is carried and what is drawn. This
goes beyond the paper.
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from tooncrafter_jax.models.motion import Motion, both_carried, logit_of
from tooncrafter_jax.nn.layers import Conv, GroupNorm, LayerOptions, silu
from tooncrafter_jax.nn.warping import resized_frames
from tooncrafter_jax.typing import Video, VideoFeatures

CERTAIN, EXACT = 9.0, 40.0
"""Logits of shares are clipped to the first; the second is 0 or 1 in float32."""
CARRIED_AT_START = 4.0
"""Logit of what is carried in the blend at the start: 98 %. Whatever is drawn over it has to earn its place."""
LEAST_INNER = 16
"""Channels between the convolutions are half of those around them, but as many as this where there are so many."""
EPSILON = 1e-6


class Corrections(NamedTuple):
    """What a decoder adds to a motion, at the size of a level.

    Attributes:
      flows: (B, T, H, W, 4) in cells of this size.
      logit: (B, T, H, W, 1) to that of the first frame's share.
    """

    flows: Float[Array, "B T H W 4"]
    logit: Float[Array, "B T H W 1"]

    def at_size(self, height: int, width: int) -> Corrections:
        """The same in cells of another size."""
        flows, logit = (resized_frames(x, height, width) for x in self)
        return Corrections(flows * (height / self.flows.shape[2]), logit)


class FrameMotion(NamedTuple):
    """Motion as a decoder works with it, frame by frame.

    Attributes:
      flows: (B, T, H, W, 4), see `Motion`.
      logit: (B, T, H, W, 1) of the first frame's share.
      is_between: (B, T, 1, 1, 1) 1 for a frame that motion guides, 0 for the key frames and for clips that it does not.
      is_guided: (B, T, 1, 1, 1) whether the clip is guided.
    """

    flows: Float[Array, "B T H W 4"]
    logit: Float[Array, "B T H W 1"]
    is_between: Float[Array, "B T 1 1 1"]
    is_guided: Bool[Array, "B T 1 1 1"]

    @classmethod
    def of(cls, motion: Motion, corrections: Corrections | None) -> FrameMotion:
        """The motion with corrections, both of one size."""
        batch, frames = motion.flows.shape[:2]
        clips = jnp.ones((batch,), bool) if motion.guided is None else motion.guided
        is_guided = jnp.broadcast_to(clips[:, None, None, None, None], (batch, frames, 1, 1, 1))
        number = jnp.arange(frames)[None, :, None, None, None]
        is_last = number == frames - 1
        if motion.open_ended is not None:
            is_last &= ~motion.open_ended[:, None, None, None, None]
        is_between = (is_guided & (number > 0) & ~is_last).astype(jnp.float32)
        logit = logit_of(motion.share.astype(jnp.float32))
        # Corrections must be able to turn a share between; those of key frames are what they are.
        logit = jnp.where(is_between > 0, jnp.clip(logit, -CERTAIN, CERTAIN), jnp.sign(logit) * EXACT)
        flows = motion.flows.astype(jnp.float32)
        if corrections is not None:
            flows, logit = flows + corrections.flows, logit + corrections.logit
        return cls(flows, logit, is_between, is_guided)


class CarriedReferences(nnx.Module):
    """Adds the carried features of both references at one level.

    Args:
      features: channels.
      groups: of the normalisations.
      corrects_motion: whether the motion is corrected first.
    """

    def __init__(self, features: int, groups: int, *, corrects_motion: bool, **kw: Unpack[LayerOptions]) -> None:
        known, inner = 3 * features + 1, max(features // 2, min(features, LEAST_INNER))
        self.norm = GroupNorm(features, groups, epsilon=EPSILON, **kw)
        self.reference_norm = GroupNorm(features, groups, epsilon=EPSILON, **kw)
        self.conv_in = Conv(known, inner, **kw)
        self.correction = nnx.data(Conv(inner, 5, zero_init=True, **kw) if corrects_motion else None)
        self.conv_again = nnx.data(Conv(known, inner, **kw) if corrects_motion else None)
        self.conv_out = Conv(inner, features, zero_init=True, **kw)

    def __call__(
        self, x: VideoFeatures, references: Float[Array, "B 2 H W C"], motion: FrameMotion
    ) -> tuple[VideoFeatures, Corrections]:
        """Some frames (B t H W C) with what is carried to them, and what is added to the motion (zeros without
        corrections).
        """
        h = self.norm(x, batch_axes=2)

        def seen(flows: Float[Array, "B T H W 4"], logit: Float[Array, "B T H W 1"]) -> VideoFeatures:
            carried = both_carried(references[:, 0], references[:, 1], flows)
            normed = [self.reference_norm(part.astype(x.dtype), batch_axes=2) for part in carried]
            return jnp.concatenate([h, *normed, jax.nn.sigmoid(logit).astype(h.dtype)], axis=-1)

        y = silu(self.conv_in(seen(motion.flows, motion.logit)))
        more = Corrections(jnp.zeros_like(motion.flows), jnp.zeros_like(motion.logit))
        if self.correction is not None and self.conv_again is not None:
            added = self.correction(y).astype(jnp.float32) * motion.is_between
            more = Corrections(added[..., :4], added[..., 4:])
            y = y + silu(self.conv_again(seen(motion.flows + more.flows, motion.logit + more.logit)))
        return jnp.where(motion.is_guided, x + self.conv_out(y), x), more


class CarriedPictures(nnx.Module):
    """Blends what the decoder draws with the two pictures, carried along the motion.

    Key frames that are guided are their pictures.

    Args:
      features: channels before the last convolution.
    """

    def __init__(self, features: int, **kw: Unpack[LayerOptions]) -> None:
        self.conv = Conv(features, 1, zero_init=True, **kw)

    def __call__(
        self, drawn: Video, h: VideoFeatures, pictures: Float[Array, "B 2 H W 3"], motion: FrameMotion
    ) -> Video:
        """The frames (B t H W 3), of what is drawn of them and of features (B t H W C)."""
        first, last = both_carried(pictures[:, 0], pictures[:, 1], motion.flows)
        share = jax.nn.sigmoid(motion.logit)
        carried = share * first + (1 - share) * last
        # A key frame has its flows at zero, and its share at an end.
        part = jnp.where(
            motion.is_between > 0, jax.nn.sigmoid(self.conv(h).astype(jnp.float32) + CARRIED_AT_START), 1.0
        )
        part = jnp.where(motion.is_guided, part, 0.0)
        return (part * carried + (1 - part) * drawn.astype(jnp.float32)).astype(drawn.dtype)
