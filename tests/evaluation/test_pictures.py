"""Which frames a report's sheet shows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tooncrafter_jax.evaluation.pictures import write_side_by_side
from tooncrafter_jax.io import write_contact_sheet


@pytest.mark.parametrize(
    ("also", "shown"),
    [((), [0, 2, 4, 6, 9, 11, 13, 15]), ((0, 8), [0, 2, 4, 6, 8, 9, 11, 13, 15])],
)
def test_frames_at_even_distances_and_the_guided_ones(tmp_path: Path, also: tuple[int, ...], shown: list[int]) -> None:
    videos = [
        np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None, None] * 16 + k, (16, 32, 32, 3)) for k in (0, 9)
    ]
    write_side_by_side(tmp_path / "found.png", ["a", "b"], videos, also=also)
    labels = [f"{name}, {frame}" for name in "ab" for frame in shown]
    cells = np.concatenate([video[shown] for video in videos])
    write_contact_sheet(tmp_path / "expected.png", cells, columns=len(shown), labels=labels)
    found, expected = (np.asarray(Image.open(tmp_path / name)) for name in ("found.png", "expected.png"))
    np.testing.assert_array_equal(found, expected)
