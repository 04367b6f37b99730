"""QuickTime with ProRes 4444, which compositing and editing programs read with its opacity."""

from __future__ import annotations

from tooncrafter_jax.io.formats.video import OneVideo, VideoSettings, write_video
from tooncrafter_jax.io.frames import PUBLISHED_FPS, AnyFrames, Path, Rate, check_frames

SETTINGS = VideoSettings(
    container="mov",
    encoder="prores_ks",
    codec="ProRes",
    pixel_format="yuv444p10le",
    alpha_pixel_format="yuva444p10le",
    options={"profile": "4444", "vendor": "apl0", "bits_per_mb": "8000"},
    alpha_options={"alpha_bits": "16"},
)
"""The vendor is Apple's own, which some programs insist on; the bits are the most, as hard edges ring with fewer."""


def write_mov(path: Path, frames: AnyFrames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes ProRes 4444: ten bits and a colour for each pixel, and opacity, straight, to within a level of 255.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity.
      fps: playback rate.

    Raises:
      UserError: not such frames, an impossible `fps`, PyAV without a ProRes encoder, or a path that cannot be written.
    """
    check_frames(frames, has_alpha=True)
    write_video(path, frames, fps, SETTINGS)


class Mov(OneVideo):
    """See `OutputFormat`."""

    name = "mov"
    endings = ("mov",)
    has_alpha = True
    encode = staticmethod(write_mov)
