"""QuickTime with ProRes 4444, which compositing and editing programs read with its opacity."""

from __future__ import annotations

from tooncrafter_jax.io.formats.video import OneVideo, VideoSettings, write_video
from tooncrafter_jax.io.frames import PUBLISHED_FPS, AnyFrames, Path, Rate, check_frames

PRORES_ENCODER = "prores_ks"
_OPTIONS = {"profile": "4444", "vendor": "apl0", "bits_per_mb": "8000"}
"""The vendor is Apple's own, which some programs insist on; the bits are the most, as hard edges ring with fewer."""
_ALPHA_OPTIONS = {"alpha_bits": "16"}


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
    transparent = frames.shape[3] == 4
    settings = VideoSettings(
        container="mov",
        encoder=PRORES_ENCODER,
        codec="ProRes",
        pixel_format="yuva444p10le" if transparent else "yuv444p10le",
        options=_OPTIONS | (_ALPHA_OPTIONS if transparent else {}),
    )
    write_video(path, frames, fps, settings)


class Mov(OneVideo):
    """See `OutputFormat`."""

    name = "mov"
    endings = ("mov",)
    has_alpha = True
    encode = staticmethod(write_mov)
