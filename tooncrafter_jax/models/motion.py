"""Motion guidance: what both key frames show, carried along flows to the time of each frame between (spec section 14).

The flows come from a frozen network and go two ways: latents that are carried along them fill the condition of the
frames between, and the denoiser's temporal transformers see features that are carried along them. No parameter is
added.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from tooncrafter_jax.nn.warping import resized, warped
from tooncrafter_jax.typing import VideoFeatures


class Motion(NamedTuple):
    """Where the content of each frame lies in the two key frames.

    A key frame lies in itself: its flows are 0, and its share is 1 in the first frame and 0 in the last.

    Attributes:
      flows: (B, T, H, W, 4) from a frame to the first one, right and down, then to the last, in cells of this size.
      share: (B, T, H, W, 1) how much of a cell comes from the first frame, 0 to 1; the rest comes from the last.
    """

    flows: Float[Array, "B T H W 4"]
    share: Float[Array, "B T H W 1"]

    @classmethod
    def of_frames_between(cls, flows: Float[Array, "B N H W 4"], share: Float[Array, "B N H W 1"]) -> Motion:
        """The motion of a clip of N + 2 frames, from that of the N frames between its key frames."""
        ends = ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0))
        return cls(jnp.pad(flows, ends), jnp.pad(share, ends).at[:, 0].set(1.0))

    def at_size(self, height: int, width: int) -> Motion:
        """The motion in cells of another size, for clips whose sides keep their ratio.

        As in the published code: bilinear without antialiasing, and one factor, that of the heights, for both
        directions.
        """
        batch, full_height = self.flows.shape[0], self.flows.shape[2]
        flows, share = (
            rearrange(
                resized(rearrange(x, "b t h w c -> (b t) h w c"), height, width), "(b t) h w c -> b t h w c", b=batch
            )
            for x in (self.flows, self.share)
        )
        return Motion(flows * (height / full_height), share)

    def at_levels(self, height: int, width: int, levels: int) -> tuple[Motion, ...]:
        """The motion at (height, width) and at each halving of it, each resampled from this size, not from the level
        above.
        """
        return tuple(self.at_size(height >> level, width >> level) for level in range(levels))

    def carried(self, features: VideoFeatures) -> VideoFeatures:
        """Features (B T H W C) whose frames between are those of both key frames, carried along the flows and blended.

        Positions and blends are computed in float32 whatever the features are in; the key frames stay as they are.
        """
        frames = features.shape[1]

        def from_frame(index: int, flows: Float[Array, "B T H W 2"]) -> VideoFeatures:
            source = jnp.repeat(features[:, index].astype(jnp.float32), frames, axis=0)
            return rearrange(
                warped(source, rearrange(flows, "b t h w c -> (b t) h w c")), "(b t) h w c -> b t h w c", t=frames
            )

        first, last = from_frame(0, self.flows[..., :2]), from_frame(-1, self.flows[..., 2:])
        return (self.share * first + (1 - self.share) * last).astype(features.dtype)
