"""What has been done so far: the clips of each finished source, beside a description of them and of how they were made.

A directory `workspace` holds for each source a clip file and a JSON file. The JSON file names the clip file and appears
last, so a source is finished or it is not, whenever a run is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tooncrafter_jax.curation.protocols import ChangingSources, Production, Stage
from tooncrafter_jax.data.clip_sets import ClipFile, write_clip_file
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import cannot_write, check_writable, write_atomically
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.typing import JsonObject

FORMAT = 1
"""Of the JSON files; of another one, sources are made again."""

_SLUG_CHARACTERS = 60
_OPEN_CLIP_FILES = 64  # of each process that writes shards, whose clips come from all sources in turn
_LOCK_PATIENCE = 2.0  # seconds; processes of a killed run may need a moment to end


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """Everything of a clip but its pictures: what thresholds, duplicates and splits are decided from.

    Attributes:
      id, source, height, width, fps, effective_fps, start_frame: as of `Clip`.
      caption, caption_from, scores, fingerprint: as of `Clip`.
      num_frames: number of frames.
      num_bytes: of the encoded frames together.
      index: its place in the clip file of its source.
      history: what the production has said of it, and then what each stage has changed; see `measurements_after`.
    """

    id: str
    source: str
    num_frames: int
    height: int
    width: int
    fps: float
    effective_fps: float
    start_frame: int
    caption: str
    caption_from: str
    scores: Mapping[str, float]
    fingerprint: str
    num_bytes: int
    index: int
    history: tuple[JsonObject, ...] = ()

    def __len__(self) -> int:
        """Number of frames."""
        return self.num_frames

    @classmethod
    def of(cls, clip: Clip, index: int, history: Sequence[JsonObject] = ()) -> ClipRecord:
        """The record of a clip at a place of a clip file."""
        same = {f.name: getattr(clip, f.name) for f in dataclasses.fields(cls) if hasattr(clip, f.name)}
        num_bytes = sum(map(len, clip.frames))
        return cls(**same, num_frames=len(clip), num_bytes=num_bytes, index=index, history=tuple(history))


MEASURED = ("effective_fps", "caption", "caption_from", "scores", "fingerprint")
"""Fields of a clip that stages fill in."""


def changes_between(before: Clip | None, after: Clip) -> dict[str, object]:
    """What a stage has changed of a clip, of its scores only the changed ones; from None, all that is said of it."""
    changes: dict[str, object] = {}
    for name in MEASURED:
        value = getattr(after, name)
        if name == "scores":
            known = before.scores if before is not None else {}
            value = {key: score for key, score in value.items() if not _same(score, known.get(key, math.nan))}
            if value:
                changes[name] = value
        elif before is None or value != getattr(before, name):
            changes[name] = value
    return changes


def measurements_after(history: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields `MEASURED` of a clip after the changes of a history, from its production on."""
    fields: dict[str, Any] = {}
    scores: dict[str, float] = {}
    for changes in history:
        scores |= changes.get("scores", {})
        fields |= changes
    return fields | {"scores": scores}


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@dataclasses.dataclass(frozen=True)
class SourceResult:
    """What became of a source.

    Attributes:
      source: its name.
      recipe: digests of how its clips were made (see `recipe_of`).
      clips: what was made of it, without the pictures.
      file: name of the clip file, or "" where there are no clips.
      file_bytes: its size.
      failure: why there are no clips, in a sentence, or "".
      details: of the failure, for developers.
      seconds: how long it took.
    """

    source: str
    recipe: tuple[str, ...] = ()
    clips: tuple[ClipRecord, ...] = ()
    file: str = ""
    file_bytes: int = 0
    failure: str = ""
    details: str = ""
    seconds: float = 0.0


def recipe_of(production: Production, stages: Sequence[Stage], source: str) -> tuple[str, ...]:
    """A digest after the production and one after each stage, each of all that the clips depend on up to there.

    Raises:
      UserError: the source cannot be read.
    """
    state = production.state(source) if isinstance(production, ChangingSources) else {}
    digests = [_digest([FORMAT, production.name, production.settings(), state, source])]
    for stage in stages:
        digests.append(_digest([digests[-1], stage.name, stage.settings()]))
    return tuple(digests)


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The results of all sources. Can be sent to other processes, and to other machines that see the same directory.

    Attributes:
      directory: where the files are.
    """

    directory: Path

    @property
    def sources(self) -> Path:
        """The directory with two files a source."""
        return self.directory / "sources"

    def prepare(self) -> None:
        """Makes the directories, and removes what killed runs have left half written.

        Raises:
          UserError: they cannot be written.
        """
        check_writable(self.sources)
        try:
            for leftover in self.sources.glob(".tooncrafter-*.tmp"):
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(os.fspath(self.sources), error) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other runs out.

        Raises:
          UserError: another run is in.
        """
        path = self.directory / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        except OSError as error:
            raise cannot_write(os.fspath(path), error) from error
        with file:
            deadline = time.monotonic() + _LOCK_PATIENCE
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise UserError(
                            f"another run is working on '{self.directory.parent}': wait for it, or choose another "
                            "directory"
                        ) from error
                    time.sleep(0.1)
                except OSError:  # a file system without locks
                    break
            yield

    def last(self, source: str) -> SourceResult | None:
        """What became of a source in the last run, be it a failure; None if nothing, or if its files are damaged."""
        return self._read(self.failure(source), source) or self.read(source)

    def read(self, source: str) -> SourceResult | None:
        """The clips that were last made of a source, perhaps before it failed; None if none, or if its files are
        damaged.
        """
        return self._read(self.description(source), source)

    def _read(self, path: Path, source: str) -> SourceResult | None:
        try:
            values = read_json(path)
            if values.pop("format") != FORMAT:
                return None
            clips = tuple(ClipRecord(**_with_nan(clip)) for clip in values.pop("clips"))
            result = SourceResult(**{**values, "recipe": tuple(values["recipe"]), "clips": clips})
            whole = not result.file or (self.sources / result.file).stat().st_size == result.file_bytes
            return result if result.source == source and whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def clip_file(self, result: SourceResult) -> Path:
        """Where the clips of a source that has some are."""
        return self.sources / result.file

    def write(
        self,
        source: str,
        recipe: tuple[str, ...],
        clips: Iterable[tuple[Clip, Sequence[JsonObject]]],
        started: float,
    ) -> SourceResult:
        """Writes the clips of a source; what was there before stays until then.

        Args:
          source: its name.
          recipe: how they are made.
          clips: with their histories; is read as it is written.
          started: time.monotonic() when the work began.

        Raises:
          UserError: the files cannot be written.
        """
        records: list[ClipRecord] = []
        path = self.sources / f"{_key(source)}.{recipe[-1][:8]}.array_record"

        def recorded() -> Iterator[Clip]:
            for index, (clip, history) in enumerate(clips):
                records.append(ClipRecord.of(clip, index, history))
                yield clip

        write_clip_file(path, recorded())
        result = SourceResult(source, recipe, tuple(records), seconds=time.monotonic() - started)
        if records:
            result = dataclasses.replace(result, file=path.name, file_bytes=path.stat().st_size)
        self._describe(self.description(source), result)
        self.forget_failure(source)
        for old in self.sources.glob(f"{_key(source)}.*.array_record"):
            if old.name != result.file:
                with contextlib.suppress(OSError):
                    old.unlink()
        return result

    def write_failure(self, source: str, failure: str, details: str, started: float) -> SourceResult:
        """Notes why a source has no clips this time. Those of an earlier time are kept, in case that it can be read
        again.

        Raises:
          UserError: it cannot be written.
        """
        result = SourceResult(source, failure=failure, details=details, seconds=time.monotonic() - started)
        self._describe(self.failure(source), result)
        return result

    def forget_failure(self, source: str) -> None:
        """What is known of a source holds again."""
        self.failure(source).unlink(missing_ok=True)

    def write_run(self, run: JsonObject) -> None:
        """Keeps what was asked for, so that thresholds can be changed later.

        Raises:
          UserError: it cannot be written.
        """
        write_atomically(self.directory / "run.json", (json.dumps(run, indent=1) + "\n").encode())

    def read_run(self) -> dict[str, Any] | None:
        """What the last run was asked for, or None before the first.

        Raises:
          UserError: its description is damaged.
        """
        path = self.directory / "run.json"
        try:
            run = read_json(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"'{path}' is damaged: delete it and run the command that made this set again") from error
        if not isinstance(run, dict) or run.get("format") != FORMAT:
            raise UserError(f"'{path}' is of another version: delete it and run the command that made this set again")
        return run

    def description(self, source: str) -> Path:
        """The JSON file of a source's clips."""
        return self.sources / f"{_key(source)}.json"

    def failure(self, source: str) -> Path:
        """The JSON file of why a source failed in the last run."""
        return self.sources / f"{_key(source)}.failure.json"

    def _describe(self, path: Path, result: SourceResult) -> None:
        values = {"format": FORMAT} | dataclasses.asdict(result)
        text = json.dumps(_without_nan(values), ensure_ascii=False, allow_nan=False)
        write_atomically(path, (text + "\n").encode(errors="backslashreplace"))


def load_clip(path: str, index: int, name: str) -> Clip:
    """The clip at a place of a clip file.

    Args:
      path: the file, as `Workspace.clip_file` has it.
      index: its place.
      name: the id that it should have.

    Raises:
      UserError: the file is damaged, or another than it was.
    """
    try:
        clip = _open_clip_file(path, os.stat(path).st_mtime_ns)[index]
    except (UserError, OSError, IndexError) as error:
        raise UserError(f"'{path}' is damaged: delete it, and run the command that made this set again") from error
    if clip.id != name:
        raise UserError(f"'{path}' was changed meanwhile: run the command that made this set again")
    return clip


@functools.lru_cache(_OPEN_CLIP_FILES)
def _open_clip_file(path: str, changed: int) -> ClipFile:
    return ClipFile(path)


def _key(source: str) -> str:
    """A file name for a source: readable, and different for different sources."""
    slug = re.sub(r"[^\w.-]+", "_", source, flags=re.ASCII).strip("._")[-_SLUG_CHARACTERS:]
    return f"{slug or 'source'}-{hashlib.sha256(source.encode(errors='surrogateescape')).hexdigest()[:16]}"


def _digest(values: object) -> str:
    text = json.dumps(values, sort_keys=True, default=_as_text)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _as_text(value: object) -> str:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"settings must be JSON values, not {type(value).__name__}")


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _with_nan(clip: dict[str, Any]) -> dict[str, Any]:
    def scores(values: Mapping[str, float | None]) -> dict[str, float]:
        return {name: math.nan if value is None else float(value) for name, value in values.items()}

    history = tuple(
        {key: scores(value) if key == "scores" else value for key, value in changes.items()}
        for changes in clip["history"]
    )
    return clip | {"scores": scores(clip["scores"]), "history": history}
