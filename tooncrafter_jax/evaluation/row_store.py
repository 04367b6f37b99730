"""What an evaluation keeps on disk: the rows of every method, and what was made.

    OUT/run.json                          what is evaluated; another request in the same directory is refused
    OUT/rows/METHOD/00003.npz             rows of one batch of clips, all metrics together
    OUT/videos/METHOD/CLIP.mp4            what a method made, every pixel kept

Files appear whole, so a run that was stopped goes on after its last batch, and processes that share the directory never
see half a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import write_json
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.lossless import read_lossless, write_lossless
from tooncrafter_jax.io.owned_files import foreign
from tooncrafter_jax.typing import HostArray, HostParams, JsonObject, Uint8Video, Uint8Videos

REPORTS = ("report.md", "report.json")
"""Files that the report adds."""
_PARTS = ("rows", "videos", "cases", "plots")
_IDS = "clip ids"
_ROWS = re.compile(r"[0-9]{5,}\.npz")
_CASE = re.compile(r"(best|middling|worst|asked)-[0-9]+\.(png|mp4)")
"""Names that the report gives in `cases`."""
_INTERVALS = "intervals"
"""The plot of all metrics; each other one has its metric's name."""
_SAFE_NAME = 120


class RowStore:
    """The directory of one evaluation.

    Args:
      directory: is made if it is missing.
      request: what is evaluated, plain values; must equal that of an earlier run in the directory.
      methods: name -> what a method's clips depend on, plain values. Methods may be added in a later run, but not
        change.
      restart: whether an earlier evaluation of something else is thrown away instead of being an error. What lies there
        under other names than it gives stays.
      clips: ids of those that are evaluated: a video of theirs is never taken for one of this evaluation after a
        restart, though no rows tell of it.
      as_now: brings what an earlier version wrote of a method to the form of this one, and leaves that as it is.

    Raises:
      UserError: the directory holds another evaluation, or files of such names that are of none, or cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        request: JsonObject,
        methods: Mapping[str, JsonObject],
        *,
        restart: bool = False,
        clips: Iterable[str] = (),
        as_now: Callable[[JsonObject], JsonObject] = dict,
    ) -> None:
        self.directory = Path(directory)
        path = self.directory / "run.json"
        described = json.loads(
            json.dumps({"request": dict(request), "methods": {k: dict(v) for k, v in methods.items()}})
        )
        earlier = _read_json(path)
        if earlier:
            differing = [
                key for key in described["request"] if earlier["request"].get(key) != described["request"][key]
            ]
            differing += [
                f"method {name}"
                for name, v in described["methods"].items()
                if as_now(earlier["methods"].get(name, v)) != as_now(v)
            ]
            if differing and not restart:
                raise UserError(
                    f"'{self.directory}' holds another evaluation (the {' and the '.join(differing)} differ): "
                    "choose another --out, or throw that one away with --overwrite"
                )
            if differing:
                self._remove_ours({*earlier["methods"], *described["methods"]}, clips)
            else:
                described["methods"] = earlier["methods"] | described["methods"]
        else:
            for name in (*_PARTS, *REPORTS):
                if os.path.lexists(self.directory / name):
                    raise foreign(self.directory / name, "choose another --out, or move it away")
        if earlier != described:
            write_json(path, described)

    # ------------------------------------------------------------------------------------------------------------- rows

    def rows(self, method: str, batch: int, clips: Sequence[str]) -> HostParams:
        """The rows of a batch that were kept, by "metric/row"; none if there are none, or they are of other clips."""
        try:
            with np.load(self._rows_path(method, batch), allow_pickle=False) as stored:
                if stored[_IDS].tolist() != list(clips):
                    return {}
                return {name: stored[name] for name in stored.files if name != _IDS}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or damaged: measured again
            return {}

    def keep_rows(self, method: str, batch: int, clips: Sequence[str], rows: Mapping[str, HostArray]) -> None:
        """Keeps the rows of a batch in place of those that were kept before.

        Raises:
          UserError: they cannot be written.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **{_IDS: np.asarray(list(clips))}, **rows)  # pyright: ignore[reportArgumentType]
        write_atomically(self._rows_path(method, batch), buffer.getvalue())

    def _rows_path(self, method: str, batch: int) -> Path:
        return self.directory / "rows" / file_name(method) / f"{batch:05}.npz"

    # ----------------------------------------------------------------------------------------------------------- videos

    def video(self, method: str, clip: str) -> Uint8Video | None:
        """What a method made of a clip, if it was kept whole."""
        return read_lossless(self.video_path(method, clip))

    def keep_videos(self, method: str, clips: Iterable[str], videos: Uint8Videos) -> None:
        """Keeps what a method made.

        Raises:
          UserError: it cannot be written.
        """
        for clip, video in zip(clips, videos, strict=True):
            write_lossless(self.video_path(method, clip), video)

    def video_path(self, method: str, clip: str) -> Path:
        """Where a method's video of a clip lies."""
        return self.directory / "videos" / file_name(method) / f"{file_name(clip)}.mp4"

    # --------------------------------------------------------------------------------------------------- starting anew

    def _remove_ours(self, methods: Iterable[str], clips: Iterable[str]) -> None:
        """Removes the files that an evaluation has made, by the names that it gives, and what is empty then."""
        made: set[Path] = set()
        plots, clips = {_INTERVALS}, set(clips)
        for method in methods:
            ids = set(clips)
            for path in (self.directory / "rows" / file_name(method)).glob("*.npz"):
                if _ROWS.fullmatch(path.name):
                    made.add(path)
                    of_batch, metrics = _told_by_rows(path)
                    ids |= of_batch
                    plots |= metrics
            made |= {self.video_path(method, clip) for clip in ids}
        made |= {self.directory / "plots" / f"{file_name(plot)}.png" for plot in plots}
        made |= {path for path in (self.directory / "cases").glob("*") if _CASE.fullmatch(path.name)}
        for path in made:
            if path.is_file() or path.is_symlink():
                path.unlink(missing_ok=True)
        for folder in (*{path.parent for path in made}, *(self.directory / part for part in _PARTS)):
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is empty


def _told_by_rows(path: Path) -> tuple[set[str], set[str]]:
    """The clips and the metrics of a file of rows; none if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            metrics = {name.partition("/")[0] for name in stored.files if name != _IDS}
            return set(map(str, stored[_IDS].tolist())), metrics
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return set(), set()


def _read_json(path: Path) -> dict[str, Any]:
    """What an earlier run was asked for; nothing if there was none."""
    not_ours = foreign(path, "choose another --out, or move it away")
    try:
        earlier = read_json(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): choose another --out") from error
    except ValueError as error:
        raise not_ours from error
    request, methods = (earlier.get(key) if isinstance(earlier, dict) else None for key in ("request", "methods"))
    if not isinstance(request, dict) or not isinstance(methods, dict):
        raise not_ours
    if not all(isinstance(method, dict) for method in methods.values()):
        raise not_ours
    return earlier


def file_name(text: str) -> str:
    """A file name for any text: readable, and different for different texts."""
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", text).lstrip(".")[:_SAFE_NAME]
    if plain and plain == text:
        return plain
    try:
        data = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character, which is no byte of a file's name either
        data = text.encode(errors="surrogatepass")
    return f"{plain or 'clip'}-{hashlib.sha256(data).hexdigest()[:10]}"
