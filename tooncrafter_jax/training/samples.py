"""Samples while training: what the model makes of some clips, beside the truth.

One clip is made at a time, so that samples take little memory beside the training's state. Its frames are shared by as
many devices as divide them; where none do, every device makes the whole clip, and decodes a few frames at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import prod
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from tooncrafter_jax.data.loader import Loader
from tooncrafter_jax.io import to_uint8, write_contact_sheet, write_mp4
from tooncrafter_jax.models.tooncrafter import FRAMES_AT_A_TIME
from tooncrafter_jax.nn.logical_axes import MeshAxes, axis_rules
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.runtime.distributed import is_main_process
from tooncrafter_jax.training.components import FlatParams
from tooncrafter_jax.training.reporting import Reporter
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.sharding import BATCH_AXES, put_everywhere, step_rows
from tooncrafter_jax.training.stages import Stage
from tooncrafter_jax.training.stages.stage import Batch

CLIPS = 2
FPS = 8.0

Clip = dict[str, np.ndarray]
"""Rows of a batch of one clip."""


class Samples:
    """Samples of a run: always of the first clips of its validation split, or else of what it trains on.

    Args:
      stage: what is trained.
      mesh: of the devices.
      with_hints: adds the sketches to a batch on the devices where they guide the stage.
    """

    def __init__(self, stage: Stage, mesh: Mesh, with_hints: Callable[[Batch], Batch]) -> None:
        self._config, self._mesh, self._with_hints = stage.config, mesh, with_hints
        self._make = make_sampling(stage, mesh)
        self._clips: list[Clip] | None = None

    def write(self, params: FlatParams, step: int, directory: Path, reporter: Reporter) -> None:
        """Writes a video and a contact sheet of each clip into a directory: truth above, the model's below.

        Every process must call it; the first one writes. What is drawn is the stage's choice, see `Stage.sample`.

        Raises:
          UserError: a clip cannot be read.
        """
        if self._clips is None:
            self._clips = first_clips(self._config)
        for number, clip in enumerate(self._clips):
            made = self._make(params, self._with_hints(put_everywhere(clip, self._mesh)))
            if is_main_process():
                frames, name = to_uint8(np.asarray(made)), f"{step:08}-{number}"
                reporter.pictures(step, f"sample/{number}", _write(directory, name, frames, clip["video"][0]))


def _write(directory: Path, name: str, frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Writes a clip's video and contact sheet; the sheet's pictures."""
    chosen = np.linspace(0, frames.shape[0] - 1, min(8, frames.shape[0])).round().astype(int)
    if frames.shape[1:] == truth.shape[1:]:
        sheet = np.concatenate([truth[chosen], frames[chosen]])
    else:
        sheet = frames[chosen]
    write_contact_sheet(directory / f"{name}.png", sheet, columns=len(chosen))
    write_mp4(directory / f"{name}.mp4", frames, FPS)
    return sheet


def first_clips(config: TrainConfig) -> list[Clip]:
    """The first clips of the split that samples are made of, with all conditions: the same on every process.

    Raises:
      UserError: the set is missing or damaged.
    """
    settings = replace(config.data, split=config.validation or config.data.split, batch=CLIPS, embeddings="")
    with Loader.open(replace(settings.evaluation(), num_workers=0, prefetch=0)) as loader:
        batch = next(loader)
    rows = step_rows(batch)
    return [{name: values[i : i + 1] for name, values in rows.items()} for i in range(CLIPS) if batch["valid"][i]]


def make_sampling(stage: Stage, mesh: Mesh) -> Callable[[FlatParams, Batch], Float[Array, "T H W 3"]]:
    """The compiled sampling: (parameters, a batch of one clip) -> its frames (T, H, W, 3) in about [-1, 1], on every
    device.
    """
    rules = sampling_rules(mesh, stage.config.data.frames)
    at_a_time = None if rules["frames"] else FRAMES_AT_A_TIME

    def sample(params: FlatParams, batch: Batch) -> jax.Array:
        with axis_rules(mesh, rules), exact_float32(stage.config.dtype):
            return stage.sample(stage.bound(params), batch, at_a_time)[0]

    return jax.jit(sample, out_shardings=NamedSharding(mesh, PartitionSpec()))


def sampling_rules(mesh: Mesh, frames: int) -> dict[str, MeshAxes]:
    """Meaning of the models' logical axes for one clip: its frames lie over as many devices as divide them.

    Of the axes that share batches and frames while training those are taken whose product divides the frames and is the
    largest; temporal attention trades frames for pixels, as ever. A clip alone gives the axes of a batch nothing to
    share.
    """
    axes = [axis for axis in ("frames", *reversed(BATCH_AXES)) if mesh.shape[axis] > 1]
    choices = [choice for count in range(len(axes) + 1) for choice in combinations(axes, count)]

    def shares(choice: tuple[str, ...]) -> int:
        return prod(mesh.shape[axis] for axis in choice)

    taken = max((choice for choice in choices if frames % shares(choice) == 0), key=shares)
    return {"batch": None, "frames": taken, "pixels": taken}
