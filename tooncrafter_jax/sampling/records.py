"""The record beside a clip: what was asked for, what made it, and which files it became."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.owned_files import Named, Stamp, Stamps
from tooncrafter_jax.options import as_shown, shown
from tooncrafter_jax.sampling.picking import Candidate
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch, sketches_by_frame
from tooncrafter_jax.sampling.request_pictures import Picture, has_dark_lines
from tooncrafter_jax.sampling.sequence import Layout, Shot, ShotOptions
from tooncrafter_jax.typing import JsonObject

RECORD_FORMAT = 2
"""Since 2 a record names its files; format 1 does not say what was written."""
_REQUEST_DEFAULTS: JsonObject = {"negative_prompt": "", "draft": {}}
"""Of a request of before there were these."""
_KEYS = {"format", "request", "made_by", "picked", "files", "earlier", "unfinished"}
_MAX_RECORD_BYTES = 64_000_000


@dataclass(frozen=True)
class ClipRecord:
    """A record that was found.

    Attributes:
      request: what the clip was made from, as `request_of` gives it.
      files: the finished clip's files, relative to the record's directory -> stamp; None in a record that does not say.
      earlier: files of ours from before the clip was made another way, which stand beside it.
      unfinished: for a clip that is being written: file -> all stamps that it may have, before and after.
    """

    request: object
    files: Mapping[str, Stamp] | None
    earlier: Mapping[str, Stamp] = field(default_factory=dict)
    unfinished: Mapping[str, frozenset[Stamp]] | None = None

    def named(self, without_list: Sequence[str]) -> Named:
        """The files that it names; `without_list` are those of a record that has no list, of unknown content."""
        if self.unfinished is not None:
            return self.unfinished
        if self.files is not None:
            return {name: frozenset([stamp]) for name, stamp in {**self.earlier, **self.files}.items()}
        return dict.fromkeys(without_list)

    def is_of(self, request: object, defaults: JsonObject) -> bool:
        """Whether a finished clip was made from the same request.

        An option that the record does not know has been added since: the clip was made as its default makes it.

        Args:
          request: what is asked for.
          defaults: of the options of files, which stand in a request beside what `request_of` gives.
        """
        try:
            earlier, now = (_with_defaults(one, defaults) for one in (self.request, request))
            return self.unfinished is None and earlier == now
        except RecursionError:  # no request is nested so deep
            return False


def read_record(path: Path) -> ClipRecord | None:
    """The record in a file; None if there is no such file, or it is not a record of a clip.

    What it names outside its directory is left out: a record can be anybody's.
    """
    try:
        found = read_json(path, _MAX_RECORD_BYTES)
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not {"format", "request", "made_by"} <= set(found) <= _KEYS:
        return None
    files, unfinished = found.get("files"), found.get("unfinished")
    try:
        return ClipRecord(
            found["request"],
            None if files is None else {name: _stamp(value) for name, value in _inside(files)},
            {name: _stamp(value) for name, value in _inside(found.get("earlier", {}))},
            None if unfinished is None else {name: _stamps(values) for name, values in _inside(unfinished)},
        )
    except (AttributeError, TypeError, ValueError):
        return None


def request_of(
    pair: Pair, options: SamplingOptions, model: Mapping[str, str], dtype: str, stamps: Stamps
) -> dict[str, object]:
    """Everything that decides the frames of a clip, as plain values; pictures by path and checksum."""
    sketches = {
        str(frame): {"dark_lines": has_dark_lines(s), **file_record(s.image, stamps)}  # reading it tells its stamp
        if isinstance(s, Sketch)
        else file_record(s, stamps)
        for frame, s in sorted(sketches_by_frame(pair.sketches).items())
    }
    draft = () if pair.draft is None else pair.draft
    return {
        "first": file_record(pair.first, stamps),
        "last": None if pair.last is None else file_record(pair.last, stamps),
        "prompt": pair.prompt,
        "negative_prompt": pair.negative_prompt,
        "draft": {str(frame): file_record(picture, stamps) for frame, picture in enumerate(draft)},
        "sketches": sketches,
        "seed": pair.seed,
        "fps": pair.fps,
        "options": shown(options),
        "model": dict(model),
        "dtype": dtype,
    }


def request_of_shot(
    shot: Shot, layout: Layout, options: SamplingOptions, model: Mapping[str, str], dtype: str, stamps: Stamps
) -> dict[str, object]:
    """Everything that decides the frames of a shot, as `request_of`; what can be written in several ways, in one."""
    sketches = {}
    for frame, sketch in sorted(layout.sketches.values(), key=lambda one: one[0]):
        image = sketch.image if isinstance(sketch, Sketch) else sketch
        dark_lines = has_dark_lines(sketch if isinstance(sketch, Sketch) else Sketch(sketch))
        sketches[str(frame)] = {"dark_lines": dark_lines, **file_record(image, stamps)}
    return {
        "keys": {str(frame): file_record(picture, stamps) for frame, picture in layout.keys.items()},
        "prompts": [list(span) for span in layout.prompts],
        "negative_prompt": shot.negative_prompt,
        "sketches": sketches,
        "timing": [gap.timing for gap in layout.gaps],
        "exposure": [list(gap.exposure) for gap in layout.gaps],
        "seed": shot.seed,
        "fps": shot.fps,
        "loop": shot.loop,
        "shot": shown(shot.options),
        "options": shown(options),
        "model": dict(model),
        "dtype": dtype,
    }


def makers(toon: ToonCrafter) -> dict[str, object]:
    """What a record says of who drew, but how long it took."""
    packages: Sequence[str] = ("tooncrafter-jax", "jax", "jaxlib", "flax", "numpy")
    return {
        "versions": {name: _version(name) for name in packages},
        "devices": [str(device.device_kind) for device in toon.devices],
        "platform": toon.devices[0].platform,
        "architecture": toon.config.name,
    }


def record_of(request: JsonObject, made_by: JsonObject, candidates: Sequence[Candidate] = ()) -> dict[str, object]:
    """The record written beside a clip, without its files: the request, what made it, and which variants it was picked
    from.

    Args:
      request: of `request_of` or `request_of_shot`.
      made_by: of `makers`, and the `seconds` that it took.
      candidates: of which the clip was picked.
    """
    record: dict[str, object] = {"format": RECORD_FORMAT, "request": dict(request), "made_by": dict(made_by)}
    return record | ({"picked": [one.plain() for one in candidates]} if candidates else {})


def with_files(
    record: JsonObject,
    files: dict[str, Stamp],
    beside: Mapping[str, Stamp],
    found: ClipRecord | None,
    defaults: JsonObject,
) -> dict[str, object]:
    """The record of a finished clip.

    Args:
      record: of `record_of`.
      files: that were written now.
      beside: other files of ours that were there before.
      found: the record until now: what was made from the same request, in another format, is still the clip's.
      defaults: as of `ClipRecord.is_of`.
    """
    same = found is not None and found.is_of(record["request"], defaults)
    known = (found.files or {}) if found is not None and same else {}
    still = {name: stamp for name, stamp in beside.items() if name in known}
    parts = {"files": files | still, "earlier": {name: stamp for name, stamp in beside.items() if name not in known}}
    return dict(record) | {
        key: {name: stamp.plain() for name, stamp in sorted(part.items())} for key, part in parts.items() if part
    }


def with_unfinished(record: JsonObject, files: Mapping[str, frozenset[Stamp]]) -> dict[str, object]:
    """The record of a clip whose files are being replaced: each may be as before or as after."""
    plain = {name: [stamp.plain() for stamp in sorted(values)] for name, values in files.items()}
    return dict(record) | {"unfinished": plain}


def file_record(picture: Picture, stamps: Stamps) -> dict[str, str]:
    """A file's path and checksum, which is empty if it cannot be read."""
    path = os.path.abspath(cast("str | os.PathLike[str]", picture))
    try:
        digest = stamps.of(Path(path)).sha256
    except (OSError, ValueError):
        digest = ""  # what is wrong with the file is said where it is read
    return {"path": path, "sha256": digest}


def _with_defaults(request: object, defaults: JsonObject) -> object:
    """A request without paths, with every option."""
    if not isinstance(request, Mapping):
        return request
    known = {
        key: as_shown(cls, request[key])
        for key, cls in (("options", SamplingOptions), ("shot", ShotOptions))
        if isinstance(request.get(key), Mapping)
    }
    return _plain({**_REQUEST_DEFAULTS, **defaults, "options": None, **_without_paths(request), **known})


def _plain(values: JsonObject) -> dict[str, object]:
    """As they come back from a file."""
    return json.loads(json.dumps(values))


def _inside(files: Mapping[str, object]) -> list[tuple[str, object]]:
    """The items whose names do not lead out of the record's directory."""
    return [item for item in files.items() if "\0" not in item[0] and {"", ".", ".."}.isdisjoint(item[0].split("/"))]


def _stamp(value: object) -> Stamp:
    stamp = Stamp.of_plain(value)
    if stamp is None:
        raise ValueError("no stamp of a file")
    return stamp


def _stamps(values: object) -> frozenset[Stamp]:
    if not isinstance(values, list):
        raise TypeError("no list of stamps")
    return frozenset(map(_stamp, values))


def _without_paths(request: Mapping[object, object]) -> dict[str, object]:
    """A request with pictures by checksum alone: the same pictures elsewhere make the same clip."""
    return {
        str(key): _without_paths(value) if isinstance(value, dict) else value
        for key, value in request.items()
        if key != "path"
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
