"""CRAFT's boxes are those of the published post-processing, and lie where the words are in the picture."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.reference import GOLDEN
from tests.zoo.craft_inputs import CANVASES, picture, score_maps, tensors
from tooncrafter_jax.curation.craft_detector import CraftDetector, on_canvas, text_boxes
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.curation.text import Text, TextDetector
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.zoo.craft.network import CraftConfig, Up

pytest.importorskip("cv2", reason="needs the extra 'data'")

PUBLISHED = {"text_threshold": 0.7, "low_text": 0.4, "link_threshold": 0.4}


def golden(name: str) -> np.ndarray:
    with np.load(GOLDEN / "craft" / "craft.npz") as arrays:
        return arrays[name]


@pytest.mark.parametrize("seed", range(3))
def test_boxes_equal_the_reference(seed: int) -> None:
    """Numbers of easyocr 1.7.2, made by tests/golden/craft/make.py; the same steps of OpenCV give the same corners."""
    expected = golden(f"boxes_{seed}")
    assert len(expected) >= 7
    np.testing.assert_allclose(text_boxes(*score_maps(seed), **PUBLISHED), expected, atol=1e-3)


@pytest.mark.parametrize("name", CANVASES)
def test_canvases_equal_the_reference(name: str) -> None:
    """Numbers of easyocr 1.7.2; resizing ends in whole numbers, so that a float32's last bit is all that may differ."""
    canvas, ratio = on_canvas(picture(name), *CANVASES[name][2:])
    assert ratio == pytest.approx(float(golden(f"ratio_{name}")), rel=1e-12)
    np.testing.assert_allclose(canvas[::3, ::3], golden(f"canvas_{name}"), atol=1e-5)


Rectangle = tuple[int, int, int, int, float]
"""Left, top, right and bottom cell, and a score."""


def score_map(rectangles: Iterable[Rectangle]) -> np.ndarray:
    scores = np.zeros((60, 90), np.float32)
    for left, top, right, bottom, score in rectangles:
        scores[top : bottom + 1, left : right + 1] = score
    return scores


def boxes(characters: Iterable[Rectangle], links: Iterable[Rectangle] = (), **changes: float) -> list[list[float]]:
    """Left, top, right and bottom of each word's box."""
    found = text_boxes(score_map(characters), score_map(links), **(PUBLISHED | changes))
    return [[*box.min(0), *box.max(0)] for box in found]


A, B = (20, 20, 29, 29, 0.9), (40, 20, 49, 29, 0.8)
GAP = (30, 24, 39, 25, 0.5)


def test_characters_that_are_linked_are_one_word() -> None:
    assert len(boxes([A, B])) == 2
    ((left, top, right, bottom),) = boxes([A, B], [GAP])
    assert left < 20 and right > 49 and top < 20 and bottom > 29
    assert len(boxes([A, B], [(30, 24, 38, 25, 0.5)])) == 2  # the link does not reach the other
    assert len(boxes([A, B], [(*GAP[:4], 0.39)])) == 2
    assert len(boxes([A, B], [(*GAP[:4], 0.39)], link_threshold=0.3)) == 1


def test_links_join_words_but_do_not_widen_them() -> None:
    """The box is around the characters: a link that runs on behind the last is no part of it."""
    ((_, _, right, _),) = boxes([A], [(30, 24, 70, 25, 0.9)])
    assert 29 <= right < 45
    assert boxes([], [(30, 24, 70, 25, 0.9)]) == []  # no character at all


def test_low_scores_and_specks_are_dropped() -> None:
    assert boxes([(*A[:4], 0.69)]) == []
    assert len(boxes([(*A[:4], 0.69)], text_threshold=0.65)) == 1
    faint = (20, 20, 49, 29, 0.45)
    assert len(boxes([faint])) == 0 and len(boxes([faint, A])) == 1  # a faint word with a sure character
    assert boxes([faint, A])[0][2] > 49 > boxes([faint, A], low_text=0.5)[0][2]
    assert boxes([(20, 20, 22, 22, 0.9)]) == [] and len(boxes([(20, 20, 24, 21, 0.9)])) == 1  # 9 and 10 cells
    assert len(boxes([A, (30, 30, 39, 39, 0.9)])) == 2  # what touches at a corner is not connected


def test_a_character_is_grown_to_its_edge() -> None:
    """By half of `int(2 sqrt(area min(w, h) / (w h)))`, here int(2 sqrt(10)) = 6: three cells in each direction."""
    assert boxes([A]) == [[17, 17, 32, 32]]
    assert boxes([(0, 0, 9, 9, 0.9)]) == [[0, 0, 12, 12]]


def test_a_tilted_word_has_a_tilted_box() -> None:
    y, x = np.mgrid[0:60, 0:90]
    along, across = (x - 45) * 0.8 + (y - 30) * 0.6, (x - 45) * -0.6 + (y - 30) * 0.8
    word = ((np.abs(along) <= 25) & (np.abs(across) <= 5)).astype(np.float32)
    (box,) = text_boxes(word, np.zeros_like(word), **PUBLISHED)
    sides = box - np.roll(box, 1, 0)
    lengths = np.linalg.norm(sides, axis=1)
    longest = sides[lengths.argmax()] / lengths.max()
    assert np.abs(longest @ (0.8, 0.6)) > 0.99
    assert 50 < lengths.max() < 62 and 10 < lengths.min() < 22
    np.testing.assert_allclose(box.mean(0), (45, 30), atol=1)
    assert box.sum(1).argmin() == 0
    turns = [np.cross(np.append(sides[i], 0), np.append(sides[(i + 1) % 4], 0))[2] for i in range(4)]
    assert min(turns) > 0  # clockwise, as y goes down


# --- the whole detector, with a network that sees green as characters and blue as links ---

COLOURS = CraftConfig(
    widths=(3, 2, 2, 2, 2), fc_width=1, ups=(Up(1, 1), Up(1, 1), Up(1, 1), Up(2, 2)), head=(2, 2, 2, 2)
)
GREEN, BLUE = (0, 255, 0), (0, 0, 255)


def colour_tensors() -> dict[str, np.ndarray]:
    """All zero but a way for green and blue: through the first level, the finest skip, the last block and the head."""
    values = {name: np.zeros_like(value) for name, value in tensors(COLOURS).items()}
    for name in values:
        stem, _, leaf = name.rpartition(".")
        if leaf == "running_var":
            values[name] = values[name] + 1
            values[f"{stem}.weight"] = values[f"{stem}.weight"] + 1

    def pass_on(name: str, inputs: tuple[int, int], factor: float = 1.0) -> None:
        kernel = values[f"{name}.weight"]
        for output, channel in enumerate(inputs):
            kernel[output, channel, kernel.shape[2] // 2, kernel.shape[3] // 2] = factor

    pass_on("basenet.slice1.0", (1, 2))
    for number in (3, 7, 10):
        pass_on(f"basenet.slice1.{number}", (0, 1))
    pass_on("upconv4.conv.0", (1, 2))  # behind the one channel from below
    pass_on("upconv4.conv.3", (0, 1))
    for number in (0, 2, 4, 6):
        pass_on(f"conv_cls.{number}", (0, 1))
    pass_on("conv_cls.8", (0, 1), 0.4)  # full brightness is about 2.5 deviations above the mean
    return values


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> CraftDetector:
    path = tmp_path_factory.mktemp("craft") / "colours.safetensors"
    save_file(colour_tensors(), path)
    return CraftDetector(path, COLOURS)


def painted(*rectangles: tuple[int, int, int, int, tuple[int, int, int]], height: int = 120, width: int = 200):
    canvas = np.zeros((height, width, 3), np.uint8)
    for left, top, right, bottom, colour in rectangles:
        canvas[top:bottom, left:right] = colour
    return canvas


WORD = ((40, 40, 80, 60, GREEN), (100, 40, 140, 60, GREEN))
JOINT = (78, 46, 102, 54, BLUE)


def test_words_are_found_where_they_are_in_the_picture(detector: CraftDetector) -> None:
    """In pixels of the picture, whether it was enlarged or not; the published growth adds about a third of the
    height.
    """
    assert len(detector(painted())) == 0
    assert len(detector(painted(*WORD))) == 2
    for size, magnification in ((1280, 1.5), (160, 1.5)):
        (box,) = replace(detector, canvas_size=size, magnification=magnification)(painted(*WORD, JOINT))
        assert box.dtype == np.float32
        cell = 2 * 200 / min(size, 200 * magnification)
        grown = np.asarray([*box.min(0), *box.max(0)]) - (40, 40, 140, 60)
        assert (np.abs(grown[:2] - grown[2:] * (-1)) <= 2 * cell).all(), grown  # as much on either side
        assert (grown[2:] > 0).all() and (grown[2:] < 10 + cell).all(), grown


def test_the_share_of_a_clip(detector: CraftDetector) -> None:
    clip = clip_of_pictures(np.stack([painted(), painted(*WORD, JOINT)]), fps=2.0, id="a", source="a")
    drawn = 100 * 20 / (120 * 200)
    assert drawn < Text(detector)(clip).scores["text_area"] < 2 * drawn


def test_it_is_a_stage_with_settings(detector: CraftDetector, tmp_path: Path) -> None:
    stage = pickle.loads(pickle.dumps(Text(detector)))
    assert isinstance(stage, Stage) and isinstance(detector, TextDetector)
    settings = dict(stage.settings())
    assert json.loads(json.dumps(settings)) == settings and settings["detector"] == "craft"
    changes = {"text_threshold": 0.6, "low_text": 0.3, "link_threshold": 0.3, "canvas_size": 640, "magnification": 1.0}
    for name, value in changes.items():
        assert Text(replace(detector, **{name: value})).settings() == settings | {name: value} != settings
    save_file(colour_tensors() | {"conv_cls.8.bias": np.ones(2, np.float32)}, tmp_path / "other.safetensors")
    assert Text(CraftDetector(tmp_path / "other.safetensors", COLOURS)).settings() != settings
    with pytest.raises(UserError, match="cannot be read"):
        CraftDetector(tmp_path / "missing.safetensors").settings()
