"""A small CLIP of random weights under OpenCLIP's names, and its forward pass written once more, in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tooncrafter_jax.curation.clip_model import ClipWeights

WIDTH, TEXT_WIDTH, SPACE, LAYERS = 24, 32, 16, 2
IMAGE_HEADS, TEXT_HEADS, SIZE, PATCH = 3, 2, 28, 14


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors by name, without prefix before those of the text tower, and `visual.` before those of the image
    tower.
    """
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, scale: float = 0.2, mean: float = 0.0) -> None:
        found[name] = (mean + scale * random.normal(size=shape)).astype(np.float32)

    def norm(name: str, width: int) -> None:
        add(name + ".weight", width, mean=1.0)
        add(name + ".bias", width)

    def blocks(prefix: str, width: int) -> None:
        for layer in range(LAYERS):
            block = f"{prefix}transformer.resblocks.{layer}."
            for name, rows, columns in (
                ("attn.in_proj_", 3 * width, width),
                ("attn.out_proj.", width, width),
                ("mlp.c_fc.", 4 * width, width),
                ("mlp.c_proj.", width, 4 * width),
            ):
                add(block + name + "weight", rows, columns, scale=1.5 * columns**-0.5)
                add(block + name + "bias", rows)
            norm(block + "ln_1", width)
            norm(block + "ln_2", width)

    add("visual.conv1.weight", WIDTH, 3, PATCH, PATCH, scale=0.05)
    add("visual.class_embedding", WIDTH)
    add("visual.positional_embedding", 1 + (SIZE // PATCH) ** 2, WIDTH)
    norm("visual.ln_pre", WIDTH)
    blocks("visual.", WIDTH)
    norm("visual.ln_post", WIDTH)
    add("visual.proj", WIDTH, SPACE)
    add("token_embedding.weight", 49408, TEXT_WIDTH)
    add("positional_embedding", 77, TEXT_WIDTH)
    blocks("", TEXT_WIDTH)
    norm("ln_final", TEXT_WIDTH)
    add("text_projection", TEXT_WIDTH, SPACE)
    found["logit_scale"] = np.asarray(4.6, np.float32)
    return found


def saved(
    directory: Path, values: dict[str, np.ndarray], name: str = "clip.safetensors", **settings: Any
) -> ClipWeights:
    """A file of these tensors."""
    save_file(values, directory / name)
    return ClipWeights(
        directory / name,
        image_head_width=WIDTH // IMAGE_HEADS,
        text_head_width=TEXT_WIDTH // TEXT_HEADS,
        **settings,
    )


def picture_vector(values: dict[str, np.ndarray], pixels: np.ndarray, quick_gelu: bool) -> np.ndarray:
    """The unit vector of a normalised picture (28, 28, 3)."""
    grid = SIZE // PATCH
    patches = pixels.reshape(grid, PATCH, grid, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(grid * grid, -1)
    x = patches @ values["visual.conv1.weight"].reshape(WIDTH, -1).T
    x = np.concatenate([values["visual.class_embedding"][None], x]) + values["visual.positional_embedding"]
    x = _norm(x, values, "visual.ln_pre")
    x = _blocks(x, values, "visual.", IMAGE_HEADS, quick_gelu, causal=False)
    x = _norm(x[0], values, "visual.ln_post") @ values["visual.proj"]
    return x / np.linalg.norm(x)


def text_vector(values: dict[str, np.ndarray], ids: np.ndarray, quick_gelu: bool) -> np.ndarray:
    """The unit vector of tokenised text (77)."""
    x = values["token_embedding.weight"][ids] + values["positional_embedding"]
    x = _norm(_blocks(x, values, "", TEXT_HEADS, quick_gelu, causal=True), values, "ln_final")
    x = x[ids.argmax()] @ values["text_projection"]  # the end has the largest id
    return x / np.linalg.norm(x)


def _blocks(
    x: np.ndarray, values: dict[str, np.ndarray], prefix: str, heads: int, quick_gelu: bool, *, causal: bool
) -> np.ndarray:
    for layer in range(LAYERS):
        block = f"{prefix}transformer.resblocks.{layer}."
        packed = _linear(_norm(x, values, block + "ln_1"), values, block + "attn.in_proj_")
        queries, keys, contents = (
            part.reshape(len(x), heads, -1).transpose(1, 0, 2) for part in np.split(packed, 3, axis=-1)
        )
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[-1])
        if causal:
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (shares / shares.sum(-1, keepdims=True)) @ contents
        x = x + _linear(attended.transpose(1, 0, 2).reshape(x.shape), values, block + "attn.out_proj.")
        hidden = _linear(_norm(x, values, block + "ln_2"), values, block + "mlp.c_fc.")
        x = x + _linear(_activation(hidden, quick_gelu), values, block + "mlp.c_proj.")
    return x


def _activation(x: np.ndarray, quick_gelu: bool) -> np.ndarray:
    if quick_gelu:
        return x / (1 + np.exp(-1.702 * x))
    from scipy.special import erf

    return x * (1 + erf(x / np.sqrt(2))) / 2


def _linear(x: np.ndarray, values: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ values[name + "weight"].T + values[name + "bias"]


def _norm(x: np.ndarray, values: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * values[name + ".weight"]
        + values[name + ".bias"]
    )
