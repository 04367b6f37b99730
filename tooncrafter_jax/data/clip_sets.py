"""Writing and reading clips: files of one source's clips, and sets of shards with splits.

A clip file holds the clips of one source as curation makes them, one after another. A set holds the clips of all
sources in ArrayRecord shards, in an order that depends on their ids alone, with the description by which TFDS opens it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from etils import epath

from tooncrafter_jax.data.cartoon_clips import CartoonClips
from tooncrafter_jax.data.cartoon_clips.builder import parse_clip, serialize_clip
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.atomic_files import cannot_write, replace_directory, temporary_name
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.paths import local_path

SHARD_BYTES = 256 * 2**20
"""Size at which a shard ends: small enough that a pod's hosts share a set of a few hundred thousand clips evenly."""

_WRITER_OPTIONS = "group_size:1"  # one record a chunk: reading one decompresses no other
_KNOWN_CLASSES = "tensorflow_datasets.core.features."
_Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class ClipReference:
    """A clip that can be loaded: what a set is written from. Can be sent to other processes when `load` can.

    Attributes:
      id: the clip's id.
      num_bytes: about its stored size.
      load: returns the clip.
    """

    id: str
    num_bytes: int
    load: Callable[[], Clip]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to be written: its path and its clips."""

    path: Path
    clips: tuple[ClipReference, ...]


def write_clip_file(path: _Path, clips: Iterable[Clip]) -> int:
    """Writes clips one after another into a file, which appears under its name when it is whole.

    Returns:
      Number of clips.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(os.fspath(path.parent))
    count = 0
    try:
        try:
            writer = array_record_module.ArrayRecordWriter(temporary, _WRITER_OPTIONS)
            try:
                for clip in clips:
                    writer.write(serialize_clip(clip))
                    count += 1
            finally:
                writer.close()
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise cannot_write(os.fspath(path), error) from error
    except RuntimeError as error:  # what the record writer raises when the disk is full
        raise UserError(f"'{path}' cannot be written ({error}): free some space or choose another directory") from error
    return count


class ClipFile(Sequence[Clip]):
    """The clips of a file that `write_clip_file` wrote, read at random. Can be sent to other processes."""

    def __init__(self, path: _Path):
        """Opens a file.

        Raises:
          UserError: it is missing or damaged.
        """
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise UserError(f"'{path}' does not exist")
        self._reader = array_record_module.ArrayRecordReader(self.path, "readahead_buffer_size:0")
        if not self._reader.ok():
            raise UserError(f"'{path}' is damaged or cut off: write it again")

    def __len__(self) -> int:
        return self._reader.num_records()

    def __getitem__(self, index: SupportsIndex) -> Clip:  # pyright: ignore[reportIncompatibleMethodOverride]
        index = index.__index__()
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        try:
            return parse_clip(self._reader.read([index % len(self)])[0])
        except (IndexError, RuntimeError, ValueError) as error:
            raise UserError(f"record {index} of '{self.path}' is damaged ({error}): write the file again") from error

    def __reduce__(self):
        return ClipFile, (self.path,)


def plan_shards(directory: _Path, splits: Mapping[str, Iterable[ClipReference]], shard_bytes: int) -> list[Shard]:
    """Which clip goes into which shard: by a hash of the ids, so the clips of a source are spread over the shards.

    Raises:
      UserError: a split has no clips, or two clips have one id.
    """
    shards = []
    for split, references in splits.items():
        ordered = sorted(references, key=lambda clip: (hashlib.sha256(clip.id.encode()).digest(), clip.id))
        if not ordered:
            raise UserError(f"the split '{split}' has no clips: loosen the thresholds or give more sources")
        for one, other in itertools.pairwise(ordered):
            if one.id == other.id:
                raise UserError(f"two clips have the id '{one.id}': give their sources different names")
        groups = list(_groups(ordered, shard_bytes))
        for number, group in enumerate(groups):
            name = f"{CartoonClips.name}-{split}.array_record-{number:05}-of-{len(groups):05}"
            shards.append(Shard(Path(directory) / name, tuple(group)))
    return shards


def write_shard(shard: Shard) -> int:
    """Writes a shard, and returns the number of its clips."""
    return write_clip_file(shard.path, (reference.load() for reference in shard.clips))


def write_clips(
    directory: _Path,
    splits: Mapping[str, Iterable[ClipReference]],
    *,
    shard_bytes: int = SHARD_BYTES,
    write: Callable[[list[Shard]], object] = lambda shards: [write_shard(shard) for shard in shards],
) -> Path:
    """Writes a set, which appears when it is whole; an older set there stays until then.

    Args:
      directory: where the set goes, in a subdirectory `cartoon_clips/1.0.0`, as TFDS has it.
      splits: the clips by split name.
      shard_bytes: size at which a shard ends.
      write: calls `write_shard` for each shard; here a Beam pipeline, for instance, can do so in many processes.

    Returns:
      The directory that holds the shards.

    Raises:
      UserError: a split has no clips, two clips have one id, or the directory cannot be written.
    """
    final = _set_directory(directory)
    staging = final.with_name(f".{final.name}.incomplete")
    shards = plan_shards(staging, splits, shard_bytes)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        write(shards)
        _write_description(directory, staging, shards)
        replace_directory(staging, final, lambda name: name.startswith(f"{CartoonClips.name}-"))
    except OSError as error:
        raise cannot_write(os.fspath(directory), error) from error
    return final


class ClipSet(Sequence[Clip]):
    """The clips of one split, read at random; frames stay encoded until `Clip.decode`. Can be sent to other
    processes.
    """

    def __init__(self, directory: _Path, split: str = "train"):
        """Opens a split.

        Args:
          directory: what `write_clips` was given, or the directory of the shards itself.
          split: its name.

        Raises:
          UserError: there is no set, or no such split in it.
        """
        self.directory = _directory_of_shards(directory)
        self.split = split
        builder = _open(self.directory)
        if split not in builder.info.splits:
            known = ", ".join(builder.info.splits) or "none"
            raise UserError(f"the set '{directory}' has no split '{split}': it has {known}")
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            self._records: Sequence[bytes] = builder.as_data_source(split, deserialize_method=raw)  # pyright: ignore[reportCallIssue]
            self._records[0]
        except (FileNotFoundError, RuntimeError, ValueError, IndexError) as error:
            raise UserError(
                f"a shard of '{self.directory}' ({split}) is missing or cut off: write the set again"
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Clip:  # pyright: ignore[reportIncompatibleMethodOverride]
        index = index.__index__()
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        try:
            return parse_clip(self._records[index % len(self)])
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"record {index} of '{self.directory}' ({self.split}) is damaged ({error}): write the set again"
            ) from error

    def __reduce__(self):
        return ClipSet, (self.directory, self.split)

    def __repr__(self) -> str:
        return f"ClipSet('{self.directory}', '{self.split}', {len(self)} clips)"


def _groups(references: list[ClipReference], shard_bytes: int) -> Iterator[list[ClipReference]]:
    group: list[ClipReference] = []
    size = 0
    for reference in references:
        if group and size + reference.num_bytes > shard_bytes:
            yield group
            group, size = [], 0
        group.append(reference)
        size += reference.num_bytes
    yield group


def _write_description(directory: _Path, staging: Path, shards: list[Shard]) -> None:
    builder = CartoonClips(data_dir=os.fspath(directory), file_format="array_record")
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(staging), dataset_name=CartoonClips.name, filetype_suffix="array_record"
    )
    by_split: dict[str, list[Shard]] = {}
    for shard in shards:
        by_split.setdefault(shard.path.name.split("-", 1)[1].split(".array_record")[0], []).append(shard)
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(shard.clips) for shard in of_split],
            num_bytes=sum(shard.path.stat().st_size for shard in of_split),
            filename_template=template,
        )
        for split, of_split in by_split.items()
    ]
    builder.info.set_splits(tfds.core.SplitDict(infos))
    builder.info.write_to_directory(staging)


def _set_directory(directory: _Path) -> Path:
    return local_path(directory).absolute() / CartoonClips.name / str(CartoonClips.VERSION)


def _directory_of_shards(directory: _Path) -> Path:
    here = local_path(directory)  # ArrayRecord's reader knows files of this machine alone
    for candidate in (here, _set_directory(here)):
        if (candidate / "dataset_info.json").is_file():
            return candidate
    what = "holds no finished set of clips" if here.exists() else "does not exist"
    raise UserError(f"'{directory}' {what}: make one with `tooncrafter curate`")


def _open(directory: Path):
    try:
        read_json(directory / "dataset_info.json")
        features = read_json(directory / "features.json")
    except (OSError, ValueError) as error:
        raise UserError(f"the description of the set '{directory}' is damaged: write the set again") from error
    strange = next((name for name in _classes(features) if not name.startswith(_KNOWN_CLASSES)), None)
    if strange is not None:  # TFDS would import it
        raise UserError(
            f"the description of the set '{directory}' names {printable(strange, 100)}, which is no part of a clip and "
            "could be a program: do not use that set"
        )
    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # whatever the parser of a damaged description raises
        raise UserError(f"the description of the set '{directory}' is damaged: write the set again") from error


def _classes(features: Any) -> Iterator[str]:
    """Every name in a description of features by which TFDS looks for a class, in a module that it imports."""
    waiting = [features]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            yield from (str(value[key]) for key in ("pythonClassName", "python_class_name", "type") if key in value)
        elif isinstance(value, list):
            waiting += value
