"""Room for frames: in memory, and in files that leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tooncrafter_jax import UserError
from tooncrafter_jax.sampling.frame_room import FrameRoom


def test_few_frames_lie_in_memory_and_make_no_directory(tmp_path: Path) -> None:
    frames = FrameRoom(tmp_path / "out", in_memory=2 * 12)((2, 2, 2, 3))
    assert not isinstance(frames, np.memmap) and frames.shape == (2, 2, 2, 3) and frames.dtype == np.uint8
    assert not (tmp_path / "out").exists()


def test_many_frames_lie_in_a_file_without_a_name(tmp_path: Path) -> None:
    room = FrameRoom(tmp_path / "out", in_memory=2 * 12 - 1)
    one, other = room((2, 2, 2, 3)), room((2, 2, 2, 3))
    one[:], other[:] = 1, 2
    assert isinstance(one, np.memmap) and one.dtype == np.uint8
    assert (one.sum(), other.sum()) == (24, 48)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_without_the_room_ends_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GiB of frames do not go there: .* cannot be written"):
        FrameRoom(tmp_path)((2**32, 2**14, 2**14, 3))


def test_a_directory_that_is_a_file_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        FrameRoom(tmp_path / "out", in_memory=0)((1, 2, 2, 3))
