"""Reading a film frame by frame: upright, with square pixels, in RGB, at a constant rate, and never whole in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import av.error
import av.filter
import av.stream
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from jaxtyping import UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import Picture

HIGHEST_RATE = 60
"""A stated rate beyond this many frames a second is a time base, not a rate; the average is taken instead."""
LONGEST_GAP = 10.0
"""Seconds; where the timestamps jump further, the recording was interrupted, and the film runs on without the gap."""
CUT_OFF_SHARE = 0.75
"""Pictures that end before this share of their own stated length are cut off."""
CUT_OFF_SHARE_OF_FILE = 0.5
"""The same where only the length of the whole file is stated, which its sound may make longer."""

_EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # the same pixels on every processor
RESAMPLING = {
    "lanczos": int(Interpolation.LANCZOS | _EXACT),
    "area": int(Interpolation.AREA | _EXACT),
    "full_chroma": int(Interpolation.BICUBIC | _EXACT | Interpolation.FULL_CHR_H_INT),
}
"""Name -> swscale's flags; the first two average over all pixels that a smaller one covers. The last is for pictures
that keep their size and are compared: colour is interpolated before the conversion to RGB, which the others darken by 2
of 255.
"""

_UNSPECIFIED, _BT709, _BT601 = 2, 1, 5  # ITU-T H.273, table 4; RGB has the code 0
_HIGH_DEFINITION = 720  # rows from which an untagged film is taken for BT.709, as players do
_Frame = TypeVar("_Frame")


def read_film(
    path: Path, cover: tuple[int, int], *, fps: float | None = None, resampling: str = "lanczos"
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The pictures of a film's first video stream at a constant rate.

    Rotation and mirroring in the metadata are applied, pixels become square, interlaced frames are deinterlaced (one
    picture a frame), 10-bit and other formats become 8-bit RGB by the stream's own colour matrix, and transparency is
    ignored. Where the rate varies, or `fps` is given, each picture of the result is the frame whose time, rounded to
    the result's rate, is the nearest before: frames are repeated or left out, never mixed.

    Args:
      path: the film.
      cover: height and width that the pictures must still cover after shrinking; they keep their shape and are never
        enlarged.
      fps: rate of the result in frames a second; by default the film's own (`film_rate`).
      resampling: a key of `RESAMPLING`.

    Yields:
      uint8 (H, W, 3), all of one size.

    Raises:
      UserError: the file is missing, empty, no film, without a picture, damaged or cut off; the last two can come after
        pictures.
    """
    with _opened(path) as container:
        stream = _video_stream(container, path)
        rate = film_rate(stream) if fps is None else Fraction(fps).limit_denominator(1001)
        least = _least_seconds(container, stream)
        converter: _Converter | None = None
        converted: tuple[av.VideoFrame, Picture] | None = None
        for frame in constant_rate(_timed_frames(container, stream, path, least), rate):
            if converter is None:
                converter = _Converter(frame, stream.sample_aspect_ratio, cover, RESAMPLING[resampling])
            if converted is None or converted[0] is not frame:
                converted = (frame, converter(frame))
            yield converted[1]


def rate_of_film(path: Path) -> float:
    """The rate in frames a second at which `read_film` returns a film by default.

    Raises:
      UserError: the file is missing, empty, or no film.
    """
    with _opened(path) as container:
        return float(film_rate(_video_stream(container, path)))


def film_rate(stream: VideoStream) -> Fraction:
    """A stream's own rate: the stated one, or the average where the stated one is a mere time base."""
    average = stream.average_rate
    for rate in (stream.guessed_rate, average):
        if rate and 1 <= rate <= HIGHEST_RATE:
            return Fraction(rate)
    return min(Fraction(average), Fraction(HIGHEST_RATE)) if average else Fraction(25)


def constant_rate(frames: Iterable[tuple[float | None, _Frame]], fps: Fraction) -> Iterator[_Frame]:
    """Repeats and leaves out frames, so that they come at a constant rate.

    A frame is shown from its time, rounded to the nearest tick, until that of the next; of two that fall on one tick
    the later is shown. A frame without a time, or with one that does not grow, follows its predecessor after a tick.

    Args:
      frames: time in seconds, and the frame.
      fps: ticks a second.
    """
    previous: _Frame | None = None
    last_time, clock, tick = None, 0.0, 0
    for time, frame in frames:
        if previous is not None:
            step = 0.0 if time is None or last_time is None else time - last_time
            clock += step if 0 < step <= LONGEST_GAP else float(1 / fps)
            new_tick = math.floor(clock * fps + 0.5)
            for _ in range(new_tick - tick):
                yield previous
            tick = new_tick
        previous, last_time = frame, time if time is not None else last_time
    if previous is not None:
        yield previous


def fitted_size(height: int, width: int, cover: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture shrunk, never enlarged, until it only just covers `cover` (height, width)."""
    scale = min(1.0, max(cover[0] / height, cover[1] / width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class _Converter:
    """Turns a stream's frames into upright RGB pictures of one size."""

    def __init__(self, first: av.VideoFrame, pixel_aspect: Fraction | None, cover: tuple[int, int], flags: int):
        height, width = float(first.height), float(first.width)
        aspect = float(pixel_aspect) if pixel_aspect else 1.0
        if aspect > 1:  # wide pixels: fewer rows rather than new columns
            height /= aspect
        else:
            width *= aspect
        self._swapped, self._down, self._right = _orientation(first)
        if self._swapped:
            cover = (cover[1], cover[0])
        self._height, self._width = fitted_size(max(1, round(height)), max(1, round(width)), cover)
        self._flags = flags

    def __call__(self, frame: av.VideoFrame) -> Picture:
        matrix = frame.colorspace
        if matrix == _UNSPECIFIED:
            matrix = _BT709 if frame.height >= _HIGH_DEFINITION else _BT601
        picture = frame.reformat(
            self._width,
            self._height,
            "rgb24",
            src_colorspace=matrix or None,  # 0 is RGB, which has none
            interpolation=self._flags,
        ).to_ndarray()
        if self._swapped:
            picture = picture.swapaxes(0, 1)
        return np.ascontiguousarray(picture[:: self._down, :: self._right])


def _orientation(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """Whether to swap rows and columns, and then the steps (1, or -1 for reversed) of rows and of columns."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, 1, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()  # x is shown at a x + c y, and y at b x + d y
    swapped = abs(b) > abs(a)
    down, right = (b, c) if swapped else (d, a)
    return swapped, -1 if down < 0 else 1, -1 if right < 0 else 1


def _opened(path: Path) -> InputContainer:
    try:
        if not path.exists():
            raise UserError(f"'{path}' does not exist: check the path")
        if path.is_dir():
            raise UserError(f"'{path}' is a directory, not a film")
        if path.stat().st_size == 0:
            raise UserError(f"'{path}' is empty (0 bytes): copy the film again")
        return av.open(os.fspath(path), metadata_errors="replace")
    except av.error.InvalidDataError as error:
        raise UserError(
            f"'{path}' is not a film or is cut off: copy it again, or play it to see whether it is whole"
        ) from error
    except (OSError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"'{path}' cannot be read ({reason}): check the file and its permissions") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is no cover picture, ready to be decoded on all cores."""
    for stream in container.streams.video:
        if not int(stream.disposition) & int(av.stream.Disposition.attached_pic):
            if stream.codec_context is None:
                raise UserError(f"'{path}' is in a format without a decoder here: save it as H.264")
            stream.thread_type = "AUTO"
            return stream
    what = "only sound" if container.streams.audio else "no video"
    raise UserError(f"'{path}' holds {what}: take it out of the folder of films")


def _least_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The length that a whole film has at least, by what its file states; negative for one so short that it tells
    nothing.
    """
    if stream.duration is not None and stream.time_base is not None:
        return CUT_OFF_SHARE * float(stream.duration * stream.time_base) - 1
    if container.duration is not None:
        return CUT_OFF_SHARE_OF_FILE * container.duration / av.time_base - 1
    return -1.0


def _timed_frames(
    container: InputContainer, stream: VideoStream, path: Path, least: float
) -> Iterator[tuple[float | None, av.VideoFrame]]:
    """Time and frame, deinterlaced.

    Raises:
      UserError: there are none, or the film is damaged or cut off.
    """
    first = last = None
    count = 0
    try:
        for frame in _deinterlaced(container.decode(stream), stream):
            time = frame.time
            if time is not None:
                first, last = time if first is None else first, time
            count += 1
            yield time, frame
    except (OSError, ValueError, av.error.FFmpegError) as error:
        place = f"after {last - first:.1f} s" if first is not None and last is not None else "at its beginning"
        raise UserError(f"'{path}' is damaged {place}: copy it again, or save it anew with a video editor") from error
    if not count:
        raise UserError(f"'{path}' holds no picture: it is cut off, or was never finished")
    if first is not None and last is not None and last - first < least:
        raise UserError(
            f"'{path}' is cut off: it ends after {last - first:.0f} s, well before the length that it states; copy it "
            "again"
        )


def _deinterlaced(frames: Iterable[av.VideoFrame], stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Frames as they are until one is interlaced; from then on all go through a filter that leaves progressive ones
    alone.
    """
    graph = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = _deinterlacer(stream)
        if graph is None:
            yield frame
        else:
            graph.vpush(frame)
            yield from _pulled(graph)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph)


def _deinterlacer(stream: VideoStream) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(template=stream, time_base=stream.time_base)
    deinterlace = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlace)
    deinterlace.link_to(sink)
    graph.configure()
    return graph


def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
