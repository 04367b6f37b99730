"""Time sheets as shots: which drawings are keys, which are drawn, how layers lie over one another; and bad sheets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.sampling.narrow import NARROW
from tests.sampling.test_sequence import Blend
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.timesheets import (
    CelFile,
    Exposure,
    Layer,
    Mark,
    TimeSheet,
    layer_of_drawings,
    read_timesheet,
    write_timesheet,
)
from tooncrafter_jax.notes import collected
from tooncrafter_jax.sampling import sheet_shots
from tooncrafter_jax.sampling.request import SamplingOptions, Sketch
from tooncrafter_jax.sampling.sequence import Shot
from tooncrafter_jax.sampling.sheet_drawing import DrawnScene, draw_sheet, options_of_layers
from tooncrafter_jax.sampling.sheet_shots import layers_of_sheet
from tooncrafter_jax.sampling.shot_drawing import draw_shot
from tooncrafter_jax.sampling.shot_preparation import prepare_shot
from tooncrafter_jax.typing import Uint8Clip

SIZE = 64
OPTIONS = SamplingOptions(height=SIZE, width=SIZE, frames=16)
INK, PAINT = (200, 40, 40, 255), (40, 60, 200, 255)


def cel(left: int, colour: tuple[int, int, int, int] = INK) -> np.ndarray:
    """A square on transparency."""
    picture = np.zeros((SIZE, SIZE, 4), np.uint8)
    picture[16:48, left : left + 24] = colour
    return picture


def opaque(value: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def put(directory: Path, **pictures: np.ndarray) -> dict[str, CelFile]:
    """Pictures in files: drawing -> its file."""
    for name, picture in pictures.items():
        Image.fromarray(picture).save(directory / f"{name}.png")
    return {name.rpartition("_")[2]: CelFile(directory / f"{name}.png") for name in pictures}


def draw(
    sheet: TimeSheet,
    template: Shot | None = None,
    options: SamplingOptions = OPTIONS,
    blend: Blend | None = None,
    names: Sequence[str] = (),
    sketches: str | None = None,
) -> DrawnScene:
    """A sheet that is drawn with cross-fades."""
    sample = blend or Blend(shift=0)

    def drawn(shot: Shot, how: SamplingOptions) -> Uint8Clip:
        return draw_shot(prepare_shot(shot, how, NARROW), how, sample)

    layers = layers_of_sheet(sheet, template or Shot({}), names, sketches)
    return draw_sheet(sheet, options_of_layers(layers, options), options, (SIZE, SIZE), drawn)


@pytest.fixture
def marked(tmp_path: Path) -> TimeSheet:
    """Two keys with two in-betweens asked for, on threes; then nothing; then the first again."""
    exposures = (Exposure(0, "1"), Exposure(9, "2"), Exposure(12, None), Exposure(14, "1"))
    marks = (Mark(3, "in-between"), Mark(6, "in-between"))
    cels = put(tmp_path, A_1=opaque(30), A_2=opaque(210))
    return TimeSheet("cut", 16, (Layer("A", exposures, marks, cels=cels),))


def shown(video: np.ndarray) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in video]


def test_marks_ask_for_drawings_and_everything_else_is_held(marked: TimeSheet):
    scene = draw(marked)
    assert shown(scene.video) == [30] * 3 + [90] * 3 + [150] * 3 + [210] * 3 + [255] * 2 + [30] * 2
    (layer,) = scene.drawn().sheet.layers
    assert layer.shown(16) == ["1"] * 3 + ["1a"] * 3 + ["1b"] * 3 + ["2"] * 3 + [None] * 2 + ["1"] * 2
    assert layer.keys() == {0: "1", 9: "2", 14: "1"} and not layer.marks
    assert {name: int(picture[0, 0, 0]) for name, picture in scene.drawn().pictures["A"].items()} == {
        **{"1": 30, "1a": 90, "1b": 150, "2": 210}
    }


def test_what_is_drawn_is_written_and_read_again(marked: TimeSheet, tmp_path: Path):
    scene = draw(marked)
    write_timesheet(tmp_path / "out" / "cut.xdts", *scene.drawn())
    read = read_timesheet(tmp_path / "out" / "cut.xdts")
    assert read.layers == scene.drawn().sheet.layers and set(read.layers[0].cels) == {"1", "1a", "1b", "2"}
    with collected() as said:
        again = draw(read)
    np.testing.assert_array_equal(again.video[:12:3], scene.video[:12:3], err_msg="now all four are keys")
    assert said == [
        "the sheet asks for no in-betweens: all gaps of 'A' are filled, as timing and exposure say",
        "the drawings of the layer 'A' are numbered anew, by their order",  # 1a gets no letter
    ]


def test_a_drawing_without_a_picture_between_marked_keys_is_drawn_under_its_own_name(tmp_path: Path):
    exposures = (Exposure(0, "1", "key"), Exposure(4, "2"), Exposure(8, "3", "key"))
    sheet = TimeSheet("cut", 10, (Layer("A", exposures, cels=put(tmp_path, A_1=opaque(0), A_3=opaque(200))),))
    scene = draw(sheet)
    assert shown(scene.video) == [0] * 4 + [100 + 6] * 4 + [200] * 2, "the nearest frame to the half is 8 of 15"
    assert scene.drawn().sheet.layers[0].exposures == exposures


def test_a_sheet_without_marks_is_filled_as_timing_and_exposure_say(tmp_path: Path):
    layer = layer_of_drawings("A", ["1"] * 8 + ["2"] * 8 + ["3"])
    sheet = TimeSheet("cut", 17, (replace(layer, cels=put(tmp_path, A_1=opaque(0), A_2=opaque(80), A_3=opaque(240))),))
    with collected() as said:
        scene = draw(sheet, Shot({}, exposure={0: 4, None: 2}, timing={0: "halves", None: "linear"}))
    assert len(said) == 1 and "asks for no in-betweens" in said[0]
    (layer,) = scene.drawn().sheet.layers
    assert layer.shown(17)[::2] == ["1", "1", "1a", "1a", "2", "2a", "2b", "2c", "3"]
    frames = shown(scene.video)
    assert frames[0] == 0 and frames[8] == 80 and frames[16] == 240 and frames[4] == frames[7]
    assert frames[9] == frames[8] < frames[10] == frames[11] < frames[12]


def test_a_chart_counts_where_the_sheet_asks_for_as_many_drawings(marked: TimeSheet):
    exposures = (Exposure(0, "1"), Exposure(9, "2"), Exposure(12, "1"))
    sheet = replace(marked, layers=(replace(marked.layers[0], exposures=exposures),))
    with collected() as said:
        scene = draw(sheet, Shot({}, timing="0.1,0.9", exposure=2))
    assert shown(scene.video)[::3] == [30, 53, 198, 210, 30, 30], "steps 2 and 14 of 15; the last is held"
    assert said == ["the sheet asks for in-betweens, and so says how long drawings are held: exposure does not count"]


def test_drawings_without_numbers_are_numbered_anew(tmp_path: Path):
    layer = replace(
        layer_of_drawings("A", ["smile"] * 4 + ["frown"]), cels=put(tmp_path, smile=opaque(0), frown=opaque(80))
    )
    with collected() as said:
        scene = draw(TimeSheet("cut", 5, (layer,)), Shot({}, exposure=2))
    assert scene.drawn().sheet.layers[0].shown(5) == ["1", "1", "2", "2", "3"]
    assert said[-1] == "the drawings of the layer 'A' are numbered anew, by their order"


def layered(tmp_path: Path, visible: bool = True, opacity: float = 1.0) -> TimeSheet:
    """A painting, a cel that moves over it on marked twos, and one that is hidden or half transparent."""
    cels = put(tmp_path, BG_1=opaque(100), A_1=cel(4), A_2=cel(28), B_1=cel(20, PAINT))
    background = Layer("BG", (Exposure(0, "1"),), cels={"1": cels["1"]})
    background = replace(background, cels={"1": CelFile(tmp_path / "BG_1.png")})
    moving = Layer(
        "A",
        (Exposure(0, "1"), Exposure(4, "2")),
        (Mark(2, "in-between"),),
        cels={"1": CelFile(tmp_path / "A_1.png"), "2": CelFile(tmp_path / "A_2.png")},
    )
    upper = Layer("B", (Exposure(2, "1"),), visible=visible, opacity=opacity, cels={"1": CelFile(tmp_path / "B_1.png")})
    return TimeSheet("cut", 6, (background, moving, upper))


def test_layers_lie_over_one_another_and_are_written_with_their_opacity(tmp_path: Path):
    sheet, blend = layered(tmp_path), Blend(shift=0)
    with collected():
        scene = draw(sheet, blend=blend)
    assert scene.video.shape == (6, SIZE, SIZE, 3) and len(blend.pairs) == 1
    at = np.array([(0, 0), (30, 6), (30, 30)])
    np.testing.assert_array_equal(scene.video[0][tuple(at.T)], [[100] * 3, INK[:3], [100] * 3])
    np.testing.assert_array_equal(scene.video[5][tuple(at.T)], [[100] * 3, [100] * 3, PAINT[:3]])
    np.testing.assert_array_equal(scene.video[4], scene.video[5])
    assert [layer.name for layer in scene.drawn().sheet.layers] == ["BG", "A", "B"]
    np.testing.assert_array_equal(scene.drawn().pictures["A"]["2"], cel(28))
    assert scene.drawn().sheet.layers[2].shown(6) == [None, None, *["1"] * 4]


def test_a_result_with_opacity_has_no_paper_below(tmp_path: Path):
    options = replace(OPTIONS, alpha=True)
    with collected():
        scene = draw(layered(tmp_path, opacity=0.5), options=options, names=["A", "B"])
    assert scene.video.shape == (6, SIZE, SIZE, 4)
    np.testing.assert_array_equal(scene.video[0], cel(4))
    assert scene.video[5, 20, 22, 3] == 128 and scene.video[5, 30, 40, 3] == 255, "half alone, and over the other"
    assert scene.drawn().sheet.layers[1].opacity == 0.5
    np.testing.assert_array_equal(scene.drawn().pictures["B"]["1"], cel(20, PAINT))


def test_where_one_layer_asks_for_in_betweens_the_others_are_held(tmp_path: Path):
    sheet = layered(tmp_path)
    other = Layer("C", (Exposure(0, "1"), Exposure(3, "2")), cels=put(tmp_path, C_1=cel(0, PAINT), C_2=cel(9, PAINT)))
    blend = Blend(shift=0)
    with collected() as said:
        scene = draw(replace(sheet, layers=(*sheet.layers[:2], other)), blend=blend)
    assert said[0] == "the sheet asks for in-betweens, but not of 'C': the drawings there are held"
    assert scene.drawn().sheet.layers[2].shown(6) == ["1"] * 3 + ["2"] * 3 and len(blend.pairs) == 1


def test_hidden_layers_are_left_out_unless_they_are_named(tmp_path: Path):
    sheet = layered(tmp_path, visible=False)
    with collected() as said:
        assert [layer.layer.name for layer in layers_of_sheet(sheet, Shot({}))] == ["BG", "A"]
    assert said == ["hidden layers of the sheet are left out, unless they are named: 'B'"]
    assert [layer.layer.name for layer in layers_of_sheet(sheet, Shot({}), ["B"])] == ["B"]


def test_a_layer_of_roughs_guides_the_frames_where_they_begin(tmp_path: Path):
    lines = np.full((SIZE, SIZE, 3), 255, np.uint8)
    lines[30:33, 8:-8] = 0
    cels = put(tmp_path, A_1=opaque(0), A_2=opaque(200), rough_5=lines)
    drawn = Layer("A", (Exposure(0, "1"), Exposure(8, "2")), (Mark(4, "in-between"),), cels=cels)
    rough = Layer("rough", (Exposure(4, "5"),), cels=cels, visible=False)
    blend = Blend(shift=0)
    with collected():
        draw(TimeSheet("cut", 9, (drawn, rough)), blend=blend, sketches="rough")
    (pair,) = blend.pairs
    assert pair.hints is not None and len(np.flatnonzero(pair.hints.any(axis=(1, 2, 3)))) == 1


def test_it_can_be_said_how_a_layer_of_roughs_is_drawn(tmp_path: Path):
    cels = put(tmp_path, A_1=opaque(0), A_2=opaque(200), rough_5=opaque(255))
    drawn = Layer("A", (Exposure(0, "1"), Exposure(8, "2")), cels=cels)
    rough = Layer("rough", (Exposure(4, "5"),), cels=cels, visible=False)
    with collected():
        (layer,) = layers_of_sheet(TimeSheet("cut", 9, (drawn, rough)), Shot({}), sketches="rough", dark_lines=False)
    sketch = (layer.shots()[0].sketches or {})[4]
    assert isinstance(sketch, Sketch) and sketch.dark_lines is False


def test_the_pictures_of_a_layer_are_looked_at_once_for_transparency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with collected():
        layers = layers_of_sheet(layered(tmp_path), Shot({}))
    read: list[object] = []
    monkeypatch.setattr(sheet_shots, "as_picture", lambda picture, what: read.append(picture) or opaque(9))
    assert [how.alpha for _, how in options_of_layers(layers, OPTIONS)] == [False] * len(layers)
    count = len(read)
    options_of_layers(layers, OPTIONS)
    assert len(read) == count == sum(len(layer.pictures()) for layer in layers)


def test_prompts_are_those_of_the_frames_of_each_run(marked: TimeSheet):
    exposures = (*marked.layers[0].exposures, Exposure(18, "2"))
    sheet = replace(marked, duration=20, layers=(replace(marked.layers[0], exposures=exposures),))
    blend = Blend(shift=0)
    marks = (Mark(3, "in-between"), Mark(16, "in-between"))
    sheet = replace(sheet, layers=(replace(sheet.layers[0], marks=marks),))
    draw(sheet, Shot({}, {0: "walks", 12: "runs"}), blend=blend)
    assert [pair.prompt for pair in blend.pairs] == ["walks", "runs"]


def test_a_cropped_picture_lies_where_its_sheet_says(tmp_path: Path):
    cels = put(tmp_path, A_1=np.full((8, 16, 4), INK, np.uint8))
    layer = Layer("A", (Exposure(0, "1"),), cels={"1": CelFile(cels["1"].path, (40, 20))})
    with collected():
        scene = draw(TimeSheet("cut", 2, (layer,), size=(SIZE, SIZE)), options=replace(OPTIONS, alpha=True))
    expected = np.zeros((SIZE, SIZE, 4), np.uint8)
    expected[16:24, 32:48] = INK
    np.testing.assert_array_equal(scene.video[1], expected)


# --- what cannot be drawn ---


def sheet_with(tmp_path: Path, **pictures: np.ndarray) -> TimeSheet:
    """One layer whose drawings are shown for four frames each, the pictures of some."""
    names = ["1", "2", "3"]
    found = put(tmp_path, **{f"A_{name[1:]}": picture for name, picture in pictures.items()})
    layer = layer_of_drawings("A", [name for name in names for _ in range(4)])
    return TimeSheet("cut", 12, (replace(layer, cels=found),))


ALL = {"p1": opaque(0), "p2": opaque(90), "p3": opaque(180)}
BAD: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "missing",
        lambda p: draw(sheet_with(p, p1=opaque(0), p3=opaque(180))),
        "the drawing '2' of the layer 'A', shown from frame 4 on, has no picture beside the sheet: put it there",
    ),
    (
        "missing-key",
        lambda p: draw(_marked(sheet_with(p, p1=opaque(0)), "key", None, "key")),
        "'3' of the layer 'A', shown from frame 8 on, has no picture beside the sheet and is none of the in-betweens",
    ),
    (
        "missing-twice",
        lambda p: draw(_twice(p)),
        "the drawing '2' of the layer 'A' has no picture, and is shown again later",
    ),
    ("no-layer", lambda p: draw(sheet_with(p, **ALL), names=["B"]), "the sheet has no layer 'B': it has 'A'"),
    (
        "empty-layer",
        lambda p: draw(replace(sheet_with(p, **ALL), layers=(Layer("A"),)), names=["A"]),
        "the layer 'A' of the sheet shows nothing: choose another",
    ),
    ("empty-sheet", lambda p: draw(TimeSheet("cut", 4)), "'cut' shows nothing: no layer that is shown has a drawing"),
    (
        "too-long",
        lambda p: draw(replace(sheet_with(p, **ALL), duration=10_001)),
        "the sheet 'cut' has 10,001 frames: at most 10,000 are drawn, so cut it into several",
    ),
    (
        "other-chart",
        lambda p: draw(layered(p), Shot({}, timing="thirds")),
        "the layer 'A' asks for 1 drawing between the frames 0 and 4, but the chart thirds has 2: give that gap a",
    ),
    (
        "gap",
        lambda p: draw(sheet_with(p, **ALL), Shot({}, timing={3: "ease-in"})),
        "a timing for the gap after frame 3, where no gap of the sheet begins: gaps begin at the frames 0, 4",
    ),
    (
        "gap-of-an-open-drawing",
        lambda p: draw(_marked(sheet_with(p, p1=opaque(0), p3=opaque(180)), "key", None, "key"), _timed(4)),
        "a timing for the gap after frame 4, where no gap of the sheet begins: gaps begin at the frames 0",
    ),
    (
        "sketch-outside",
        lambda p: draw(sheet_with(p, **ALL), Shot({}, sketches={12: opaque(255)})),
        "a sketch for frame 12, where the sheet shows nothing: its frames are numbered 0 to 11",
    ),
    (
        "sketch-on-a-key",
        lambda p: draw(sheet_with(p, **ALL), Shot({}, sketches={4: opaque(255)})),
        "the sketch for frame 4 is for a key, which is drawn already: leave it out",
    ),
    (
        "sketch-of-a-hold",
        lambda p: draw(layered(p), Shot({}, sketches={1: opaque(255)}), names=["BG"]),
        "the sketch for frame 1 has nothing to guide: one drawing is held there",
    ),
    (
        "sketch-after",
        lambda p: draw(sheet_with(p, **ALL), Shot({}, sketches={11: opaque(255)})),
        "there is no frame 11 for a sketch: the shot has frames 0 to 8",
    ),
    (
        "sketch-of-several",
        lambda p: draw(layered(p), Shot({}, sketches={1: opaque(255)})),
        "sketches guide one layer, but 3 are drawn ('BG', 'A', 'B'): choose one of them",
    ),
    ("sketch-layer", lambda p: draw(sheet_with(p, **ALL), sketches="rough"), "the sheet has no layer 'rough'"),
    (
        "sketch-itself",
        lambda p: draw(sheet_with(p, **ALL), names=["A"], sketches="A"),
        "the layer 'A' cannot guide itself",
    ),
    (
        "sketch-missing",
        lambda p: draw(_with(sheet_with(p, **ALL), Layer("rough", (Exposure(2, "7"),))), sketches="rough"),
        "the sketch '7' of the layer 'rough', shown from frame 2 on, has no picture beside the sheet",
    ),
    (
        "mixed-shapes",
        lambda p: draw(sheet_with(p, **{**ALL, "p2": opaque(9)[:32]})),
        "A_2.png' is 64 x 32 pixels, ",
    ),
    (
        "invisible",
        lambda p: draw(sheet_with(p, p1=cel(4), p2=np.zeros_like(cel(0)), p3=cel(9)), options=ALPHA),
        "A_2.png' is transparent everywhere: there is nothing to draw from",
    ),
    (
        "opaque",
        lambda p: draw(sheet_with(p, p1=cel(4), p2=opaque(9), p3=cel(9)), options=ALPHA),
        "A_2.png' has no transparent pixels, so there is no opacity to keep",
    ),
    ("chart", lambda p: draw(sheet_with(p, **ALL), Shot({}, timing="quarters", exposure=2)), "leaves room for 1 draw"),
    (
        "prompt",
        lambda p: draw(sheet_with(p, **ALL), Shot({}, prompt={20: "runs"})),
        "the prompt 'runs' is for frame 20 on, but the shot has frames 0 to 11",
    ),
    ("gone", lambda p: draw(_gone(sheet_with(p, **ALL))), "A_2.png' does not exist"),
]
ALPHA = replace(OPTIONS, alpha=True)


def _marked(sheet: TimeSheet, *roles: Any) -> TimeSheet:
    layer = sheet.layers[0]
    exposures = tuple(one._replace(role=role) for one, role in zip(layer.exposures, roles, strict=True))
    return replace(sheet, layers=(replace(layer, exposures=exposures),))


def _timed(frame: int) -> Shot:
    return Shot({}, timing={frame: "ease-in"})


def _twice(directory: Path) -> TimeSheet:
    roles = ("key", None, "key", None, "key")
    layer = layer_of_drawings("A", ["1", "2", "3", "2", "1"])
    exposures = tuple(one._replace(role=role) for one, role in zip(layer.exposures, roles, strict=True))
    cels = put(directory, A_1=opaque(0), A_3=opaque(90))
    return TimeSheet("cut", 5, (replace(layer, exposures=exposures, cels=cels),))


def _with(sheet: TimeSheet, layer: Layer) -> TimeSheet:
    return replace(sheet, layers=(*sheet.layers, layer))


def _gone(sheet: TimeSheet) -> TimeSheet:
    sheet.layers[0].cels["2"].path.unlink()
    return sheet


@pytest.mark.parametrize(("make", "said"), [pytest.param(make, said, id=name) for name, make, said in BAD])
def test_what_cannot_be_drawn_ends_in_a_sentence(make: Callable[[Path], Any], said: str, tmp_path: Path):
    with collected(), pytest.raises(UserError) as caught:
        make(tmp_path)
    assert said in str(caught.value) and not str(caught.value).endswith(".")
