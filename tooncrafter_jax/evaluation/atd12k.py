"""The test triplets of ATD-12K (Li et al. 2021, "Deep Animation Video Interpolation in the Wild"): the middle drawing
of three, made from the other two.

The set as it is distributed: `test_2k_540p/NAME/frame1.png`, `frame2.png` and `frame3.png` (or .jpg) of 2,000 triplets,
and `test_2k_annotations/NAME/NAME.json` with the kind of motion. The protocol is the one by which the published
ToonCrafter was measured in the open: pictures are squashed to the model's size, the prompt is the kind of motion,
and frame 8 of 16 is compared with the middle drawing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, SupportsIndex

import numpy as np
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch, Metric, Rows
from tooncrafter_jax.evaluation.run import Method, denoiser_flops_of
from tooncrafter_jax.evaluation.true_clips import TrueClip, TrueSet, check_limit, spread
from tooncrafter_jax.io import read_image
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.io.markup import markdown_code
from tooncrafter_jax.typing import HostArray, JsonObject, Uint8Videos

PICTURES, ANNOTATIONS = "test_2k_540p", "test_2k_annotations"
SAMPLING: JsonObject = {
    "solver": "ddim",
    "steps": 50,
    "spacing": "uniform",
    "guidance_scale": 7.5,
    "guidance_rescale": 0.0,
    "eta": 1.0,
}
"""How a model samples unless the request says otherwise."""
METRIC_NAMES = ("psnr", "ssim_grey", "lpips_vgg16")
"""What is measured unless the request says otherwise."""
OF_ONE_FRAME = (*METRIC_NAMES, "ssim", "lpips_alexnet", "cpbd")
"""What can be measured."""
METHOD_KINDS = ("truth", "rival", "model")
"""What can be measured: the others are given true frames, of which a triplet has no more than the middle one."""
SEED, FPS = 123, 10
_MOTION = "general_motion_type"
_ENDINGS = (".png", ".jpg", ".jpeg")
_LARGEST_ANNOTATION = 2**20


class Triplets(TrueSet):
    """The set's test triplets, each a clip of three frames, in the order of their names.

    Args:
      directory: that both folders are in.
      height: pixels that drawings are squashed to, bilinear with antialiasing.
      width: likewise.
      limit: number of triplets that are taken, spread evenly; 0 for all.
      prompts: whether annotations are read.

    Raises:
      UserError: it is no such set.
    """

    def __init__(self, directory: Path, height: int, width: int, limit: int = 0, *, prompts: bool = True) -> None:
        check_limit(limit, "triplets")
        self._directory, self._height, self._width, self._prompts = directory, height, width, prompts
        try:
            found = sorted(entry.name for entry in os.scandir(directory / PICTURES) if entry.is_dir())
        except OSError as error:
            raise UserError(
                f"cannot read '{directory / PICTURES}': {error.strerror}; --atd12k is the directory of ATD-12K, with "
                f"{PICTURES} and {ANNOTATIONS} in it"
            ) from error
        if not found:
            raise UserError(
                f"'{directory / PICTURES}' has no triplets, a folder each with frame1, "
                "frame2 and frame3: name the directory of ATD-12K"
            )
        self._names = tuple(spread(found, limit))

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The triplets' names, in order."""
        return self._names

    def __getitem__(self, index: SupportsIndex) -> TrueClip:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A triplet.

        Raises:
          UserError: a drawing or the annotation is missing, or damaged.
        """
        name = self._names[index.__index__()]
        drawings = [self._drawing(name, f"frame{number}") for number in (1, 2, 3)]
        return TrueClip(name, name, np.stack(drawings), self._prompt(name), FPS, SEED)

    def sentence(self) -> str:
        """What they are, for the head of a report, in Markdown."""
        return (
            f"{len(self)} triplets of ATD-12K, {markdown_code(self._directory)}, squashed to "
            f"{self._height}x{self._width} pixels: of every method's clip, the middle frame is compared with the "
            "middle drawing."
        )

    def rule_text(self) -> str:
        """The size, and whether there are prompts."""
        return f"ATD-12K {self._height}x{self._width}" + ("" if self._prompts else " without prompts")

    def _drawing(self, name: str, stem: str) -> np.ndarray:
        folder = self._directory / PICTURES / name
        path = next((path for ending in _ENDINGS if (path := folder / (stem + ending)).exists()), None)
        if path is None:
            raise UserError(f"the triplet '{folder}' has no {stem}.png or {stem}.jpg: fetch the set again")
        picture = Image.fromarray(read_image(path))
        return np.asarray(picture.resize((self._width, self._height), Image.Resampling.BILINEAR))

    def _prompt(self, name: str) -> str:
        """The kind of motion; empty without prompts."""
        if not self._prompts:
            return ""
        path = self._directory / ANNOTATIONS / name / f"{name}.json"
        try:
            found = read_json(path, _LARGEST_ANNOTATION)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"cannot read the annotation '{path}': {reason}; leave prompts out with --no-prompts, or "
                "fetch the set's annotations"
            ) from error
        motion = found.get(_MOTION) if isinstance(found, dict) else None
        if not isinstance(motion, str):
            raise UserError(
                f"the annotation '{path}' has no text '{_MOTION}': leave prompts out with --no-prompts, or fetch the "
                "set's annotations"
            )
        return motion


class MiddleFrames:
    """Of a method's clips between the outer drawings of triplets, the middle frames.

    Args:
      method: makes whole clips from their ends.
      frames: of these clips.

    Attributes:
      name, title: the method's.
    """

    def __init__(self, method: Method, frames: int) -> None:
        self.name, self.title, self._method, self._frames = method.name, method.title, method, frames

    def settings(self) -> JsonObject:
        """What the frames depend on besides the triplets."""
        return {**self._method.settings(), "frames": self._frames}

    def denoiser_flops(self) -> float | None:
        """The method's, for a whole clip."""
        return denoiser_flops_of(self._method)

    def make(self, clips: Sequence[TrueClip]) -> Uint8Videos:
        """The triplets again, (B, 3, H, W, 3)."""
        whole = []
        for clip in clips:
            first, _, last = clip.video
            ends_alone = np.stack([*[first] * (self._frames - 1), last])
            whole.append(dataclasses.replace(clip, video=ends_alone))
        made = self._method.make(whole)
        return np.stack([made[:, 0], made[:, self._frames // 2], made[:, -1]], axis=1)


class OfMiddleFrames:
    """A metric of single frames, of the middle ones of triplets.

    Args:
      metric: any of `OF_ONE_FRAME`.

    Attributes:
      name, title, better: the metric's.
    """

    name: str
    title: str
    better: Literal["lower", "higher"]

    def __init__(self, metric: Metric) -> None:
        self.name, self.title, self.better, self._metric = metric.name, metric.title, metric.better, metric

    def measure(self, batch: ClipBatch) -> Rows:
        """The metric's rows of clips of one frame."""
        return self._metric.measure(ClipBatch(batch.videos[:, 1:2], batch.truth[:, 1:2], batch.prompts))

    def summarise(self, rows: Rows) -> float:
        """The metric's."""
        return self._metric.summarise(rows)

    def by_frame(self, rows: Rows) -> HostArray | None:
        """None: there is one frame."""
        return None
