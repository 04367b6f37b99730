"""What clips show, in words: from a file that somebody has written, or by BLIP-2."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tooncrafter_jax.curation.films import EXTENSIONS
from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.json_files import LARGEST_JSON, is_text, parse_json, read_at_most, read_json
from tooncrafter_jax.typing import JsonObject

LEAST_OVERLAP = 0.5
"""Share of a clip for which a caption must hold."""
LONGEST_CAPTION = 10_000
"""Characters; the model reads 77 tokens."""
LARGEST_FILE = 2**28
"""Bytes of a file of captions."""
_NAMED = 3  # films in a message


@dataclass(frozen=True)
class Caption:
    """A row of a file of captions.

    Attributes:
      text: what is shown.
      source: the film or subject.
      id: a clip's id, or "" if it is for all clips of the film, or those in the range.
      start: first frame of the range, counted as in `Clip.start_frame`.
      stop: frame after its last, or None for the end of the film.
    """

    text: str
    source: str
    id: str = ""
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class SidecarCaptions:
    """Gives clips the captions of a file, and says "sidecar" in `Clip.caption_from`.

    The file is a table, as CSV with a header, as JSON Lines or as a JSON list of objects. It has a column `caption`,
    and `source` (a film, with or without its extension) or `id` (a clip). `start` and `stop`, where they are there,
    bound the frames for which a caption holds. A JSON object from source to caption is read too. A clip gets the
    caption of its id; else the one that holds for most of it, and for at least half; else that of its whole film; else
    it keeps its own, if any.

    Attributes:
      path: the file, in UTF-8.
    """

    path: Path
    name = "sidecar"

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its caption.

        Raises:
          UserError: the file cannot be read, or has a row that says too little.
        """
        caption = find_caption(_table(self.path), clip)
        return clip if caption is None else replace(clip, caption=caption.text, caption_from="sidecar")

    def settings(self) -> JsonObject:
        """The contents of the file, as a checksum.

        Raises:
          UserError: the file cannot be read.
        """
        return {"sha256": hashlib.sha256(_read_bytes(self.path)).hexdigest()}

    def mismatch(self, sources: Iterable[str]) -> str | None:
        """A sentence if the file and the films do not belong together, wholly or in part; else None.

        Raises:
          UserError: the file cannot be read, or has a row that says too little.
        """
        films = set(sources)
        captioned = {caption.source for captions in _table(self.path).values() for caption in captions}
        matched = {film for name in captioned for film in (name, _without_extension(name)) if film in films}
        strangers = sorted(
            {_without_extension(name) for name in captioned if not {name, _without_extension(name)} & films}
        )
        if not strangers:
            return None
        names = ", ".join(f"'{name}'" for name in strangers[:_NAMED]) + (", ..." if len(strangers) > _NAMED else "")
        return (
            f"'{self.path}' has captions for {len(strangers)} films that are not here ({names}), and none for "
            f"{len(films - matched)} of the {len(films)} that are: check that it belongs to them, and names them as "
            "they are named"
        )


CaptionTable = Mapping[str, Sequence[Caption]]
"""Captions by source, in the order of the file."""


def find_caption(table: CaptionTable, clip: Clip) -> Caption | None:
    """The caption of a clip by the rules of `SidecarCaptions`, or None."""
    captions = table.get(clip.source, ())
    for caption in captions:
        if caption.id == clip.id:
            return caption
    best, best_overlap = None, 0
    for caption in captions:
        if caption.id:
            continue
        last = clip.start_frame + len(clip)
        overlap = min(last, last if caption.stop is None else caption.stop) - max(clip.start_frame, caption.start)
        whole_film = caption.start == 0 and caption.stop is None
        if whole_film and best is None:
            best = caption  # any other that fits replaces it
        elif not whole_film and overlap >= LEAST_OVERLAP * len(clip) and overlap > best_overlap:
            best, best_overlap = caption, overlap
    return best


def read_captions(path: Path) -> list[Caption]:
    """The rows of a file of captions; see `SidecarCaptions`.

    Raises:
      UserError: the file cannot be read, is of an unknown kind, or has a row that says too little; it names the row.
    """
    try:
        text = _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not in UTF-8: save it with that encoding") from error
    return [_caption(row, f"{place} of '{path}'") for place, row in _rows(text, path)]


def _rows(text: str, path: Path) -> Iterator[tuple[str, object]]:
    """The place of each row, in words, and the row."""
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            for number, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), strict=True), 1):
                yield f"row {number}", row
        elif kind in (".jsonl", ".ndjson"):
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    yield f"line {number}", parse_json(line)
        elif kind == ".json":
            content = parse_json(text)
            if isinstance(content, dict):
                content = [{"source": name, "caption": caption} for name, caption in content.items()]
            if not isinstance(content, list):
                raise UserError(f"'{path}' holds neither a list nor an object of captions")
            for number, row in enumerate(content, 1):
                yield f"entry {number}", row
        else:
            raise UserError(f"'{path}' is of an unknown kind: a file of captions ends in .csv, .json or .jsonl")
    except (ValueError, csv.Error) as error:
        raise UserError(f"'{path}' is not {kind[1:].upper()} ({printable(error, 200)}): correct it") from error


def _caption(row: object, where: str) -> Caption:
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is no object with a caption")
    text, clip = row.get("caption"), row.get("id") or ""
    source = row.get("source") or str(clip).rpartition("/")[0]
    if not isinstance(text, str) or not isinstance(source, str) or not source or not isinstance(clip, str | int):
        raise UserError(f"{where} lacks 'caption', or both 'source' and 'id': give it them, as text")
    if len(text) > LONGEST_CAPTION or not is_text(text):
        what = "more characters than a caption has" if len(text) > LONGEST_CAPTION else "characters that are no text"
        raise UserError(f"{where} has a caption with {what}: correct it")
    return Caption(
        " ".join(text.split()), source, str(clip), _frame(row, "start", where) or 0, _frame(row, "stop", where)
    )


def _frame(row: Mapping[str, Any], key: str, where: str) -> int | None:
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        frame = int(value)
        if frame != float(value) or frame < 0:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        shown = printable(repr(value), 50)
        raise UserError(f"{where} has '{key}' = {shown}, which is not the number of a frame") from error
    return frame


def _read_bytes(path: Path) -> bytes:
    try:
        return read_at_most(path, LARGEST_FILE)
    except ValueError as error:
        raise UserError(f"'{path}' is no file of captions: {error}") from error
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): check the path of the captions") from error


def _table(path: Path) -> CaptionTable:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): check the path of the captions") from error
    return _table_of_state(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _table_of_state(path: Path, size: int, changed: int) -> CaptionTable:
    table: dict[str, list[Caption]] = {}
    for caption in read_captions(path):
        for name in {caption.source, _without_extension(caption.source)}:
            table.setdefault(name, []).append(caption)
    return table


def _without_extension(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in EXTENSIONS else name


@dataclass(frozen=True)
class Blip2Captions:
    """Gives clips that have none the caption that BLIP-2 finds for their middle frame, and says "blip2" in
    `Clip.caption_from`.

    Needs torch and transformers. Always the likeliest words, so that a clip has the same caption whenever it is made
    again.

    Attributes:
      directory: the model, as `save_pretrained` writes it or as it is published, e.g. of Salesforce/blip2-opt-2.7b.
        Nothing is downloaded.
      prompt: a beginning that the model is to go on from, e.g. "a cartoon of"; it is part of the caption.
      max_tokens: tokens after which a caption ends.
    """

    directory: Path
    prompt: str = ""
    max_tokens: int = 40
    name = "blip2"

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its caption.

        Raises:
          UserError: torch or transformers is not installed, or the directory holds no BLIP-2.
        """
        if clip.caption:
            return clip
        processor, model = load_blip2(self.directory)
        torch = optional("torch", "captions by BLIP-2", "torch-data")
        text = {"text": self.prompt} if self.prompt else {}
        inputs = processor(images=clip.decode([len(clip) // 2])[0], return_tensors="pt", **text)
        inputs = inputs.to(model.device, model.dtype)  # ids stay integers
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)[0]
        if self.prompt and not model.language_model.config.is_encoder_decoder:
            ids = ids[inputs["input_ids"].shape[1] :]  # it repeats the prompt
        words = f"{self.prompt} {processor.decode(ids, skip_special_tokens=True)}".split()
        return replace(clip, caption=" ".join(words), caption_from="blip2") if words else clip

    def settings(self) -> JsonObject:
        """The options, the model's configuration, and names and sizes of its files.

        Raises:
          UserError: there is no such directory, or its config.json cannot be read.
        """
        files = {path.name: path.stat().st_size for path in sorted(self.directory.glob("*")) if path.is_file()}
        if "config.json" not in files:
            raise UserError(
                f"'{self.directory}' holds no model (it has no config.json): name the directory of a BLIP-2"
            )
        try:
            config = hashlib.sha256(read_at_most(self.directory / "config.json", LARGEST_JSON)).hexdigest()
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the config.json of '{self.directory}': {error}") from error
        return {"prompt": self.prompt, "max_tokens": self.max_tokens, "config_sha256": config, "files": files}


@functools.lru_cache(maxsize=1)
def load_blip2(directory: Path) -> tuple[Any, Any]:
    """The processor and the model of a directory; the last one stays loaded.

    Raises:
      UserError: it holds none, or one of another kind.
    """
    torch = optional("torch", "captions by BLIP-2", "torch-data")
    transformers = optional("transformers", "captions by BLIP-2", "torch-data")
    graphics = torch.cuda.is_available()
    try:
        model_type = read_json(directory / "config.json")["model_type"]
        if model_type != "blip-2":
            raise UserError(f"'{directory}' holds a model of type '{model_type}': name the directory of a BLIP-2")
        processor = transformers.Blip2Processor.from_pretrained(directory, local_files_only=True)
        model = transformers.Blip2ForConditionalGeneration.from_pretrained(
            directory, local_files_only=True, dtype=torch.float16 if graphics else torch.float32
        )
    except UserError:
        raise
    except Exception as error:  # whatever the loaders of a damaged or incomplete directory raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"'{directory}' holds no whole BLIP-2 model ({reason}): download it again") from error
    return processor, model.eval().to("cuda" if graphics else "cpu")
