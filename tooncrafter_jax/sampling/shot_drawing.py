"""Draws a shot: all clips of a level are drawn together, and the frames of one level are the ends of the next one's.

No more is in memory at a time than a batch of clips and the ends of those that come next: the frames of the shot go to
their places at once, and these may lie on a disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import ceil
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import to_uint8
from tooncrafter_jax.io.frames import in_range
from tooncrafter_jax.sampling.finishing import Sample, corrected
from tooncrafter_jax.sampling.frame_room import Room, memory
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.sampling.request_pictures import whole_number
from tooncrafter_jax.sampling.sequence import Layout, Place
from tooncrafter_jax.sampling.shot_film import Film
from tooncrafter_jax.sampling.shot_plan import PlannedClip
from tooncrafter_jax.sampling.shot_preparation import Drawn, PreparedShot
from tooncrafter_jax.sampling.through_keys import Bridge, Source, bridges, options_of_bridges
from tooncrafter_jax.typing import JsonObject, Uint8Clip, Uint8Video

MOST_TOGETHER = 8
"""Clips of a batch for each device, unless a batch size is given: memory grows with them, and speed hardly any more."""

Item = TypeVar("Item")
"""A clip or a bridge."""


@runtime_checkable
class Store(Protocol):
    """Clips of a shot that are kept, so that it can go on."""

    def find(self, requests: Sequence[JsonObject]) -> list[Uint8Video | None]:
        """The clips that were drawn from these requests before."""
        ...

    def keep(self, request: JsonObject, clip: Uint8Video) -> None:
        """Keeps a clip that was drawn from a request."""
        ...


@dataclass(frozen=True)
class _Clip:
    """A clip that can be drawn.

    Attributes:
      gap: number of the gap.
      path: see `Part.path`.
      plan: what it is for.
      first, last: its end frames.
    """

    gap: int
    path: tuple[int, ...]
    plan: PlannedClip
    first: Drawn
    last: Drawn


def draw_shot(
    prepared: PreparedShot,
    options: SamplingOptions,
    sample: Sample,
    *,
    devices: int = 1,
    batch_size: int | None = None,
    store: Store | None = None,
    room: Room = memory,
    on_progress: Callable[[Progress], None] | None = None,
) -> Uint8Clip:
    """Draws a shot.

    Every batch has the same size, so that one program is compiled: what is missing of it is filled with copies of a
    clip, which are thrown away. A clip depends on its own pictures, prompt and seed alone, so neither the batch nor the
    devices change it.

    Args:
      prepared: the shot.
      options: how; must have been checked.
      sample: draws clips.
      devices: how many there are.
      batch_size: clips that are drawn together; by default as many as there are gaps, up to `MOST_TOGETHER` a device.
      store: clips that were drawn before, and where new ones are kept.
      room: where the frames lie.
      on_progress: called after every chunk of steps; `done` and `total` are those of the whole shot.

    Returns:
      uint8 (frames, H, W, 3), or (frames, H, W, 4) of a shot whose opacity is kept.

    Raises:
      UserError: the batch size is no whole number from 1, what was drawn contains NaN, or there is no room.
    """
    if batch_size is not None and whole_number(batch_size, "the batch size") < 1:
        raise UserError(f"the batch size must be at least 1, not {batch_size}")
    size = batch_size or drawn_together([prepared.layout], devices)
    return _Run(prepared, options, sample, size, store, room, on_progress).draw()


def drawn_together(layouts: Iterable[Layout], devices: int) -> int:
    """Clips of a batch, where no number is asked for: one for each gap of the shot that has the most, up to
    `MOST_TOGETHER` a device.
    """
    most = max((sum(gap.clip is not None for gap in layout.gaps) for layout in layouts), default=1)
    return max(1, min(most, MOST_TOGETHER * devices))


def seed_of(seed: int, frames_before: int, path: Sequence[int] = (), kind: int = 0) -> int:
    """The seed of a clip, from the shot's: that of the first clip of the first gap is the shot's own.

    Args:
      seed: of the shot.
      frames_before: from the shot's first key to the gap's, so that a gap keeps its seed where keys after it change.
      path: of the clip; see `Part.path`.
      kind: tells clips of one place apart that are for different ends.
    """
    if not frames_before and not path and not kind:
        return seed
    words = np.random.SeedSequence([seed, 1 + kind, frames_before, 1 + len(path), *path])
    return int(words.generate_state(1, np.uint32)[0])


class _Run:
    """Draws the clips of one shot; see `draw_shot`."""

    def __init__(
        self,
        prepared: PreparedShot,
        options: SamplingOptions,
        sample: Sample,
        size: int,
        store: Store | None,
        room: Room,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._prepared, self._options, self._sample = prepared, options, sample
        self._size, self._store, self._on_progress = size, store, on_progress
        shot, layout = prepared.shot, prepared.layout
        through = shot.options.through_keys
        self._bridges = bridges(layout, options.frames, loop=shot.loop) if through else []
        self._batches_done, self._batches, self._steps = 0, self._count_batches(), 0
        self._film = Film(prepared, options, room)
        height, width = next(iter(prepared.keys.values())).shape[:2]
        self._shape = (options.frames, height, width)
        self._drafts = room((len(self._bridges), *self._shape, 3))
        self._drafted: dict[Source, list[tuple[int, int]]] = {}
        for number, bridge in enumerate(self._bridges):
            self._drafts[number, bridge.middle] = prepared.keys[bridge.key]
            for frame, source in bridge.draft.items():
                self._drafted.setdefault(source, []).append((number, frame))

    def draw(self) -> Uint8Clip:
        """Draws all clips, level by level, and then those through keys; gives the shot."""
        layout, keys = self._prepared.layout, self._prepared.keys
        level = [
            _Clip(number, (), gap.clip, keys[gap.first], keys[gap.last])
            for number, gap in enumerate(layout.gaps)
            if gap.clip is not None
        ]
        while level:
            following: list[_Clip] = []
            for clip, video in self._drawn(level, self._pair, self._options):
                self._take(clip, video)
                following += self._parts(clip, video)
            level = following
        numbered = list(enumerate(self._bridges))
        for (_, bridge), video in self._drawn(numbered, self._bridge_pair, options_of_bridges(self._options)):
            self._film.put({place: video[frame] for place, frame in bridge.shown.items()})
            if not self._prepared.shot.options.exact_keys:
                self._film.put({bridge.key: video[bridge.middle]})
        return self._film.video

    # ------------------------------------------------------------------------------------------------------------ clips

    def _take(self, clip: _Clip, video: Uint8Video) -> None:
        """Puts the frames of a clip where they are shown, and where a clip through a key begins with them."""
        if not clip.path and not self._prepared.shot.options.exact_keys:
            self._film.put(self._decoded_keys(clip.gap, video))
        self._film.put({(clip.gap, number): video[frame] for number, frame in clip.plan.shown.items()})
        for frame in range(1, len(video) - 1):
            for bridge, place in self._drafted.get(Source(clip.gap, clip.path, frame), ()):
                self._drafts[bridge, place] = video[frame]

    def _decoded_keys(self, number: int, video: Uint8Video) -> dict[Place, Drawn]:
        """The keys as the clip of a gap has them: the gap after a key decides, and if that has no clip the one before.

        In whatever order clips come, the same are shown.
        """
        gaps, loop = self._prepared.layout.gaps, self._prepared.shot.loop
        found: dict[Place, Drawn] = {gaps[number].first: video[0]}
        after = gaps[(number + 1) % len(gaps)] if loop or number + 1 < len(gaps) else None
        if after is None:
            found[gaps[number].last] = video[-1]
        elif after.clip is None:
            found[after.first] = video[-1]
        return found

    def _parts(self, clip: _Clip, video: Uint8Video) -> Iterator[_Clip]:
        """The clips between two frames of one. The frames are copied, as the clip is not kept, and shared."""
        ends = {0: clip.first, len(video) - 1: clip.last}
        for part in clip.plan.parts:
            for frame in (part.first, part.last):
                if frame not in ends:
                    ends[frame] = video[frame].copy()
            yield _Clip(clip.gap, part.path(clip.path), part.clip, ends[part.first], ends[part.last])

    def _pair(self, clip: _Clip) -> PreparedPair:
        prepared, layout = self._prepared, self._prepared.layout
        gap = layout.gaps[clip.gap]
        return self._prepared_pair(
            clip.first,
            clip.last,
            self._hints(clip),
            layout.prompt_of(gap, list(clip.plan.places)),
            seed_of(prepared.shot.seed, gap.first - layout.gaps[0].first, clip.path),
        )

    def _bridge_pair(self, numbered: tuple[int, Bridge]) -> PreparedPair:
        number, bridge = numbered
        prepared, layout, draft = self._prepared, self._prepared.layout, self._drafts[number]
        hints = self._empty_hints() if any(place in prepared.hints for place in bridge.shown) else None
        for place, frame in bridge.shown.items():
            if hints is not None and place in prepared.hints:
                hints[frame] = prepared.hints[place]
        gap, drawing = max(bridge.shown)
        pair = self._prepared_pair(
            draft[0],
            draft[-1],
            hints,
            layout.prompt_of(layout.gaps[gap], [drawing]),
            seed_of(prepared.shot.seed, bridge.key - layout.gaps[0].first, kind=1),
        )
        return pair._replace(draft=in_range(draft))

    def _prepared_pair(
        self, first: Drawn, last: Drawn, hints: np.ndarray | None, prompt: str, seed: int
    ) -> PreparedPair:
        shot = self._prepared.shot
        ends = in_range(np.stack([first, last]))
        return PreparedPair(ends, hints, prompt, seed, int(shot.fps), negative_prompt=shot.negative_prompt)

    def _empty_hints(self) -> np.ndarray:
        return np.zeros((*self._shape, 1), np.float32)

    def _hints(self, clip: _Clip) -> np.ndarray | None:
        """The sketches of a clip: on the frame that shows the drawing, or, of a drawing that a part shows, on the
        nearest one that has no sketch of its own.
        """
        given = {number: self._prepared.hints.get((clip.gap, number)) for number in clip.plan.places}
        drawn = {number: hint for number, hint in given.items() if hint is not None}
        if not drawn:
            return None
        hints, taken = self._empty_hints(), set()
        for number in sorted(drawn, key=lambda number: number not in clip.plan.shown):
            frame = clip.plan.shown.get(number)
            if frame is None:
                nearest = round(clip.plan.places[number] * (self._options.frames - 1))
                frame = min(max(nearest, 1), self._options.frames - 2)
            if frame not in taken:
                hints[frame] = drawn[number]
                taken.add(frame)
        return hints

    # ---------------------------------------------------------------------------------------------------------- batches

    def _count_batches(self) -> int:
        gaps = (gap.clip.by_level() for gap in self._prepared.layout.gaps if gap.clip is not None)
        counts = [*(sum(level) for level in zip_longest(*gaps, fillvalue=0)), len(self._bridges)]
        return sum(ceil(count / self._size) for count in counts)

    def _drawn(
        self, items: Sequence[Item], pair_of: Callable[[Item], PreparedPair], options: SamplingOptions
    ) -> Iterator[tuple[Item, Uint8Video]]:
        """All clips of a level, those first that were drawn before.

        Pairs are made when their turn comes, and once more for a store: those of a level together would be the most of
        all that is in memory.
        """
        store, left = self._store, list(items)
        below = self._prepared.background
        if store is not None:
            left = []
            for some in _batches(items, self._size):
                pairs = [pair_of(item) for item in some]
                for item, pair, video in zip(some, pairs, store.find([_request(pair) for pair in pairs]), strict=True):
                    if video is None:
                        left.append(item)
                    else:
                        yield item, corrected(video, pair.ends, options, below)
        self._batches -= ceil(len(items) / self._size) - ceil(len(left) / self._size)
        for some in _batches(left, self._size):
            pairs = [pair_of(item) for item in some]
            filled = pairs + pairs[-1:] * (self._size - len(pairs))
            videos = to_uint8(self._sample(filled, options, self._listener()))[: len(some)]
            self._batches_done += 1
            for item, pair, video in zip(some, pairs, videos, strict=True):
                if store is not None:
                    store.keep(_request(pair), video)
                yield item, corrected(video, pair.ends, options, below)

    def _listener(self) -> Callable[[Progress], None] | None:
        """Counts every batch as many steps as the first: those through keys take fewer or more."""
        if (tell := self._on_progress) is None:
            return None
        before, batches = self._batches_done, max(self._batches, self._batches_done + 1)

        def listen(progress: Progress) -> None:
            self._steps = self._steps or progress.total
            done = before * self._steps + progress.done * self._steps // progress.total
            tell(Progress(done, batches * self._steps, progress.preview))

        return listen


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _request(pair: PreparedPair) -> JsonObject:
    """What a clip is drawn from, as plain values; pictures by checksum."""

    def digest(array: np.ndarray | None) -> str:
        return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

    return {
        "ends": digest(pair.ends),
        "hints": digest(pair.hints),
        "draft": digest(pair.draft),
        "prompt": pair.prompt,
        "negative_prompt": pair.negative_prompt,
        "seed": pair.seed,
        "fps": pair.fps,
    }
