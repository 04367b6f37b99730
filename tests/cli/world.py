"""What the tests of the commands share: files to work on, a cheap sampler, and how a command is called."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.reference import key_list
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.models.configuration import COMPONENTS, tiny
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.weights import rule

SIZE = ("--height=64", "--width=64")


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Command = Callable[..., Result]


def draw(path: Path, value: int = 90, height: int = 64, width: int = 64) -> Path:
    """A picture with a slope in it, so that no two are alike."""
    columns = np.linspace(0, 100, width).astype(np.uint8)
    picture = np.broadcast_to(columns[None, :, None], (height, width, 3)) + np.uint8(value)
    Image.fromarray(np.ascontiguousarray(picture)).save(path)
    return path


def draw_lines(path: Path, paper: int = 255, ink: int = 0, height: int = 64, width: int = 64) -> Path:
    """A sketch of one line."""
    picture = np.full((height, width, 3), paper, np.uint8)
    picture[height // 2 - 2 : height // 2 + 2, width // 4 : -width // 4] = ink
    Image.fromarray(picture).save(path)
    return path


def write_folder(directory: Path, pairs: int) -> Path:
    """A folder as the published script expects it: prompts and two pictures for each."""
    directory.mkdir()
    (directory / "prompts.txt").write_text("".join(f"prompt {i}\n\n" for i in range(pairs)))
    for i in range(pairs):
        draw(directory / f"{i}_a.png", 10 * i)
        draw(directory / f"{i}_b.png", 10 * i + 5)
    return directory


def write_manifest(path: Path, *lines: Mapping[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def write_record(path: Path, files: Sequence[Path]) -> Path:
    """The record of an earlier run, of another request, that wrote these files."""
    stamps = {
        str(file.relative_to(path.parent)): {
            "size": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    }
    path.write_text(json.dumps({"format": 2, "request": {"prompt": "earlier"}, "made_by": {}, "files": stamps}))
    return path


# --- weight files ---


def rule_tensors(file: str) -> dict[str, np.ndarray]:
    """The tiny model's tensors by the weight rule, in half precision, with the schedule's buffers."""
    buffers = NoiseSchedule().buffers()
    prefix = rule.SKETCH_PREFIX if file == "sketch_keys.tsv" else ""
    return {
        name: buffers[name] if name in buffers else rule.make(prefix + name, shape).astype(np.float16)
        for name, shape in key_list(f"tiny/{file}").items()
    }


def write_rule_file(path: Path, file: str) -> Path:
    save_file(rule_tensors(file), path)
    return path


def write_hollow_file(path: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """A safetensors file of these names and shapes that holds only zeros and takes no room."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return path


def link_checkpoint(checkpoint: Path, copy: Path, **changes: Any) -> Path:
    """A checkpoint directory that shares the components of another, with changes in its model.json."""
    copy.mkdir()
    for entry in checkpoint.iterdir():
        if entry.is_dir():
            (copy / entry.name).symlink_to(entry)
    description = json.loads((checkpoint / "model.json").read_text()) | changes
    (copy / "model.json").write_text(json.dumps(description))
    return copy


# --- a sampler that costs nothing ---


@dataclass
class FakeModel:
    """Stands for the tiny model: a cross-fade whose brightness depends on the seed.

    Attributes:
      batches: sizes of the batches that were sampled.
      before: called with the number of the batch before it is sampled.
      components: what the model holds.
      broken_seed: pairs of this seed become NaN.
    """

    batches: list[int] = field(default_factory=list)
    before: Callable[[int], None] = lambda number: None
    components: Sequence[str] = COMPONENTS
    broken_seed: int | None = None

    def load(self, source: Any, **_: Any) -> ToonCrafter:
        return ToonCrafter(tiny(), {name: {} for name in self.components}, dtype="float32")

    def sample(
        self, pairs: Sequence[PreparedPair], options: SamplingOptions, on_progress: Callable[[Progress], None] | None
    ) -> np.ndarray:
        self.before(len(self.batches))
        self.batches.append(len(pairs))
        if on_progress is not None:
            on_progress(Progress(options.steps, options.steps, lambda: np.zeros((1, 1, 1, 1, 3), np.uint8)))
        mix = np.linspace(0, 1, options.frames, dtype=np.float32)[:, None, None, None]
        frames = [p.ends[0] * (1 - mix) + p.ends[1] * mix + np.float32(p.seed % 1000 / 1000) for p in pairs]
        for pair, frame in zip(pairs, frames, strict=True):
            if pair.seed == self.broken_seed:
                frame[:] = np.nan
        return np.stack(frames)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ToonCrafter, "load", classmethod(lambda cls, source, **settings: self.load(source)))
        monkeypatch.setattr(ToonCrafter, "sample_prepared", lambda toon, *arguments: self.sample(*arguments))


@dataclass
class World:
    """A directory with two drawings, a converted model, and results of an earlier run.

    Attributes:
      path: the directory.
      checkpoint: the tiny model.
      model: what samples instead of it.
      monkeypatch: of the test.
    """

    path: Path
    checkpoint: Path
    model: FakeModel
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        draw(self.path / "first.png", 20)
        draw(self.path / "last.png", 60)
        self.out.mkdir()
        for name in ("ab.mp4", "other.mp4"):
            (self.out / name).write_text(f"{name} of an earlier run")
        write_record(self.out / "ab.json", [self.out / "ab.mp4"])

    @property
    def out(self) -> Path:
        return self.path / "out"

    @property
    def written(self) -> set[str]:
        """Names of the files where results go."""
        return {path.name for path in self.out.iterdir()}

    def record(self, name: str = "ab") -> dict[str, Any]:
        """What the record of a clip says."""
        return json.loads((self.out / f"{name}.json").read_text())

    @property
    def common(self) -> list[str]:
        return [f"--model={self.checkpoint}", *SIZE, "--steps=2", "--quiet"]

    def pair(self, *changes: str) -> list[str]:
        """Arguments for one pair; options given again win."""
        return [
            f"--first={self.path / 'first.png'}",
            f"--last={self.path / 'last.png'}",
            f"--out={self.out / 'ab.mp4'}",
            *self.common,
            *changes,
        ]

    def folder(self, folder: Path, *changes: str) -> list[str]:
        return [f"--folder={folder}", f"--out={self.out}", *self.common, *changes]

    def manifest(self, *lines: Mapping[str, Any] | str, changes: Sequence[str] = ()) -> list[str]:
        file = write_manifest(self.path / "shots.jsonl", *lines)
        return [f"--manifest={file}", f"--out={self.out}", *self.common, *changes]
