"""Draws a shot: its keys are read once, then all clips of a level are drawn together, and the frames of one level are
the ends of the next one's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import WHITE, fit_image, over, to_uint8
from tooncrafter_jax.io.backgrounds import AUTO, colour_named
from tooncrafter_jax.io.cels import CelKeys, cel_keys
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.finishing import corrected
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import Pair, PreparedPair, SamplingOptions, tell_texts
from tooncrafter_jax.sampling.request_pictures import (
    as_picture,
    name_of,
    note_cut,
    note_transparency,
    prepare_hint,
    same_shape,
    whole_number,
)
from tooncrafter_jax.sampling.sequence import MOST_VALUES, Layout, Shot, lay_out
from tooncrafter_jax.sampling.shot_plan import PlannedClip
from tooncrafter_jax.sampling.through_keys import (
    LEAST_STEPS,
    REDRAWN_SHARE,
    Bridge,
    DrawnFrame,
    bridges,
    has_room,
    joints,
)
from tooncrafter_jax.typing import HostVideos, JsonObject, Uint8Clip, Uint8Video

MOST_TOGETHER = 8
"""Clips of a batch for each device, unless a batch size is given: memory grows with them, and speed hardly any more."""

Place = TypeVar("Place")
Drawn = UInt8[np.ndarray, "H W 3"]
Sample = Callable[[Sequence[PreparedPair], SamplingOptions, Callable[[Progress], None] | None], HostVideos]
"""Draws prepared pairs together, as `ToonCrafter.sample_prepared`."""


@runtime_checkable
class Store(Protocol):
    """Clips of a shot that are kept, so that it can go on."""

    def find(self, requests: Sequence[JsonObject]) -> list[Uint8Video | None]:
        """The clips that were drawn from these requests before."""
        ...

    def keep(self, request: JsonObject, clip: Uint8Video) -> None:
        """Keeps a clip that was drawn from a request."""
        ...


class PreparedShot(NamedTuple):
    """A shot as arrays.

    Attributes:
      shot: as it was asked for.
      layout: of it.
      keys: frame -> picture, of the result's size.
      hints: (gap, number of a drawing) -> its sketch (H, W, 1) in [0, 1].
      cels: the keys with their opacity, where that is kept; `keys` are those over its background.
    """

    shot: Shot
    layout: Layout
    keys: Mapping[int, Drawn]
    hints: Mapping[tuple[int, int], Float[np.ndarray, "H W 1"]]
    cels: CelKeys | None = None


@dataclass(frozen=True)
class _Clip:
    """A clip that can be drawn.

    Attributes:
      gap: number of the gap.
      path: frames of the clips around it that it begins and ends with, from the outermost inwards.
      plan: what it is for.
      first, last: its end frames.
      span: where those stand between the gap's keys.
    """

    gap: int
    path: tuple[int, ...]
    plan: PlannedClip
    first: Drawn
    last: Drawn
    span: tuple[float, float] = (0.0, 1.0)


def prepare_shot(shot: Shot, options: SamplingOptions, config: ModelConfig) -> PreparedShot:
    """Checks a shot, and reads and fits its pictures; says on one line each what is lost of them.

    Raises:
      UserError: as `lay_out`, or a picture cannot be read, or the keys do not line up.
    """
    layout = lay_out(shot, options)
    height, width = options.size(config)
    if layout.frames * height * width * 3 > MOST_VALUES:
        raise UserError(
            f"{layout.frames:,} frames of {width} x {height} pixels are too many for one shot: cut it into several, or "
            "choose a smaller size"
        )
    for _, _, prompt in layout.prompts:
        tell_texts(Pair("", "", prompt, negative_prompt=shot.negative_prompt), options)
    first = next(iter(layout.keys))
    shapes: dict[int, tuple[int, ...]] = {}
    keys: dict[int, Drawn] = {}
    cels: list[tuple[np.ndarray, str]] = []
    below = WHITE if options.background is None or options.alpha else colour_named(options.background)
    for frame, picture in layout.keys.items():
        what = f"the key on frame {frame}"
        read = as_picture(picture, what)
        shapes[frame] = read.shape[:2]
        name, other = name_of(picture, what), name_of(layout.keys[first], f"the key on frame {first}")
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (shapes[frame], shapes[first])]
        if options.fit is None and not same_shape(shapes[frame], shapes[first]):
            raise UserError(
                f"{name} is {sizes[0]} pixels, {other} {sizes[1]}: the keys have other shapes and cannot line up, "
                "so crop "
                "them, or say what to do by the option fit, crop or pad"
            )
        if shapes[frame] != shapes[first]:
            note(f"{name} is {sizes[0]} pixels, {other} {sizes[1]}: both are brought to {width} x {height}")
        if options.fit != "pad":
            note_cut(name, shapes[frame], height, width)
        if options.alpha:
            cels.append((read, name))
            continue
        note_transparency([read], [name], options.background)
        keys[frame] = as_bytes(fit_image(over(read, below), height, width, options.fit or "crop", below))
    found = None
    if cels:
        fit, background = options.fit or "crop", options.background or AUTO
        pictures, names = zip(*cels, strict=True)
        found = cel_keys(pictures, names, height, width, fit=fit, background=background)
        keys = {frame: over(key, found.background) for frame, key in zip(layout.keys, found.pictures, strict=True)}
    if shot.loop:
        _check_loop(layout, keys)
    hints = {
        place: prepare_hint(frame, sketch, shapes[layout.gaps[place[0]].first], height, width, options.fit)
        for place, (frame, sketch) in layout.sketches.items()
    }
    return PreparedShot(shot, layout, keys, hints, found)


def draw_shot(
    prepared: PreparedShot,
    options: SamplingOptions,
    sample: Sample,
    *,
    devices: int = 1,
    batch_size: int | None = None,
    store: Store | None = None,
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
      on_progress: called after every chunk of steps; `done` and `total` are those of the whole shot.

    Returns:
      uint8 (frames, H, W, 3), or (frames, H, W, 4) of a shot whose opacity is kept.

    Raises:
      UserError: the batch size is no whole number from 1, or what was drawn contains NaN.
    """
    layout, shot = prepared.layout, prepared.shot
    if batch_size is not None and whole_number(batch_size, "the batch size") < 1:
        raise UserError(f"the batch size must be at least 1, not {batch_size}")
    size = batch_size or max(1, min(sum(gap.clip is not None for gap in layout.gaps), MOST_TOGETHER * devices))
    run = _Run(prepared, options, sample, size, store, on_progress)
    drawings, frames, redrawn = run.draw_gaps()
    if shot.options.through_keys:
        run.draw_bridges(drawings, frames, redrawn)
    shown = prepared.keys if shot.options.exact_keys else {**prepared.keys, **redrawn}
    video: list[Drawn] = []
    places: dict[int, int] = {}
    for number, gap in enumerate(layout.gaps):
        ends = [*gap.offsets, gap.last - gap.first]
        places |= dict.fromkeys(range(len(video), len(video) + ends[0]), number)
        video += [shown[gap.first]] * ends[0]
        for index, (start, end) in enumerate(pairwise(ends)):
            video += [drawings[number, index]] * (end - start)
    if not shot.loop:
        places[len(video)] = len(layout.gaps)
        video.append(shown[layout.gaps[-1].last])
    if prepared.cels is None:
        return np.stack(video)
    return prepared.cels.recovered(np.stack(video), places=places if shot.options.exact_keys else {})


def as_bytes(picture: Float[np.ndarray, "H W 3"]) -> Drawn:
    """A picture in [-1, 1] as bytes, rounded: what came from bytes comes back as it was."""
    return np.rint((picture + 1) * 127.5).clip(0, 255).astype(np.uint8)


def as_values(pictures: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Bytes in [-1, 1], as `fit_image` gives them."""
    return pictures.astype(np.float32) / 255 * 2 - 1


def seed_of(seed: int, frames_before: int, path: Sequence[int] = (), kind: int = 0) -> int:
    """The seed of a clip, from the shot's: that of the first clip of the first gap is the shot's own.

    Args:
      seed: of the shot.
      frames_before: from the shot's first key to the gap's, so that a gap keeps its seed where keys after it change.
      path: of the clip; see `_Clip`.
      kind: tells clips of one place apart that are for different ends.
    """
    if not frames_before and not path and not kind:
        return seed
    words = np.random.SeedSequence([seed, 1 + kind, frames_before, 1 + len(path), *path])
    return int(words.generate_state(1, np.uint32)[0])


def _check_loop(layout: Layout, keys: Mapping[int, Drawn]) -> None:
    first, last = next(iter(keys)), list(keys)[-1]
    if not np.array_equal(keys[first], keys[last]):
        raise UserError(
            f"a loop ends with its first key, but the key on frame {last} is another picture than that on frame "
            f"{first}: "
            "give the first key once more, on the frame where the loop starts over"
        )


class _Run:
    """Draws the clips of one shot; see `draw_shot`."""

    def __init__(
        self,
        prepared: PreparedShot,
        options: SamplingOptions,
        sample: Sample,
        size: int,
        store: Store | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._prepared, self._options, self._sample = prepared, options, sample
        self._size, self._store, self._on_progress = size, store, on_progress
        self._batches_done, self._batches, self._steps = 0, self._count_batches(), 0

    def draw_gaps(
        self,
    ) -> tuple[dict[tuple[int, int], Drawn], list[DrawnFrame], dict[int, Drawn]]:
        """Draws the clips of all gaps.

        Returns:
          (gap, number) -> drawing; all frames that were drawn, if keys are drawn through; key's frame -> the key as it
          was decoded.
        """
        layout, keys = self._prepared.layout, self._prepared.keys
        wanted = self._prepared.shot.options
        drawings: dict[tuple[int, int], Drawn] = {}
        frames: list[DrawnFrame] = []
        decoded: dict[int, Drawn] = {}
        level = [
            _Clip(number, (), gap.clip, keys[gap.first], keys[gap.last])
            for number, gap in enumerate(layout.gaps)
            if gap.clip is not None
        ]
        while level:
            following = []
            for clip, video in self._drawn(level, [self._pair(clip) for clip in level], self._options):
                if not clip.path:
                    gap = layout.gaps[clip.gap]
                    decoded[gap.last] = video[-1]
                    decoded[gap.first] = video[0]
                exact = np.concatenate([clip.first[None], video[1:-1], clip.last[None]])
                for number, frame in clip.plan.shown.items():
                    drawings[clip.gap, number] = exact[frame]
                for part in clip.plan.parts:
                    span = (self._place(clip, part.first), self._place(clip, part.last))
                    path = (*clip.path, part.first, part.last)
                    following.append(_Clip(clip.gap, path, part.clip, exact[part.first], exact[part.last], span))
                if wanted.through_keys:
                    frames += [
                        DrawnFrame(clip.gap, self._place(clip, frame), exact[frame])
                        for frame in range(1, len(exact) - 1)
                    ]
            level = following
        return drawings, frames, decoded

    def draw_bridges(
        self, drawings: dict[tuple[int, int], Drawn], frames: Sequence[DrawnFrame], decoded: dict[int, Drawn]
    ) -> None:
        """Draws the frames around the keys again, and puts them in place of those that there are."""
        prepared = self._prepared
        found = bridges(prepared.layout, prepared.keys, drawings, frames, self._options.frames, loop=prepared.shot.loop)
        options = replace(self._options, strength=REDRAWN_SHARE, steps=max(self._options.steps, LEAST_STEPS))
        pairs = [self._bridge_pair(bridge) for bridge in found]
        for bridge, video in self._drawn(found, pairs, options):
            for place, frame in bridge.shown.items():
                drawings[place] = video[frame]
            decoded[bridge.key] = video[bridge.middle]

    # ------------------------------------------------------------------------------------------------------------ clips

    def _place(self, clip: _Clip, frame: int) -> float:
        """Where a frame of a clip stands between the gap's keys."""
        first, last = clip.span
        return first + (last - first) * frame / (self._options.frames - 1)

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

    def _bridge_pair(self, bridge: Bridge) -> PreparedPair:
        prepared, layout = self._prepared, self._prepared.layout
        hints = self._empty_hints() if any(place in prepared.hints for place in bridge.shown) else None
        for place, frame in bridge.shown.items():
            if hints is not None and place in prepared.hints:
                hints[frame] = prepared.hints[place]
        gap, number = max(bridge.shown)
        pair = self._prepared_pair(
            bridge.draft[0],
            bridge.draft[-1],
            hints,
            layout.prompt_of(layout.gaps[gap], [number]),
            seed_of(prepared.shot.seed, bridge.key - layout.gaps[0].first, kind=1),
        )
        return pair._replace(draft=as_values(bridge.draft))

    def _prepared_pair(
        self, first: Drawn, last: Drawn, hints: np.ndarray | None, prompt: str, seed: int
    ) -> PreparedPair:
        shot = self._prepared.shot
        ends = as_values(np.stack([first, last]))
        return PreparedPair(ends, hints, prompt, seed, int(shot.fps), negative_prompt=shot.negative_prompt)

    def _empty_hints(self) -> np.ndarray:
        height, width = next(iter(self._prepared.keys.values())).shape[:2]
        return np.zeros((self._options.frames, height, width, 1), np.float32)

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
        def widths(clip: PlannedClip, level: int) -> Iterator[int]:
            yield level
            for part in clip.parts:
                yield from widths(part.clip, level + 1)

        shot, gaps = self._prepared.shot, self._prepared.layout.gaps
        levels = [level for gap in gaps if gap.clip for level in widths(gap.clip, 0)]
        counts = [levels.count(level) for level in set(levels)]
        if shot.options.through_keys:
            both = [(gaps[before], gaps[after]) for before, after in joints(len(gaps), loop=shot.loop)]
            counts.append(sum(has_room(before) and has_room(after) for before, after in both))
        return sum(ceil(count / self._size) for count in counts)

    def _drawn(
        self, clips: Sequence[Place], pairs: Sequence[PreparedPair], options: SamplingOptions
    ) -> Iterator[tuple[Place, Uint8Video]]:
        """All clips of a level, those first that were drawn before."""
        requests = [_request(pair) for pair in pairs] if self._store is not None else []
        known = self._store.find(requests) if self._store is not None else [None] * len(clips)
        left = []
        for index, video in enumerate(known):
            if video is None:
                left.append(index)
            else:
                yield clips[index], corrected(video, pairs[index].ends, options)
        self._batches -= ceil(len(clips) / self._size) - ceil(len(left) / self._size)
        for start in range(0, len(left), self._size):
            batch = left[start : start + self._size]
            filled = [pairs[index] for index in batch]
            filled += filled[-1:] * (self._size - len(filled))
            videos = to_uint8(self._sample(filled, options, self._listener()))[: len(batch)]
            self._batches_done += 1
            for index, video in zip(batch, videos, strict=True):
                if self._store is not None:
                    self._store.keep(requests[index], video)
                yield clips[index], corrected(video, pairs[index].ends, options)

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
