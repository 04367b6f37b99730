"""Cels: the pictures of a layer's drawings, found in a folder, read, placed on the sheet, and written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.atomic_files import cannot_write, sync_directory, temporary_name, write_and_sync
from tooncrafter_jax.io.encoding import encode_png
from tooncrafter_jax.io.images import read_picture
from tooncrafter_jax.io.json_files import is_text
from tooncrafter_jax.io.owned_files import foreign
from tooncrafter_jax.io.sizes import MAX_PIXELS

CelPicture = UInt8[np.ndarray, "_ _ _"]
"""A drawn cel, (H, W, 3) in RGB or (H, W, 4) with opacity, not premultiplied; of any size."""
Pictures = Mapping[str, Mapping[str, CelPicture]]
"""Layer -> drawing -> its picture. Each is taken once, so that a mapping may draw or read it then."""


class CelFile(NamedTuple):
    """Where the picture of a drawing is.

    Attributes:
      path: of the file.
      centre: of the picture on the sheet, in pixels from the left and the top, rounded down; None: in the middle.
    """

    path: Path
    centre: tuple[int, int] | None = None


class PlacedCel(NamedTuple):
    """A drawing in its place on a sheet; where a path is wanted, that of its picture.

    Attributes:
      file: see `CelFile`.
      size: width and height of the sheet.
    """

    file: CelFile
    size: tuple[int, int]

    def __fspath__(self) -> str:
        return os.fspath(self.file.path)

    def read(self) -> UInt8[np.ndarray, "H W 4"]:
        """See `read_cel`."""
        return read_cel(self.file, self.size)


def read_cel(cel: CelFile, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 4"]:
    """Reads a drawing, transparent where nothing is drawn.

    Args:
      cel: see `CelFile`.
      size: width and height of the sheet, on which the picture is placed; None: the picture as it is.

    Returns:
      uint8 (H, W, 4), RGB with opacity, not premultiplied. What reaches beyond the sheet is cut.

    Raises:
      UserError: as of `read_picture`; or the sheet is too large.
    """
    picture = read_picture(cel.path)
    if picture.shape[2] == 3:
        picture = np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=2)
    height, width = picture.shape[:2]
    if size is None or size == (width, height):
        return picture  # centres are rounded in either direction: a picture of the sheet's size fills it
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(f"the sheet is {size[0]} x {size[1]} pixels: at most {MAX_PIXELS:,} can be read")
    x, y = cel.centre or (size[0] // 2, size[1] // 2)
    left, top = max(-width, min(size[0], x - width // 2)), max(-height, min(size[1], y - height // 2))
    sheet = np.zeros((size[1], size[0], 4), np.uint8)
    visible = sheet[max(top, 0) : top + height, max(left, 0) : left + width]
    visible[...] = picture[max(-top, 0) :, max(-left, 0) :][: visible.shape[0], : visible.shape[1]]
    return sheet


def inside(folder: Path, name: str) -> Path | None:
    """The file or folder in a folder that a foreign program's path stands for; None if there is none.

    Args:
      folder: nothing outside it is looked at.
      name: with slashes or, as on Windows, backslashes between its parts.

    Raises:
      ValueError: the name is absolute, or leads out of the folder.
    """
    path = folder.joinpath(*parts_of(name))
    try:
        if not os.path.exists(path):  # asked first, as it costs least
            return None
        if path.resolve().is_relative_to(folder.resolve()):
            return path
    except (OSError, RuntimeError):  # a circle of links
        return None
    raise ValueError(f"'{printable(name, 60)}' leads out of its folder by a link")


def parts_of(name: str) -> list[str]:
    """The parts of a relative path.

    Raises:
      ValueError: the name is absolute, leads upwards, or is none of a file.
    """
    parts = name.replace("\\", "/").split("/")
    if (not parts[0] and len(parts) > 1) or parts[0][1:2] == ":":
        raise ValueError(f"'{printable(name, 60)}' is an absolute path, where a name in the folder should be")
    if ".." in parts:
        raise ValueError(f"'{printable(name, 60)}' leads out of its folder")
    if not is_text(name) or any(character < " " for character in name):
        raise ValueError(f"'{printable(name, 60)}' is no name of a file")
    return [part for part in parts if part not in ("", ".")]


def picture_of(pictures: Pictures, layer: str, drawing: str) -> CelPicture:
    """One drawing's picture.

    Raises:
      UserError: there is none, or it is no picture.
    """
    place = f"the drawing '{printable(drawing, 60)}' of the layer '{printable(layer, 60)}'"
    try:
        picture = pictures[layer][drawing]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{place} has no picture: give one for each drawing on the sheet") from error
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or 0 in picture.shape:
        raise UserError(f"{place} is no picture: give uint8 (height, width, 3) or (height, width, 4)")
    if picture.shape[2] not in (3, 4):
        raise UserError(f"{place} has {picture.shape[2]} channels: give 3, or 4 with opacity")
    return picture


class CelWriter:
    """Makes files of drawings, all of one size.

    Args:
      pictures: see `Pictures`.
      size: width and height that each must have; None: as the first.
      profile: of sRGB, to be embedded; see `encode_png`.

    Attributes:
      size: as it is known.
    """

    def __init__(self, pictures: Pictures, size: tuple[int, int] | None = None, profile: bytes | None = None) -> None:
        self._pictures, self._profile = pictures, profile
        self.size = size

    def png(self, layer: str, drawing: str) -> bytes:
        """A drawing as a PNG file: 8 bits, sRGB, straight opacity.

        Raises:
          UserError: as of `picture_of`; or it is of another size.
        """
        picture = picture_of(self._pictures, layer, drawing)
        size = (picture.shape[1], picture.shape[0])
        self.size = self.size or size
        if size != self.size:
            place = f"the drawing '{printable(drawing, 60)}' of the layer '{printable(layer, 60)}'"
            raise UserError(
                f"{place} is {size[0]} x {size[1]} pixels, but the sheet is {self.size[0]} x {self.size[1]}: "
                "give all one size"
            )
        return encode_png(Image.fromarray(np.ascontiguousarray(picture)), self._profile)


@contextlib.contextmanager
def written_together(directory: Path, folders: Mapping[str, Mapping[str, Callable[[], bytes]]]) -> Iterator[list[Path]]:
    """Writes folders of new files; they appear at the end, unless what is done inside fails.

    Args:
      directory: is made if it is missing.
      folders: name -> file in it, with / for folders -> its content, which is made when its turn comes.

    Yields:
      The files, each absolute if `directory` is.

    Raises:
      UserError: a folder is there already, or something cannot be written; then no folder is left.
    """
    for name in folders:
        if os.path.lexists(directory / name):
            raise foreign(directory / name, "choose another folder, or move it away")
    staging = Path(temporary_name(os.fspath(directory)))
    moved: list[Path] = []
    try:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
            for name, files in folders.items():
                for file, content in files.items():
                    path = staging / name / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_and_sync(os.fspath(path), content())
            for name in folders:
                (staging / name).rename(directory / name)
                moved.append(directory / name)
            yield [directory / name / file for name, files in folders.items() for file in files]
            sync_directory(os.fspath(directory))
        except BaseException:
            for folder in moved:  # made just now, and by us
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise cannot_write(error.filename or os.fspath(directory), error) from error
