"""Modules with the weights of the deterministic rule, and the reference numbers that belong to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tooncrafter_jax.models.clip_image import ClipImage, ClipImageConfig
from tooncrafter_jax.models.clip_text import ClipText, ClipTextConfig
from tooncrafter_jax.models.image_projector import ImageProjector, ImageProjectorConfig
from tooncrafter_jax.weights.official import PREFIXES, LevelLayout, leaf_path, paths_of_components, to_our_layout
from tooncrafter_jax.weights.rule import make, unit_noise

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny"
TOLERANCE = 5e-5
"""Largest difference from the reference, in standard deviations of the reference array."""

TEXT, IMAGE, PROJECTOR = "cond_stage_model.model.", "embedder.model.visual.", "image_proj_model."

M = TypeVar("M", bound=nnx.Module)


class Keys(nnx.Rngs):
    """The least that a constructor may ask of `rngs`: nothing but `params()` works."""

    def __init__(self) -> None:
        """Has no streams."""

    def params(self) -> jax.Array:
        """Always the same key."""
        return jax.random.key(0)


def parameters(module: nnx.Module) -> dict[str, Any]:
    """Parameters, or their shapes, by dotted path."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param))}


def with_values(create: Callable[[], M], value: Callable[[str, tuple[int, ...]], np.ndarray]) -> M:
    """The module that `create` makes, with every parameter replaced by `value` of its path and shape."""
    module = nnx.eval_shape(create)
    for path, leaf in parameters(module).items():
        leaf.set_value(jnp.asarray(value(path, leaf.shape), leaf.dtype))
    return module


def with_rule_weights(create: Callable[[], M], prefix: str) -> M:
    """The module with the published tensors of the tiny model that begin with `prefix`."""
    component = next(name for name, prefixes in PREFIXES.items() if prefix in prefixes)
    our_path = paths_of_components(LevelLayout(), LevelLayout())[component]
    values: dict[str, np.ndarray] = {}
    for line in (GOLDEN / "keys.tsv").read_text().splitlines():
        name, sizes, _ = line.split("\t")
        if name.startswith(prefix):
            shape = tuple(int(size) for size in sizes.split(",") if size)
            path = leaf_path(our_path(name.removeprefix(prefix)), len(shape))
            values[path] = to_our_layout(path, make(name, shape))

    def value(path: str, shape: tuple[int, ...]) -> np.ndarray:
        assert values[path].shape == shape, path
        return values[path]

    return with_values(create, value)


def with_noise(create: Callable[[], M]) -> M:
    """The module with weights of a usual size, for sizes that no reference has."""

    def value(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path.endswith("kernel"):
            return unit_noise(path, shape) * prod(shape[:-1]) ** -0.5
        if path.endswith(("scale", "bias")):
            return unit_noise(path, shape) * 0.1 + path.endswith("scale")
        return unit_noise(path, shape) * 0.5

    return with_values(create, value)


def tiny(component: str) -> dict[str, Any]:
    """A part of the tiny model's configuration."""
    return json.loads((GOLDEN / "config.json").read_text())[component]


@cache
def tiny_text_tower() -> ClipText:
    """The text tower of the tiny model."""
    sizes = tiny("open_clip")["text_cfg"]
    config = ClipTextConfig(
        vocabulary_size=sizes["vocab_size"],
        context_length=sizes["context_length"],
        width=sizes["width"],
        heads=sizes["heads"],
        layers=sizes["layers"],
    )
    return with_rule_weights(lambda: ClipText(config, rngs=nnx.Rngs(0)), TEXT)


@cache
def tiny_image_tower() -> ClipImage:
    """The image tower of the tiny model."""
    sizes = tiny("open_clip")["vision_cfg"]
    config = ClipImageConfig(
        image_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        width=sizes["width"],
        heads=sizes["width"] // sizes["head_width"],
        layers=sizes["layers"],
    )
    return with_rule_weights(lambda: ClipImage(config, rngs=nnx.Rngs(0)), IMAGE)


@cache
def tiny_projector() -> ImageProjector:
    """The image projector of the tiny model."""
    sizes = tiny("image_projector")
    config = ImageProjectorConfig(
        dim=sizes["dim"],
        depth=sizes["depth"],
        head_dim=sizes["dim_head"],
        heads=sizes["heads"],
        queries_per_frame=sizes["num_queries"],
        frames=sizes["video_length"],
        input_dim=sizes["embedding_dim"],
        output_dim=sizes["output_dim"],
        ff_mult=sizes["ff_mult"],
    )
    return with_rule_weights(lambda: ImageProjector(config, rngs=nnx.Rngs(0)), PROJECTOR)


@cache
def _compiled(graph: Any) -> Callable[[Any, jax.Array], jax.Array]:
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x))


def apply(module: nnx.Module, x: Any) -> np.ndarray:
    """The module's output, by a compiled function that is kept for modules of the same structure."""
    graph, state = nnx.split(module)
    return np.asarray(_compiled(graph)(state, jnp.asarray(x)))


@cache
def golden(file: str) -> dict[str, np.ndarray]:
    """The arrays of one file of reference numbers."""
    with np.load(GOLDEN / f"{file}.npz") as arrays:
        return dict(arrays)


def error(ours: Any, reference: np.ndarray) -> float:
    """Largest difference in standard deviations of the reference; arrays of different shape are an error."""
    ours = np.asarray(ours)
    assert ours.shape == reference.shape
    return float(np.abs(ours - reference).max() / reference.std())
