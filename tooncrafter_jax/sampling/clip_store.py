"""The drawn clips of a shot, kept so that a run that was stopped goes on, and another timing draws only what is new.

A folder holds one file a clip, called by a checksum of what it was drawn from, and a record of their contents. A file
whose content is not what the record says is not used; it keeps its content, under another name if its own is needed.
One process at a time may use a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import check_writable, write_json
from tooncrafter_jax.io.atomic_files import cannot_write, write_atomically
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.owned_files import Stamp, Stamps, foreign, keep, state
from tooncrafter_jax.notes import note
from tooncrafter_jax.runtime.distributed import as_all_processes_say, is_main_process
from tooncrafter_jax.typing import JsonObject, Uint8Video

STORE_FORMAT = 1
RECORD = "clips.json"


class ClipStore:
    """Clips in a folder, which is made when the first one is kept. Of several processes the main one writes.

    Args:
      folder: of the clips; a hidden one beside the shot's files for `tooncrafter sample`.
      made_by: what else decides how clips look, beside their requests: the model, the options, the dtype.

    Raises:
      UserError: the folder holds a record of something else, or cannot be written.
    """

    def __init__(self, folder: Path, made_by: JsonObject) -> None:
        self._folder, self._made_by, self._stamps = folder, made_by, Stamps()
        self._known = self._read()
        if folder.exists() and is_main_process():
            check_writable(folder)
        self._used: set[str] = set()

    def find(self, requests: Sequence[JsonObject]) -> list[Uint8Video | None]:
        """The clips that were drawn from these requests before; None for each that was not, or is not as it was."""
        found = [self._load(self._name(request)) for request in requests]
        if not found:
            return []
        everywhere = as_all_processes_say([clip is not None for clip in found])
        return [clip if is_there else None for clip, is_there in zip(found, everywhere, strict=True)]

    def keep(self, request: JsonObject, clip: Uint8Video) -> None:
        """Keeps a clip.

        The record is written first, so that no file is there which it does not name.

        Raises:
          UserError: it cannot be written, or another file is in the way.
        """
        name = self._name(request)
        self._used.add(name)
        if not is_main_process():
            return
        buffer = io.BytesIO()
        np.save(buffer, clip)
        data = buffer.getvalue()
        stamp = Stamp(len(data), hashlib.sha256(data).hexdigest())
        path = self._folder / name
        named = {name: frozenset([self._known[name]])} if name in self._known else {}
        found = state(self._folder, name, named, self._stamps)
        if found == "foreign" and not self._stamps.same(path, [stamp]):
            raise foreign(path, "move it away")
        if found == "changed":
            try:
                keep(path, note)
            except OSError as error:
                raise cannot_write(str(path), error) from error
        self._known[name] = stamp
        self._write()
        write_atomically(path, data)

    def finish(self) -> None:
        """Removes the clips that were neither found nor kept since, as the finished shot needs the others alone, and
        what a run that was killed has not finished writing.

        Raises:
          UserError: the record cannot be written.
        """
        if not is_main_process():
            return
        for unfinished in self._folder.glob(".tooncrafter-*.tmp"):
            with contextlib.suppress(OSError):
                unfinished.unlink()
        left = [name for name in self._known if name not in self._used]
        if not left:
            return
        for name in left:
            path = self._folder / name
            if self._stamps.same(path, [self._known[name]]):
                with contextlib.suppress(OSError):
                    path.unlink()
            del self._known[name]
        self._write()

    def _name(self, request: JsonObject) -> str:
        text = json.dumps({"request": request, "made_by": self._made_by}, sort_keys=True, default=str)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"

    def _load(self, name: str) -> Uint8Video | None:
        path = self._folder / name
        if name not in self._known or path.is_symlink() or not self._stamps.same(path, [self._known[name]]):
            return None
        try:
            clip = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            return None
        self._used.add(name)
        return clip

    def _read(self) -> dict[str, Stamp]:
        path = self._folder / RECORD
        if not path.exists():
            return {}
        try:
            found = read_json(path)
            if found["format"] != STORE_FORMAT:
                raise ValueError
            stamps = {name: Stamp.of_plain(value) for name, value in found["clips"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"'{path}' is no record of a shot's clips that this version reads: move the folder away, and its "
                "clips are drawn again"
            ) from error
        return {name: stamp for name, stamp in stamps.items() if stamp is not None and _is_a_name(name)}

    def _write(self) -> None:
        clips = {name: stamp.plain() for name, stamp in sorted(self._known.items())}
        write_json(self._folder / RECORD, {"format": STORE_FORMAT, "clips": clips})


def _is_a_name(name: str) -> bool:
    stem = name.removesuffix(".npy")
    return len(name) == 36 and len(stem) == 32 and set(stem) <= set("0123456789abcdef")
