"""Motion guidance: what both key frames show, carried along flows to the time of each frame between (spec section 14).

The flows come from a network (`models.motion_network`) and go three ways: latents that are carried along them fill the
condition of the frames between, the denoiser's temporal transformers see features that are carried along them (no
parameter is added for either), and a decoder that is built for it takes details of both key frames from where the flows
point to.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

from tooncrafter_jax.nn.warping import resized_frames, warped
from tooncrafter_jax.typing import VideoFeatures

LEAST_SHARE = 1e-6
"""Of a cell that comes from one of both pictures, where its logit is taken."""


class Motion(NamedTuple):
    """Where the content of each frame lies in the two key frames.

    A key frame lies in itself: its flows are 0, and its share is 1 in the first frame and 0 in the last.

    Attributes:
      flows: (B, T, H, W, 4) from a frame to the first one, right and down, then to the last, in cells of this size.
      share: (B, T, H, W, 1) how much of a cell comes from the first frame, 0 to 1; the rest comes from the last.
      guided: (B,) which clips are guided at all; None for all. The others are computed as without motion.
      open_ended: (B,) of which clips the last picture is the first once more, and the last frame is like those between;
        None for none.
    """

    flows: Float[Array, "B T H W 4"]
    share: Float[Array, "B T H W 1"]
    guided: Bool[Array, "B"] | None = None
    open_ended: Bool[Array, "B"] | None = None

    @classmethod
    def of_frames_between(cls, flows: Float[Array, "B N H W 4"], share: Float[Array, "B N H W 1"]) -> Motion:
        """The motion of a clip of N + 2 frames, from that of the N frames between its key frames."""
        ends = ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0))
        return cls(jnp.pad(flows, ends), jnp.pad(share, ends).at[:, 0].set(1.0))

    def of_frames(self, numbers: Int[np.ndarray, "N"]) -> Motion:
        """The motion of some of the frames."""
        return self._replace(flows=self.flows[:, numbers], share=self.share[:, numbers])

    def at_size(self, height: int, width: int) -> Motion:
        """The motion in cells of another size, for clips whose sides keep their ratio.

        As in the published code: bilinear without antialiasing, and one factor, that of the heights, for both
        directions.
        """
        flows, share = (resized_frames(x, height, width) for x in (self.flows, self.share))
        return self._replace(flows=flows * (height / self.flows.shape[2]), share=share)

    def at_levels(self, height: int, width: int, levels: int) -> tuple[Motion, ...]:
        """The motion at (height, width) and at each halving of it, each resampled from this size, not from the level
        above.
        """
        return tuple(self.at_size(height >> level, width >> level) for level in range(levels))

    def carried(self, features: VideoFeatures) -> VideoFeatures:
        """Features (B T H W C) whose frames between are those of both key frames, carried along the flows and blended.

        Positions and blends are computed in float32 whatever the features are in; the key frames stay as they are.
        """
        first, last = both_carried(features[:, 0], features[:, -1], self.flows)
        blend = (self.share * first + (1 - self.share) * last).astype(features.dtype)
        if self.guided is None:
            return blend
        return jnp.where(self.guided[:, None, None, None, None], blend, features)


def both_carried(
    first: Float[Array, "B H W C"], last: Float[Array, "B H W C"], flows: Float[Array, "B T H W 4"]
) -> tuple[Float[Array, "B T H W C"], Float[Array, "B T H W C"]]:
    """Features of the first and of the last frame, carried to each frame along flows as in `Motion`, in float32."""
    frames = flows.shape[1]

    def carried(source: Float[Array, "B H W C"], flow: Float[Array, "B T H W 2"]) -> Float[Array, "B T H W C"]:
        repeated = jnp.repeat(source.astype(jnp.float32), frames, axis=0)
        flat = rearrange(flow, "b t h w c -> (b t) h w c")
        return rearrange(warped(repeated, flat), "(b t) h w c -> b t h w c", t=frames)

    return carried(first, flows[..., :2]), carried(last, flows[..., 2:])


def logit_of(share: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The logit of shares, which are kept `LEAST_SHARE` away from 0 and 1."""
    share = jnp.clip(share, LEAST_SHARE, 1 - LEAST_SHARE)
    return jnp.log(share) - jnp.log1p(-share)
