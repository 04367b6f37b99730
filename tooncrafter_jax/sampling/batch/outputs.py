"""The files of a finished clip: which there are, whether they are done, and replacing none that is not ours."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import PIXEL_FORMATS, PUBLISHED_FPS, WHITE, check_writable, over, write_json
from tooncrafter_jax.io.atomic_files import cannot_write, sync_directory
from tooncrafter_jax.io.contact_sheets import ContactSheet, SheetOfCandidates
from tooncrafter_jax.io.formats import FORMATS, PUBLISHED_PIXEL_FORMAT, FormatOptions, OutputFormat
from tooncrafter_jax.io.locks import taken
from tooncrafter_jax.io.owned_files import Named, Stamp, Stamps, foreign, keep, state
from tooncrafter_jax.io.timesheets import DrawnSheet
from tooncrafter_jax.notes import note
from tooncrafter_jax.options import Option, shown, shown_defaults, with_attributes
from tooncrafter_jax.sampling.frame_room import FrameRoom, Room
from tooncrafter_jax.sampling.picking import Picking
from tooncrafter_jax.sampling.records import ClipRecord, read_record, request_of, with_files, with_unfinished
from tooncrafter_jax.sampling.request import Pair, SamplingOptions
from tooncrafter_jax.typing import JsonObject, Uint8Clip, Uint8Video

Sheet = UInt8[np.ndarray, "sheet_height sheet_width 3"]
_REMEDY = "choose another --out, or move it away"


class _File(NamedTuple):
    """A file or folder of a clip.

    Attributes:
      kind: name of the part.
      part: how it is written.
      path: where it goes.
      clip: which of the clips that were picked it shows; -1: none of them.
    """

    kind: str
    part: OutputFormat
    path: Path
    clip: int


@dataclass(frozen=True)
class OutputPlan:
    """Which files a clip becomes.

    Attributes:
      directory: where they go.
      formats: some of `io.formats.FORMATS`.
      endings: format -> how its files end, where that is not the format's name, e.g. "MP4".
      stamps: of all files that were looked at.
      picking: of several variants of a clip, the picked ones are written, and a sheet of all.
    """

    directory: Path
    formats: tuple[str, ...]
    contact_sheet: Annotated[bool, Option("also write all frames on one PNG", is_shown=False)] = False
    playback_fps: Annotated[float, Option("frames a second of the files; does not change the motion, unlike --fps")] = (
        float(PUBLISHED_FPS)
    )
    drop_last: Annotated[bool, Option("leave out the last frame, of clips that loop", of_python=True)] = False
    cross_fade: Annotated[
        bool, Option("the contact sheet shows the cross-fade between the clip's first and last frame too")
    ] = False
    endings: Mapping[str, str] = field(default_factory=dict)
    stamps: Stamps = field(default_factory=Stamps)
    pixel_format: Annotated[
        str,
        Option(
            "of mp4 files: yuv420p plays everywhere and dulls thin coloured lines, yuv444p keeps their colour, rgb24 "
            "keeps every pixel; browsers play the first alone",
            choices=PIXEL_FORMATS,
        ),
    ] = PUBLISHED_PIXEL_FORMAT
    picking: Picking | None = None

    def check(self, inputs: Iterable[Path], names: Iterable[str]) -> None:
        """Finds out, before anything expensive starts, what would keep all files from being written.

        Args:
          inputs: files that the run reads.
          names: of the clips.

        Raises:
          UserError: for an impossible playback rate, an output that would replace an input or another output, or a
            directory that cannot be written.
        """
        self.check_playback_rate()
        files = _real(inputs)
        folders = {os.path.dirname(file) for file in files}
        outputs: Counter[Path] = Counter()
        for name in names:
            folders_here = {file.path for file in self._files(name) if file.part.is_folder}
            for path in self.paths(name).values():
                outputs[path] += 1
                if os.path.realpath(path) in (folders if path in folders_here else files):
                    raise UserError(f"{path} would be written, but the inputs are there: choose another --out")
                if outputs[path] > 1:
                    raise UserError(f"two clips would be written to {path}: give one of them another name")
        check_writable(self.directory)

    def check_playback_rate(self) -> None:
        """Raises UserError if a format cannot be played at this rate."""
        for part in self._parts.values():
            part.check_playback_rate(self.playback_fps)

    def check_holds_alpha(self) -> None:
        """Finds out whether a clip's opacity is kept; says on one line which formats do not.

        Raises:
          UserError: none of them does.
        """
        opaque = [kind for kind in self.formats if not FORMATS[kind].has_alpha]
        if len(opaque) == len(self.formats):
            *others, last = (kind for kind, form in FORMATS.items() if form.has_alpha)
            raise UserError(
                f"{' and '.join(opaque)} {'hold' if len(opaque) > 1 else 'holds'} no opacity, which alpha keeps: write "
                f"{', '.join(others)} or {last}"
            )
        if opaque:
            shows = "hold no opacity and show" if len(opaque) > 1 else "holds no opacity and shows"
            note(f"{' and '.join(opaque)} {shows} the clip over white")

    def paths(self, name: str) -> dict[str, Path]:
        """Kind -> path of each file of a clip, the record last; of the second clip that was picked, "mp4 2"."""
        files = {
            file.kind if file.clip < 1 else f"{file.kind} {file.clip + 1}": file.path for file in self._files(name)
        }
        return files | {"record": self._record(name)}

    @property
    def longest_ending(self) -> int:
        """Bytes that are added to a clip's name, at most."""
        return max(len(path.name) for path in self.paths("x").values()) - 1

    def check_ours(self, name: str) -> None:
        """Finds out whether the clip's files can be written without replacing one that is not ours.

        Raises:
          UserError: if not; names the file.
        """
        self._unlike_ours(name, self._named(name))

    def write(
        self, name: str, video: Uint8Clip, record: JsonObject, drawn: Callable[[], DrawnSheet] | None = None
    ) -> dict[str, Path]:
        """Writes every file, the record last: a clip whose record names its files is complete.

        Args:
          name: of the clip.
          video: its frames.
          record: of `record_of`.
          drawn: as of `FormatOptions`.

        Raises:
          UserError: as of `write_all`.
        """
        return self.write_all(name, [video], record, drawn=drawn)

    def write_all(
        self,
        name: str,
        videos: Sequence[Uint8Clip],
        record: JsonObject,
        sheet: Sheet | None = None,
        drawn: Callable[[], DrawnSheet] | None = None,
    ) -> dict[str, Path]:
        """`write` for the clips that were picked, the best first, with the sheet of all candidates.

        All files are made in a hidden folder first. While they take their places, the record says which files were
        there and which are coming, so that the files of a run that is killed then are known as ours. A file that a
        record of ours names, but whose content is another, is kept under another name.

        Args:
          name: of the clip.
          videos: the frames of each.
          record: of `record_of`.
          sheet: of all candidates; needed where there is a choice.
          drawn: as of `FormatOptions`.

        Raises:
          UserError: if a file cannot be written, or one that is not ours is in the way.
        """
        paths = self.paths(name)
        clips = [video[:-1] if self.drop_last else video for video in videos]
        with self._staging(name) as staging:
            for file in self._files(name):
                frames = np.asarray(sheet)[None] if file.clip < 0 else clips[file.clip]
                held = frames if file.part.has_alpha else _opaque(frames, FrameRoom(self.directory))
                path = staging / file.path.name
                file.part.write(path, held, self.playback_fps, FormatOptions(self.pixel_format, drawn))
            made = {str(path.relative_to(staging).as_posix()): path for path in _files_below(staging)}
            new = {file: self.stamps.of(path) for file, path in sorted(made.items())}
            found, named = read_record(paths["record"]), self._named(name)
            changed, leftovers = self._unlike_ours(name, named, new)
            gone = changed | leftovers
            try:
                for file in changed:
                    keep(self.directory / file, note)
                before = {file: contents for file, contents in named.items() if contents and file not in changed}
                beside = {
                    file: self.stamps.of(self.directory / file)
                    for file, contents in before.items()
                    if file not in gone and file not in new and self.stamps.same(self.directory / file, contents)
                }
                after = {file: before.get(file, frozenset()) | {stamp} for file, stamp in new.items()}
                write_json(paths["record"], with_unfinished(record, before | after))
                for file, path in made.items():
                    (self.directory / file).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, self.directory / file)
                for file in leftovers:
                    (self.directory / file).unlink(missing_ok=True)
                for directory in {(self.directory / file).parent for file in made}:
                    sync_directory(str(directory))
            except OSError as error:
                raise cannot_write(str(self.directory / name), error) from error
        write_json(paths["record"], with_files(record, new, beside, found, shown_defaults(OutputPlan)))
        return paths

    def is_done(self, name: str, request: Callable[[], JsonObject]) -> bool:
        """Whether all files of a clip are there, as they were written, and were made from the same request.

        Of a record that does not say what was written, the files must be of their kind and not cut short at the front.

        Args:
          name: of the clip.
          request: makes the request; is called only if there is a record.
        """
        record = read_record(self._record(name))
        if record is None or record.unfinished is not None:
            return False
        if not all(path.exists() for path in self.paths(name).values()):
            return False
        return record.is_of(request(), shown_defaults(OutputPlan)) and all(
            self._is_whole(file.part, file.path, record) for file in self._files(name)
        )

    def request_of(self, pair: Pair, options: SamplingOptions, model: Mapping[str, str], dtype: str) -> JsonObject:
        """Everything that decides how a clip looks, as plain values; pictures by path and checksum."""
        picking = {} if self.picking is None else {"picking": asdict(self.picking)}
        return request_of(pair, options, model, dtype, self.stamps) | shown(self) | picking

    # ------------------------------------------------------------------------------------------------------------ parts

    @property
    def _parts(self) -> dict[str, OutputFormat]:
        """Kind -> how it is written, of everything but the record."""
        parts: dict[str, OutputFormat] = {kind: FORMATS[kind] for kind in self.formats}
        return parts | ({ContactSheet.name: ContactSheet(self.cross_fade)} if self.contact_sheet else {})

    def _files(self, name: str) -> list[_File]:
        """All files of a clip but the record."""
        picked = 1 if self.picking is None else self.picking.pick
        files = []
        for clip in range(picked):
            own = name if picked == 1 else f"{name}_pick{clip + 1}"
            for kind, part in self._parts.items():
                file = part.file_name(own, self.endings.get(kind))
                files.append(_File(kind, part, self.directory / file, clip))
        if self.picking is not None:
            sheet = SheetOfCandidates()
            files.append(_File(sheet.name, sheet, self.directory / sheet.file_name(name), -1))
        return files

    def _record(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    @contextlib.contextmanager
    def _staging(self, name: str) -> Iterator[Path]:
        """A hidden folder beside the results; messages speak of the results.

        Those of the same clip that a run was killed in are removed: nobody holds their locks.
        """
        mark = f".tooncrafter-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-"
        for abandoned in self.directory.glob(f"{mark}*.tmp"):
            with contextlib.suppress(OSError), taken(abandoned) as is_ours:
                if is_ours:
                    shutil.rmtree(abandoned, ignore_errors=True)
        staging = self.directory / f"{mark}{secrets.token_hex(8)}.tmp"
        try:
            staging.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(str(self.directory), error) from error
        with taken(staging):
            try:
                yield staging
            except UserError as error:
                raise UserError(str(error).replace(str(staging), str(self.directory))) from error
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _named(self, name: str) -> Named:
        """The files that the record beside the clip names."""
        record = read_record(self._record(name))
        if record is None:
            return {}
        return record.named([one for file in self._files(name) for one in file.part.files(file.path)])

    def _unlike_ours(
        self, name: str, named: Named, new: Mapping[str, Stamp] | None = None
    ) -> tuple[set[str], set[str]]:
        """Looks at everything that is in the way of a clip's files.

        Args:
          name: of the clip.
          named: what its record names.
          new: the files that will be written; None: as many frames as there are.

        Returns:
          The files that are no longer as we wrote them, and the frames of ours that no new one replaces.

        Raises:
          UserError: a file is not ours.
        """
        own = self._record(name)
        if os.path.lexists(own) and read_record(own) is None:
            if not (own.is_file() and own.stat().st_size == 0):
                raise foreign(own, _REMEDY)
        changed: set[str] = set()
        leftovers: set[str] = set()
        for _, part, path, _ in self._files(name):
            if part.is_folder:
                if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
                    raise foreign(path, _REMEDY)
            elif path.is_dir():
                raise UserError(f"'{path}' cannot be written: a directory of that name is in the way")
            for file in part.files(path):
                found = state(self.directory, file, named, self.stamps)
                if found == "foreign" and not (new and self._is(file, new)):
                    raise foreign(self.directory / file, _REMEDY)
                if found == "changed":
                    changed.add(file)
                elif found != "absent" and new is not None and file not in new:
                    leftovers.add(file)
        return changed, leftovers

    def _is(self, file: str, new: Mapping[str, Stamp]) -> bool:
        """Whether a file is already what would be written."""
        path = self.directory / file
        return file in new and not path.is_symlink() and self.stamps.same(path, [new[file]])

    def _is_whole(self, part: OutputFormat, path: Path, record: ClipRecord) -> bool:
        if record.files is None:
            return part.looks_whole(path)
        if not part.is_folder:
            return path.name in record.files and self.stamps.same(path, [record.files[path.name]])
        frames = {file: stamp for file, stamp in record.files.items() if file.startswith(f"{path.name}/")}
        return bool(frames) and all(self.stamps.same(self.directory / file, [stamp]) for file, stamp in frames.items())


OutputPlan.__doc__ = with_attributes(OutputPlan.__doc__, OutputPlan)


def _opaque(frames: Uint8Clip, room: Room) -> Uint8Video:
    """Frames over white; themselves if they have no opacity."""
    if frames.shape[-1] == 3:
        return frames
    shown = room((*frames.shape[:-1], 3))
    for number, frame in enumerate(frames):
        shown[number] = over(frame, WHITE)
    return shown


def _real(paths: Iterable[Path]) -> set[str]:
    """Where files really are; those that no file can be called by are left out."""
    found = set()
    for path in paths:
        with contextlib.suppress(ValueError):
            found.add(os.path.realpath(path))
    return found


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
