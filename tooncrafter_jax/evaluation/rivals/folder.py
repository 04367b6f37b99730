"""Results that were made elsewhere, with AnimeInterp, EISAI, FILM, SEINE or anything else: a folder with a video for
each clip.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tooncrafter_jax.curation.film_reading import read_film
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest, end_frames
from tooncrafter_jax.io import read_image, rgb_of_image
from tooncrafter_jax.io.images import check_is_picture_file, refusal
from tooncrafter_jax.io.ordering import by_last_number, pictures_among
from tooncrafter_jax.typing import HostArray, JsonObject

FILMS = (".mp4", ".webm", ".mkv", ".mov", ".avi")
ANIMATIONS = (".gif", ".webp", ".png", ".apng")
"""Files of one animated picture; transparent parts show white."""
_ANIMATED = ("GIF", "WEBP", "PNG")
LARGEST_ROUNDING = 0.25
"""Of a frame's time; a GIF counts hundredths of a second."""
NEVER_SHRUNK = (10**6, 10**6)
"""Pixels that no video covers, for `read_film`."""


class Folder:
    """Reads the clips of a folder.

    A clip of the id "intro/000120" is the file `intro/000120.mp4` (or .webm, .mkv, .mov, .avi, .gif, .webp, .png), or
    the folder `intro/000120` of pictures in the order of the last number in their names. It must have as many frames as
    were asked for, both end frames among them, and the size of the end frames: nothing is resized, as the blur of that
    would be measured too.

    Args:
      path: the folder; its name is the rival's.

    Raises:
      UserError: if there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(f"'{path}' is not a folder: name the folder that holds one video for each clip")
        self._path = path
        self.name = self.title = path.resolve().name

    def require(self, ids: Sequence[str]) -> None:
        """Looks for all clips.

        Raises:
          UserError: if clips are missing; names how many and the first.
        """
        missing = [clip for clip in ids if not self._candidates(clip)]
        if missing:
            some = "clip" if len(missing) == 1 else f"{len(missing)} of {len(ids)} clips, such as"
            raise UserError(
                f"'{self._path}' lacks {some} '{missing[0]}': put {missing[0]}.mp4 there, or a folder {missing[0]} of "
                "pictures"
            )

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """The clips; see `InBetweener`.

        Raises:
          UserError: if a clip is missing, there twice, damaged, or of another length or size; names the file.
        """
        end_frames(requests)
        return np.stack([self._clip(request) for request in requests])

    def settings(self) -> JsonObject:
        """The folder, and a digest of its files' names, sizes and times: clips that were made anew are others."""
        files = sorted(path for path in self._path.rglob("*") if path.is_file())
        stats = [(path.relative_to(self._path).as_posix(), path.stat()) for path in files]
        listed = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
        digest = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
        return {"folder": str(self._path.resolve()), "files": digest}

    def _clip(self, request: ClipRequest) -> HostArray:
        path = self._find(request.id)
        frames = read_video(path, request.frames)
        if len(frames) != request.frames:
            count = f"more than {request.frames}" if len(frames) > request.frames else str(len(frames))
            raise UserError(
                f"'{path}' has {count} frames, but {request.frames} are compared, the two end frames among them: "
                "make it again with that many"
            )
        height, width = request.first.shape[:2]
        for frame in frames:
            if frame.shape[:2] != (height, width):
                raise UserError(
                    f"'{path}' is {frame.shape[1]} x {frame.shape[0]} pixels, but the clip is {width} x {height}: "
                    "make it again at that size, as nothing is resized here"
                )
        return np.stack(frames)

    def _candidates(self, clip: str) -> list[Path]:
        """Everything that could be this clip."""
        base = self._path / clip
        try:
            if not base.resolve().is_relative_to(self._path.resolve()):
                raise UserError(f"the clip's id '{clip}' leads out of '{self._path}': give the clip another id")
            files = [base.with_name(base.name + extension) for extension in dict.fromkeys((*FILMS, *ANIMATIONS))]
            found = [path for path in files if path.is_file()]
            return found + ([base] if base.is_dir() and _pictures(base) else [])
        except (OSError, ValueError) as error:  # too long for a name, or with a character that no name has
            raise UserError(
                f"the clip's id '{printable(clip, 100)}' cannot be a file's name: give it another id"
            ) from error

    def _find(self, clip: str) -> Path:
        found = self._candidates(clip)
        if not found:
            self.require([clip])
        if len(found) > 1:
            raise UserError(f"clip '{clip}' is there twice, as '{found[0]}' and '{found[1]}': remove one")
        return found[0]


def read_video(path: Path, at_most: int) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a film, an animated picture, or a folder of pictures, at most one more than wanted.

    Writers of animated pictures store equal neighbours as one longer frame: where frames last differently long, and all
    of them whole multiples of what one of the wanted frames would last, they are repeated.

    Args:
      path: the file or folder.
      at_most: frames that are wanted.

    Raises:
      UserError: if it is missing or damaged.
    """
    if path.is_dir():
        return [read_image(picture) for picture in _pictures(path)[: at_most + 1]]
    if path.suffix.lower() in FILMS:
        frames: list[np.ndarray] = []
        for frame in read_film(path, NEVER_SHRUNK, resampling="full_chroma"):
            frames.append(frame)
            if len(frames) > at_most:
                break
        return frames
    return _animation(path, at_most)


def _animation(path: Path, wanted: int) -> list[np.ndarray]:
    frames: list[np.ndarray] = []
    durations: list[float] = []
    check_is_picture_file(str(path))
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_ANIMATED) as image:
            for index in range(min(wanted + 1, getattr(image, "n_frames", 1))):
                image.seek(index)
                frames.append(rgb_of_image(image, name=f"'{path}'"))
                durations.append(float(image.info.get("duration", 0)))
    except UserError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise refusal(f"'{path}'", error) from error
    if len(frames) >= wanted or max(durations) <= 1.5 * min(durations):
        return frames
    shown = np.asarray(durations) * wanted / sum(durations)
    whole = np.round(shown).astype(int)
    if np.abs(shown - whole).max() > LARGEST_ROUNDING or whole.sum() != wanted:
        return frames
    return [frame for frame, times in zip(frames, whole.tolist(), strict=True) for _ in range(times)]


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, but hidden ones, by the last number in their names, then by name."""
    return sorted(pictures_among(folder.iterdir()), key=by_last_number)
