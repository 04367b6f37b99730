"""The true clips of an evaluation: what methods make again, the same in every run (spec section 10)."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, SupportsIndex, TypeVar

import numpy as np

from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.data.transforms import Window, frame_rate, resize_and_crop
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.markup import markdown_code
from tooncrafter_jax.typing import Uint8Video

One = TypeVar("One")
Start = Literal["middle", "first", "motion"]
"""Where in its clip a window lies."""
_PLACES: dict[Start, str] = {"middle": "middle", "first": "beginning", "motion": "part with most motion"}
_SEEDS = 2**32
_MOTION_SIDE = 32
"""Pixels of the small grey frames on which the window of most motion is looked for."""


@dataclass(frozen=True)
class WindowRule:
    """Which frames of a clip are evaluated, and at what size.

    Attributes:
      frames: of a window, the two key frames included.
      height, width: pixels that frames are brought to, as in training (`transforms.resize_and_crop`).
      stride: step between frames; a clip that is too short for it gets the largest one that fits.
      start: `middle` of the clip, its `first` frame, or where the mean difference of successive frames is largest
        (`motion`).
    """

    frames: int = 16
    height: int = 320
    width: int = 512
    stride: int = 1
    start: Start = "middle"

    def __post_init__(self) -> None:
        least = {"frames": 3, "height": 16, "width": 16, "stride": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UserError(f"--{name} is {getattr(self, name)}, but must be at least {number}")

    def window(self, clip: Clip) -> Window:
        """The window of a clip that has at least `frames` frames."""
        stride = min(self.stride, (len(clip) - 1) // (self.frames - 1))
        spare = len(clip) - 1 - (self.frames - 1) * stride
        if self.start == "first" or not spare:
            start = 0
        elif self.start == "middle":
            start = spare // 2
        else:
            start = _start_of_most_motion(clip, self.frames, stride)
        return Window(start, stride, self.frames)


@dataclass(frozen=True)
class TrueClip:
    """One clip to be made again from its first and last frame.

    Attributes:
      id: of the clip in its set.
      source: what must not be in training too.
      video: the true frames.
      prompt: its caption, or "".
      fps: frame rate that a model is conditioned on, floor(source fps / stride) (spec section 8.3).
      seed: of whatever is random, a function of the id alone, so that it is the same for every method, order and
        process.
    """

    id: str
    source: str
    video: Uint8Video
    prompt: str
    fps: int
    seed: int


class TrueSet(Sequence[TrueClip]):
    """True clips in an order of their own, read when they are asked for.

    Attributes:
      left_out: how many there are that cannot be made again.
    """

    left_out: int = 0

    @cached_property
    @abstractmethod
    def ids(self) -> tuple[str, ...]:
        """The clips' ids, in order."""

    @abstractmethod
    def sentence(self) -> str:
        """What they are, for the head of a report, in Markdown."""

    @abstractmethod
    def rule_text(self) -> str:
        """All that decides what is made of the files, as text."""

    def find(self, text: str) -> int:
        """The index of the first clip whose id contains `text`.

        Raises:
          UserError: there is none.
        """
        for index, clip_id in enumerate(self.ids):
            if text in clip_id:
                return index
        raise UserError(f"none of the {len(self)} clips has '{text}' in its id; ids are like '{self.ids[0]}'")

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the clips and with the rule, so that rows of another evaluation are never mixed in."""
        described = "\n".join([self.rule_text(), *self.ids])
        return hashlib.sha256(described.encode(errors="surrogateescape")).hexdigest()


class TrueClips(TrueSet):
    """One window of each clip of a set.

    Args:
      clips: the set; clips with too few frames for a window are left out.
      rule: which frames.
      limit: number of clips that are taken, spread evenly over the set; 0 for all.

    Raises:
      UserError: no clip is long enough, or the set is damaged.
    """

    def __init__(self, clips: ClipSet, rule: WindowRule = WindowRule(), limit: int = 0) -> None:
        check_limit(limit, "clips")
        self.clips, self.rule = clips, rule
        long_enough = [index for index in range(len(clips)) if len(clips[index]) >= rule.frames]
        self.left_out = len(clips) - len(long_enough)
        if not long_enough:
            raise UserError(
                f"no clip of the split '{clips.split}' of '{clips.directory}' has {rule.frames} frames: "
                "give fewer --frames, or another set"
            )
        self._indices = spread(long_enough, limit)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: SupportsIndex) -> TrueClip:  # pyright: ignore[reportIncompatibleMethodOverride]
        clip = self.clips[self._indices[index.__index__()]]
        window = self.rule.window(clip)
        pictures = clip.decode(window.frames)
        return TrueClip(
            id=clip.id,
            source=clip.source,
            video=resize_and_crop(pictures, self.rule.height, self.rule.width),
            prompt=clip.caption,
            fps=max(1, frame_rate(clip.fps, window.stride)),
            seed=seed_of(clip.id),
        )

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The clips' ids, in order."""
        return tuple(self.clips[index].id for index in self._indices)

    def sentence(self) -> str:
        """What they are, for the head of a report, in Markdown."""
        rule, clips = self.rule, self.clips
        left_out = f" {self.left_out} shorter ones were left out." if self.left_out else ""
        return (
            f"{len(self)} clips of the split {markdown_code(clips.split)} of {markdown_code(clips.directory)}: "
            f"{rule.frames} frames of {rule.height}x{rule.width} pixels, stride {rule.stride}, from the "
            f"{_PLACES[rule.start]} of each clip.{left_out}"
        )

    def rule_text(self) -> str:
        """The rule."""
        return repr(self.rule)


def check_limit(limit: int, what: str) -> None:
    """Checks how many of a set are asked for; `what` they are is named in the error.

    Raises:
      UserError: it is negative.
    """
    if limit < 0:
        raise UserError(f"--limit is {limit}, but must be at least 0 (0: all {what})")


def spread(found: list[One], limit: int) -> list[One]:
    """So many of them, spread evenly; all where there are no more, or `limit` is 0."""
    if not 0 < limit < len(found):
        return found
    return [found[index * len(found) // limit] for index in range(limit)]


def seed_of(clip_id: str) -> int:
    """A clip's seed, 0 to 2^32 - 1."""
    return int.from_bytes(hashlib.sha256(clip_id.encode(errors="surrogateescape")).digest()[:4], "big") % _SEEDS


def _start_of_most_motion(clip: Clip, frames: int, stride: int) -> int:
    """The start whose window changes most from frame to frame, the earliest of equals."""
    small = resize_and_crop(clip.decode(), _MOTION_SIDE, _MOTION_SIDE).astype(np.float32).mean(-1)
    steps = np.abs(small[stride:] - small[:-stride]).mean((1, 2))  # from frame i to frame i + stride
    span = (frames - 1) * stride
    sums = [steps[start : start + span : stride].sum() for start in range(len(clip) - span)]
    return int(np.argmax(sums))
