"""What the numbers of an architecture can be. A description of a model comes from anybody, and networks are built by
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

LARGEST_INTEGER = 2**16
"""Of every count and width that `LARGEST` does not name; the widest layer of the published model has 5120 features."""
LARGEST: Mapping[str, float] = {
    "height": 2**14,
    "width of the pictures": 2**14,
    "timesteps": 10**5,
    "turning_step": 10**5,
    "vocabulary_size": 2**20,
    "context_length": 2**12,
    "layers": 256,
    "depth": 256,
    "refinement_depth": 256,
    "heads": 1024,
    "blocks_per_level": 32,
    "transformer_depth": 32,
    "multipliers": 256,
    "attention_levels": 32,
    "frames": 2**12,
    "temporal_length": 2**12,
    "queries_per_frame": 2**12,
    "image_size": 2**12,
    "ff_mult": 256,
    "mlp_ratio": 256.0,
    "base_scale": 1e3,
    "scale_factor": 1e6,
}
"""The largest value of a field, several times what any model of this family has."""
BELOW_ONE = ("dropout", "linear_start", "linear_end")
"""Probabilities and variances."""
MOST_LEVELS = 8
"""Of a U-Net or an autoencoder; each halves the resolution."""
MOST_BLOCKS = 1024
"""Residual blocks and transformers of one network; the published denoiser has 41."""
LONGEST_NAME = 200
"""Characters of a model's name."""

Need = Callable[[bool, str], None]
"""Raises an error with the sentence if the condition does not hold."""
Value = int | float | tuple[int | float, ...]
"""A number, numbers or a switch of a config."""


def check_numbers(component: str, values: Mapping[str, Value], need: Need) -> None:
    """Checks every number of a component's config by itself.

    Args:
      component: its name, for messages.
      values: field -> number, numbers, or a switch.
      need: raises the error.
    """
    for key, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        need(len(numbers) <= 2 * MOST_LEVELS, f"{component}.{key} has {len(numbers)} entries, which is too many")
        for number in numbers:
            if isinstance(number, bool):
                continue
            what = f"{component}.{key} is {_shown(value)}"
            need(math.isfinite(number), f"{what}, which is no number")
            if key in BELOW_ONE:
                need(number < 1, f"{what}, which is too large: it must be below 1")
            least = 0 if key in ("attention_levels", "dropout") else 1
            enough = number > 0 if least and isinstance(number, float) else number >= least
            need(enough, f"{what}, which is too small")
            most = LARGEST.get(key, LARGEST_INTEGER)
            need(number <= most, f"{what}, which is too large: it can be {most:,} at most")


def check_pictures(height: int, width: int, need: Need) -> None:
    """Checks the size of the pictures that a model was made for."""
    need(height > 0 and width > 0, f"the size is {_shown(height)} x {_shown(width)} pixels, which is too small")
    for key, number in (("height", height), ("width of the pictures", width)):
        most = LARGEST[key]
        need(number <= most, f"the {key} is {_shown(number)} pixels, which is too large: it can be {most:,} at most")


def check_extent(component: str, levels: int, blocks_per_level: int, transformer_depth: int, need: Need) -> None:
    """Checks that a network of levels is one that can be built."""
    need(levels > 0, f"{component}.multipliers is empty: give a number for each level")
    need(
        levels <= MOST_LEVELS,
        f"{component}.multipliers has {levels} levels, which is too many: give at most {MOST_LEVELS}",
    )
    blocks = (2 * blocks_per_level + 1) * levels * (1 + transformer_depth)
    need(
        blocks <= MOST_BLOCKS,
        f"{component} has about {blocks:,} blocks, which is too many: {MOST_BLOCKS:,} is the limit",
    )


def _shown(value: object) -> str:
    """A number or a few as in a message; integers can have thousands of digits."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
