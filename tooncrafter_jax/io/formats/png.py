"""A folder of PNG pictures, one a frame."""

from __future__ import annotations

import os
import pathlib
import re

from PIL import Image

from tooncrafter_jax.io.atomic_files import write_and_sync
from tooncrafter_jax.io.encoding import encode_png
from tooncrafter_jax.io.formats.output_format import AnyRate, FormatOptions, picture_looks_whole
from tooncrafter_jax.io.frames import AnyFrames, Path, Rate, check_frames
from tooncrafter_jax.io.owned_files import new_folder

STEM = "frame"


class Png(AnyRate):
    """See `OutputFormat`. Pictures do not keep a rate."""

    name = "png"
    is_folder = True
    has_alpha = True
    endings: tuple[str, ...] = ()

    def file_name(self, clip: str, ending: str | None = None) -> str:
        """The folder is called as the clip."""
        del ending
        return clip

    def write(self, path: Path, frames: AnyFrames, fps: Rate, options: FormatOptions) -> None:
        """See `write_png_sequence`."""
        del fps, options
        write_png_sequence(path, frames)

    def files(self, path: pathlib.Path) -> list[str]:
        """Pictures with names of frames, after the folder's name; none if there is no such folder."""
        try:
            return [f"{path.name}/{name}" for name in _numbered(path)]
        except OSError:
            return []

    def looks_whole(self, path: pathlib.Path) -> bool:
        """Whether there are frames and each can be read."""
        frames = self.files(path)
        return bool(frames) and all(picture_looks_whole(path.parent / frame) for frame in frames)


def write_png_sequence(directory: Path, frames: AnyFrames) -> None:
    """Writes frames as `frame_00.png`, `frame_01.png`, ... into a new directory, which appears complete.

    Args:
      directory: must not be there; is made with those that it lies in.
      frames: uint8 (T, H, W, 3), or (T, H, W, 4) with opacity.

    Raises:
      UserError: not such frames, or a directory that is there or cannot be written.
    """
    check_frames(frames, has_alpha=True)
    directory = os.path.normpath(os.fspath(directory))
    digits = max(2, len(str(len(frames) - 1)))
    with new_folder(pathlib.Path(directory)) as folder:
        folder.mkdir()
        for index, frame in enumerate(frames):
            name = f"{STEM}_{index:0{digits}d}.png"
            write_and_sync(os.fspath(folder / name), encode_png(Image.fromarray(frame)))


def _numbered(directory: Path) -> list[str]:
    """Names in a directory that frames of a sequence may have."""
    if not os.path.isdir(directory):
        return []
    return [name for name in sorted(os.listdir(directory)) if re.fullmatch(rf"{STEM}_\d{{2,}}\.png", name)]
