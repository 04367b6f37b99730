"""Encoding frames as video, which the video formats share."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.error import FFmpegError

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import sync_file, written_whole
from tooncrafter_jax.io.formats.output_format import OneFile
from tooncrafter_jax.io.frames import AnyFrames, Path, Rate, check_playback_rate

_RGB_MATRIX, _FULL_RANGE = 0, 2
"""The codes of RGB without a matrix, and of the full range."""
_BT709 = 1
"""The code of BT.709 matrix, primaries and transfer, and of the limited range, in H.264 (table E-3 and following)."""


@dataclass(frozen=True)
class VideoSettings:
    """How a format encodes.

    Attributes:
      container: FFmpeg's name of the kind of file.
      encoder: FFmpeg's name of the encoder.
      codec: what a sentence calls what it makes.
      pixel_format: that is stored; "rgb24" keeps values as they are, all others become BT.709 in the limited range.
      alpha_pixel_format: that is stored of frames with opacity; empty where there are none.
      options: of the encoder.
      alpha_options: of the encoder beside these, of frames with opacity.
      container_options: of the muxer.
    """

    container: str
    encoder: str
    codec: str
    pixel_format: str
    alpha_pixel_format: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    alpha_options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)


def encode_video(path: str, frames: AnyFrames, rate: Fraction, settings: VideoSettings) -> None:
    """Writes a video file.

    Args:
      path: of the file.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) where the settings have a pixel format with opacity.
      rate: frames a second.
      settings: see `VideoSettings`.

    Raises:
      UserError: PyAV has no such encoder.
      OSError: the file cannot be written.
    """
    given, pixel_format = "rgb24", settings.pixel_format
    options: dict[str, object] = dict(settings.options)
    if frames.shape[3] == 4:
        given, pixel_format = "rgba", settings.alpha_pixel_format
        options |= settings.alpha_options
    is_rgb = pixel_format == "rgb24"
    with av.open(path, "w", format=settings.container, options=dict(settings.container_options)) as container:
        try:
            stream = cast(av.VideoStream, container.add_stream(settings.encoder, rate=rate))
        except (FFmpegError, ValueError) as error:
            raise UserError(
                f"this build of PyAV has no {settings.codec} encoder: pip install --force-reinstall av"
            ) from error
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        stream.options = options
        codec = stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = codec.color_range = _BT709
        if is_rgb:
            codec.colorspace, codec.color_range = _RGB_MATRIX, _FULL_RANGE
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=given)
            if not is_rgb:
                picture = picture.reformat(format=pixel_format, dst_colorspace="ITU709", dst_color_range="MPEG")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_video(path: Path, frames: AnyFrames, fps: Rate, settings: VideoSettings) -> None:
    """Writes a video file, whole or not at all.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: see `encode_video`.
      fps: playback rate.
      settings: see `VideoSettings`.

    Raises:
      UserError: an impossible `fps`, PyAV without such an encoder, or a path that cannot be written.
    """
    rate = check_playback_rate(fps)
    with written_whole(path) as temporary:
        encode_video(temporary, frames, rate, settings)
        sync_file(temporary)


class OneVideo(OneFile):
    """What all formats share whose clips are one video."""

    def looks_whole(self, path: pathlib.Path) -> bool:
        """Whether its first frame can be decoded."""
        try:
            with av.open(str(path)) as container:
                return next(container.decode(video=0), None) is not None
        except (OSError, FFmpegError, ValueError, IndexError):
            return False
