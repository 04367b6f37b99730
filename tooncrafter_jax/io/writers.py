"""Writing generated frames: video, animations, picture sequences, contact sheets, and records beside them.

Every file is written whole or not at all. Frames are uint8 (T, H, W, 3).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import (
    cannot_write,
    check_writable,
    sync_directory,
    sync_file,
    temporary_name,
    write_and_sync,
    write_atomically,
    written_whole,
)
from tooncrafter_jax.io.owned_files import foreign

__all__ = [
    "check_playback_rate",
    "check_writable",
    "to_uint8",
    "write_contact_sheet",
    "write_gif",
    "write_json",
    "write_mp4",
    "write_png_sequence",
    "write_webp",
]

PUBLISHED_FPS = 8
"""Playback rate of the published commands (spec section 11.1); not the rate that the denoiser is conditioned on."""
PUBLISHED_CRF = 10
"""H.264 constant rate factor of the published commands (spec section 11.1)."""
PUBLISHED_PIXEL_FORMAT = "yuv420p"
PIXEL_FORMATS = (PUBLISHED_PIXEL_FORMAT, "yuv444p", "rgb24")
"""Of H.264 video, from what plays everywhere to what loses nothing."""
_RGB_MATRIX, _FULL_RANGE = 0, 2
"""The codes of RGB without a matrix, and of the full range."""
_BT709 = 1
"""The code of BT.709 matrix, primaries and transfer, and of the limited range, in H.264 (table E-3 and following)."""
_H264_ENCODER = "libx264"
_INDEX_FIRST = {"movflags": "+faststart"}
"""Of the muxer: browsers begin to play before they have the whole file. It reads the file again, and so needs one on a disk."""
_MAX_GIF_FPS = 50
_MAX_WEBP_SIDE = 16383

Path = str | os.PathLike[str]
Frames = UInt8[np.ndarray, "T H W 3"]
Rate = int | float | Fraction


def to_uint8(frames: Shaped[Any, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Pixel values in [-1, 1] as bytes.

    Args:
      frames: any shape and float dtype, numpy or JAX; values beyond [-1, 1] are clamped.

    Returns:
      uint8 of the same shape: (x + 1) / 2 * 255, truncated, not rounded, as by the published code (spec section 11.1).

    Raises:
      UserError: there are NaN among the values.
    """
    values = np.asarray(frames).astype(np.float32)
    if np.isnan(values).any():
        raise UserError("the frames contain NaN: check the weights, or compute in float32 instead of a narrower dtype")
    return ((np.clip(values, -1, 1) + 1) / 2 * 255).astype(np.uint8)


def check_playback_rate(fps: Rate, form: str = "mp4") -> Fraction:
    """The playback rate that a file of this form gets.

    Raises:
      UserError: the form cannot have this rate.
    """
    if not (math.isfinite(fps) and 0.01 <= fps <= 1000):
        raise UserError(f"the playback fps is {fps}: choose a number from 0.01 to 1000")
    if form == "gif" and fps > _MAX_GIF_FPS:
        raise UserError(
            f"the playback fps is {fps}, but GIF viewers show at most {_MAX_GIF_FPS}: choose less, or write mp4 or WebP"
        )
    return Fraction(fps).limit_denominator(1001)


def write_mp4(
    path: Path,
    frames: Frames,
    fps: Rate = PUBLISHED_FPS,
    crf: int = PUBLISHED_CRF,
    pixel_format: str = PUBLISHED_PIXEL_FORMAT,
) -> None:
    """Writes H.264 video in yuv420p, which every player and browser shows, from the first bytes on: its index comes first.

    Differs from the published code: the colours are BT.709 and the file says so, where that leaves players to guess.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), H and W even.
      fps: playback rate.
      crf: 0 (largest file) to 51; the published code uses 10. Means nothing to rgb24.
      pixel_format: of `PIXEL_FORMATS`: yuv420p has one colour for four pixels, which dulls coloured lines, and plays
        everywhere; yuv444p has a colour for each, and rgb24 keeps every pixel as it is, but browsers play neither.

    Raises:
      UserError: not such frames, an odd height or width in yuv420p, an impossible `fps`, `crf` or `pixel_format`, PyAV
        without an H.264 encoder, or a path that cannot be written.
    """
    _check_frames(frames)
    _, height, width, _ = frames.shape
    if pixel_format not in PIXEL_FORMATS:
        raise UserError(f"unknown pixel format '{pixel_format}': choose of {', '.join(PIXEL_FORMATS)}")
    if pixel_format == "yuv420p" and (height % 2 or width % 2):
        raise UserError(
            f"'{os.fspath(path)}' cannot hold frames of {width} x {height} pixels: H.264 video needs an even width and "
            "height, so crop a pixel or write PNG, GIF or WebP"
        )
    if not 0 <= crf <= 51:
        raise UserError(f"crf is {crf}: choose a whole number from 0 (largest file) to 51 (smallest)")
    with written_whole(path) as temporary:
        _encode_mp4(temporary, frames, check_playback_rate(fps), crf, pixel_format)
        sync_file(temporary)


def write_gif(path: Path, frames: Frames, fps: Rate = PUBLISHED_FPS) -> None:
    """Writes an endless GIF.

    All frames share one palette of 256 colours, without dithering, so that still parts stay still. GIF counts in
    hundredths of a second: delays are rounded so that the whole lasts as long as it should. Equal neighbours are stored
    as one longer frame.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3).
      fps: playback rate, at most 50.

    Raises:
      UserError: not such frames, an impossible `fps`, or a path that cannot be written.
    """
    _check_frames(frames)
    rate = check_playback_rate(fps, "gif")
    stacked = Image.fromarray(np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3))
    palette = stacked.quantize(256, method=Image.Quantize.FASTOCTREE)
    pictures = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    delays = [10 * hundredths for hundredths in _durations(len(frames), rate, ticks_per_second=100)]
    write_atomically(path, _encode_animation(pictures, "GIF", delays, optimize=False))


def write_webp(
    path: Path, frames: Frames, fps: Rate = PUBLISHED_FPS, quality: int = 90, lossless: bool = False
) -> None:
    """Writes an endless animated WebP.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3), sides up to 16383.
      fps: playback rate.
      quality: 0 to 100; of a lossless file, the effort.
      lossless: whether every pixel is kept.

    Raises:
      UserError: not such frames, an impossible `fps` or `quality`, or a path that cannot be written.
    """
    _check_frames(frames)
    rate = check_playback_rate(fps)
    if max(frames.shape[1:3]) > _MAX_WEBP_SIDE:
        raise UserError(f"'{os.fspath(path)}' cannot hold sides over {_MAX_WEBP_SIDE} pixels: write PNG instead")
    if not 0 <= quality <= 100:
        raise UserError(f"quality is {quality}: choose a number from 0 to 100")
    pictures = [Image.fromarray(f) for f in frames]
    delays = _durations(len(frames), rate, ticks_per_second=1000)
    write_atomically(path, _encode_animation(pictures, "WEBP", delays, quality=quality, lossless=lossless))


def write_png_sequence(
    directory: Path, frames: Frames, stem: str = "frame", replaces: Collection[str] = ()
) -> list[str]:
    """Writes frames as `frame_00.png`, `frame_01.png`, ...

    All files are written beside the directory first. A new directory then appears complete. In one that exists, files of other
    names are left alone, and numbered pictures of the same stem would be one sequence with the new ones: they must be named
    in `replaces`.

    Args:
      directory: is made if it is missing.
      frames: uint8 (T, H, W, 3).
      stem: what the file names begin with.
      replaces: names in the directory that are the caller's to replace or, of a longer sequence before, to remove.

    Returns:
      The paths, in order.

    Raises:
      UserError: not such frames, a directory that cannot be written, or one with other pictures of such names.
    """
    _check_frames(frames)
    directory = os.path.normpath(os.fspath(directory))
    digits = max(2, len(str(len(frames) - 1)))
    names = [f"{stem}_{index:0{digits}d}.png" for index in range(len(frames))]
    others = [name for name in _numbered(directory, stem) if name not in replaces]
    if others:
        raise foreign(os.path.join(directory, others[0]), "choose another folder, or move it away")
    parent = os.path.dirname(directory) or "."
    staging = temporary_name(parent)
    try:
        os.makedirs(parent, exist_ok=True)
        os.mkdir(staging)
        try:
            for name, frame in zip(names, frames, strict=True):
                write_and_sync(os.path.join(staging, name), _encode_png(Image.fromarray(frame)))
            _move_into_place(staging, directory, names, stem, replaces)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sync_directory(parent)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return [os.path.join(directory, name) for name in names]


def write_contact_sheet(path: Path, frames: Frames, columns: int = 4, labels: Sequence[str] | None = None) -> None:
    """Writes all frames on one white PNG, row by row, each with its label above it.

    Args:
      path: of the file; its directory is made if it is missing.
      frames: uint8 (T, H, W, 3).
      columns: frames a row.
      labels: one a frame; too long ones are cut. None: no labels.

    Raises:
      UserError: not such frames, fewer than one column, another number of labels, or a path that cannot be written.
    """
    _check_frames(frames)
    if columns < 1:
        raise UserError(f"a contact sheet of {columns} columns cannot be made: choose at least 1")
    if labels is not None and len(labels) != len(frames):
        raise UserError(f"there are {len(labels)} labels for {len(frames)} frames: give one for each")
    count, height, width, _ = frames.shape
    columns = min(columns, count)
    gap = max(4, min(height, width) // 40)
    text_height = max(10, min(24, height // 12))
    band = 0 if labels is None else text_height + gap
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (band + height + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(text_height)
    for index, frame in enumerate(frames):
        left = gap + (index % columns) * (width + gap)
        top = gap + (index // columns) * (band + height + gap)
        if labels is not None:
            text = _cut_to_width(labels[index], width, font)
            draw.text((left, top + text_height), text, fill="black", font=font, anchor="ls")
        sheet.paste(Image.fromarray(frame), (left, top + band))
    write_atomically(path, _encode_png(sheet))


def write_json(path: Path, obj: Any) -> None:
    """Writes strict JSON, indented, in UTF-8.

    Numpy and JAX arrays become lists, paths and other mapping keys strings, and NaN and infinities null.

    Args:
      path: of the file; its directory is made if it is missing.
      obj: nested mappings, sequences, arrays, strings, numbers, booleans and None.

    Raises:
      UserError: a path that cannot be written.
      TypeError: something else in `obj`.
    """
    text = json.dumps(_jsonable(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(
        path, (text + "\n").encode(errors="backslashreplace")
    )  # half a surrogate is escaped, as JSON allows


def _check_frames(frames: Any) -> None:
    if not isinstance(frames, np.ndarray):
        raise UserError(f"frames must be a numpy array, not {type(frames).__name__}: convert them with to_uint8")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise UserError(
            f"frames must be uint8 (frames, height, width, 3) and at least one, not {frames.dtype} {frames.shape}: "
            "convert them with to_uint8"
        )


def _durations(count: int, rate: Fraction, ticks_per_second: int) -> list[int]:
    """How many ticks each frame lasts; rounding errors do not add up."""
    ends = [round(index * ticks_per_second / rate) for index in range(count + 1)]
    return [after - before for before, after in zip(ends, ends[1:], strict=False)]


def _encode_mp4(path: str, frames: Frames, rate: Fraction, crf: int, pixel_format: str) -> None:
    lossless = pixel_format == "rgb24"
    with av.open(path, "w", format="mp4", options=_INDEX_FIRST) as container:
        try:
            stream = container.add_stream("libx264rgb" if lossless else _H264_ENCODER, rate=rate)
        except (FFmpegError, ValueError) as error:
            raise UserError("this build of PyAV has no H.264 encoder: pip install --force-reinstall av") from error
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        stream.options = {"qp": "0"} if lossless else {"crf": str(crf)}
        codec = stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = codec.color_range = _BT709
        if lossless:
            codec.colorspace, codec.color_range = _RGB_MATRIX, _FULL_RANGE
        for frame in frames:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if not lossless:
                rgb = rgb.reformat(format=pixel_format, dst_colorspace="ITU709", dst_color_range="MPEG")
            container.mux(stream.encode(rgb))
        container.mux(stream.encode())


def _encode_animation(pictures: list[Image.Image], form: str, delays: list[int], **options: Any) -> bytes:
    buffer = io.BytesIO()
    first, *rest = pictures
    first.save(buffer, form, save_all=True, append_images=rest, duration=delays, loop=0, **options)
    return buffer.getvalue()


def _encode_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _move_into_place(staging: str, directory: str, names: list[str], stem: str, replaces: Collection[str]) -> None:
    if not os.path.lexists(directory):
        os.rename(staging, directory)
        return
    for name in names:
        os.replace(os.path.join(staging, name), os.path.join(directory, name))
    for name in replaces:
        if name not in names and name in _numbered(directory, stem):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
    sync_directory(directory)


def _numbered(directory: str, stem: str) -> list[str]:
    """Names in a directory that frames of a sequence may have."""
    if not os.path.isdir(directory):
        return []
    return [name for name in sorted(os.listdir(directory)) if re.fullmatch(re.escape(stem) + r"_\d{2,}\.png", name)]


def _cut_to_width(text: str, width: int, font: Any) -> str:
    text = text.replace("\n", " ")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _jsonable(obj: Any) -> Any:
    if obj is None or isinstance(obj, bool | int | str):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, dict):
        return {str(key): _jsonable(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_jsonable(value) for value in obj]
    if hasattr(obj, "tolist"):
        return _jsonable(obj.tolist())
    raise TypeError(f"{type(obj).__name__} has no form in JSON")
