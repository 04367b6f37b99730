"""What everything that draws frames between two pictures has in common: a model, its rivals, and results made
elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.request import DEFAULT_FPS, DEFAULT_SEED
from tooncrafter_jax.typing import JsonObject


@dataclass(frozen=True)
class ClipRequest:
    """A clip to make.

    Attributes:
      id: of the clip, unique in its set, such as "intro/000120-000168".
      first, last: its end frames, RGB, of one size.
      frames: length of the clip, both end frames included.
      prompt, seed, fps: as in `sampling.request.Pair`, for those that listen to them.
    """

    id: str
    first: UInt8[np.ndarray, "_ _ 3"]
    last: UInt8[np.ndarray, "_ _ 3"]
    frames: int = 16
    prompt: str = ""
    seed: int = DEFAULT_SEED
    fps: int = DEFAULT_FPS


@runtime_checkable
class InBetweener(Protocol):
    """Draws clips. What a clip shows depends on its own request alone, not on the batch that it is in.

    Attributes:
      name: its value on the command line and its column in reports, such as "cross_fade".
      title: for reports, such as "cross-fade".
    """

    name: str
    title: str

    def require(self, ids: Sequence[str]) -> None:
        """Finds out before a long run whether these clips can be made: packages, weights, files.

        Raises:
          UserError: if something is missing; says what.
        """
        ...

    def __call__(self, requests: Sequence[ClipRequest]) -> UInt8[np.ndarray, "B T H W 3"]:
        """Draws clips.

        Args:
          requests: at least one, of one size and one length.

        Raises:
          UserError: if the requests differ in size or length, or something is missing.
        """
        ...

    def settings(self) -> JsonObject:
        """Everything that the result depends on besides the requests, as JSON values."""
        ...


class EndFrames(NamedTuple):
    """The pictures of several requests.

    Attributes:
      first, last: of each clip.
      frames: length of every clip.
    """

    first: UInt8[np.ndarray, "B H W 3"]
    last: UInt8[np.ndarray, "B H W 3"]
    frames: int


def end_frames(requests: Sequence[ClipRequest]) -> EndFrames:
    """The pictures of requests, stacked.

    Raises:
      UserError: if they differ in size or length, or clips are shorter than two frames.
      ValueError: if there are no requests.
    """
    if not requests:
        raise ValueError("no clips were requested")
    leader = requests[0]
    for request in requests:
        for picture in (request.first, request.last):
            if picture.shape != leader.first.shape:
                sizes = [f"{width} x {height}" for height, width, _ in (picture.shape, leader.first.shape)]
                raise UserError(
                    f"an end frame of clip '{request.id}' is {sizes[0]} pixels, but that of '{leader.id}' {sizes[1]}: "
                    "clips made together must have one size, so resize them"
                )
        if request.frames != leader.frames:
            raise UserError(
                f"clip '{request.id}' has {request.frames} frames, but '{leader.id}' {leader.frames}: clips made "
                "together must have one length"
            )
    if leader.frames < 2:
        raise UserError(f"clip '{leader.id}' has {leader.frames} frames: it needs at least its two end frames")
    first, last = (np.stack(pictures) for pictures in zip(*((r.first, r.last) for r in requests), strict=True))
    return EndFrames(first, last, leader.frames)


def times(frames: int) -> tuple[float, ...]:
    """When each frame of a clip is: evenly from 0, the first, to 1, the last."""
    return tuple(index / (frames - 1) for index in range(frames))
