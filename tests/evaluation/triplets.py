"""A few triplets in the layout of ATD-12K."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("Film_v1_one", "Film_v1_three", "Film_v2_three")
SIZE = (27, 48)


def drawing(name: str, number: int) -> np.ndarray:
    """A ground that gets brighter to the right, and a square in another place for each number."""
    height, width = SIZE
    ramp = np.linspace(20, 220, width).astype(np.uint8)
    picture = np.stack(
        [np.full(SIZE, 40 * NAMES.index(name) + 60, np.uint8), np.tile(ramp, (height, 1)), np.zeros(SIZE, np.uint8)], -1
    )
    picture[8:16, 8 * number : 8 * number + 8] = (250, 240, 10)
    return picture


def write_triplets(directory: Path) -> None:
    """The set's test part; the last triplet's drawings are JPEGs, as some copies have them."""
    for name in NAMES:
        pictures, notes = directory / "test_2k_540p" / name, directory / "test_2k_annotations" / name
        pictures.mkdir(parents=True)
        notes.mkdir(parents=True)
        ending = "jpg" if name == NAMES[-1] else "png"
        for number in (1, 2, 3):
            Image.fromarray(drawing(name, number)).save(pictures / f"frame{number}.{ending}", quality=95)
        note = {"level": 1, "general_motion_type": f"motion of {name}", "behavior": "walking"}
        (notes / f"{name}.json").write_text(json.dumps(note))
