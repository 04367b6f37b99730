"""Productions and stages that cost nothing, and can be sent to other processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.errors import UserError


def make_clip(source: str, number: int, frames: int = 16, **fields: Any) -> Clip:
    """A small clip that is unlike any other, of a grey that its number gives."""
    pictures = np.full((frames, 24, 32, 3), 20 * number % 256, np.uint8)
    pictures[:, 4:12, 4:12] = np.frombuffer(source.encode()[-3:].rjust(3), np.uint8)
    values = {"id": f"{source}/{number:03}", "source": source, "start_frame": (frames + 4) * number}
    return clip_of_pictures(pictures, **({"fps": 24.0, "effective_fps": 12.0} | values | fields))


@dataclasses.dataclass(frozen=True)
class FakeFilms:
    """Films of some clips each. A line is written to a log whenever a film is read, and at the end of its reading.

    Attributes:
      films: number of clips by name; a sentence instead of a number is what is wrong with it.
      log: the file.
      seconds: that a clip takes.
      version: of the settings.
      states: what is known of films that can change.
      crashing: name of a film that kills the process.
    """

    films: Mapping[str, int | str]
    log: Path
    seconds: float = 0.0
    version: int = 1
    states: Mapping[str, int] = dataclasses.field(default_factory=dict)
    crashing: str = ""
    name: str = "films"

    def sources(self) -> Sequence[str]:
        return list(self.films)

    def settings(self) -> Mapping[str, Any]:
        return {"version": self.version}

    def state(self, source: str) -> Mapping[str, Any]:
        return {"state": self.states.get(source, 0)}

    def clips(self, source: str) -> Iterator[Clip]:
        self._note("read", source)
        if source == self.crashing:
            os.kill(os.getpid(), signal.SIGKILL)
        count = self.films[source]
        for number in range(2 if isinstance(count, str) else count):
            time.sleep(self.seconds)
            yield make_clip(source, number)
        if isinstance(count, str):
            raise ZeroDivisionError(count) if count == "unexpected" else UserError(count)
        self._note("done", source)

    def _note(self, what: str, source: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} {source}\n")


SLOW_FILMS = FakeFilms({f"film {n}": 2 + n % 3 for n in range(9)}, Path())
"""For runs in other processes."""


def lines_of(log: Path, what: str = "done") -> list[str]:
    """The films of which a log says so, in order of their names."""
    lines = log.read_text().splitlines() if log.exists() else []
    return sorted(line.partition(" ")[2] for line in lines if line.startswith(f"{what} "))


@dataclasses.dataclass(frozen=True)
class FakeMotion:
    """Scores every clip by its number, and notes the clips in a log."""

    log: Path
    factor: float = 1.0
    name: str = "motion"

    def settings(self) -> Mapping[str, Any]:
        return {"factor": self.factor}

    def __call__(self, clip: Clip) -> Clip:
        if clip.source != "rehearsal":
            with self.log.open("a") as file:
                file.write(f"{self.name} {clip.id}\n")
        number = int(clip.id.rpartition("/")[2])
        return dataclasses.replace(clip, scores={**clip.scores, "motion": self.factor * (number + 0.5)})


@dataclasses.dataclass(frozen=True)
class FakeFingerprint:
    """Gives every clip the fingerprint that its number, or its name, stands for."""

    by_number: bool = False
    name: str = "fingerprint"

    def settings(self) -> Mapping[str, Any]:
        return {"by_number": self.by_number}

    def __call__(self, clip: Clip) -> Clip:
        key = clip.id.rpartition("/")[2] if self.by_number else clip.id
        random = np.random.default_rng(list(key.encode()))
        return dataclasses.replace(clip, fingerprint=random.bytes(16).hex())


@dataclasses.dataclass(frozen=True)
class FakeCaptions:
    """Gives some clips a caption."""

    captions: Mapping[str, str]
    name: str = "captions"

    def settings(self) -> Mapping[str, Any]:
        return self.captions

    def __call__(self, clip: Clip) -> Clip:
        caption = self.captions.get(clip.id)
        return clip if caption is None else dataclasses.replace(clip, caption=caption, caption_from="sidecar")


class Cutter:
    """A stage that does what it may not."""

    name = "cutter"

    def settings(self) -> Mapping[str, Any]:
        return {}

    def __call__(self, clip: Clip) -> Clip:
        return dataclasses.replace(clip, frames=clip.frames[1:])


class Unfinished:
    """A stage that cannot be measured with."""

    name = "unfinished"

    def settings(self) -> Mapping[str, Any]:
        return {}

    def __call__(self, clip: Clip) -> Clip:
        raise UserError("there is no model to measure with: give its file")
