"""What may be replaced: files that a record of ours names, and directories without what somebody else put there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import cannot_write, replace_directory
from tooncrafter_jax.io.owned_files import Stamps, check_json_is_ours, keep, new_folder, shortened, state


def test_the_state_of_a_file(tmp_path: Path):
    stamps = Stamps()
    for name in ("ours", "changed", "foreign", "unknown"):
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("ours")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    named = {
        "ours": frozenset([stamps.of(tmp_path / "ours")]),
        "link": frozenset([stamps.of(tmp_path / "ours")]),
        "changed": frozenset([stamps.of(tmp_path / "ours")]),
        "unknown": None,
        "absent": None,
    }
    found = {path.name: state(tmp_path, path.name, named, stamps) for path in tmp_path.iterdir()}
    assert found == {
        "ours": "ours",
        "empty": "ours",
        "changed": "changed",
        "unknown": "changed",
        "foreign": "foreign",
        "link": "foreign",
        "dangling": "foreign",
        "folder": "foreign",
    }
    assert state(tmp_path, "absent", named, stamps) == "absent"


def test_a_checksum_is_of_the_content_of_now(tmp_path: Path):
    stamps, path = Stamps(), tmp_path / "a"
    path.write_text("one")
    first = stamps.of(path)
    assert stamps.same(path, [first])
    path.write_text("two")
    assert stamps.of(path).size == first.size and not stamps.same(path, [first])
    path.unlink()
    assert not stamps.same(path, [first]) and not stamps.same(Path("\0"), [first])


def test_what_is_kept_replaces_nothing(tmp_path: Path):
    said: list[str] = []
    names = ["a.mp4", "a.earlier.mp4", "é" * 125 + ".mp4"]
    for name in names:
        (tmp_path / name).write_text(name)
    kept = [keep(tmp_path / name, said.append) for name in names]
    assert [path.read_text() for path in kept] == names and len(list(tmp_path.iterdir())) == 3
    assert kept[0].name == "a.earlier-2.mp4" and all(len(os.fsencode(path.name)) <= 255 for path in kept)
    assert len(said) == 3 and "a.mp4" in said[0] and "a.earlier-2.mp4" in said[0]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(9, 300))
def test_a_shortened_name_fits_and_is_always_the_same(name: str, limit: int):
    short = shortened(name, limit)
    assert len(os.fsencode(short)) <= limit and short == shortened(name, limit)
    assert (short == name) == (len(os.fsencode(name)) <= limit)
    if short != name:
        assert shortened(name + "x", limit) != short


def test_a_directory_is_replaced_and_what_somebody_put_there_stays(tmp_path: Path):
    def is_ours(name: str) -> bool:
        return name.startswith("part-")

    old, new = tmp_path / "set", tmp_path / ".set.incomplete"
    for number, name in enumerate(["part-0", "part-1", "info.json", "notes.txt"]):
        old.mkdir(exist_ok=True)
        (old / name).write_text(str(number))
    new.mkdir()
    for name in ("part-0", "info.json"):
        (new / name).write_text("new")
    replace_directory(new, old, is_ours)
    assert {path.name: path.read_text() for path in old.iterdir()} == {
        "part-0": "new",
        "info.json": "new",
        "notes.txt": "3",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("moved", [True, False], ids=["new-in-place", "new-lost"])
def test_what_a_killed_replacement_left_is_not_lost(moved: bool, tmp_path: Path):
    retired, old, new = tmp_path / ".set.old", tmp_path / "set", tmp_path / ".set.incomplete"
    for directory in (retired, new, *([old] if moved else [])):
        directory.mkdir()
        (directory / "part-0").write_text(directory.name)
    (retired / "notes.txt").write_text("mine")
    replace_directory(new, old, lambda name: name.startswith("part-"))
    assert (old / "notes.txt").read_text() == "mine" and (old / "part-0").read_text() == ".set.incomplete"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_why_a_folder_cannot_be_written_is_what_the_system_says_of_a_file_in_it(tmp_path: Path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError) as error, new_folder(tmp_path / "shot") as folder:
        raise cannot_write(folder / "a.png", full) from full
    assert error.value.__cause__ is full and f"'{tmp_path / 'shot'}'" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["notes", "[]", "{}", '{"rows": []}', "[" * 100_000])
def test_a_named_file_of_something_else_is_not_replaced(text: str, tmp_path: Path):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match="table.json' holds something else"):
        check_json_is_ours(path, ("rows", "passed"))


def test_a_named_file_of_ours_is_replaced(tmp_path: Path):
    check_json_is_ours(tmp_path / "absent.json", ("rows",))
    (tmp_path / "empty.json").touch()
    check_json_is_ours(tmp_path / "empty.json", ("rows",))
    (tmp_path / "ours.json").write_text(json.dumps({"rows": [], "more": 1}))
    check_json_is_ours(tmp_path / "ours.json", ("rows",))


def test_a_pipe_or_a_device_is_refused_without_being_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(UserError, match="is a device, a pipe or a socket: choose the name of a file"):
            check_json_is_ours(path, ("rows",))
