"""A folder of PNG pictures, one a frame."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Collection
from fractions import Fraction

from PIL import Image

from tooncrafter_jax.io.atomic_files import cannot_write, sync_directory, temporary_name, write_and_sync
from tooncrafter_jax.io.formats.encoding import encode_png
from tooncrafter_jax.io.formats.output_format import FormatOptions, picture_looks_whole
from tooncrafter_jax.io.frames import Frames, Path, Rate, check_frames, check_playback_rate
from tooncrafter_jax.io.owned_files import foreign

STEM = "frame"


class Png:
    """See `OutputFormat`."""

    name = "png"
    is_folder = True
    endings: tuple[str, ...] = ()

    def check_playback_rate(self, fps: Rate) -> Fraction:
        """The rate, which pictures do not keep.

        Raises:
          UserError: it is impossible.
        """
        return check_playback_rate(fps)

    def write(self, path: Path, frames: Frames, fps: Rate, options: FormatOptions) -> None:
        """See `write_png_sequence`."""
        del fps, options
        write_png_sequence(path, frames)

    def files(self, path: pathlib.Path) -> list[str]:
        """Pictures with names of frames, after the folder's name; none if there is no such folder."""
        try:
            return [f"{path.name}/{name}" for name in _numbered(path, STEM)]
        except OSError:
            return []

    def looks_whole(self, path: pathlib.Path) -> bool:
        """Whether there are frames and each can be read."""
        frames = self.files(path)
        return bool(frames) and all(picture_looks_whole(path.parent / frame) for frame in frames)


def write_png_sequence(directory: Path, frames: Frames, stem: str = STEM, replaces: Collection[str] = ()) -> list[str]:
    """Writes frames as `frame_00.png`, `frame_01.png`, ...

    All files are written beside the directory first. A new directory then appears complete. In one that exists, files
    of other names are left alone, and numbered pictures of the same stem would be one sequence with the new ones: they
    must be named in `replaces`.

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
    check_frames(frames)
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
                write_and_sync(os.path.join(staging, name), encode_png(Image.fromarray(frame)))
            _move_into_place(staging, directory, names, stem, replaces)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sync_directory(parent)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return [os.path.join(directory, name) for name in names]


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


def _numbered(directory: Path, stem: str) -> list[str]:
    """Names in a directory that frames of a sequence may have."""
    if not os.path.isdir(directory):
        return []
    return [name for name in sorted(os.listdir(directory)) if re.fullmatch(re.escape(stem) + r"_\d{2,}\.png", name)]
