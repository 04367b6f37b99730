"""Precomputed embeddings of a set of clips: what the frozen encoders make of it, so that training need not run them.

A directory of embeddings belongs to one split of a set, one size and one model:

| file | holds |
|---|---|
| `settings.json` | what they were made of and with |
| `constants.safetensors` | `text`, `image`: of the empty prompt (77, D) and of the all-zero picture (N, D) |
| `records-FIRST-STOP.safetensors` | the clips FIRST to STOP - 1 of the set, one after another; see below |
| `index.json` | which of those files there are; written when all are |

Tensors of a file of records: `moments` (frames of all its clips, h, w, 2C), mean and log-variance before the scale
factor, of which training samples; `image` (starts of all its clips, N, D), the CLIP tokens of each frame 0, m, 2m, ...
from which on a window fits, where m is `start_multiple`; `text` (clips, 77, D); and by clip `token_ids` (77), `fps` and
`lengths`. A clip with fewer frames than a window has no rows in `moments` and `image`; one that was damaged has length
0. The clips' ids are in the file's metadata.

At 320x512 in 16 bits a frame's moments take 41 KB, and the CLIP tokens of a start 658 KB: m = 16 keeps both about
equal.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jaxtyping import Int32
from safetensors import SafetensorError, safe_open

from tooncrafter_jax.data.examples import LoaderConfig, OpenPixels
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.data.transforms import Window
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.json_files import parse_json, read_json
from tooncrafter_jax.io.paths import local_path
from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.tooncrafter import Moments
from tooncrafter_jax.typing import AllParams, DeviceParams, HostArray, HostParams, Params
from tooncrafter_jax.weights.safetensors_header import read_header

FORMAT_VERSION = 1
SETTINGS_FILE, INDEX_FILE, CONSTANTS_FILE = "settings.json", "index.json", "constants.safetensors"
ENCODERS = ("autoencoder", "clip_text", "clip_image")
"""The components whose outputs are stored."""
OPEN_SHARDS = 128
"""Files that a process keeps open."""

Networks = Mapping[str, Network[nnx.Module]]


@dataclass(frozen=True)
class EmbeddingConfig:
    """What embeddings are made of; a loader that reads them must ask for the same.

    Attributes:
      height, width: pixels that clips are resized and cropped to.
      antialias: see `LoaderConfig`.
      frames: of the shortest example that will be made.
      start_multiple: examples start at multiples of this; see `LoaderConfig`.
      dtype: in which they are stored.
    """

    height: int = 320
    width: int = 512
    antialias: bool = False
    frames: int = 16
    start_multiple: int = 1
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"

    def __post_init__(self) -> None:
        for name in ("height", "width", "frames", "start_multiple"):
            if getattr(self, name) < 1:
                raise UserError(f"the embeddings' {name} is {getattr(self, name)}, but must be at least 1")

    def starts(self, length: int) -> range:
        """Frames of a clip of this length whose CLIP tokens are stored."""
        return range(0, max(0, length - self.frames + 1), self.start_multiple)

    def rows(self, length: int) -> int:
        """Frames of a clip of this length whose moments are stored."""
        return length if length >= self.frames else 0


# --------------------------------------------------------------------------------------------------------- the encoders


def clipped_moments(moments: Moments) -> Moments:
    """Mean and clipped log-variance (B, T, h, w, 2C) in float32, of the moments that an autoencoder gives."""
    return jnp.concatenate(Posterior.from_moments(moments), axis=-1)


def weights_digest(params: AllParams, components: Sequence[str] = ENCODERS, place: NamedSharding | None = None) -> str:
    """A digest of the encoders' weights: the first entries of every parameter, whatever dtype it was loaded in.

    Args:
      params: component -> path -> parameter.
      components: whose weights count.
      place: where the entries are brought together; on every device of a mesh whose processes all ask.
    """
    flat = {f"{component}.{name}": value for component in components for name, value in params[component].items()}
    digest = hashlib.sha256()
    for name, value in sorted(jax.device_get(jax.jit(_first_entries, out_shardings=place)(flat)).items()):
        digest.update(f"{name} {flat[name].shape} {np.asarray(value).view(np.uint16).tolist()}\n".encode())
    return digest.hexdigest()[:16]


def _first_entries(params: Params) -> DeviceParams:
    return {name: value[(0,) * (value.ndim - 1)][:4].astype(jnp.bfloat16) for name, value in params.items()}


# -------------------------------------------------------------------------------------------------------------- reading


class EmbeddingSource:
    """A source of a `Loader` that reads embeddings: the same examples as of the clips, with embeddings for pixels.

    Travels to other processes.

    Attributes:
      directory: of the embeddings.
      settings: what is in `settings.json`; its "weights" is the `weights_digest` of the model they were made with, and
        its "weights_of" those of each encoder, which earlier versions do not tell.
      config: what they are made of.
    """

    def __init__(self, directory: str | Path, clips: Sequence[Clip] | None = None) -> None:
        """Opens a directory of embeddings.

        Args:
          directory: what `embed` was given.
          clips: the split that they were made of; needed for `LoaderConfig.video` only.

        Raises:
          UserError: they are missing, unfinished or damaged, or made of another set.
        """
        self.directory = directory = local_path(directory)
        self.settings = read_settings(directory)
        self._clips = clips
        if not (directory / INDEX_FILE).is_file():
            raise UserError(f"the embeddings in '{directory}' are unfinished: run the command that makes them again")
        try:
            self.config = EmbeddingConfig(**{f.name: self.settings[f.name] for f in fields(EmbeddingConfig)})
            self._length = int(self.settings["clips"])
            shards = [(int(first), int(stop)) for first, stop in _read_json(directory / INDEX_FILE)["shards"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the embeddings in '{directory}' are damaged: make them again") from error
        self._shards, self._firsts = shards, [first for first, _ in shards]
        if clips is not None and len(clips) != len(self):
            raise UserError(
                f"the embeddings in '{directory}' are of {len(self)} clips, but the set has {len(clips)}: make them "
                "again"
            )

    def check(self, config: LoaderConfig) -> None:
        """See `Source.check`: the same size, and windows whose beginnings were embedded."""
        where, again = f"the embeddings in '{self.directory}'", "change that, or make them again"
        for name in ("height", "width", "antialias"):
            if getattr(config, name) != getattr(self.config, name):
                raise UserError(
                    f"{where} were made with {name} = {getattr(self.config, name)}, but config.data.{name} "
                    f"is {getattr(config, name)}: {again}"
                )
        if config.crop_from:
            raise UserError(f"{where} are of whole pictures, but config.data.crop_from is {config.crop_from}: {again}")
        if config.frames < self.config.frames:
            raise UserError(
                f"{where} are for examples of {self.config.frames} frames or more, not {config.frames}: {again}"
            )
        if config.start_multiple % self.config.start_multiple:
            raise UserError(
                f"{where} are for examples that start at multiples of {self.config.start_multiple}, not of "
                f"{config.start_multiple}: {again}"
            )
        if config.video and self._clips is None:
            raise UserError(f"{where} hold no pixels: set config.data.directory to the set that they were made of")

    def __len__(self) -> int:
        return self._length

    def open(self, record: int) -> OpenEmbeddings:
        """See `Source.open`."""
        shard, row = self._row(record)
        if shard.lengths[row] == 0:
            raise UserError(f"clip '{shard.ids[row]}' was damaged when the embeddings in '{self.directory}' were made")
        return OpenEmbeddings(self, shard, row, record)

    def identity(self, record: int) -> str:
        """See `Source.identity`."""
        shard, row = self._row(record)
        return shard.ids[row]

    def _row(self, record: int) -> tuple[_Shard, int]:
        """The file that holds a clip, and its place there."""
        if not 0 <= record < len(self):
            raise IndexError(record)
        first, stop = self._shards[bisect.bisect_right(self._firsts, record) - 1]
        return _open_shard(self.directory / shard_name(first, stop)), record - first

    def pixels(self, record: int, identity: str) -> OpenPixels:
        """The clip of which this record's embeddings were made.

        Raises:
          UserError: the set has another clip there.
        """
        clip = cast(Sequence[Clip], self._clips)[record]
        if clip.id != identity:
            raise UserError(
                f"the embeddings in '{self.directory}' are of another set: its clip {record} is '{clip.id}', but they "
                f"have '{identity}' there; make them again"
            )
        return OpenPixels(clip)

    def constants(self) -> HostParams:
        """Embeddings of the empty prompt and of the all-zero picture: `text` (77, D), `image` (N, D)."""
        return _constants(self.directory)

    def __reduce__(self):
        return EmbeddingSource, (self.directory, self._clips)


class OpenEmbeddings:
    """The embeddings of one clip; see `OpenClip`."""

    def __init__(self, source: EmbeddingSource, shard: _Shard, row: int, record: int) -> None:
        self.length, self.fps = int(shard.lengths[row]), float(shard.fps[row])
        self._source, self._shard, self._row, self._record = source, shard, row, record

    def caption_ids(self) -> Int32[np.ndarray, "77"]:
        """See `OpenClip`."""
        return self._shard.token_ids[self._row]

    def arrays(self, window: Window, config: LoaderConfig, *, drop_text: bool, drop_image: bool) -> HostParams:
        """`moments`, `text` and `image` of a window as `Batch` has them, and `video` where it is asked for."""
        made, before = self._source.config, [int(length) for length in self._shard.lengths[: self._row]]
        frame = sum(map(made.rows, before)) + window.start
        stop = frame + (window.length - 1) * window.stride + 1
        start = sum(len(made.starts(length)) for length in before) + window.start // made.start_multiple
        pixels: HostParams = {}
        if config.video:
            pixels = self._source.pixels(self._record, self._shard.ids[self._row]).arrays(window, config)
        constants = self._source.constants()
        return pixels | {
            "moments": self._shard.read("moments", frame, stop, window.stride),
            "text": constants["text"] if drop_text else self._shard.read_row("text", self._row),
            "image": constants["image"] if drop_image else self._shard.read_row("image", start),
        }


class _Shard:
    """A file of records: small tensors in memory, rows of the large ones read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            read_header(path)
            self._file = safe_open(path, framework="numpy")
            self.ids: list[str] = parse_json(self._file.metadata()["ids"])
            self.lengths, self.fps, self.token_ids = (
                self._file.get_tensor(name) for name in ("lengths", "fps", "token_ids")
            )
            self._check()
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"'{path}' is missing or damaged: remove it and make the embeddings again") from error

    def _check(self) -> None:
        """Checks that the small tensors are of as many clips as there are ids, and hold what clips can have.

        Raises:
          ValueError: they do not.
        """
        clips = len(self.ids)
        if not isinstance(self.ids, list) or not all(isinstance(name, str) for name in self.ids):
            raise ValueError("its ids are no texts")
        if self.lengths.shape != (clips,) or self.fps.shape != (clips,) or self.token_ids.shape[:1] != (clips,):
            raise ValueError("it has another number of clips than of ids")
        if (self.lengths < 0).any() or not np.isfinite(self.fps).all():
            raise ValueError("it states lengths or rates that cannot be")

    def read(self, name: str, start: int, stop: int, stride: int = 1) -> HostArray:
        """Every `stride`-th row of a tensor."""
        try:
            rows = self._file.get_slice(name)[start:stop]  # without the stride, which safetensors before 0.8 ignores
            return np.ascontiguousarray(rows[::stride])
        except (OSError, SafetensorError, IndexError) as error:
            raise UserError(f"'{self._path}' is damaged: remove it and make the embeddings again") from error

    def read_row(self, name: str, row: int) -> HostArray:
        """One row of a tensor."""
        return self.read(name, row, row + 1)[0]


_open_shard = functools.lru_cache(maxsize=OPEN_SHARDS)(_Shard)


@functools.lru_cache(maxsize=4)
def _constants(directory: Path) -> HostParams:
    try:
        with safe_open(directory / CONSTANTS_FILE, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in ("text", "image")}
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{directory / CONSTANTS_FILE}' is missing or damaged: make the embeddings again") from error


def shard_name(first: int, stop: int) -> str:
    """The file of the records first to stop - 1."""
    return f"records-{first:08}-{stop:08}.safetensors"


def read_settings(directory: Path) -> dict[str, Any]:
    """What a directory of embeddings was made of and with.

    Raises:
      UserError: it is none, it is damaged, or of a newer format.
    """
    if not (directory / SETTINGS_FILE).is_file():
        raise UserError(f"'{directory}' holds no embeddings: make them with `tooncrafter curate embed`")
    settings = _read_json(directory / SETTINGS_FILE)
    if settings.get("format") != FORMAT_VERSION:
        raise UserError(
            f"the embeddings in '{directory}' have format {settings.get('format')}, but this version reads "
            f"{FORMAT_VERSION}: make them again"
        )
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is damaged: make the embeddings again") from error
    if not isinstance(found, dict):
        raise UserError(f"'{path}' is damaged: make the embeddings again")
    return found
