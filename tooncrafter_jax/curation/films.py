"""The production of clips from a folder of films: found, read twice, cut into shots, and shots into clips."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from tooncrafter_jax.curation.film_reading import rate_of_film, read_film
from tooncrafter_jax.curation.shots import (
    WATCHED_SIZE,
    ContentShots,
    GradualShots,
    ShotDetector,
    shots_between,
)
from tooncrafter_jax.data.records import JPEG_QUALITY, Clip, encode_frame
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.options import Option, check_ranges, with_attributes
from tooncrafter_jax.typing import JsonObject

EXTENSIONS = frozenset(
    ".3gp .asf .avi .divx .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogm .ogv .rm .rmvb .ts .vob .webm "
    ".wmv".split()
)
"""Extensions under which films are looked for in a folder; of a named file, the contents count."""
COVER = (320, 512)
"""Height and width that clips still cover after shrinking: the published model's size (spec section 1)."""
MIN_FRAMES = 16
"""Frames of a training example; a shorter clip is of no use (spec section 8.4)."""
_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class FilmOptions:
    """How films become clips, as a user says it."""

    shots: Annotated[
        Literal["cuts", "gradual", "transnet"],
        Option(
            "where shots end: cuts (hard ones alone, as in the paper), gradual (dissolves, fades and wipes too) or "
            "transnet (TransNet V2, with the extra torch-data)"
        ),
    ] = "gradual"
    shot_threshold: Annotated[
        float | None,
        Option("change between frames that is a cut", least=0, most=255, unset=f"{ContentShots.threshold:g}"),
    ] = None
    shortest: Annotated[float, Option("shortest clip", metavar="SECONDS")] = 1.0
    longest: Annotated[float, Option("longest; longer shots are divided", metavar="SECONDS")] = 10.0
    trim: Annotated[int, Option("left out where a shot borders on another", metavar="FRAMES")] = 3
    cover: Annotated[str, Option("frames are shrunk while they cover this many pixels", metavar="HxW")] = (
        f"{COVER[0]}x{COVER[1]}"
    )
    film_fps: Annotated[float | None, Option("frame rate of the clips", unset="each film's own", metavar="N")] = None

    def films(self, paths: _Path | Iterable[_Path]) -> Films:
        """The production.

        Args:
          paths: films, and folders of them.

        Raises:
          UserError: an option is out of range, or as of `Films`.
        """
        check_ranges(self)
        return Films(
            paths,
            detectors=self.detectors(),
            cover=self._cover,
            shortest=self.shortest,
            longest=self.longest,
            trim=self.trim,
            fps=self.film_fps,
        )

    def detectors(self) -> list[ShotDetector]:
        """What finds the ends of shots.

        Raises:
          UserError: there is a threshold for what has none, or TransNet is not installed.
        """
        if self.shots == "transnet":
            from tooncrafter_jax.curation.transnet_shots import TransNetShots

            if self.shot_threshold is not None:
                raise UserError("--shot-threshold goes with --shots cuts or gradual, not with transnet: leave it out")
            return [TransNetShots()]
        cuts = ContentShots() if self.shot_threshold is None else ContentShots(self.shot_threshold)
        return [cuts] if self.shots == "cuts" else [cuts, GradualShots()]

    @property
    def _cover(self) -> tuple[int, int]:
        height, _, width = self.cover.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise UserError(f"--cover={self.cover} is not of the form HEIGHTxWIDTH, e.g. 320x512")
        return int(height), int(width)


FilmOptions.__doc__ = with_attributes(FilmOptions.__doc__, FilmOptions)


class Films:
    """Clips of films, as a `Production`.

    A film is read twice and never held in memory: once small, for the detectors of shots, and once for the clips.
    Frames are counted at the film's constant rate (see `read_film`), from 0. A shot is trimmed where it borders on
    another, left out if it is too short, and divided into equal parts if it is too long.

    Args:
      paths: films, and folders in which films are looked for at any depth, in files that are not hidden.
      detectors: what finds the ends of shots; by default hard cuts and gradual transitions, without a model.
      cover: height and width that frames still cover after shrinking; they are never enlarged.
      shortest: seconds of the shortest clip; clips below `MIN_FRAMES` frames are left out in any case.
      longest: seconds of the longest clip (spec section 9: public pipelines keep 2 or 3 up to 10 or 20).
      trim: frames to drop where a shot borders on another.
      fps: rate of the clips; by default each film's own.

    Raises:
      UserError: a path does not exist, a folder cannot be read, there is no film, or a number makes no sense.
    """

    name = "films"

    def __init__(
        self,
        paths: _Path | Iterable[_Path],
        *,
        detectors: Sequence[ShotDetector] | None = None,
        cover: tuple[int, int] = COVER,
        shortest: float = FilmOptions.shortest,
        longest: float = FilmOptions.longest,
        trim: int = FilmOptions.trim,
        fps: float | None = None,
    ):
        if not 0 < shortest <= longest / 2:
            raise UserError(
                f"clips cannot last from {shortest} s to {longest} s: the longest must be at least twice the shortest, "
                "as long shots are divided"
            )
        if min(cover) < 8 or trim < 0 or (fps is not None and not 1 <= fps <= 240):
            raise UserError("clips need at least 8 pixels a side, no negative trim, and 1 to 240 frames a second")
        self.paths = (paths,) if isinstance(paths, str | os.PathLike) else tuple(paths)
        self.detectors = tuple(FilmOptions().detectors() if detectors is None else detectors)
        self.cover, self.shortest, self.longest, self.trim, self.fps = cover, shortest, longest, trim, fps

    def sources(self) -> Sequence[str]:
        """Each film's path below the folder, without the extension where it is not needed to tell two apart."""
        return list(self._films)

    def path(self, source: str) -> Path:
        """The file of a film."""
        return self._films[source]

    def state(self, source: str) -> JsonObject:
        """Size and time of change of the film's file.

        Raises:
          UserError: the file is gone or cannot be read.
        """
        try:
            status = self.path(source).stat()
        except OSError as error:
            raise UserError(f"'{self.path(source)}' cannot be read ({error.strerror}): check the path") from error
        return {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}

    def settings(self) -> JsonObject:
        """Sizes, lengths and rates, and the settings of the detectors."""
        return {
            "cover": list(self.cover),
            "shortest": self.shortest,
            "longest": self.longest,
            "trim": self.trim,
            "fps": self.fps,
            "jpeg_quality": JPEG_QUALITY,
            "detectors": {detector.name: dict(detector.settings()) for detector in self.detectors},
        }

    def clips(self, source: str) -> Iterator[Clip]:
        """The clips of a film, in order; none of one that is too short.

        Raises:
          UserError: the film cannot be read, is damaged or cut off; no clip of it has come before, unless it changes
            meanwhile.
        """
        path, fps = self.path(source), self._rate(source)
        ranges = self.ranges(source)
        frames = enumerate(read_film(path, self.cover, fps=self.fps)) if ranges else iter(())
        for start, stop in ranges:
            pictures: list[bytes] = []
            size = (0, 0)
            for index, picture in frames:
                if index >= start:
                    pictures.append(encode_frame(picture))
                    size = picture.shape[:2]
                if index == stop - 1:
                    break
            else:
                raise UserError(f"'{path}' has changed while it was read: run the command again")
            yield Clip(
                id=f"{source}/{start:06}-{stop:06}",
                source=source,
                frames=tuple(pictures),
                height=size[0],
                width=size[1],
                fps=fps,
                effective_fps=fps,
                start_frame=start,
            )

    def ranges(self, source: str) -> list[tuple[int, int]]:
        """First frame, and frame after the last, of each clip of a film.

        Raises:
          UserError: as `clips`.
        """
        fps = self._rate(source)
        ranges: list[tuple[int, int]] = []
        for start, stop in self.shots(source):
            parts = max(1, math.ceil((stop - start) / (self.longest * fps)))  # one where a clip may last for ever
            borders = np.linspace(start, stop, parts + 1).round().astype(int).tolist()
            ranges.extend(itertools.pairwise(borders))
        least = max(MIN_FRAMES, self.shortest * fps)
        return [(start, stop) for start, stop in ranges if stop - start >= least]

    def shots(self, source: str) -> list[tuple[int, int]]:
        """First frame, and frame after the last, of each shot of a film, without the trimmed ones.

        Raises:
          UserError: as `clips`.
        """
        watches = [detector.watch(self._rate(source)) for detector in self.detectors]
        length = 0
        for picture in read_film(self.path(source), WATCHED_SIZE, fps=self.fps, resampling="area"):
            for watch in watches:
                watch.see(picture)
            length += 1
        found = [transition for watch in watches for transition in watch.transitions()]
        return shots_between(length, found, self.trim)

    def _rate(self, source: str) -> float:
        return rate_of_film(self.path(source)) if self.fps is None else float(self.fps)

    @cached_property
    def _films(self) -> dict[str, Path]:
        found: list[tuple[Path, Path]] = []  # folder and film in it
        for path in map(Path, self.paths):
            if not path.exists():
                raise UserError(f"'{path}' does not exist: name a film or a folder of films")
            found += [(path, film) for film in _films_below(path)] if path.is_dir() else [(path.parent, path)]
        if not found:
            raise UserError(f"no film is in '{self.paths[0]}': films end in {', '.join(sorted(EXTENSIONS))}")
        return _named(found)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_films": self._films}  # another process need not look through the folders


def _films_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(
            f"the folder '{error.filename}' cannot be read ({error.strerror}): check its permissions"
        ) from error

    films = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        films += [
            Path(place, name)
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        ]
    return films


def _named(films: Sequence[tuple[Path, Path]]) -> dict[str, Path]:
    """Films by the shortest of three names that no other has: without extension, with it, and with the folder's
    name.
    """
    unique: dict[Path, tuple[Path, Path]] = {}  # one film may be named twice
    for folder, film in films:
        unique.setdefault(film.resolve(), (folder, film))
    remaining = list(unique.values())
    named: dict[str, Path] = {}
    for name in (
        lambda folder, film: film.relative_to(folder).with_suffix("").as_posix(),
        lambda folder, film: film.relative_to(folder).as_posix(),
        lambda folder, film: film.absolute().relative_to(folder.absolute().parent).as_posix(),
        lambda folder, film: film.absolute().as_posix(),
    ):
        names = [_text(name(folder, film)) for folder, film in remaining]
        alone = [names.count(each) == 1 and each not in named for each in names]
        named |= {each: film for each, (_, film), ok in zip(names, remaining, alone, strict=True) if ok}
        remaining = [pair for pair, ok in zip(remaining, alone, strict=True) if not ok]
    return dict(sorted(named.items()))


def _text(name: str) -> str:
    """A file's name as text, with a mark for bytes that are none: it goes into records."""
    return os.fsencode(name).decode("utf-8", "replace")
