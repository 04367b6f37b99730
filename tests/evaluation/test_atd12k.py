"""ATD-12K: triplets as they are distributed, and what is compared with the middle drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.triplets import NAMES, drawing, write_triplets
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.atd12k import (
    METRIC_NAMES,
    OF_ONE_FRAME,
    SAMPLING,
    MiddleFrames,
    OfMiddleFrames,
    Triplets,
)
from tooncrafter_jax.evaluation.metrics import METRICS, ClipBatch
from tooncrafter_jax.evaluation.metrics.psnr import Psnr
from tooncrafter_jax.evaluation.metrics.ssim import Ssim
from tooncrafter_jax.evaluation.true_clips import TrueClip
from tooncrafter_jax.sampling.request import make_options


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_triplets(tmp_path)
    return tmp_path


class Numbers:
    """Clips whose frames have their number as colour; keeps what it was asked for."""

    name = title = "numbers"

    def __init__(self) -> None:
        self.asked: list[TrueClip] = []

    def settings(self) -> dict[str, Any]:
        return {"own": 1}

    def make(self, clips: Sequence[TrueClip]) -> np.ndarray:
        self.asked += clips
        shape = (len(clips), *clips[0].video.shape)
        return np.broadcast_to(np.arange(shape[1], dtype=np.uint8)[:, None, None, None], shape).copy()


class Counted(Numbers):
    """Knows what it costs."""

    def denoiser_flops(self) -> float:
        return 7.0


def test_a_triplet_is_squashed_and_has_its_kind_of_motion(directory: Path) -> None:
    triplets = Triplets(directory, 20, 64)
    assert triplets.ids == NAMES and len(triplets) == len(NAMES)
    for name, clip in zip(NAMES, triplets, strict=True):
        assert (clip.id, clip.prompt, clip.fps, clip.seed) == (name, f"motion of {name}", 10, 123)
        assert clip.video.shape == (3, 20, 64, 3)
        for frame, number in zip(clip.video, (1, 2, 3), strict=True):
            whole = drawing(name, number)
            for side in (0, -1):  # nothing is cut off, and nothing added
                np.testing.assert_allclose(frame[:, side].mean(0), whole[:, side].mean(0), atol=3)


def test_some_of_them_without_prompts(directory: Path) -> None:
    some = Triplets(directory, 16, 16, 2, prompts=False)
    assert some.ids == (NAMES[0], NAMES[1]) and some[0].prompt == ""
    everything = Triplets(directory, 16, 16)
    assert len({one.fingerprint for one in (some, everything, Triplets(directory, 16, 32))}) == 3
    assert everything.find("v2_three") == 2


def test_a_method_draws_the_clip_between_the_outer_drawings_and_its_middle_is_taken(directory: Path) -> None:
    clips, numbers = list(Triplets(directory, 16, 16)), Numbers()
    middle = MiddleFrames(numbers, 16)
    made = middle.make(clips)
    assert made.shape == (len(clips), 3, 16, 16, 3)
    assert (made == np.asarray([0, 8, 15]).reshape(1, 3, 1, 1, 1)).all()
    for asked, clip in zip(numbers.asked, clips, strict=True):
        assert len(asked.video) == 16 and (asked.prompt, asked.seed) == (clip.prompt, clip.seed)
        np.testing.assert_array_equal(asked.video[[0, -1]], clip.video[[0, -1]])
        assert not any(np.array_equal(frame, clip.video[1]) for frame in asked.video), "the middle is not told"
    assert middle.settings() == {"own": 1, "frames": 16}
    assert middle.denoiser_flops() is None and MiddleFrames(Counted(), 16).denoiser_flops() == 7.0


def test_outer_frames_are_not_measured(directory: Path) -> None:
    truth = np.stack([clip.video for clip in Triplets(directory, 16, 16)])
    made = truth.copy()
    made[:, [0, 2]] = 0
    for metric in (Psnr(), Ssim()):
        rows = OfMiddleFrames(metric).measure(ClipBatch(made, truth, ("",) * len(truth)))
        assert rows[metric.name].shape == (len(truth), 1)
        assert OfMiddleFrames(metric).summarise(rows) == pytest.approx(100.0 if metric.name == "psnr" else 1.0)
        assert OfMiddleFrames(metric).by_frame(rows) is None


def test_the_protocol_is_a_request() -> None:
    options = make_options(SAMPLING)
    assert (options.steps, options.guidance_scale, options.eta, options.guidance_rescale) == (50, 7.5, 1.0, 0.0)
    assert (options.solver, options.spacing) == ("ddim", "uniform")
    assert set(METRIC_NAMES) < set(OF_ONE_FRAME) <= set(METRICS)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: (path / "test_2k_540p").rename(path / "elsewhere"), "--atd12k is the directory of ATD-12K"),
        (lambda path: (path / "test_2k_540p" / NAMES[0] / "frame2.png").unlink(), "has no frame2.png or frame2.jpg"),
        (lambda path: (path / "test_2k_540p" / NAMES[0] / "frame1.png").write_bytes(b"no"), "frame1.png"),
        (lambda path: annotation(path).unlink(), "No such file.*--no-prompts"),
        (lambda path: annotation(path).write_text("[]"), "has no text 'general_motion_type'"),
        (lambda path: annotation(path).write_text('{"general_motion_type": 3}'), "has no text"),
        (lambda path: annotation(path).write_text("{"), "cannot read the annotation"),
    ],
)
def test_what_is_missing_or_damaged_is_said(directory: Path, break_it: Any, message: str) -> None:
    break_it(directory)
    with pytest.raises(UserError, match=message):
        Triplets(directory, 16, 16)[0]


def test_an_empty_set(tmp_path: Path) -> None:
    (tmp_path / "test_2k_540p").mkdir()
    with pytest.raises(UserError, match="has no triplets"):
        Triplets(tmp_path, 16, 16)


def annotation(directory: Path) -> Path:
    return directory / "test_2k_annotations" / NAMES[0] / f"{NAMES[0]}.json"
