"""Files of the first versions are still read; clips that they made are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reference import GOLDEN
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.records import read_record
from tooncrafter_jax.sampling.request import Pair, SamplingOptions
from tooncrafter_jax.weights.store import Checkpoint

FORMER = GOLDEN / "former"
PAIR = Pair(FORMER / "a.png", FORMER / "b.png", prompt="a fox", seed=7)


def made(directory: Path, version: str) -> tuple[OutputPlan, Any]:
    """A clip of an earlier version, and what is asked for now."""
    plan = OutputPlan(Path(shutil.copytree(FORMER / version, directory / "out")), ("mp4",))
    return plan, plan.request_of(PAIR, SamplingOptions(steps=5), {"weights": "0123456789abcdef"}, "float32")


def test_a_clip_whose_record_has_format_1_is_done(tmp_path: Path) -> None:
    """Its files are looked at, as the record does not name them, and it knows none of the newer options."""
    plan, request = made(tmp_path, "later")
    assert plan.is_done("fox", lambda: request)
    assert not plan.is_done("fox", lambda: request | {"seed": 8})
    assert not plan.is_done("fox", lambda: request | {"model": {"weights": "another"}})
    (plan.directory / "fox.mp4").write_bytes(b"cut")
    assert not plan.is_done("fox", lambda: request)


@pytest.mark.parametrize("version", ["first", "later"])
def test_what_a_record_of_format_1_stands_beside_is_kept(tmp_path: Path, version: str) -> None:
    """The very first says of the model where it was, not what it was: the clip is made again."""
    plan, request = made(tmp_path, version)
    found, before = read_record(plan.directory / "fox.json"), (plan.directory / "fox.mp4").read_bytes()
    assert found is not None and found.files is None
    assert isinstance(found.request, dict) and found.request["prompt"] == "a fox"
    assert plan.is_done("fox", lambda: request) is (version == "later")
    plan.check_ours("fox")
    video = np.zeros((16, 16, 16, 3), np.uint8)
    plan.write("fox", video, {"format": 2, "request": request, "made_by": {}})
    assert (plan.directory / "fox.earlier.mp4").read_bytes() == before
    assert plan.is_done("fox", lambda: request)


def test_the_first_set_of_clips_is_read() -> None:
    clips = ClipSet(FORMER / "set", "train")
    assert sorted(clip.id for clip in clips) == ["film/0", "film/1"]
    for clip in clips:
        number = int(clip.id[-1])
        assert (clip.caption, clip.fps, clip.scores["motion"]) == (f"fox {number}", 12.0, 1.5)
        pictures = clip.decode()
        assert pictures.shape == (16, 16, 24, 3)
        assert abs(pictures[:, -1, -1].astype(int) - (40 * number + 20)).max() <= 3, "JPEG of a flat ground"


def test_the_first_model_directory_is_read() -> None:
    """The numbers are the places of the parameters' names in their order."""
    checkpoint = Checkpoint(FORMER / "model")
    assert checkpoint.components == ("image_projector",) and checkpoint.provenance == {"converted_from": "model.ckpt"}
    network = checkpoint.config.networks()["image_projector"]
    params = checkpoint.restore_on_host("image_projector", network)
    assert params.keys() == network.abstract_params.keys()
    for number, name in enumerate(sorted(params)):
        np.testing.assert_array_equal(params[name], np.float32(number), err_msg=name)
