"""Splits by source: all clips of a film or subject are on one side, so that a test set shows nothing that was trained
on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.options import Option, with_attributes

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """How many clips are held out of training.

    A number below 1 is a share of the clips, which is met as closely as whole sources allow without going beyond; a
    whole number is a count of clips, which is met exactly, by dropping clips of the last source that is taken.
    """

    # The paper holds out 1K of 271K (spec section 9).
    test: Annotated[int | float, Option("clips held out for evaluation: a share below 1, or a count")] = 0.004
    validation: Annotated[
        int | float, Option("clips held out for looking at while training: a share below 1, or a count")
    ] = 0

    def __post_init__(self):
        for name, size in self.sizes().items():
            if not (0 <= size < 1 or size == size // 1 > 0):
                raise UserError(
                    f"the size of the split '{name}' is {size}: give a share from 0 to 1, or a count of clips"
                )
        if sum(size for size in self.sizes().values() if size < 1) >= 1:
            raise UserError("the splits validation and test leave no clips for training: make them smaller")

    def sizes(self) -> dict[str, int | float]:
        """Share or count by split that is held out."""
        return {TEST: self.test, VALIDATION: self.validation}

    def as_json(self) -> dict[str, int | float]:
        """Both sizes by name."""
        return dataclasses.asdict(self)


SplitRule.__doc__ = with_attributes(SplitRule.__doc__, SplitRule)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Where the sources go.

    Attributes:
      split_of: split by source.
      surplus: for a source whose split has more clips than it was asked to have: how many of its clips to drop.
    """

    split_of: Mapping[str, str]
    surplus: Mapping[str, int]


def assign(rule: SplitRule, clips_of: Mapping[str, int]) -> Assignment:
    """Assigns sources to splits.

    Sources are taken in the order of a hash of their names, passing over those that are too large for what is still
    wanted. So the result depends on names and counts alone, and a source that is added moves few others. A held-out
    split has at least one source, the smallest if need be, unless it would be the last one.

    Args:
      rule: sizes of the splits.
      clips_of: number of clips by source, each at least 1.

    Raises:
      UserError: there are fewer clips, or sources, than were asked for.
    """
    left = sorted(clips_of, key=_hash)
    total = sum(clips_of.values())
    split_of: dict[str, str] = {}
    surplus: dict[str, int] = {}
    for split, size in rule.sizes().items():
        if size <= 0:
            continue
        exact = size >= 1
        wanted = int(size) if exact else round(size * total)
        taken: dict[str, None] = {}
        held = 0
        for source in left:
            if held + clips_of[source] <= wanted and len(taken) + 1 < len(left):
                taken[source] = None
                held += clips_of[source]
        others = [source for source in left if source not in taken]
        if ((held < wanted and exact) or not taken) and len(others) > 1:
            enough = [source for source in others if clips_of[source] >= wanted - held] or others
            last = min(enough, key=lambda source: (clips_of[source], _hash(source)))
            taken[last] = None
            held += clips_of[last]
            if exact and held > wanted:
                surplus[last] = held - wanted
        if exact and held < wanted:
            raise UserError(
                f"the split '{split}' should have {wanted} clips, but {len(clips_of)} sources with {total} good clips "
                "cannot "
                "fill it and leave any for training: ask for fewer clips, loosen the thresholds, or give more sources"
            )
        split_of |= dict.fromkeys(taken, split)
        left = [source for source in left if source not in split_of]
    return Assignment(split_of | dict.fromkeys(left, TRAIN), surplus)


def _hash(source: str) -> tuple[bytes, str]:
    return hashlib.sha256(json.dumps(["split", source]).encode()).digest(), source
