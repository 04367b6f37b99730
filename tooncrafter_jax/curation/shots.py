"""Where one shot of a film ends and the next begins: hard cuts, dissolves, wipes and fades.

A detector watches a film go by in small pictures, and tells the frames that belong to no single shot. What several
detectors find is put together, so a gradual transition that a detector of cuts cannot see is left to another that can.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from tooncrafter_jax.curation.optional import optional
from tooncrafter_jax.typing import HostArray, JsonObject, Picture

WATCHED_SIZE = (144, 256)
"""Height and width that the pictures for detectors cover; 256 columns is what PySceneDetect shrinks a film to."""


@dataclass(frozen=True, order=True)
class Transition:
    """Frames from `start` up to, not including, `stop` belong to no shot; a hard cut before frame n is (n, n)."""

    start: int
    stop: int


@runtime_checkable
class Watch(Protocol):
    """A detector at work on one film."""

    def see(self, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Takes the next frame, uint8 RGB (H, W, 3), in which the film covers `WATCHED_SIZE` or is smaller."""
        ...

    def transitions(self) -> list[Transition]:
        """What was found, in any order; called once, after the last frame."""
        ...


@runtime_checkable
class ShotDetector(Protocol):
    """Finds the ends of shots. Can be sent to other processes; a model is loaded when the first film is watched."""

    name: str
    """In one word, e.g. "content"."""

    def watch(self, fps: float) -> Watch:
        """Begins a film of this many frames a second.

        Raises:
          UserError: something that it needs is not installed.
        """
        ...

    def settings(self) -> JsonObject:
        """Everything that the result depends on, as JSON values."""
        ...


def shots_between(length: int, transitions: Iterable[Transition], trim: int = 0) -> list[tuple[int, int]]:
    """The shots that transitions leave of a film.

    Args:
      length: frames of the film.
      transitions: in any order; they may overlap.
      trim: frames to drop on each side of a transition, where encoders smear one shot into the other.

    Returns:
      First frame and frame after the last of every shot, in order; none is empty.
    """
    shots, start = [], 0
    for transition in sorted(transitions):
        stop = min(transition.start - trim, length)
        if start < stop:
            shots.append((start, stop))
        start = max(start, transition.stop + trim)
    if start < length:
        shots.append((start, length))
    return shots


@dataclass(frozen=True)
class ContentShots:
    """Hard cuts by PySceneDetect's content detector: the mean change of hue, saturation and value between two frames.

    A change beyond the threshold is a cut, unless the drawings around it change about as much: then the camera or the
    things before it move fast. Without that, a chase is all cuts, and its clips, whose motion is the richest, are lost.

    PySceneDetect merges a shot below the shortest length into its neighbour, and so leaves a cut inside that one; here
    such a shot is no shot, and belongs to the transition around it.

    Attributes:
      threshold: change, 0 to 255, from which it is a cut (spec section 9: PySceneDetect's default).
      min_length: frames of the shortest shot (as before).
      times_usual: a cut changes this many times more than the drawings around it do in the middle; 0 for
        PySceneDetect's own rule.
    """

    threshold: float = 27.0
    min_length: int = 15
    times_usual: float = 1.6
    name = "content"

    def watch(self, fps: float) -> Watch:
        """Begins a film."""
        return _ContentWatch(self, fps)

    def settings(self) -> JsonObject:
        """Everything that can be set."""
        return asdict(self)


class _ContentWatch:
    AROUND = 8
    """Frames before and after that a change is compared with."""
    HELD = 3.0
    """A smaller change is noise on a drawing that is held, and tells nothing of how fast things move."""

    def __init__(self, settings: ContentShots, fps: float):
        self._timecode = optional("scenedetect.common", "finding cuts").FrameTimecode
        self._detector = optional("scenedetect.detectors", "finding cuts").ContentDetector(min_scene_len=0)
        self._statistics = optional("scenedetect.stats_manager", "finding cuts").StatsManager()
        self._detector.stats_manager = self._statistics
        self._settings, self._fps = settings, fps
        self._changes: list[float] = []

    def see(self, picture: Picture) -> None:
        time = self._timecode(len(self._changes), self._fps)
        self._detector.process_frame(time, picture[..., ::-1])  # it wants blue first
        (change,) = self._statistics.get_metrics(time, [self._detector.FRAME_SCORE_KEY])
        self._changes.append(float(change or 0.0))

    def _is_cut(self, frame: int) -> bool:
        change = self._changes[frame]
        if change < self._settings.threshold:
            return False
        around = self._changes[max(0, frame - self.AROUND) : frame] + self._changes[frame + 1 : frame + 1 + self.AROUND]
        moving = [one for one in around if one >= self.HELD]
        return not moving or change >= self._settings.times_usual * float(np.median(moving))

    def transitions(self) -> list[Transition]:
        cuts = [frame for frame in range(len(self._changes)) if self._is_cut(frame)]
        borders = [0, *cuts, len(self._changes)]
        short = [
            Transition(start, stop)
            for start, stop in itertools.pairwise(borders)
            if stop - start < self._settings.min_length
        ]
        return [Transition(cut, cut) for cut in cuts] + short


@dataclass(frozen=True)
class GradualShots:
    """Dissolves, fades and wipes: runs of frames that are made of their two ends.

    Between frames a and b of a dissolve, each frame is about (1 - w) a + w b with a growing weight w; in a wipe, each
    place of it is that of a or of b, with w as the share of b. Moving things are neither: in between they are somewhere
    else. A run is a transition where its ends differ in colour and in their edges, and three frames in between are so
    made of them, in order. Lights that go on and off keep their edges, and are none. Pictures are compared at `GRID`,
    where small motion hardly shows.

    Attributes:
      spans: lengths in seconds that are tried; a longer dissolve is found in parts, a shorter one is a cut.
      difference: least mean change of a colour between the ends, 0 to 255; of which one that is blank, as in a fade,
        needs `fade_difference`.
      fade_difference: see there.
      residual: largest distance of a frame in between from the nearest mixture, where that of the ends is 1.
      long_residual: the same for spans from `LONG_SPAN` seconds on, in which slow motion comes near a mixture too.
      wipe_residual: largest distance of a frame in between, in the same measure, from what takes each place from the
        nearer end.
      edges: largest correlation of the ends' edges, -1 to 1.

    The numbers were set on an animated film with eight dissolves and fades and two wipes: they find all ten.
    """

    spans: tuple[float, ...] = (0.27, 0.4, 0.55, 0.8, 1.2, 1.8)
    difference: float = 25.0
    fade_difference: float = 10.0
    residual: float = 0.45
    long_residual: float = 0.3
    wipe_residual: float = 0.2
    edges: float = 0.2
    name = "gradual"

    def watch(self, fps: float) -> Watch:
        """Begins a film."""
        return _GradualWatch(self, fps)

    def settings(self) -> JsonObject:
        """All attributes."""
        return asdict(self) | {"spans": list(self.spans)}


GRID = (18, 32)
"""Rows and columns on which colours are compared."""
EDGE_GRID = (36, 64)
"""Those on which edges are."""
LONG_SPAN = 0.7
"""Seconds; see `GradualShots.long_residual`."""
_BLANK = 4.0  # standard deviation of an even picture's values, with noise
_QUARTERS = (0.25, 0.5, 0.75)
_TENTH = 0.1
_LEAST_STEP = 0.08  # of the weight at the first quarter from 0, and at the last from 1


class _GradualWatch:
    def __init__(self, settings: GradualShots, fps: float):
        self._settings, self._cv2 = settings, optional("cv2", "finding dissolves")
        lengths = {max(4, round(span * fps)): span for span in settings.spans}
        self._spans = [
            (length, settings.residual if span < LONG_SPAN else settings.long_residual)
            for length, span in lengths.items()
        ]
        self._colours: deque[np.ndarray] = deque(maxlen=1 + max(lengths, default=0))
        self._edges: deque[np.ndarray] = deque(maxlen=self._colours.maxlen)
        self._count = 0
        self._found: list[Transition] = []

    def see(self, picture: Picture) -> None:
        resized = self._resized(picture, GRID)
        self._colours.append(resized.astype(np.float32).ravel())
        self._edges.append(self._edges_of(self._resized(picture, EDGE_GRID)))
        for length, residual in self._spans:
            if length < len(self._colours) and self._mixes(length, residual):
                self._found.append(self._narrowed(length))
        self._count += 1

    def transitions(self) -> list[Transition]:
        return self._found

    def _resized(self, picture: np.ndarray, grid: tuple[int, int]) -> HostArray:
        return self._cv2.resize(picture, grid[::-1], interpolation=self._cv2.INTER_AREA)

    def _edges_of(self, picture: np.ndarray) -> Float32[np.ndarray, "N"]:
        grey = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY).astype(np.float32)
        gradients = [self._cv2.Sobel(grey, self._cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))]
        edges = np.concatenate([gradient.ravel() for gradient in gradients])
        return edges / max(float(np.linalg.norm(edges)), 1e-6)

    def _mixes(self, length: int, residual: float) -> bool:
        settings, first, last = self._settings, self._colours[-1 - length], self._colours[-1]
        way = last - first
        difference = float(np.abs(way).mean())
        if difference < settings.fade_difference:
            return False
        if min(first.std(), last.std()) >= _BLANK:
            correlation = float(self._edges[-1 - length] @ self._edges[-1])
            if difference < settings.difference or correlation > settings.edges:
                return False
        squared = float(way @ way)
        weight = _LEAST_STEP
        for quarter in _QUARTERS:
            gone = self._colours[-1 - length + math.floor(quarter * length)] - first
            share = float(gone @ way) / squared
            if not weight < share < 1 - _LEAST_STEP:
                return False
            weight = share
            mixed = gone - share * way
            if float(mixed @ mixed) > residual**2 * squared:
                to_ends = np.square(np.stack([gone, gone - way])).reshape(2, -1, 3).sum(-1)  # of each place
                if float(to_ends.min(0).sum()) > settings.wipe_residual**2 * squared:
                    return False
        return True

    def _narrowed(self, length: int) -> Transition:
        """The frames of such a run, without those at its ends that still, or already, belong to one shot.

        The first and last tenth of the other end are hidden in motion. A straight line through the frames that have
        them reaches 0 and 1 after an eighth of the time between; as dissolves begin softly and wipes in a corner, twice
        that is taken.
        """
        run = np.stack(list(self._colours)[-1 - length :])
        way = run[-1] - run[0]
        shares = (run - run[0]) @ way / float(way @ way)
        start = int(np.flatnonzero(shares > _TENTH)[0])
        stop = int(np.flatnonzero(shares < 1 - _TENTH)[-1]) + 1
        margin = math.ceil(2 * max(stop - start, 1) * _TENTH / (1 - 2 * _TENTH))
        first = self._count - length
        return Transition(first + max(start - margin, 0), first + min(stop + margin, length + 1))
