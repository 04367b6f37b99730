"""What a client gets of a job that is done: its frames in any format, folders of files as zip archives."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from tooncrafter_jax.io import WHITE, over
from tooncrafter_jax.io.atomic_files import sync_file, written_whole
from tooncrafter_jax.io.formats import FORMATS, FormatOptions
from tooncrafter_jax.io.timesheets import TIMESHEETS, sheet_of_frames, write_timesheet
from tooncrafter_jax.sampling.frame_room import FrameRoom
from tooncrafter_jax.serving.storage import Storage
from tooncrafter_jax.typing import Uint8Clip

RESULTS = (*FORMATS, *TIMESHEETS)
"""Names of all formats."""
MEDIA_TYPES = {
    "mp4": "video/mp4",
    "gif": "image/gif",
    "webp": "image/webp",
    "apng": "image/apng",
    "webm": "video/webm",
    "mov": "video/quicktime",
}
"""Of the formats that are one file; the others are zip archives."""
ZIP = "application/zip"


def media_type(form: str) -> str:
    """What kind of file a result is."""
    return MEDIA_TYPES.get(form, ZIP)


def ending(form: str) -> str:
    """How its name ends, without the dot."""
    return FORMATS[form].endings[0] if form in MEDIA_TYPES else "zip"


def result(storage: Storage, id: str, form: str, fps: float, pixel_format: str) -> Path:
    """The file of a result, which is made if it is not there yet.

    Args:
      storage: holds the frames.
      id: of a job that is done.
      form: of `RESULTS`.
      fps: playback rate.
      pixel_format: of mp4 files.

    Raises:
      UserError: the format cannot hold the frames, or have this rate.
      OSError: there are no frames.
    """
    if form in FORMATS:
        FORMATS[form].check_playback_rate(fps)
    path = storage.result_file(id, f"{form}-{pixel_format}-{float(fps)!r}.{ending(form)}")
    if path.exists():
        return path
    frames = storage.frames(id)
    storage.check_room(frames.nbytes)
    options = FormatOptions(pixel_format)
    if form in MEDIA_TYPES:
        held = frames if FORMATS[form].has_alpha else _opaque(frames, path.parent)
        FORMATS[form].write(path, held, fps, options)
        return path
    with tempfile.TemporaryDirectory(prefix="result-", dir=storage.folder / "incoming") as folder:
        made = Path(folder) / "shot"
        if form in FORMATS:
            FORMATS[form].write(made, frames, fps, options)
        else:
            made.mkdir()
            sheet = sheet_of_frames({"A": frames}, fps)
            write_timesheet(made / f"shot.{TIMESHEETS[form].endings[0]}", *sheet)
        _zip(made, path)
    return path


def _opaque(frames: Uint8Clip, folder: Path) -> Uint8Clip:
    if frames.shape[-1] == 3:
        return frames
    shown = FrameRoom(folder)((*frames.shape[:-1], 3))
    for number, frame in enumerate(frames):
        shown[number] = over(frame, WHITE)
    return shown


def _zip(folder: Path, path: Path) -> None:
    """An archive of a folder's files, which are compressed already."""
    with written_whole(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    entry = zipfile.ZipInfo(file.relative_to(folder).as_posix())
                    with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                        shutil.copyfileobj(source, target)
        sync_file(os.fspath(temporary))
