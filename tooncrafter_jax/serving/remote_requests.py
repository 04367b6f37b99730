"""Pairs and shots as a server is asked for them, with the pictures that are sent along."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from tooncrafter_jax.config_codec import plain, to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.timesheets import PlacedCel
from tooncrafter_jax.sampling.request import Pair, Picture, SamplingOptions, Sketch, sketches_by_frame
from tooncrafter_jax.sampling.sequence import Layout, Shot
from tooncrafter_jax.serving.client import Upload

MOST_TOGETHER = 60
"""Pictures that are sent with a request; a server takes 64 unless it was told otherwise."""
LARGEST_TOGETHER = 64 * 10**6
"""Bytes of these pictures; a server takes 128 MB unless it was told otherwise."""


class Asked(NamedTuple):
    """What a server is asked for.

    Attributes:
      request: as `/v1/jobs` takes it.
      uploads: what it calls a picture -> the picture, of those that are sent with it.
      names: path of a picture -> what the request calls it.
      sent: checksums of the pictures that were sent by themselves.
    """

    request: dict[str, Any]
    uploads: Mapping[str, Upload]
    names: Mapping[str, str]
    sent: Sequence[str]

    def told(self, sentence: str) -> str:
        """A sentence of the server's with the pictures' paths."""
        for path, name in self.names.items():
            sentence = sentence.replace(f"'{name}'", f"'{path}'")
        return sentence


class _Pictures:
    """The pictures of one request: each is sent once, and those that are too many for a form by themselves.

    Args:
      send: sends a picture by itself; gives the name by which it is known then.
    """

    def __init__(self, send: Callable[[Upload], str]) -> None:
        self._send, self._bytes = send, 0
        self._known: dict[object, str] = {}
        self.uploads: dict[str, Upload] = {}
        self.names: dict[str, str] = {}
        self.sent: list[str] = []

    def named(self, picture: Picture | None, name: str) -> str:
        """What the request calls a picture, which is this name for one that comes first.

        Raises:
          UserError: it is no file, or cannot be read.
        """
        if not isinstance(picture, str | os.PathLike):
            raise UserError("pictures that are sent to a server must be files")
        known = self._known.get(picture)
        if known is None:
            known = self._known[picture] = self._taken(picture, name)
            self.names.setdefault(os.fspath(picture), known)
        return known

    def sketch(self, sketch: Sketch | Picture, name: str) -> dict[str, Any]:
        """A sketch as the request says it."""
        one = sketch if isinstance(sketch, Sketch) else Sketch(sketch)
        return {"picture": self.named(one.image, name), "dark_lines": one.dark_lines, "may_be_blank": one.may_be_blank}

    def _taken(self, picture: str | os.PathLike[str], name: str) -> str:
        upload, size = _upload(picture)
        if len(self.uploads) >= MOST_TOGETHER or self._bytes + size > LARGEST_TOGETHER:
            self.sent.append(self._send(upload))
            return self.sent[-1]
        self._bytes += size
        self.uploads[name] = upload
        return name


def asked_for(
    what: Pair | Shot,
    layout: Layout | None,
    options: Mapping[str, Any],
    model: str,
    send: Callable[[Upload], str],
) -> Asked:
    """A pair or a shot as a server is asked for it.

    Args:
      what: its pictures are files.
      layout: of a shot.
      options: of sampling, that differ from the model's own.
      model: of the server; empty: its first.
      send: sends a picture by itself, as `Client.send`.

    Raises:
      UserError: a picture is no file, or cannot be read.
    """
    pictures = _Pictures(send)
    if isinstance(what, Shot):
        assert layout is not None
        own = _shot(what, layout, pictures)
    else:
        own = _pair(what, pictures)
    common = {"negative_prompt": what.negative_prompt, "seed": what.seed, "fps": what.fps, "options": dict(options)}
    request = own | common | ({"model": model} if model else {})
    return Asked(request, pictures.uploads, pictures.names, pictures.sent)


def changed_options(options: SamplingOptions, usual: SamplingOptions) -> dict[str, Any]:
    """Those options, as JSON holds them, that are others than a server would take by itself."""
    before = to_dict(usual)
    return {name: value for name, value in to_dict(options).items() if value != before[name]}


def _pair(pair: Pair, pictures: _Pictures) -> dict[str, Any]:
    request: dict[str, Any] = {"first": pictures.named(pair.first, "first"), "prompt": pair.prompt}
    if pair.last is not None:
        request["last"] = pictures.named(pair.last, "last")
    sketches = sketches_by_frame(pair.sketches).items()
    request["sketches"] = {str(frame): pictures.sketch(one, f"sketch-{frame}") for frame, one in sketches}
    if pair.draft is not None:
        request["draft"] = [pictures.named(one, f"draft-{frame}") for frame, one in enumerate(pair.draft)]
    return request


def _shot(shot: Shot, layout: Layout, pictures: _Pictures) -> dict[str, Any]:
    return {
        "keys": {str(frame): pictures.named(one, f"key-{frame}") for frame, one in layout.keys.items()},
        "prompt": {f"{first}-{last}": text for first, last, text in layout.prompts},
        "sketches": {str(frame): pictures.sketch(one, f"sketch-{frame}") for frame, one in layout.sketches.values()},
        "timing": _of_gaps(shot.timing, layout, "linear"),
        "exposure": _of_gaps(shot.exposure, layout, 1),
        "loop": shot.loop,
        **to_dict(shot.options),
    }


def _of_gaps(given: object, layout: Layout, default: object) -> Any:
    """A timing or an exposure as JSON holds it: of all gaps, or by the frame where each begins."""
    if not isinstance(given, Mapping):
        return _listed(given)
    others = given.get(None, default)
    return {str(gap.first): _listed(given.get(gap.first, others)) for gap in layout.gaps}


def _listed(value: object) -> Any:
    return [plain(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _upload(picture: str | os.PathLike[str]) -> tuple[Upload, int]:
    """A picture's file, and its size in bytes; of one that has a place on a time sheet, the whole sheet's.

    Raises:
      UserError: it cannot be read.
    """
    if isinstance(picture, PlacedCel):
        buffer = io.BytesIO()
        Image.fromarray(picture.read()).save(buffer, "PNG")
        return buffer.getvalue(), buffer.tell()
    try:
        return picture, os.path.getsize(picture)
    except OSError as error:
        raise UserError(f"'{os.fspath(picture)}' cannot be read ({error.strerror}): check the path") from error
