"""Clips of a shot that are kept: found again as they were, and nothing else touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tooncrafter_jax import ClipStore, UserError
from tooncrafter_jax.notes import collected

CLIP = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
ONE, OTHER = {"seed": 1}, {"seed": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with two clips."""
    store = ClipStore(tmp_path / "clips", {"model": "a"})
    store.keep(ONE, CLIP)
    store.keep(OTHER, CLIP + 1)
    return tmp_path / "clips"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def test_clips_are_found_by_what_they_were_drawn_from(folder: Path) -> None:
    one, missing, other = ClipStore(folder, {"model": "a"}).find([ONE, {"seed": 3}, OTHER])
    assert missing is None
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one, CLIP)
    np.testing.assert_array_equal(other, CLIP + 1)
    assert ClipStore(folder, {"model": "b"}).find([ONE]) == [None]
    assert ClipStore(folder, {"model": "a"}).find([]) == []


def test_nothing_is_made_before_a_clip_is_kept(tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "clips", {})
    assert store.find([ONE]) == [None]
    store.finish()
    assert not (tmp_path / "clips").exists()


@pytest.mark.parametrize("change", ["cut", "flipped", "gone", "link"])
def test_what_is_not_as_it_was_is_not_used(folder: Path, tmp_path: Path, change: str) -> None:
    for path in files(folder):
        data = path.read_bytes()
        path.unlink()
        if change == "cut":
            path.write_bytes(data[:-1])
        elif change == "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif change == "link":
            (tmp_path / path.name).write_bytes(data)
            path.symlink_to(tmp_path / path.name)
    assert ClipStore(folder, {"model": "a"}).find([ONE, OTHER]) == [None, None]


def test_finishing_removes_what_was_not_used_and_is_ours(folder: Path) -> None:
    store = ClipStore(folder, {"model": "a"})
    store.keep({"seed": 3}, CLIP + 2)
    store.find([ONE])
    mine = folder / "mine.txt"
    mine.write_text("mine")
    store.finish()
    assert len(files(folder)) == 2
    assert mine.exists()
    again = ClipStore(folder, {"model": "a"})
    assert [clip is not None for clip in again.find([ONE, OTHER, {"seed": 3}])] == [True, False, True]


def test_a_changed_clip_is_kept_under_another_name(folder: Path) -> None:
    for path in files(folder):
        path.write_bytes(b"mine")
    store = ClipStore(folder, {"model": "a"})
    with collected() as notes:
        store.keep(ONE, CLIP)
    assert len(notes) == 1 and ".earlier.npy" in notes[0]
    ClipStore(folder, {"model": "a"}).finish()
    assert sorted(path.read_bytes() for path in files(folder))[-2:] == [b"mine", b"mine"]
    assert len(files(folder)) == 2, "the clip that is not used is removed"


def test_a_file_that_no_record_names_is_not_replaced(folder: Path) -> None:
    (name,) = {path.name for path in files(folder)} - {
        path.name for path in _kept(folder.parent / "other", OTHER).glob("*.npy")
    }
    (folder.parent / "third").mkdir()
    (folder.parent / "third" / name).write_bytes(b"mine")
    with pytest.raises(UserError, match="would be replaced"):
        ClipStore(folder.parent / "third", {"model": "a"}).keep(ONE, CLIP)


def _kept(folder: Path, request: dict[str, int]) -> Path:
    ClipStore(folder, {"model": "a"}).keep(request, CLIP)
    return folder


def test_what_a_killed_run_was_writing_goes_when_the_shot_is_finished(folder: Path) -> None:
    (folder / ".tooncrafter-0123456789abcdef.tmp").write_bytes(b"half a clip")
    (folder / ".mine.tmp").write_bytes(b"mine")
    store = ClipStore(folder, {"model": "a"})
    store.find([ONE, OTHER])
    store.finish()
    assert sorted(path.name for path in folder.iterdir() if path.name.endswith(".tmp")) == [".mine.tmp"]
    assert len(files(folder)) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "clips": {}}', '{"format": 1, "clips": 3}'])
def test_a_record_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "clips.json").write_text(text)
    with pytest.raises(UserError, match="move the folder away"):
        ClipStore(tmp_path, {})


def test_a_record_names_no_file_outside(folder: Path) -> None:
    outside = folder.parent / "outside.npy"
    outside.write_bytes(b"mine")
    record = json.loads((folder / "clips.json").read_text())
    record["clips"] = {"../outside.npy": {"size": 4, "sha256": "0" * 64}, "x": "y"}
    (folder / "clips.json").write_text(json.dumps(record))
    ClipStore(folder, {}).finish()
    assert outside.exists()
