"""Which clips of all sources make up the set, and on which side of it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tooncrafter_jax.curation.duplicates import find_duplicates
from tooncrafter_jax.curation.splits import TEST, TRAIN, VALIDATION, SplitRule, assign
from tooncrafter_jax.curation.thresholds import DUPLICATE, REASONS, SURPLUS, Thresholds
from tooncrafter_jax.curation.workspace import ClipRecord
from tooncrafter_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of every clip.

    Attributes:
      splits: clips of the set by split, each split with at least one.
      dropped: clips that are left out by reason, in the order of `REASONS`.
      same_as: for each near-duplicate the id of the clip that is kept instead.
      version: of the thresholds.
    """

    splits: Mapping[str, Sequence[ClipRecord]]
    dropped: Mapping[str, Sequence[ClipRecord]]
    same_as: Mapping[str, str]
    version: str

    @property
    def num_kept(self) -> int:
        """Number of clips in the set."""
        return sum(map(len, self.splits.values()))

    @property
    def num_dropped(self) -> int:
        """Number of clips that are left out."""
        return sum(map(len, self.dropped.values()))


def decide(clips: Iterable[ClipRecord], thresholds: Thresholds, rule: SplitRule) -> Decision:
    """Judges every clip by the thresholds, then drops near-duplicates, then splits by source.

    The result does not depend on the order of the clips. Of near-duplicates, the one with larger pictures is kept, then
    the longer one, then the one whose id comes first.

    Raises:
      UserError: two clips have one id, or the splits cannot be as large as asked.
    """
    clips = sorted(clips, key=lambda clip: clip.id)
    for one, other in itertools.pairwise(clips):
        if one.id == other.id:
            raise UserError(f"two clips have the id '{one.id}': give their sources different names")
    reasons = {clip.id: reason for clip in clips if (reason := thresholds.reason_to_drop(clip))}

    same_as: dict[str, str] = {}
    if thresholds.max_duplicate_distance is not None:
        good = (clip for clip in clips if clip.id not in reasons)
        preferred = sorted(good, key=lambda clip: (-clip.height * clip.width, -len(clip), clip.id))
        same_as = find_duplicates(((c.id, c.fingerprint) for c in preferred), thresholds.max_duplicate_distance)
        reasons |= dict.fromkeys(same_as, DUPLICATE)

    good = [clip for clip in clips if clip.id not in reasons]
    assignment = assign(rule, Counter(clip.source for clip in good))
    for source, count in assignment.surplus.items():
        of_source = sorted((clip for clip in good if clip.source == source), key=_hash)
        reasons |= {clip.id: SURPLUS for clip in of_source[-count:]}

    splits: dict[str, list[ClipRecord]] = {}
    dropped: dict[str, list[ClipRecord]] = {}
    for clip in clips:
        if clip.id in reasons:
            dropped.setdefault(reasons[clip.id], []).append(clip)
        else:
            splits.setdefault(assignment.split_of[clip.source], []).append(clip)
    return Decision(
        {name: splits[name] for name in (TRAIN, VALIDATION, TEST) if name in splits},
        {reason: dropped[reason] for reason in REASONS if reason in dropped},
        same_as,
        thresholds.version,
    )


def _hash(clip: ClipRecord) -> bytes:
    return hashlib.sha256(clip.id.encode(errors="surrogateescape")).digest()
