"""Making embeddings: the frozen encoders over every clip of a set, in batches of frames that cross the clips' borders.

Files are written one after another and appear whole. A run that was stopped goes on behind the last of them; several
processes may share a set, each with its part.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32, UInt8
from safetensors.numpy import save

from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.data.embeddings import (
    CONSTANTS_FILE,
    ENCODERS,
    FORMAT_VERSION,
    INDEX_FILE,
    SETTINGS_FILE,
    EmbeddingConfig,
    Networks,
    clipped_moments,
    read_settings,
    shard_name,
    weights_digest,
)
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.data.transforms import resize_and_crop
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import check_writable, write_atomically
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.models.tooncrafter import BoundModel
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.sampling.model_loading import compute_dtype, find_checkpoint, load_components
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.typing import (
    AllParams,
    AnyArray,
    Device,
    Dtype,
    HostArray,
    JsonObject,
    TokenIds,
    Tokens,
)

SHARD_BYTES = 2**29
"""Size at which a file of records ends; twice as much is kept in memory."""
_SHARD = re.compile(r"records-(\d+)-(\d+)\.safetensors")


def embed(
    clips: Sequence[Clip] | str | Path,
    model: ToonCrafter | str | Path,
    directory: str | Path,
    config: EmbeddingConfig | None = None,
    *,
    split: str = "train",
    part: tuple[int, int] = (0, 1),
    frames_per_batch: int = 16,
    threads: int = 2,
    on_damaged: Literal["fail", "skip"] = "fail",
    dtype: Dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    on_progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Writes the embeddings of a set, or what is missing of them.

    Args:
      clips: the set, or its directory.
      model: whose encoders to run; of a checkpoint directory only these are read.
      directory: for the embeddings.
      config: what they are made of; the published recipe's by default.
      split: of the set, where its directory is given.
      part: (p, P) makes the p-th of P parts, for P processes that write to one directory; the last to end makes the
        whole readable.
      frames_per_batch: frames that the encoders take at a time, over all devices.
      threads: clips that are decoded ahead while the encoders run.
      on_damaged: whether a clip that cannot be read ends the run, or has no embeddings and is left out by the loader
        too.
      dtype: of the computation, where a checkpoint directory is given; by default float32 on the CPU, bfloat16
        elsewhere.
      shard_bytes: size at which a file ends.
      on_progress: called with the clips done and their number in this part.

    Returns:
      Whether the embeddings are complete; not so while other parts are missing.

    Raises:
      UserError: the set or the model is missing or damaged, the size does not fit the model, a value does not fit the
        storage dtype, the directory holds embeddings of something else, or it cannot be written.
    """
    config = EmbeddingConfig() if config is None else config
    if not 0 <= part[0] < part[1]:
        raise UserError(f"there is no part {part[0]} of {part[1]}: parts are counted from 0")
    directory = Path(directory)
    clips = ClipSet(clips, split) if isinstance(clips, str | Path) else clips
    if not len(clips):
        raise UserError("the set to embed has no clips")
    encoders = _Encoders.of(model, config, frames_per_batch, dtype)
    check_writable(directory)
    _begin(directory, clips, config, encoders, on_damaged)
    if part == (0, 1):
        for abandoned in directory.glob(".tooncrafter-*.tmp"):
            abandoned.unlink(missing_ok=True)
    own = range(len(clips) * part[0] // part[1], len(clips) * (part[0] + 1) // part[1])
    missing = _missing(directory, own)
    done = len(own) - len(missing)
    shard = _ShardWriter(directory, config, encoders, shard_bytes)
    prepare = functools.partial(_prepare, clips, config, on_damaged)
    for prepared in _ahead(prepare, missing, threads):
        shard.add(prepared)
        done += 1
        if on_progress is not None:
            on_progress(done, len(own))
    shard.finish()
    if _missing(directory, range(len(clips))):
        return False
    index = json.dumps({"shards": _cover(_shards(directory))})
    write_atomically(directory / INDEX_FILE, (index + "\n").encode())
    return True


# ------------------------------------------------------------------------------------------------------------- encoding


class _Encoders:
    """The frozen encoders, compiled for one number of frames, over all devices."""

    def __init__(
        self,
        model: ModelConfig,
        networks: Networks,
        params: AllParams,
        devices: Sequence[Device],
        config: EmbeddingConfig,
        frames_per_batch: int,
    ) -> None:
        cell = model.autoencoder.downscaling
        if config.height % cell or config.width % cell:
            raise UserError(f"embeddings of {config.height}x{config.width} pixels: both must be multiples of {cell}")
        mesh = Mesh(np.asarray(devices), ("batch",), axis_types=(AxisType.Auto,))
        self._split, self._whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
        self.params = jax.device_put({name: dict(params[name]) for name in ENCODERS}, self._whole)
        self.size = -(-max(1, frames_per_batch) // len(devices)) * len(devices)
        self._compiled = _compiled(model, networks["autoencoder"].dtype, jnp.dtype(config.dtype))

    @classmethod
    def of(
        cls, model: ToonCrafter | str | Path, config: EmbeddingConfig, frames_per_batch: int, dtype: Dtype | None
    ) -> _Encoders:
        if isinstance(model, ToonCrafter):
            networks = model.config.networks(model.dtype)
            return cls(model.config, networks, model.params, model.devices, config, frames_per_batch)
        checkpoint, devices = find_checkpoint(model), jax.devices()
        compute = compute_dtype(dtype, devices)
        networks = checkpoint.config.networks(compute)
        params = load_components(checkpoint, ENCODERS, networks, devices=devices)
        return cls(checkpoint.config, networks, params, devices, config, frames_per_batch)

    def encode(self, name: str, rows: HostArray) -> AnyArray:
        """Starts encoding exactly `size` rows."""
        return self._compiled[name](self.params, jax.device_put(rows, self._split))

    def row_shape(self, name: str, rows: HostArray) -> tuple[int, ...]:
        """Shape of what a row becomes."""
        like = jax.ShapeDtypeStruct((self.size, *rows.shape[1:]), rows.dtype)
        return jax.eval_shape(self._compiled[name], self.params, like).shape[1:]

    def zero_image(self) -> HostArray:
        """The tokens of the all-zero picture."""
        return np.asarray(self._compiled["zero_image"](self.params))


@functools.lru_cache(maxsize=4)
def _compiled(model: ModelConfig, compute: np.dtype, stored: np.dtype) -> dict[str, Callable[..., AnyArray]]:
    """The jitted encoders of an architecture, shared by all splits that a process embeds."""
    networks = model.networks(compute)

    def bound(params: AllParams) -> BoundModel:
        return BoundModel(model, lambda name: networks[name].bind(params[name]))

    def moments(params: AllParams, frames: UInt8[Array, "B H W 3"]) -> Float[Array, "B h w C2"]:
        return clipped_moments(bound(params).moments(frames[:, None]))[:, 0].astype(stored)

    def image(params: AllParams, frames: UInt8[Array, "B H W 3"]) -> Tokens:
        return bound(params).picture_tokens(to_pixels(frames)).astype(stored)

    def text(params: AllParams, token_ids: TokenIds) -> Tokens:
        return bound(params).text_tokens(token_ids).astype(stored)

    def zero_image(params: AllParams) -> Float[Array, "N D"]:
        side = model.clip_image.image_size  # another size would make no difference (spec section 3.2)
        return bound(params).picture_tokens(jnp.zeros((1, side, side, 3)))[0].astype(stored)

    return {f.__name__: jax.jit(exact_float32(compute)(f)) for f in (moments, image, text, zero_image)}


class _Rows:
    """Collects rows of any number, and encodes them in full batches, one of which runs while the next is filled."""

    def __init__(self, encoders: _Encoders, name: str, like: HostArray, dtype: str) -> None:
        self._encoders, self._name, self._dtype = encoders, name, jnp.dtype(dtype)
        self._waiting, self._like = like[:0], like[:0]
        self._running: tuple[jax.Array, int] | None = None
        self._done: list[np.ndarray] = []

    def add(self, rows: HostArray) -> None:
        """Takes more rows."""
        self._waiting = np.concatenate([self._waiting, rows])
        while len(self._waiting) >= self._encoders.size:
            self._run(self._encoders.size)

    def _run(self, count: int) -> None:
        rows, self._waiting = self._waiting[:count], self._waiting[count:]
        filler = np.zeros((self._encoders.size - count, *rows.shape[1:]), rows.dtype)
        running = self._encoders.encode(self._name, np.concatenate([rows, filler]))
        self._fetch()
        self._running = running, count

    def _fetch(self) -> None:
        if self._running is not None:
            encoded, count = self._running
            self._done.append(np.asarray(encoded)[:count])
            self._running = None

    def finish(self) -> HostArray:
        """All encoded rows since the last call."""
        if len(self._waiting):
            self._run(len(self._waiting))
        self._fetch()
        empty = np.zeros((0, *self._encoders.row_shape(self._name, self._like)), self._dtype)
        done, self._done = np.concatenate([empty, *self._done]), []
        if not np.isfinite(done.astype(np.float32)).all():
            raise UserError(
                f"an embedding ({self._name}) is too large for {self._dtype} or not a number: store bfloat16 or "
                "float32, and check the model"
            )
        return done


# -------------------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class _Prepared:
    """A clip ready to be encoded; frames uint8 (F, H, W, 3), none where it is too short or damaged."""

    record: int
    id: str
    length: int
    fps: float
    token_ids: Int32[np.ndarray, "1 77"]
    frames: UInt8[np.ndarray, "F H W 3"]


def _prepare(clips: Sequence[Clip], config: EmbeddingConfig, on_damaged: str, record: int) -> _Prepared:
    none = np.zeros((0, config.height, config.width, 3), np.uint8)
    try:
        clip = clips[record]
        frames = none
        if config.rows(len(clip)):
            frames = resize_and_crop(clip.decode(), config.height, config.width, config.antialias)
    except UserError:
        if on_damaged == "fail":
            raise
        return _Prepared(record, "", 0, 0.0, tokenizer()([""]), none)
    return _Prepared(record, clip.id, len(clip), clip.fps, tokenizer()([clip.caption]), frames)


class _ShardWriter:
    """Gathers clips and writes a file whenever enough have come, or where records are left out."""

    def __init__(self, directory: Path, config: EmbeddingConfig, encoders: _Encoders, shard_bytes: int) -> None:
        self._directory, self._config, self._limit = directory, config, shard_bytes
        frames, ids = np.zeros((0, config.height, config.width, 3), np.uint8), np.zeros((0, 77), np.int32)
        likes = {"moments": frames, "image": frames, "text": ids}
        self._rows = {name: _Rows(encoders, name, like, config.dtype) for name, like in likes.items()}
        width = jnp.dtype(config.dtype).itemsize
        self._row_bytes = {n: width * int(np.prod(encoders.row_shape(n, like))) for n, like in likes.items()}
        self._clips: list[_Prepared] = []
        self._bytes = 0

    def add(self, clip: _Prepared) -> None:
        """Takes the next clip."""
        if self._clips and clip.record != self._clips[-1].record + 1:
            self.finish()
        starts = self._config.starts(len(clip.frames))
        rows = {
            "moments": clip.frames,
            "image": clip.frames[starts.start : starts.stop : starts.step],
            "text": clip.token_ids,
        }
        for name, added in rows.items():
            self._rows[name].add(added)
            self._bytes += len(added) * self._row_bytes[name]
        self._clips.append(replace(clip, frames=clip.frames[:0].copy()))  # which lets go of the frames
        if self._bytes >= self._limit:
            self.finish()

    def finish(self) -> None:
        """Writes what has been gathered."""
        if not self._clips:
            return
        tensors = {name: rows.finish() for name, rows in self._rows.items()}
        tensors["token_ids"] = np.concatenate([clip.token_ids for clip in self._clips])
        tensors["lengths"] = np.asarray([clip.length for clip in self._clips], np.int32)
        tensors["fps"] = np.asarray([clip.fps for clip in self._clips], np.float32)
        name = shard_name(self._clips[0].record, self._clips[-1].record + 1)
        data = save(tensors, metadata={"ids": json.dumps([clip.id for clip in self._clips])})
        write_atomically(self._directory / name, data)
        self._clips, self._bytes = [], 0


def _begin(
    directory: Path, clips: Sequence[Clip], config: EmbeddingConfig, encoders: _Encoders, on_damaged: str
) -> None:
    """Writes the settings and constants, or compares them with those of the run that goes on."""

    def name_of(record: int) -> str:
        with contextlib.suppress(*([UserError] if on_damaged == "skip" else [])):
            return clips[record].id
        return ""

    settings: JsonObject = {
        "format": FORMAT_VERSION,
        **asdict(config),
        "clips": len(clips),
        "first_clip": name_of(0),
        "last_clip": name_of(len(clips) - 1),
        "weights": weights_digest(encoders.params),
        "weights_of": {name: weights_digest(encoders.params, (name,)) for name in ENCODERS},
    }
    if (directory / SETTINGS_FILE).is_file():
        before = read_settings(directory)
        for name, value in settings.items():
            if before.get(name, value if name == "weights_of" else None) != value:  # earlier versions do not tell it
                raise UserError(
                    f"'{directory}' holds embeddings with {name} = {before.get(name)}, but now it is {value}: choose "
                    "another directory, or remove that one"
                )
        return
    text = _Rows(encoders, "text", np.zeros((0, 77), np.int32), config.dtype)
    text.add(tokenizer()([""]))
    constants = {"text": text.finish()[0], "image": encoders.zero_image()}
    write_atomically(directory / CONSTANTS_FILE, save(constants))
    write_atomically(directory / SETTINGS_FILE, (json.dumps(settings, indent=1) + "\n").encode())


def _shards(directory: Path) -> list[tuple[int, int]]:
    """First and stop of the files of records that are there."""
    found = (_SHARD.fullmatch(path.name) for path in directory.iterdir())
    return [(int(match[1]), int(match[2])) for match in found if match]


def _cover(shards: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The files that are needed, in order: runs that overlapped may have left some that hold nothing new."""
    cover: list[tuple[int, int]] = []
    for first, stop in sorted(shards, key=lambda shard: (shard[0], -shard[1])):
        if not cover or stop > cover[-1][1]:
            cover.append((first, stop))
    return cover


def _missing(directory: Path, records: range) -> list[int]:
    """Those of the records that no file holds."""
    there = np.zeros(records.stop, bool)
    for first, stop in _shards(directory):
        there[first:stop] = True
    return [record for record in records if not there[record]]


def _ahead(prepare: Callable[[int], _Prepared], records: Iterable[int], threads: int) -> Iterator[_Prepared]:
    """prepare(record) for each record, in order, computed ahead by threads."""
    waiting: collections.deque[Future[_Prepared]] = collections.deque()
    with ThreadPoolExecutor(max(1, threads)) as pool, contextlib.ExitStack() as stack:
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for record in records:
            waiting.append(pool.submit(prepare, record))
            if len(waiting) > max(1, threads):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
