"""H.264 video."""

from __future__ import annotations

import os

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.formats.output_format import PUBLISHED_PIXEL_FORMAT, FormatOptions
from tooncrafter_jax.io.formats.video import OneVideo, VideoSettings, write_video
from tooncrafter_jax.io.frames import PUBLISHED_FPS, AnyFrames, Frames, Path, Rate, check_frames

PUBLISHED_CRF = 10
"""H.264 constant rate factor of the published commands (spec section 11.1)."""
PIXEL_FORMATS = (PUBLISHED_PIXEL_FORMAT, "yuv444p", "rgb24")
"""Of H.264 video, from what plays everywhere to what loses nothing."""
H264_ENCODER = "libx264"
_INDEX_FIRST = {"movflags": "+faststart"}
"""Of the muxer: browsers begin to play before they have all. It reads the file again, and so needs one on a disk."""


class Mp4(OneVideo):
    """See `OutputFormat`."""

    name = "mp4"
    endings = ("mp4",)

    def write(self, path: Path, frames: AnyFrames, fps: Rate, options: FormatOptions) -> None:
        """See `write_mp4`."""
        write_mp4(path, frames, fps, pixel_format=options.pixel_format)


def write_mp4(
    path: Path, frames: Frames, fps: Rate = PUBLISHED_FPS, pixel_format: str = PUBLISHED_PIXEL_FORMAT
) -> None:
    """Writes H.264 video, in yuv420p for every player and browser, from the first bytes on: its index comes first.

    Differs from the published code: the colours are BT.709 and the file says so, where that leaves players to guess.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), H and W even.
      fps: playback rate.
      pixel_format: of `PIXEL_FORMATS`: yuv420p has one colour for four pixels, which dulls coloured lines, and plays
        everywhere; yuv444p has a colour for each, and rgb24 keeps every pixel as it is, but browsers play neither.

    Raises:
      UserError: not such frames, an odd height or width in yuv420p, an impossible `fps` or `pixel_format`, PyAV
        without an H.264 encoder, or a path that cannot be written.
    """
    check_frames(frames)
    _, height, width, _ = frames.shape
    if pixel_format not in PIXEL_FORMATS:
        raise UserError(f"unknown pixel format '{pixel_format}': choose of {', '.join(PIXEL_FORMATS)}")
    if pixel_format == "yuv420p" and (height % 2 or width % 2):
        raise UserError(
            f"'{os.fspath(path)}' cannot hold frames of {width} x {height} pixels: H.264 video needs an even width and "
            "height, so crop a pixel or write PNG, GIF or WebP"
        )
    write_video(path, frames, fps, _settings(pixel_format))


def _settings(pixel_format: str) -> VideoSettings:
    lossless = pixel_format == "rgb24"
    return VideoSettings(
        container="mp4",
        container_options=_INDEX_FIRST,
        encoder="libx264rgb" if lossless else H264_ENCODER,
        codec="H.264",
        pixel_format=pixel_format,
        options={"qp": "0"} if lossless else {"crf": str(PUBLISHED_CRF)},
    )
