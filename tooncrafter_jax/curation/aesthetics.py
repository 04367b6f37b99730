"""How good a clip looks, by a head on CLIP's picture vectors that has learned people's ratings.

The paper uses LAION's predictor. Its head reads the vectors of OpenAI's ViT-L/14, which have 768 numbers; those of the
ViT-H/14 in ToonCrafter's checkpoint have 1024. So a head is used with the CLIP that it was trained on, and both are
files of the user's.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tooncrafter_jax.curation.clip_model import ClipWeights, file_digest, load_clip
from tooncrafter_jax.curation.frames_of_clips import three_frames
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import JsonObject
from tooncrafter_jax.weights.sources import open_source

OFF = "no CLIP weights with an aesthetic head were given, so no clip has an aesthetic score"


@dataclass(frozen=True)
class Aesthetics:
    """Measures the score "aesthetic": the mean over first, middle and last frame (spec section 9), about 1 to 10.

    Attributes:
      clip: the weights of CLIP; for LAION's heads those of OpenAI's ViT-L/14, with `quick_gelu`. Without them, or
        without a head, clips keep the score that they have.
      head: the weights of the head: linear layers one after another, with nothing between them, as LAION's linear and
        "improved" predictors have. (.safetensors, or a PyTorch checkpoint.)
    """

    clip: ClipWeights | None = None
    head: Path | None = None
    name = "aesthetics"

    @property
    def off(self) -> str:
        """Why it measures nothing, in a sentence, or ""."""
        return "" if self.clip is not None and self.head is not None else OFF

    def __call__(self, clip: Clip) -> Clip:
        """The clip with its score.

        Raises:
          UserError: a file cannot be read, or the head belongs to another CLIP.
        """
        if self.clip is None or self.head is None:
            return clip
        model = load_clip(self.clip)
        weight, bias = load_head(self.head)
        if len(weight) != model.width:
            raise UserError(
                f"the aesthetic head '{self.head}' reads {len(weight)} numbers, but '{self.clip.path}' gives "
                f"{model.width} for a picture: use the CLIP that the head was trained on"
            )
        score = model.of_pictures(clip.decode(three_frames(len(clip)))) @ weight + bias
        return replace(clip, scores={**clip.scores, "aesthetic": float(score.mean())})

    def settings(self) -> JsonObject:
        """The weights, or that there are none.

        Raises:
          UserError: a file cannot be read.
        """
        if self.clip is None or self.head is None:
            return {"off": OFF}
        return {**self.clip.settings(), "head": file_digest(self.head)}


@functools.lru_cache(maxsize=2)
def load_head(path: Path) -> tuple[Float32[np.ndarray, "D"], float]:
    """A head as one linear map, which layers without anything between them are.

    Returns:
      Its weights and its bias.

    Raises:
      UserError: the file cannot be read, or its tensors are no such layers.
    """
    source = open_source(path)
    misfit = UserError(
        f"'{path}' is no aesthetic head: it should hold weight and bias of linear layers that end in one number"
    )
    names = sorted((name for name in source.shapes if name.endswith("weight")), key=_numbers)
    if not names or len(source.shapes) != 2 * len(names):
        raise misfit
    weight, bias = np.eye(source.shapes[names[0]][-1]), 0.0
    for name in names:
        layer_bias = name.removesuffix("weight") + "bias"
        shape = source.shapes[name]
        if len(shape) != 2 or shape[1] != len(weight) or source.shapes.get(layer_bias) != shape[:1]:
            raise misfit
        matrix = source.read(name).astype(np.float64)
        weight, bias = matrix @ weight, matrix @ np.broadcast_to(bias, shape[1]) + source.read(layer_bias)
    if len(weight) != 1:
        raise misfit
    return weight[0].astype(np.float32), float(np.asarray(bias)[0])


def _numbers(name: str) -> list[int]:
    """The numbers in a name: layers.10 comes after layers.2."""
    return [int(number) for number in re.findall(r"\d+", name)]
