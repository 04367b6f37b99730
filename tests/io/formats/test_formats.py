"""Every output format: a clip is recognised again, and a failed write leaves nothing behind and says why."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.formats.clips import cartoon, cel, contents, files, largest_file, noise
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.contact_sheets import ContactSheet
from tooncrafter_jax.io.formats import DEFAULT_FORMAT, FORMATS, FormatOptions, OutputFormat, format_of_ending
from tooncrafter_jax.io.frames import PUBLISHED_FPS
from tooncrafter_jax.io.timesheets import TIMESHEETS

FORMS: dict[str, OutputFormat] = {**FORMATS} | {
    name: ContactSheet(name == "comparison") for name in ("sheet", "comparison")
}
"""A contact sheet stands in the place of a format."""


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> OutputFormat:
    return FORMS[request.param]


def number_of_files(form: OutputFormat, frames: int) -> int:
    """Of a clip whose frames are all different."""
    return frames + (form.name in TIMESHEETS) if form.is_folder else 1


def write(form: OutputFormat, directory: Path, frames: np.ndarray, fps: float = PUBLISHED_FPS) -> Path:
    path = directory / form.file_name("ab")
    form.write(path, frames, fps, FormatOptions())
    return path


# --- the registry ---


def test_names_and_endings_lead_to_one_format():
    assert all(form.name == name and isinstance(form, OutputFormat) for name, form in FORMATS.items())
    assert DEFAULT_FORMAT in FORMATS
    endings = [ending for form in FORMATS.values() for ending in form.endings]
    assert len(set(endings)) == len(endings) and all(ending == ending.lower() for ending in endings)
    for form in FORMATS.values():
        assert form.is_folder == (not form.endings)
        assert all(format_of_ending(ending.upper()) == form.name for ending in form.endings)
        assert form.is_folder or form.file_name("ab", "X") != form.file_name("ab") == f"ab.{form.endings[0]}"
    assert len({form.file_name("ab") for form in FORMS.values()}) == len(FORMS) - 1, "two contact sheets, one name"
    assert format_of_ending("avi") is None and format_of_ending("") is None


# --- what is written ---


@pytest.mark.parametrize("count", [1, 2, 11])
def test_a_clip_is_recognised_again(form: OutputFormat, count: int, tmp_path: Path):
    path = write(form, tmp_path / "deep" / "er", cartoon(count))
    made = form.files(path)
    assert sorted(made) == sorted(contents(tmp_path / "deep" / "er")) and len(made) == number_of_files(form, count)
    assert form.looks_whole(path)


@pytest.mark.parametrize("count", [1, 3])
def test_opacity_is_written_where_a_format_holds_it_and_else_refused(
    form: OutputFormat, count: int, tmp_path: Path, unchecked_types: None
):
    if form.has_alpha:
        path = write(form, tmp_path, cel(count))
        assert form.looks_whole(path) and len(form.files(path)) == number_of_files(form, count)
        return
    with pytest.raises(UserError, match="holds no opacity, so put them over a colour, or write png, apng, webp"):
        write(form, tmp_path, cel(count))
    assert files(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"no picture at all", None])
def test_a_damaged_clip_is_recognised(form: OutputFormat, damage: bytes | None, tmp_path: Path):
    path = write(form, tmp_path, cartoon(3))
    file = tmp_path / form.files(path)[-1]
    file.unlink() if damage is None else file.write_bytes(damage)
    if form.is_folder and damage is None:  # the other frames look whole; what is missing is known by the record
        return
    assert not form.looks_whole(path)


def test_nothing_is_no_clip(form: OutputFormat, tmp_path: Path):
    assert not form.looks_whole(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    assert not form.looks_whole(tmp_path / "folder")
    assert form.files(tmp_path / "folder") == ([] if form.is_folder else ["folder"])


# --- refusals ---


def test_wrong_frames_are_named(form: OutputFormat, tmp_path: Path, unchecked_types: None):
    for frames in (cartoon() / 255.0, cartoon()[0], cartoon()[..., :1], cartoon()[:0]):
        with pytest.raises(UserError, match=r"uint8 \(frames, height, width, 3\)") as caught:
            write(form, tmp_path, frames)
        assert str(frames.shape) in str(caught.value)
    with pytest.raises(UserError, match="not list"):
        write(form, tmp_path, [cartoon()[0]])  # pyright: ignore[reportArgumentType]
    assert files(tmp_path) == []


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1e9])
def test_an_impossible_playback_rate_is_named(form: OutputFormat, fps: float):
    with pytest.raises(UserError, match=f"fps is {fps}"):
        form.check_playback_rate(fps)


# --- failing disks ---


def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_other(form: OutputFormat, tmp_path: Path):
    if not form.is_folder:  # a folder of frames is never replaced
        write(form, tmp_path, cartoon(3))
    before = contents(tmp_path)
    with largest_file(2000), pytest.raises(UserError) as caught:
        write(form, tmp_path, noise())
    assert f"'{tmp_path / 'ab'}" in str(caught.value) and "File too large" in str(caught.value)
    assert contents(tmp_path) == before and not list(tmp_path.glob(".*"))
    path = write(form, tmp_path, noise())
    assert form.looks_whole(path) and contents(tmp_path) != before


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "No space left on device.*free some space"), (errno.EROFS, "Read-only.*may write to")],
)
def test_the_reason_and_the_remedy_are_named(
    form: OutputFormat, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=words) as caught:
        write(form, tmp_path, cartoon(2))
    assert f"'{tmp_path / 'ab'}" in str(caught.value)
    assert files(tmp_path) == []


def test_an_interruption_leaves_nothing_behind(form: OutputFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(form, tmp_path, cartoon(2))
    assert files(tmp_path) == []


def test_paths_that_cannot_be_written(form: OutputFormat, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file/below"):
        write(form, tmp_path / "file" / "below", cartoon(2))
    assert files(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("clip", ["cut 1 ", "x" * 210, "cut\udcff", " .a"])
def test_a_clip_of_any_name_becomes_a_sheet(clip: str, tmp_path: Path):
    """A layer's name cannot have all that a folder's has."""
    form = FORMATS["oca"]
    path = tmp_path / form.file_name(clip)
    form.write(path, cartoon(2), PUBLISHED_FPS, FormatOptions())
    assert form.looks_whole(path)


def test_only_pictures_of_our_formats_are_looked_at(tmp_path: Path):
    """Others have readers that fail in many ways, or are slow."""
    path = tmp_path / "ab.gif"
    Image.fromarray(cartoon(1)[0]).save(path, "TIFF")
    assert not FORMATS["gif"].looks_whole(path)
