"""Text is found and measured, and things that are none are not taken for it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.curation.film_files import scene
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.curation.text import PpOcrDetector, Text, TextDetector, covered_share
from tooncrafter_jax.data.records import clip_of_pictures

pytest.importorskip("rapidocr", reason="needs the extra 'data'")
pytest.importorskip("onnxruntime", reason="needs the extra 'data'")


class Boxes:
    """Given boxes for pictures by their brightness."""

    name = "boxes"

    def __init__(self, *boxes):
        self.boxes = boxes

    def __call__(self, picture):
        number = round(float(picture.mean()) / 100)
        return np.asarray([self.boxes[number]] if number < len(self.boxes) else [], np.float32).reshape(-1, 4, 2)

    def settings(self):
        return {"boxes": len(self.boxes)}


def box(left: int, top: int, right: int, bottom: int) -> list[tuple[int, int]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def test_boxes_that_overlap_count_once():
    picture = np.zeros((100, 200, 3), np.uint8)
    boxes = np.asarray([box(0, 0, 99, 49), box(50, 0, 149, 49)], np.float32)
    assert covered_share(picture, boxes) == 150 * 50 / 20000
    assert covered_share(picture, boxes[:0]) == 0
    tilted = np.asarray([[(50, 0), (100, 50), (50, 100), (0, 50)]], np.float32)
    assert covered_share(picture, tilted) == pytest.approx(5000 / 20000, rel=0.05)


def test_the_frame_with_most_text_counts():
    pictures = np.stack([np.full((20, 40, 3), level, np.uint8) for level in (0, 200, 100)])
    clip = clip_of_pictures(pictures, fps=2.0, id="a", source="a", scores={"motion": 2.0})
    scores = Text(Boxes(box(0, 0, 9, 19), box(0, 0, 19, 19)))(clip).scores
    assert scores["text_area"] == 0.5 and scores["motion"] == 2.0
    assert Text(Boxes())(clip).scores["text_area"] == 0


def test_the_detector():
    """A line of text over a picture, and things that the bare detector takes for text."""
    picture = np.zeros((192, 300, 3), np.uint8)
    picture[:] = np.linspace(40, 160, 300).astype(np.uint8)[:, None]
    image = Image.fromarray(picture)
    font = ImageFont.load_default(size=24)
    draw = ImageDraw.Draw(image)
    draw.text((30, 150), "Where are we going?", font=font, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    drawn = draw.textbbox((30, 150), "Where are we going?", font=font)
    detector = PpOcrDetector()
    (found,) = detector(np.asarray(image))
    np.testing.assert_allclose([*found.min(0), *found.max(0)], drawn, atol=9)
    moon = Image.new("RGB", (300, 192))
    ImageDraw.Draw(moon).ellipse((80, 20, 230, 170), fill=(200, 220, 240))
    for other in (picture, scene(0, 192, 300), np.asarray(moon)):
        assert len(detector(other)) == 0
    assert len(PpOcrDetector(confidence=0.0, max_height=9.0)(np.asarray(moon))) == 1
    with_text = clip_of_pictures(np.stack([picture, np.asarray(image)]), fps=2.0, id="a", source="a")
    drawn_share = (drawn[2] - drawn[0]) * (drawn[3] - drawn[1]) / (192 * 300)
    assert drawn_share < Text()(with_text).scores["text_area"] < 2 * drawn_share


def test_it_is_a_stage_with_settings():
    stage = pickle.loads(pickle.dumps(Text()))
    assert isinstance(stage, Stage) and isinstance(PpOcrDetector(), TextDetector)
    assert json.loads(json.dumps(stage.settings())) == stage.settings()
    assert str(stage.settings()["weights"]).startswith("rapidocr 3.")
    assert Text(PpOcrDetector(confidence=0.8)).settings() != stage.settings()
