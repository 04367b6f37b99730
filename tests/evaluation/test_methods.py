"""A model that is guided by sketches of true frames gets those of its clip, and nothing else changes."""

from typing import Any, cast

import numpy as np
import pytest

from tests.evaluation.small_set import make_set
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.methods import ToonCrafterMethod, TrueSketches
from tooncrafter_jax.evaluation.true_clips import TrueClip, TrueClips, WindowRule
from tooncrafter_jax.models.configuration import preset
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch
from tooncrafter_jax.sketches.extractors import SketchExtractor


class Toon(ToonCrafter):
    """Notes down what it is asked for, and draws grey."""

    def __init__(self, *components: str) -> None:
        super().__init__(preset("tiny"), {name: {} for name in components}, dtype="float32", networks={})
        self.pairs: list[Pair] = []

    def interpolate_pairs(self, pairs: Any, options: Any = None, **_: Any) -> np.ndarray:
        self.pairs += pairs
        return np.full((len(pairs), options.frames, options.height, options.width, 3), 128, np.uint8)


class Darkness:
    """An "extractor" that draws a picture's mean brightness everywhere."""

    def __call__(self, images: Any) -> np.ndarray:
        means = np.asarray(images).mean((1, 2, 3)) / 2 + 0.5
        return np.broadcast_to(means[:, None, None, None], (*images.shape[:3], 1))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[TrueClip]:
    true = TrueClips(make_set(tmp_path_factory.mktemp("set")), WindowRule(16, 64, 64))
    return [true[0], true[1]]


def model(toon: Toon, frames: tuple[int, ...] | None) -> ToonCrafterMethod:
    sketches = None if frames is None else TrueSketches(cast(SketchExtractor, Darkness()), "darkness", frames)
    options = SamplingOptions(frames=16, height=64, width=64)
    return ToonCrafterMethod(toon, "ours", options, sketches=sketches)


def test_sketches_are_of_the_clips_own_frames(clips: list[TrueClip]) -> None:
    guided, free = Toon("sketch_encoder"), Toon("sketch_encoder")
    model(guided, (3, 8)).make(clips)
    model(free, None).make(clips)
    for clip, with_sketches, without in zip(clips, guided.pairs, free.pairs, strict=True):
        assert without.sketches is None and with_sketches.sketches is not None
        assert with_sketches._replace(sketches=None)[2:] == without[2:]
        assert isinstance(with_sketches.sketches, dict) and set(with_sketches.sketches) == {3, 8}
        for frame, sketch in with_sketches.sketches.items():
            assert isinstance(sketch, Sketch) and sketch.dark_lines
            drawn = np.asarray(sketch.image)
            assert drawn.shape == (64, 64, 3) and drawn.dtype == np.uint8
            np.testing.assert_allclose(drawn, clip.video[frame].mean(), atol=1)


def test_settings_tell_what_guides() -> None:
    toon = Toon("sketch_encoder")
    assert model(toon, (8,)).settings()["sketches"] == {"extractor": "darkness", "frames": [8]}
    assert "sketches" not in model(toon, None).settings()


@pytest.mark.parametrize(
    ("components", "frames", "message"),
    [((), (8,), "no sketch encoder"), (("sketch_encoder",), (8, 16), "has 16, but frames are numbered 0 to 15")],
)
def test_what_cannot_be_guided(components: tuple[str, ...], frames: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model(Toon(*components), frames)
