"""Published models: fetched from the Hugging Face hub, converted, and kept as checkpoint directories.

A model that was converted once is found by its name without asking the network. Its directory lies below
`models_cache()`, is named after its revision, files and stored dtype, and has in `fetched.json` the commits and
checksums that it was made of. It is made under another name and renamed when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from tooncrafter_jax.config_codec import to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import check_writable, disk_errors, replace_directory, write_atomically
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.locks import held
from tooncrafter_jax.io.owned_files import shortened
from tooncrafter_jax.io.paths import GivenPath, user_cache
from tooncrafter_jax.models.configuration import ModelConfig, preset
from tooncrafter_jax.notes import note, remark
from tooncrafter_jax.typing import Dtype, JsonObject
from tooncrafter_jax.weights.checkpoint_directory import MODEL_FILE, is_checkpoint
from tooncrafter_jax.weights.convert import ALWAYS_TOGETHER, convert
from tooncrafter_jax.weights.hub_checks import check_content, check_no_pointer
from tooncrafter_jax.weights.hub_choice import chosen_files
from tooncrafter_jax.weights.hub_directories import open_directory, take_over
from tooncrafter_jax.weights.hub_download import BY_ENVIRONMENT, Access, Bar, Hub
from tooncrafter_jax.weights.hub_names import MAIN, HubName, is_explicit, published_name
from tooncrafter_jax.weights.hub_sources import Source, components_of_remote, locate
from tooncrafter_jax.weights.known_models import CLIP_TOWERS, KnownModel, known_model, published_file
from tooncrafter_jax.weights.loading import components_in
from tooncrafter_jax.weights.sources import open_source
from tooncrafter_jax.weights.store import Checkpoint

ARCHITECTURE = "tooncrafter_512"
"""Of published models."""
RECORD = "fetched.json"
"""What a directory was made of."""
STORED_DTYPES = ("float32", "bfloat16", "float16")
"""What a model can be stored in; without a choice it is stored as it is in its file."""
_AS_PUBLISHED = "as-published"
_LONGEST_NAME = 120
"""Bytes of a directory's name, to which its writer adds some."""


class Fetched(NamedTuple):
    """What became of a request for a model.

    Attributes:
      directory: the checkpoint directory.
      made: whether it was made now.
    """

    directory: Path
    made: bool


@dataclass(frozen=True)
class Fetch:
    """A request for a published model.

    Attributes:
      name: of the model.
      directory: where it goes; None: into the cache.
      dtype: that it is stored in, of `STORED_DTYPES`; None: as it is in its file.
      architecture: that the files are of, but for what they tell of theirs; None: that of the directory that they are
        added to, else `ARCHITECTURE`.
      overwrite: whether what the directory holds may be replaced.
      quiet: whether no progress is shown.
      on_component: called with a component's name and its number of tensors before it is written.
      access: how the hub is reached; with a cache of its own, converted models are kept in there, too.
    """

    name: HubName
    directory: Path | None = None
    dtype: str | None = None
    architecture: ModelConfig | None = None
    overwrite: bool = False
    quiet: bool = False
    on_component: Callable[[str, int], None] | None = None
    access: Access = BY_ENVIRONMENT

    def found(self) -> Path | None:
        """The model's directory in the cache, if it was fetched before; the network is not asked.

        Where no dtype is chosen, one that is stored in whatever dtype is as good.
        """
        places = [self._place(dtype) for dtype in ((self.dtype,) if self.dtype else (None, *STORED_DTYPES))]
        return next((place for place in places if is_checkpoint(place)), None)

    def run(self) -> Fetched:
        """Fetches what is missing and converts it; asks the hub whether a branch has moved on.

        Raises:
          UserError: there is no such model, it cannot be fetched, or it does not fit; or the disk is full.
        """
        return self._made(update=True)

    def ready(self) -> Path:
        """The model's directory in the cache, which is made if it is not there.

        Raises:
          UserError: see `run`.
        """
        return self.found() or self._made(update=False).directory

    def _made(self, *, update: bool) -> Fetched:
        known, target = known_model(self.name), self.directory or self._place(self.dtype)
        self._check_target(known)
        hub = Hub(self.access)
        with _disk_errors(target), held(self._lock(target), f"another process is fetching {self.name}: waiting for it"):
            if not update and (found := self.found()) is not None:
                return Fetched(found, made=False)
            files = known.files if known else chosen_files(hub, self.name, self._before())
            is_directory = files[0].file == MODEL_FILE
            sources = [locate(hub, file) for file in files]
            if not self.overwrite and self._is_made_of(target, sources):
                return Fetched(target, made=False)
            self._check_space(hub, sources, target)
            if is_directory:
                self._check_directory(sources, target)
            else:
                self._check_clash(known.components if known else components_of_remote(hub, sources[0]), target)
            if is_directory and (missing := [source for source in sources if source.remote is not None]):
                size = sum(source.size for source in missing) / 1e9
                count = f"{len(missing)} of {len(sources)} files"
                note(f"downloading {self.name} ({count}, {size:.2f} GB) from {hub.endpoint} to {hub.cache}")
            paths = [self._fetched(hub, source, said=is_directory) for source in sources]
            if known is None and not is_directory:
                towers = self._missing_towers(hub, paths[0], target)
                self._check_space(hub, towers, target)
                paths += [self._fetched(hub, source) for source in towers]
                sources += towers
            self._convert(paths, sources, target)
        return Fetched(target, made=True)

    @property
    def _cache(self) -> Path:
        """Where converted models are kept."""
        return models_cache() if self.access.cache is None else self.access.cache / "tooncrafter_jax"

    def _lock(self, target: Path) -> Path:
        """The lock of a directory: beside one of the user's, and together in the cache."""
        if self.directory is not None:
            target = target.absolute()
            return target.with_name(shortened(f".{target.name}", _LONGEST_NAME) + ".lock")
        return self._cache / ".locks" / f"{hashlib.sha256(os.fsencode(target.absolute())).hexdigest()[:32]}.lock"

    def _place(self, dtype: str | None) -> Path:
        """Where the cache keeps this model in this dtype and of this architecture."""
        known = known_model(self.name)
        files = [file.file for file in known.files] if known else [self.name.file or "model"]
        revision = known.files[0].revision if known else self.name.revision
        if revision is None:
            revision = published_file(self.name).revision if self.name.file else MAIN
        named = [revision, *files, dtype or _AS_PUBLISHED, *([self._mark] if self._mark else [])]
        parts = "+".join(map(_as_part, named))
        return self._cache / _as_part(self.name.repository) / shortened(parts, _LONGEST_NAME)

    @property
    def _mark(self) -> str:
        """Stands for the architecture that was asked for; empty for `ARCHITECTURE`."""
        if self.architecture is None or self.architecture == preset(ARCHITECTURE):
            return ""
        return hashlib.sha256(json.dumps(to_dict(self.architecture), sort_keys=True).encode()).hexdigest()[:16]

    def _before(self) -> list[list[JsonObject]]:
        """What is written down of the files that directories of this model in the cache were made of."""
        return [_files_of(self._place(dtype)) for dtype in (None, *STORED_DTYPES)]

    def _check_target(self, known: KnownModel | None) -> None:
        """Finds out what can be wrong with the directory before anything is fetched."""
        target = self.directory
        if target is None:
            return
        if target.exists() and not is_checkpoint(target):
            raise UserError(f"{target} is not a checkpoint directory and will not be overwritten: name another one")
        if not target.exists():
            if known is not None and known.adds:
                note(f"{target} is not there: it will hold the {known.purpose.partition(',')[0]} and no model")
            check_writable(target.parent)

    def _check_space(self, hub: Hub, sources: Sequence[Source], target: Path) -> None:
        """Finds out before the download whether there is room for the files and the model."""
        sizes = [source.size for source in sources]
        missing = sum(source.size - hub.arrived(source.remote) for source in sources if source.remote is not None)
        share = jnp.dtype(self.dtype).itemsize / 4 if self.dtype else 1.0
        needs = [(hub.cache, missing, "download"), (target, int(share * sum(sizes)), "convert")]
        by_disk: dict[int, list[tuple[Path, int, str]]] = {}
        for place, size, what in needs:
            there = _existing(place)
            by_disk.setdefault(there.stat().st_dev, []).append((there, size, what))
        for parts in by_disk.values():
            need, free = sum(size for _, size, _ in parts), shutil.disk_usage(parts[0][0]).free
            if need > free:
                each = " and ".join(f"{size / 1e9:.2f} GB to {what}" for _, size, what in parts)
                raise UserError(
                    f"{self.name} needs {need / 1e9:.2f} GB on the disk of {parts[0][0]} ({each}), where "
                    f"{free / 1e9:.2f} GB are free: free some, or set HF_HUB_CACHE (downloads) or XDG_CACHE_HOME "
                    "(models) to another disk"
                )

    def _check_clash(self, components: Collection[str], target: Path) -> None:
        """Finds out whether one of the user's directories has what would be added to it."""
        if self.directory is None or self.overwrite or not target.exists():
            return
        if clash := [name for name in Checkpoint(target).components if name in components]:
            raise UserError(f"{target} holds {', '.join(clash)} already: add --overwrite to replace it")

    def _check_directory(self, sources: Sequence[Source], target: Path) -> None:
        """Finds out before the download whether a checkpoint directory of the hub can be taken over as it is."""
        if len({source.commit for source in sources}) > 1:
            raise UserError(f"{self.name} was changed while it was looked at: run the same again")
        if self.directory is not None and target.exists() and not self.overwrite:
            raise UserError(f"{target} exists already: name another directory, or add --overwrite")
        if self.architecture is not None:
            note(f"{self.name} is a checkpoint directory, which says its architecture: --architecture is not used")

    def _missing_towers(self, hub: Hub, path: Path, target: Path) -> list[Source]:
        """Files of CLIP's towers for a model that comes without, unless they are there."""
        components = components_in(open_source(path))
        if not ALWAYS_TOGETHER <= set(components):
            return []
        there = Checkpoint(target).components if self.directory is not None and target.exists() else ()
        files = [file for name, file in CLIP_TOWERS.items() if name not in (*components, *there)]
        if files:
            note(f"{self.name} comes without CLIP, which is taken from {' and '.join(map(str, files))}")
        return [locate(hub, file) for file in files]

    def _fetched(self, hub: Hub, source: Source, *, said: bool = False) -> Path:
        """The file in the hub's cache, whole; `said`: that it is being downloaded."""
        if source.path is not None:
            check_content(source.path, source.name)
            return source.path
        assert source.remote is not None
        if not said:
            note(f"downloading {source.name} ({source.size / 1e9:.2f} GB) from {hub.endpoint} to {hub.cache}")
        path = hub.download(source.remote, self._open_bar)
        check_no_pointer(path, source.name)
        return path

    def _convert(self, paths: Sequence[Path], sources: Sequence[Source], target: Path) -> None:
        """Makes the directory of the cache anew, or adds the files to one of the user's."""
        remark(f"{'copying' if paths[0].name == MODEL_FILE else 'converting'} {self.name} into {target}")
        if self.directory is not None:
            before = _files_of(target)
            is_added = self._write(paths, target)
            write_atomically(target / RECORD, self._record(target, sources, before if is_added else ()))
            return
        fresh = target.with_name(f".{target.name}.fetching")
        shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed
        try:
            self._write(paths, fresh)
            write_atomically(fresh / RECORD, self._record(fresh, sources))
            replace_directory(fresh, target, lambda name: True)
        except UserError as error:
            raise UserError(str(error).replace(str(fresh), str(target))) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _write(self, paths: Sequence[Path], place: Path) -> bool:
        """Writes the directory; whether something stays of what was there."""
        dtype: Dtype = None if self.dtype is None else jnp.dtype(self.dtype)
        if paths[0].name == MODEL_FILE:
            source = open_directory(paths[0], self.name)
            take_over(source, place, dtype, overwrite=self.overwrite, on_component=self.on_component)
            return False
        config = self.architecture or (None if place.exists() else preset(ARCHITECTURE))
        done = convert(paths, place, config, dtype=dtype, overwrite=self.overwrite, on_component=self.on_component)
        return bool(done.kept)

    def _described(self, source: Source) -> JsonObject:
        """What is written down of a file that a directory is made of."""
        return {
            "repository": source.name.repository,
            "commit": source.commit,
            "file": source.name.file,
            "size": source.size,
            "stored": self.dtype or _AS_PUBLISHED,
            **({"architecture": self._mark} if self._mark else {}),
        }

    def _record(self, made: Path, sources: Sequence[Source], before: Sequence[JsonObject] = ()) -> bytes:
        files = [self._described(source) for source in sources]
        names = [(file["repository"], file["file"]) for file in files]
        old = [file for file in before if (file.get("repository"), file.get("file")) not in names]
        record = {"format_version": 1, "files": [*old, *files], "weights": Checkpoint(made).weights}
        return json.dumps(record, indent=1).encode() + b"\n"

    def _is_made_of(self, directory: Path, sources: Sequence[Source]) -> bool:
        """Whether a directory holds a model that was made of these files."""
        files = _files_of(directory) if is_checkpoint(directory) else []
        if self.architecture is None:  # that of the directory
            files = [{key: value for key, value in file.items() if key != "architecture"} for file in files]
        return all(self._described(source) in files for source in sources)

    def _open_bar(self, title: str, size: int, there: int) -> Bar:
        from huggingface_hub.utils import are_progress_bars_disabled
        from tqdm.auto import tqdm  # in notebooks another

        hidden = True if self.quiet or are_progress_bars_disabled() else None  # None: where stderr is no terminal
        return tqdm(
            total=size, initial=there, desc=title, unit="B", unit_scale=True, dynamic_ncols=True, disable=hidden
        )


def fetched_model(source: GivenPath, *, quiet: bool = False, access: Access = BY_ENVIRONMENT) -> Path | None:
    """The directory of a model that is named as on the hub, fetched if it is not here yet; None if a path is named.

    Args:
      source: a path, or `hub_names.FORM`; what exists on this machine is a path.
      quiet: whether no progress is shown.
      access: how the hub is reached.

    Raises:
      UserError: there is no such model, or it cannot be fetched.
    """
    name = published_name(source)
    if name is None:
        return None
    fetch = Fetch(name, quiet=quiet, access=access)
    if (found := fetch.found()) is not None:
        return found
    if known_model(name) is None and not is_explicit(str(source)):
        note(f"'{source}' is no directory here: taken as the name of a repository on the Hugging Face hub")
    return fetch.ready()


def models_cache() -> Path:
    """Where fetched models are kept: `$XDG_CACHE_HOME/tooncrafter_jax/models`, by default below `~/.cache`.

    Raises:
      UserError: if there is neither.
    """
    return user_cache("models")


def _files_of(directory: Path) -> list[JsonObject]:
    """What is written down of the files that a directory was made of; nothing if that cannot be read, or the directory
    has been given other weights since.
    """
    try:
        record = read_json(directory / RECORD)
        files, weights = record["files"], record.get("weights", {})
        if not weights.items() <= Checkpoint(directory).weights.items():
            return []
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []


def _as_part(text: str) -> str:
    """A text as a part of a file's name; another one for every text."""
    return re.sub(r"[%+]|-(?=[-/])", lambda found: f"%{ord(found[0]):02X}", text).replace("/", "--")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Turns what a full or read-only disk raises into a sentence."""
    with disk_errors(target):
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not is_checkpoint(target):  # else another host was faster
                raise
