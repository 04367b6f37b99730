"""What an output format is."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

from PIL import Image

from tooncrafter_jax.io.frames import AnyFrames, Path, Rate, check_playback_rate
from tooncrafter_jax.io.repairs import DECODING_ERRORS
from tooncrafter_jax.io.timesheets.building import DrawnSheet

PUBLISHED_PIXEL_FORMAT = "yuv420p"
_PICTURES = ("GIF", "PNG", "WEBP")
"""Pillow's names of what formats here write."""


@dataclass(frozen=True)
class FormatOptions:
    """What a user chooses of a format, and what is known of a clip beside its frames; each takes what it has.

    Attributes:
      pixel_format: of mp4, of `mp4.PIXEL_FORMATS`.
      drawn: gives the drawings of each layer and their timing, of which the frames are made; None: the frames are all.
    """

    pixel_format: str = PUBLISHED_PIXEL_FORMAT
    drawn: Callable[[], DrawnSheet] | None = None


@runtime_checkable
class OutputFormat(Protocol):
    """A form that a clip is written in: one file, or a folder of files."""

    @property
    def name(self) -> str:
        """What `--format` calls it."""
        ...

    @property
    def is_folder(self) -> bool:
        """Whether a clip becomes a folder."""
        ...

    @property
    def endings(self) -> tuple[str, ...]:
        """Of its files, without the dot and in lower case, the usual one first; none of a folder."""
        ...

    @property
    def has_alpha(self) -> bool:
        """Whether it holds opacity: frames may have four channels."""
        ...

    def file_name(self, clip: str, ending: str | None = None) -> str:
        """What a clip's file or folder is called, without its directory.

        Args:
          clip: its name.
          ending: one of `endings`, as it is to be spelt; None: the usual one.
        """
        ...

    def check_playback_rate(self, fps: Rate) -> Fraction:
        """The playback rate that a clip gets, in frames a second.

        Raises:
          UserError: the format cannot have this rate.
        """
        ...

    def write(self, path: Path, frames: AnyFrames, fps: Rate, options: FormatOptions) -> None:
        """Writes a clip, whole or not at all.

        Args:
          path: of the file or folder; its directory is made if it is missing.
          frames: uint8 (T, H, W, 3), at least one; (T, H, W, 4) where the format holds opacity.
          fps: playback rate.
          options: see `FormatOptions`.

        Raises:
          UserError: the format cannot hold such frames, or the path cannot be written.
        """
        ...

    def files(self, path: pathlib.Path) -> list[str]:
        """The names, relative to the directory of `path`, that a clip there has: of a folder, those that are there."""
        ...

    def looks_whole(self, path: pathlib.Path) -> bool:
        """Whether what is there can be read: of an animation or a video the first frame, of a folder each picture."""
        ...


class AnyRate:
    """What all formats share that can have every playback rate."""

    def check_playback_rate(self, fps: Rate) -> Fraction:
        """The rate.

        Raises:
          UserError: it is impossible.
        """
        return check_playback_rate(fps)


class OneFile(AnyRate):
    """What all formats share whose clips are one file that Pillow reads.

    Attributes:
      name, endings, is_folder, has_alpha: see `OutputFormat`.
      encode: writes a file; a format that has options has its own `write` instead.
    """

    name: str
    endings: tuple[str, ...]
    is_folder: bool = False
    has_alpha: bool = False
    encode: Callable[[Path, AnyFrames, Rate], None]

    def write(self, path: Path, frames: AnyFrames, fps: Rate, options: FormatOptions) -> None:
        """`encode`, which has no options."""
        del options
        self.encode(path, frames, fps)

    def file_name(self, clip: str, ending: str | None = None) -> str:
        """The clip's name with an ending."""
        return f"{clip}.{ending or self.endings[0]}"

    def files(self, path: pathlib.Path) -> list[str]:
        """The file itself."""
        return [path.name]

    def looks_whole(self, path: pathlib.Path) -> bool:
        """Whether its first picture can be read."""
        return picture_looks_whole(path)


def picture_looks_whole(path: pathlib.Path) -> bool:
    """Whether a picture, or the first of an animation, can be read."""
    try:
        with Image.open(path, formats=_PICTURES) as image:
            image.load()
        return True
    except (*DECODING_ERRORS, Image.DecompressionBombError):
        return False
