"""Which clips are good enough: limits on what was measured, with a version that goes into every record they let
pass.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.options import Option, with_attributes
from tooncrafter_jax.typing import JsonObject

RULES = 1
"""Counts changes of what the thresholds mean; a part of their version."""

LARGEST = 1e300
"""Of a threshold; no score is anywhere near it."""

TOO_SHORT, DUPLICATE, SURPLUS = "too-short", "duplicate", "surplus"


@runtime_checkable
class Measured(Protocol):
    """What thresholds apply to: a clip, or the record of one without its pictures."""

    @property
    def scores(self) -> Mapping[str, float]:
        """By the names of `records.SCORES`; NaN where it was not measured."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One question that a clip is asked.

    Attributes:
      reason: why a clip is dropped, in a word that can be a part of a file name.
      score: the score that is looked at, a name of `records.SCORES`.
      limit: the field of `Thresholds`.
      at_least: whether the limit is the least value, not the largest.
    """

    reason: str
    score: str
    limit: str
    at_least: bool

    def holds(self, value: float, limit: int | float | None) -> bool:
        """Whether a value is within the limit; what was not measured is, and everything is where the limit is None."""
        if limit is None or math.isnan(value):
            return True
        return value >= limit if self.at_least else value <= limit


CRITERIA = (
    Criterion("static", "motion", "min_motion", at_least=True),
    Criterion("text", "text_area", "max_text_area", at_least=False),
    Criterion("low-aesthetic", "aesthetic", "min_aesthetic", at_least=True),
    Criterion("caption-mismatch", "agreement", "min_agreement", at_least=True),
)
"""On scores, in the order in which they are asked (spec section 9)."""

REASONS = {
    TOO_SHORT: "fewer frames than a training clip",
    "static": "less motion than the threshold",
    "text": "more text than the threshold",
    "low-aesthetic": "a lower aesthetic score than the threshold",
    "caption-mismatch": "less agreement of caption and frames than the threshold",
    DUPLICATE: "nearly the same as a clip that is kept",
    SURPLUS: "beyond the number of clips that its split was asked to have",
}
"""Every reason to drop a clip, in the order in which they are looked for."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """The limits; None turns one off, and a score that was not measured never drops a clip.

    The paper gives no numbers. These are starting values after public recipes for other data (spec section 9): look at
    the report's histograms and pictures, and change them.
    """

    min_frames: Annotated[int | None, Option("fewest frames of a clip; the model takes 16")] = 16
    min_motion: Annotated[int | float | None, Option("least mean optical flow, in pixels of a frame 512 wide")] = 1.0
    max_text_area: Annotated[int | float | None, Option("largest share of the picture that text may cover, 0 to 1")] = (
        0.05
    )
    min_aesthetic: Annotated[int | float | None, Option("least aesthetic score, about 1 to 10")] = 4.5
    min_agreement: Annotated[int | float | None, Option("least cosine of caption and frames, -1 to 1")] = 0.2
    max_duplicate_distance: Annotated[
        int | float | None,
        Option("of two clips whose fingerprints differ in at most this share of their bits, one is dropped, 0 to 1"),
    ] = 0.1

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not math.isfinite(value):
                raise UserError(f"the threshold {name} is {value}: give a number, or turn it off")
        for name in ("max_text_area", "max_duplicate_distance"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"the threshold {name} is {value}: it is a share, from 0 to 1")

    @property
    def version(self) -> str:
        """Equal for equal thresholds, and goes into the records, e.g. "1-3f9a60c2d1"."""
        return f"{RULES}-{hashlib.sha256(json.dumps(self.as_json()).encode()).hexdigest()[:10]}"

    def as_json(self) -> dict[str, float | None]:
        """All limits by name."""
        floats = {name: float(value) for name, value in dataclasses.asdict(self).items() if value is not None}
        return {field.name: floats.get(field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: JsonObject) -> Thresholds:
        """The inverse of `as_json`.

        Raises:
          UserError: an unknown name, or a value that is no number.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        limits: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise UserError(f"there is no threshold '{name}': known are {', '.join(sorted(known))}")
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UserError(f"the threshold {name} is {printable(repr(value), 50)}: give a number, or turn it off")
            if value is not None and not abs(value) <= LARGEST:
                raise UserError(f"the threshold {name} is {printable(value, 50)}: give a number, or turn it off")
            limits[name] = value
        frames = limits.get("min_frames", cls.min_frames)
        if frames is not None and frames != int(frames):
            raise UserError(f"the threshold min_frames is {frames}: give a whole number, or turn it off")
        return cls(**{**limits, "min_frames": None if frames is None else int(frames)})

    def reason_to_drop(self, clip: Measured) -> str | None:
        """The first reason of `REASONS` against a clip that follows from it alone, or None."""
        if self.min_frames is not None and len(clip) < self.min_frames:
            return TOO_SHORT
        for criterion in CRITERIA:
            if not criterion.holds(clip.scores[criterion.score], getattr(self, criterion.limit)):
                return criterion.reason
        return None


Thresholds.__doc__ = with_attributes(Thresholds.__doc__, Thresholds)
