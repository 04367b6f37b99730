"""Which of several variants of a clip are kept: measured on their frames alone, without a network.

Four things that are seen at once when an in-between has failed, all in CIE L*a*b*, where 2.3 can just be noticed:

- keys: how far the first and the last frame are from the pictures that were given, the mean over the pixels.
- flicker: how far a frame is from the mean of its neighbours, the median over the pixels that the two pictures share,
  the mean over the frames. What stands still there shows it, and what passes by does not count.
- ghosts: of the pixels that differ between the two pictures, the share that shows a blend of both, the mean over the
  frames between: what fades where it should move. A cross-fade has up to 1.
- unevenness: the largest step from frame to frame, as a multiple of the mean one, less 1: 0 of an even motion, T - 2
  where everything happens at once.

The score is their sum, each in units of what is worth noticing; the lowest wins. It does not depend on the rivals, and
says nothing of what only a person sees: whether a drawing is a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import WHITE, over
from tooncrafter_jax.io.cielab import lab_of_srgb
from tooncrafter_jax.io.frames import AnyFrames, as_bytes
from tooncrafter_jax.io.transparency import over_checks
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.request import Pair, PreparedPair
from tooncrafter_jax.typing import Picture

AnyPair = TypeVar("AnyPair", Pair, PreparedPair)
UNITS = {"keys": 2.3, "flicker": 1.0, "ghosts": 0.1, "unevenness": 1.0}
"""What of each is worth noticing."""
MOST_SAMPLES = 100
"""Variants of a pair that are drawn together."""
SHOWN_FRAMES = 8
"""Of each variant on the sheet of candidates, spread over the clip."""
_STILL, _CHANGED = 3.0, 15.0
"""Difference of the two pictures up to which a pixel stands still, and from which on it changes."""
_LEAST = 0.005
"""Share of the picture that must stand still, or change, to tell anything."""
_BLEND = (0.2, 0.8)
"""Share of the last picture in a pixel that shows both."""
_OFF = 0.25
"""How far a blend may be from the line between both, as a share of their difference."""
_NO_MOTION = 0.05
"""Mean step in L*a*b* below which nothing moves."""


@dataclass(frozen=True)
class Picking:
    """How many variants of each pair are drawn, and how many of them are kept.

    Attributes:
      samples: variants, with seeds counting up, which are drawn together.
      pick: how many are kept, the best first.
    """

    samples: int
    pick: int

    def __post_init__(self) -> None:
        if not 2 <= self.samples <= MOST_SAMPLES:
            raise UserError(
                f"there is nothing to pick from with {self.samples} samples a pair: draw 2 to {MOST_SAMPLES} of them"
                if self.samples < 2
                else f"{self.samples} samples a pair are too many to be drawn together: choose at most {MOST_SAMPLES}"
            )
        if not 1 <= self.pick <= self.samples:
            raise UserError(f"{self.pick} of {self.samples} samples cannot be picked: choose from 1 to {self.samples}")

    def check_number(self, pairs: int) -> None:
        """Raises UserError unless so many pairs are the variants of some, which follow each other."""
        if pairs % self.samples:
            raise UserError(
                f"{pairs} clips are not {self.samples} variants of each pair: give each pair {self.samples} times, one "
                "after another, with seeds of their own"
            )

    def variants(self, pair: AnyPair) -> list[AnyPair]:
        """A pair so many times, with seeds counting up."""
        return [pair._replace(seed=pair.seed + number) for number in range(self.samples)]


class Judgement(NamedTuple):
    """What is measured of a variant, of which less is better; see the module."""

    keys: float
    flicker: float
    ghosts: float
    unevenness: float

    @property
    def score(self) -> float:
        """The sum of all, each in its unit."""
        return sum(getattr(self, name) / unit for name, unit in UNITS.items())


class Candidate(NamedTuple):
    """A variant that was judged.

    Attributes:
      number: of the variant, from 0.
      seed: that it was drawn with.
      judgement: of its frames.
      rank: 1 is the best.
      is_kept: whether it is picked.
    """

    number: int
    seed: int
    judgement: Judgement
    rank: int
    is_kept: bool

    def plain(self) -> dict[str, object]:
        """As a record says it."""
        values = {name: round(value, 4) for name, value in self.judgement._asdict().items()}
        score = round(self.judgement.score, 4)
        return {"seed": self.seed, "rank": self.rank, "kept": self.is_kept, "score": score, **values}


def judged(frames: AnyFrames, first: Picture, last: Picture | None) -> Judgement:
    """Measures a clip.

    Args:
      frames: uint8 (T, H, W, 3), at least 3, or (T, H, W, 4), which is judged over white.
      first: the first picture, (H, W, 3).
      last: the last one; None: nothing is known of the last frame, and there are no ghosts.
    """
    lab = lab_of_srgb(np.stack([over(frame, WHITE) for frame in frames]))
    begin, end = lab_of_srgb(first), None if last is None else lab_of_srgb(last)
    away = [_apart(lab[0], begin).mean()] + ([] if end is None else [_apart(lab[-1], end).mean()])
    steps = _apart(lab[1:], lab[:-1]).mean((1, 2))
    mean = float(steps.mean())
    return Judgement(
        keys=float(np.mean(away)),
        flicker=_flicker(lab, begin, end),
        ghosts=0.0 if end is None else _ghosts(lab, begin, end),
        unevenness=float(steps.max()) / mean - 1 if mean > _NO_MOTION else 0.0,
    )


def picked(
    clips: Sequence[AnyFrames], variants: Sequence[PreparedPair], picking: Picking, name: str = ""
) -> list[Candidate]:
    """Ranks the variants of a pair, and says on one line of each what was measured, and whether it is kept.

    Args:
      clips: the finished variants.
      variants: what they were drawn from.
      picking: how many are kept.
      name: of the clip, for the lines.

    Returns:
      The candidates, the best first; of equal ones the one that was drawn first.
    """
    judgements = [judged(clip, *_keys_of(pair)) for clip, pair in zip(clips, variants, strict=True)]
    order = sorted(range(len(clips)), key=lambda number: judgements[number].score)
    found = [
        Candidate(number, variants[number].seed, judgements[number], rank, rank <= picking.pick)
        for rank, number in enumerate(order, 1)
    ]
    for one in found:
        note(f"{name + ': ' if name else ''}{described(one)}, {'kept' if one.is_kept else 'not kept'}")
    return found


def picked_clips(clips: Sequence[AnyFrames], pairs: Sequence[PreparedPair], picking: Picking) -> list[AnyFrames]:
    """The picked clips of several pairs, whose variants follow each other; of each pair the best first.

    Raises:
      UserError: there are not as many of each.
    """
    picking.check_number(len(clips))
    kept = []
    for start in range(0, len(clips), picking.samples):
        own = slice(start, start + picking.samples)
        name = "" if len(clips) == picking.samples else f"pair {start // picking.samples}"
        kept += [clips[start + one.number] for one in picked(clips[own], pairs[own], picking, name) if one.is_kept]
    return kept


def described(candidate: Candidate) -> str:
    """A candidate in words."""
    of = candidate.judgement
    return (
        f"seed {candidate.seed} is number {candidate.rank} with a score of {of.score:.2f} (keys {of.keys:.2f}, flicker "
        f"{of.flicker:.2f}, ghosts {100 * of.ghosts:.0f} %, unevenness {of.unevenness:.2f})"
    )


def candidate_sheet(
    clips: Sequence[AnyFrames], found: Sequence[Candidate]
) -> tuple[UInt8[np.ndarray, "shown H W 3"], int, list[str]]:
    """The frames of a contact sheet of all candidates, the best first: a row each.

    Returns:
      The frames over white or checks, how many a row has, and a label for each.
    """
    count = len(clips[0])
    places = np.unique(np.linspace(0, count - 1, min(SHOWN_FRAMES, count)).round().astype(int))
    rows = [over_checks(clips[one.number][places]) for one in found]
    labels = []
    for one in found:
        of = one.judgement
        told = [
            f"{one.rank}. seed {one.seed}" + (": kept" if one.is_kept else ""),
            f"score {of.score:.2f}",
            f"keys {of.keys:.2f}",
            f"flicker {of.flicker:.2f}",
            f"ghosts {100 * of.ghosts:.0f} %",
            f"uneven {of.unevenness:.2f}",
        ]
        labels += (told + [""] * len(places))[: len(places)]
    return np.concatenate(rows), len(places), labels


def _keys_of(pair: PreparedPair) -> tuple[Picture, Picture | None]:
    if pair.cels is None:
        first, last = as_bytes(pair.ends)
    else:
        first, last = (over(picture, WHITE) for picture in pair.cels.pictures)
    return first, None if pair.open_end else last


def _flicker(lab: np.ndarray, begin: np.ndarray, end: np.ndarray | None) -> float:
    still = np.ones(begin.shape[:2], bool) if end is None else _apart(begin, end) <= _STILL
    if still.mean() < _LEAST:
        still = np.ones_like(still)
    away = _apart(lab[1:-1], (lab[:-2] + lab[2:]) / 2)
    return float(np.mean([np.median(one[still]) for one in away]))


def _ghosts(lab: np.ndarray, begin: np.ndarray, end: np.ndarray) -> float:
    changed = _apart(begin, end) >= _CHANGED
    if changed.mean() < _LEAST:
        return 0.0
    start, way = begin[changed], (end - begin)[changed]
    length = np.sqrt((way**2).sum(-1))
    shares = []
    for frame in lab[1:-1]:
        gone = frame[changed] - start
        share = (gone * way).sum(-1) / length**2
        off = np.sqrt(((gone - share[:, None] * way) ** 2).sum(-1))
        shares.append(((share > _BLEND[0]) & (share < _BLEND[1]) & (off <= _OFF * length)).mean())
    return float(np.mean(shares))


def _apart(one: np.ndarray, other: np.ndarray) -> Float32[np.ndarray, "*shape"]:
    return np.sqrt(((one - other) ** 2).sum(-1))
