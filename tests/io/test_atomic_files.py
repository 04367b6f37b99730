"""Whether a directory can be written to is found out beforehand, and leaves nothing there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.io.formats.clips import files
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import check_writable
from tooncrafter_jax.io.atomic_files import replace_directory, write_atomically


def test_the_directory_is_made_and_stays_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_writable(tmp_path / "a" / "b")
    assert files(tmp_path) == ["a", "a/b"]
    (tmp_path / "a" / "b" / "kept").touch()
    check_writable(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    check_writable("")
    assert files(tmp_path) == ["a", "a/b", "a/b/kept"]


def test_a_path_that_cannot_be_a_directory(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="a file is in the way"):
        check_writable(tmp_path / "file")
    with pytest.raises(UserError, match="file/below"):
        check_writable(tmp_path / "file" / "below" / "x")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "No space left on device.*free some space"), (errno.EROFS, "Read-only.*may write to")],
)
def test_the_reason_and_the_remedy_are_named(code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=words):
        check_writable(tmp_path / "out")
    assert files(tmp_path) == ["out"]


def test_a_pipe_is_neither_replaced_nor_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match=f"{name}' is a device, a pipe or a socket: choose the name of a file"):
            write_atomically(tmp_path / name, b"data")
    assert (tmp_path / "pipe").is_fifo() and files(tmp_path) == ["link", "pipe"]
    with pytest.raises(UserError, match="/dev/null' is a device"):
        write_atomically("/dev/null", b"data")


def test_the_older_directory_returns_if_the_new_one_cannot_take_its_place(tmp_path: Path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "part").write_text("old")
    with pytest.raises(FileNotFoundError):
        replace_directory(tmp_path / "gone", tmp_path / "old", lambda name: True)
    assert files(tmp_path) == ["old", "old/part"]
