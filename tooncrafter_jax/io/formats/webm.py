"""WebM with VP9, which browsers play with its opacity."""

from __future__ import annotations

import numpy as np

from tooncrafter_jax.io.filling import filled
from tooncrafter_jax.io.formats.video import OneVideo, VideoSettings, write_video
from tooncrafter_jax.io.frames import PUBLISHED_FPS, AnyFrames, Path, Rate, check_frames

CRF = 6
"""Constant quality, of 63; the same for opacity, whose hard rims ring with more."""
SETTINGS = VideoSettings(
    container="webm",
    encoder="libvpx-vp9",
    codec="VP9",
    pixel_format="yuv420p",
    alpha_pixel_format="yuva420p",
    options={"crf": str(CRF), "b": "0", "deadline": "good", "cpu-used": "2", "auto-alt-ref": "0"},
)
"""Frames that are never shown are left out, as none of them has opacity."""


def write_webm(path: Path, frames: AnyFrames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes VP9 video, whose opacity, straight, is a picture of its own beside the colours.

    Four pixels share a colour. What is transparent is therefore given the colours nearest to it, which edges would
    otherwise lose their own to.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity.
      fps: playback rate.

    Raises:
      UserError: not such frames, an impossible `fps`, PyAV without a VP9 encoder, or a path that cannot be written.
    """
    check_frames(frames, has_alpha=True)
    write_video(path, _spread(frames) if frames.shape[3] == 4 else frames, fps, SETTINGS)


class Webm(OneVideo):
    """See `OutputFormat`."""

    name = "webm"
    endings = ("webm",)
    has_alpha = True
    encode = staticmethod(write_webm)


def _spread(frames: np.ndarray) -> np.ndarray:
    """Cels whose transparent pixels have the colours nearest to them."""
    spread = frames.copy()
    for frame in spread:
        alpha = frame[..., 3]
        colours = filled(frame[..., :3].astype(np.float32), alpha.astype(np.float32) / 255)
        frame[..., :3] = np.where(alpha[..., None] > 0, frame[..., :3], np.round(colours).astype(np.uint8))
    return spread
