"""Weights, pictures and score maps of the text detector's reference numbers; made from formulas, so they need not be
stored.
"""

from __future__ import annotations

from functools import cache
from math import prod, sqrt

import numpy as np

from tooncrafter_jax.models.network import Network
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo.craft.network import Craft, CraftConfig, Up
from tooncrafter_jax.zoo.craft.weights import counters, name_table

PICTURES = {"padded": (64, 96), "odd": (70, 118)}
"""Name -> height and width; of the second, halves are rounded and maps are enlarged by other factors than two."""
CANVASES = {"enlarged": (37, 52, 1280, 1.5), "limited": (60, 131, 96, 1.5)}
"""Name -> height and width of a picture, and the canvas's size and magnification."""


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor under its published name. What passes through the ReLUs keeps its size, so that the picture is seen at
    the end.
    """
    if name.endswith("num_batches_tracked"):
        return np.asarray(7, np.int64)
    noise = unit_noise(name, shape)
    if len(shape) == 4:
        return noise * np.float32(sqrt(2 / prod(shape[1:])))
    if name.endswith("running_var"):
        return np.float32(1) + np.float32(0.2) * noise
    return np.float32(name.endswith("weight")) + np.float32(0.1) * noise


def pixels(name: str) -> np.ndarray:
    """Normalised pixels, (1, H, W, 3)."""
    height, width = PICTURES[name]
    y, x = np.mgrid[0:height, 0:width] / 9
    waves = np.stack([np.sin(y * (1 + c / 2) + np.cos(x * (2 - c / 3)) + c) for c in range(3)], axis=-1)[None]
    return np.asarray(waves + 0.5 * unit_noise(f"craft.{name}", waves.shape, np.float64), np.float32)


def picture(name: str) -> np.ndarray:
    """A uint8 picture (H, W, 3)."""
    height, width, *_ = CANVASES[name]
    return np.asarray(np.clip(128 + 60 * unit_noise(f"craft.{name}", (height, width, 3)), 0, 255), np.uint8)


def score_maps(seed: int) -> np.ndarray:
    """Region and affinity of words in all directions, some faint, small or close to the edge, (2, 150, 220) float32."""
    random = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:150, 0:220]
    maps = np.zeros((2, 150, 220))

    def draw(layer: int, middle: np.ndarray, radius: float, peak: float) -> None:
        squares = (x - middle[0]) ** 2 + (y - middle[1]) ** 2
        maps[layer] = np.maximum(maps[layer], peak * np.exp(-squares / (2 * radius**2)))

    for _ in range(14):
        angle = random.choice([0.0, random.uniform(-np.pi, np.pi)])
        radius, peak = random.uniform(1.2, 5), random.uniform(0.5, 1.1)
        step = 2.6 * radius * np.asarray([np.cos(angle), np.sin(angle)])
        start = random.uniform((0, 0), (220, 150))
        for i in range(random.integers(1, 7)):
            draw(0, start + i * step, radius, peak * random.uniform(0.8, 1))
            draw(1, start + (i - 0.5) * step, 0.8 * radius, random.uniform(0.3, 1) if i else 0)
    return maps.astype(np.float32)


SMALL = CraftConfig(widths=(2, 3, 4, 5, 6), fc_width=7, ups=(Up(3, 4), Up(4, 3), Up(2, 3), Up(3, 2)), head=(3, 2, 4, 2))
"""A narrow network, whose widths tell its layers apart."""


def tensors(config: CraftConfig = SMALL, *, counted: bool = True) -> dict[str, np.ndarray]:
    """A network's tensors under the published names, in PyTorch's layouts."""
    shapes = _shapes(config)
    found = {name: tensor(name, to.official_shape(shapes[to.path])) for name, to in name_table(config).items()}
    return found | ({name: tensor(name, ()) for name in counters(config)} if counted else {})


@cache
def _shapes(config: CraftConfig) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in Network(Craft, config).abstract_params.items()}
