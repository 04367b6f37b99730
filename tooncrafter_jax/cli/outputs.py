"""The files of a finished clip, and the record that says how it was made."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tooncrafter_jax import media
from tooncrafter_jax.config_codec import to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.baselines.blends import cross_fade
from tooncrafter_jax.pipeline import ToonCrafter
from tooncrafter_jax.requests import Pair, SamplingOptions, Sketch

FORMATS = ("mp4", "gif", "webp", "png")
RECORD_FORMAT = 1
COMPARISON_COLUMNS = 8
"""Frames in a row of a contact sheet that has the cross-fade below each row."""
_EXECUTION_OPTIONS = ("decode_frames_per_chunk", "steps_per_chunk")
"""Options that change how a clip is computed, not what it shows."""


@dataclass(frozen=True)
class OutputPlan:
    """Which files a clip becomes.

    Attributes:
      directory: where they go.
      formats: some of `FORMATS`; png is a folder of frames.
      contact_sheet: whether a contact sheet is written too.
      cross_fade: whether it shows, below the frames, the cross-fade between the first and the last of them.
      playback_fps: frames a second of the files (8 as published), not what the model is told.
      drop_last: whether the last frame is left out, for clips that loop.
    """

    directory: Path
    formats: tuple[str, ...]
    contact_sheet: bool
    playback_fps: float = media.PUBLISHED_FPS
    drop_last: bool = False
    cross_fade: bool = False

    def check(self, inputs: Iterable[Path], names: Iterable[str]) -> None:
        """Finds out, before anything expensive starts, what would keep the files from being written.

        Args:
          inputs: files that the run reads.
          names: of the clips.

        Raises:
          UserError: for an impossible playback rate, an output that would replace an input, or a directory that cannot be
            written.
        """
        for kind in self.formats:
            media.check_playback_rate(self.playback_fps, kind)
        files = {os.path.realpath(path) for path in inputs if "\0" not in str(path)}
        folders = {os.path.dirname(file) for file in files}
        for name in names:
            for kind, path in self.paths(name).items():
                if os.path.realpath(path) in (folders if kind == "png" else files):
                    raise UserError(f"{path} would be written, but the inputs are there: choose another --out")
        media.check_writable(self.directory)

    def paths(self, name: str) -> dict[str, Path]:
        """Kind -> path of each file of a clip, the record last."""
        files = {kind: self.directory / (name if kind == "png" else f"{name}.{kind}") for kind in self.formats}
        if self.contact_sheet:
            files["contact_sheet"] = self.directory / f"{name}_sheet.png"
        return files | {"record": self.directory / f"{name}.json"}

    def write(self, name: str, video: np.ndarray, record: Mapping[str, Any]) -> dict[str, Path]:
        """Writes every file, the record last: a clip whose record exists is complete.

        An older record goes as soon as the first file is replaced, so that it never stands beside files of another run.

        Raises:
          UserError: if a file cannot be written.
        """
        paths, fps = self.paths(name), self.playback_fps
        if self.drop_last:
            video = video[:-1]
        for kind, path in paths.items():
            if kind == "mp4":
                media.write_mp4(path, video, fps)
            elif kind == "gif":
                media.write_gif(path, video, fps)
            elif kind == "webp":
                media.write_webp(path, video, fps)
            elif kind == "png":
                media.write_png_sequence(path, video)
            elif kind == "contact_sheet":
                self._write_contact_sheet(path, video)
            with contextlib.suppress(OSError):
                paths["record"].unlink()
        media.write_json(paths["record"], dict(record))
        return paths

    def _write_contact_sheet(self, path: Path, video: np.ndarray) -> None:
        labels = [str(frame) for frame in range(len(video))]
        if not self.cross_fade or len(video) < 2:
            media.write_contact_sheet(path, video, labels=labels)
            return
        columns, blank = min(COMPARISON_COLUMNS, len(video)), np.full_like(video[0], 255)
        faded = cross_fade(video[:1], video[-1:], len(video))[0]
        pictures, names = [], []
        for start in range(0, len(video), columns):
            here = range(start, min(start + columns, len(video)))
            for shown, what in ((video, ""), (faded, " faded")):
                missing = columns - len(here)
                pictures += [*shown[here.start : here.stop], *[blank] * missing]
                names += [*(f"{frame}{what}" for frame in here), *[""] * missing]
        media.write_contact_sheet(path, np.stack(pictures), columns, names)

    def is_done(self, name: str, request: Mapping[str, Any]) -> bool:
        """Whether all files of a clip are there and were made from the same request."""
        paths = self.paths(name)
        if not all(path.exists() for path in paths.values()):
            return False
        try:
            found = json.loads(paths["record"].read_text(encoding="utf-8"))["request"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False
        return _without_paths(found) == _without_paths(json.loads(json.dumps(request)))

    def request_of(self, pair: Pair, options: SamplingOptions, model: Mapping[str, str], dtype: str) -> dict[str, Any]:
        """Everything that decides how a clip looks, as plain values; pictures by path and checksum."""
        return request_of(pair, options, model, dtype) | {
            "playback_fps": self.playback_fps,
            "drop_last": self.drop_last,
            **(
                {"cross_fade": True} if self.cross_fade else {}
            ),  # records from before there was such an option stay valid
        }


def request_of(pair: Pair, options: SamplingOptions, model: Mapping[str, str], dtype: str) -> dict[str, Any]:
    """Everything that decides the frames of a clip, as plain values; pictures by path and checksum."""
    sketches = {
        str(frame): {**file_record(s.image), "dark_lines": s.dark_lines} if isinstance(s, Sketch) else file_record(s)
        for frame, s in sorted((pair.sketches or {}).items())
    }
    return {
        "first": file_record(pair.first),
        "last": file_record(pair.last),
        "prompt": pair.prompt,
        "sketches": sketches,
        "seed": pair.seed,
        "fps": pair.fps,
        "options": {name: value for name, value in to_dict(options).items() if name not in _EXECUTION_OPTIONS},
        "model": dict(model),
        "dtype": dtype,
    }


def record_of(request: Mapping[str, Any], toon: ToonCrafter, seconds: float) -> dict[str, Any]:
    """The record written beside a clip: the request, and what made it."""
    packages: Sequence[str] = ("tooncrafter-jax", "jax", "jaxlib", "flax", "numpy")
    return {
        "format": RECORD_FORMAT,
        "request": dict(request),
        "made_by": {
            "versions": {name: _version(name) for name in packages},
            "devices": [str(device.device_kind) for device in toon.devices],
            "platform": toon.devices[0].platform,
            "architecture": toon.config.name,
            "seconds": round(seconds, 3),
        },
    }


def file_record(picture: Any) -> dict[str, str]:
    """A file's path and checksum, which is empty if it cannot be read."""
    path = os.path.abspath(picture)
    try:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError):
        digest = ""  # what is wrong with the file is said where it is read
    return {"path": path, "sha256": digest}


def _without_paths(request: Any) -> Any:
    """A request with pictures by checksum alone: the same pictures elsewhere make the same clip."""
    if isinstance(request, dict):
        return {key: _without_paths(value) for key, value in request.items() if key != "path"}
    return request


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
