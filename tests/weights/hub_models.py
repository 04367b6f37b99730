"""Parts of the tiny model as a repository of the hub has them, and whether what was fetched is one of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from tests.reference import key_list
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.weights.hub_names import HubName
from tooncrafter_jax.weights.rule import make
from tooncrafter_jax.weights.store import Checkpoint

NAME = HubName("owner/name")
"""The repository that the fixture `server` has, with the projector in one file."""
PROJECTOR = "image_proj_model."
TEXT = "cond_stage_model."
IMAGE = "embedder."


@cache
def part(prefix: str, shift: float = 0.0) -> bytes:
    """A file with the tiny model's tensors of this prefix, in half precision."""
    return save(
        {
            name: np.asarray(make(name, shape) + shift, np.float16)
            for name, shape in key_list("tiny/keys.tsv").items()
            if name.startswith(prefix)
        }
    )


def values(directory: Path) -> dict[str, np.ndarray]:
    """The image projector of a directory, as it is stored."""
    return Checkpoint(directory).restore_on_host("image_projector", tiny().networks()["image_projector"])


def is_rule(directory: Path, shift: float = 0.0) -> bool:
    """Whether it is the one of the file."""
    bias = values(directory)["norm_out.bias"]
    expected = np.asarray(make("image_proj_model.norm_out.bias", bias.shape) + shift, np.float16)
    return bias.dtype == np.float16 and bool((bias == expected).all())
