"""A shot: any number of keys on its own frames, the timing between them, and what guides which frames; checked, and
laid out as clips, before a picture is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple, TypeVar

from tooncrafter_jax.config_codec import from_dict, plain, to_dict
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io import check_is_picture_file
from tooncrafter_jax.notes import note
from tooncrafter_jax.options import Option, check_ranges, with_attributes
from tooncrafter_jax.sampling.request import DEFAULT_FPS, DEFAULT_SEED, Pair, check_settings
from tooncrafter_jax.sampling.request_pictures import Picture, Sketch, whole_number
from tooncrafter_jax.sampling.sampling_options import SamplingOptions
from tooncrafter_jax.sampling.shot_plan import PlannedClip, planned
from tooncrafter_jax.sampling.timing import (
    ExposureLike,
    TimingLike,
    drawings_between,
    exposure_of,
    held_at,
    timing_of,
)

MOST_FRAMES = 10_000
"""Of a shot; seven minutes of a film, far longer than any."""
MOST_VALUES = 2**36
"""Bytes of a shot's frames, 64 GiB."""
SHOT_ARGUMENTS = (
    "keys",
    "prompt",
    "sketches",
    "timing",
    "exposure",
    "seed",
    "fps",
    "negative_prompt",
    "loop",
    "exact_keys",
    "through_keys",
    "unevenness",
    "batch_size",
    "store",
    "on_progress",
)
"""Of `ToonCrafter.interpolate_sequence`, beside the options."""

LEAST_BRIDGE = 8
"""Frames of a clip through a key: with fewer, the drawings of a side would share frames."""
Setting = TypeVar("Setting")
Place = int | tuple[int, int]
"""Of a picture in a shot: the frame of a key; or the number of a gap, and of a drawing in it."""
Keys = Mapping[int, Picture] | Sequence[tuple[int, Picture]]
"""Frame number -> key drawing, in the order of the frames."""
Prompts = str | Mapping[int, str] | Mapping[tuple[int, int], str] | Mapping[int | tuple[int, int], str]
"""One for all frames, or: a frame from which on it counts until the next, or the first and last frame of its span."""


@dataclass(frozen=True)
class ShotOptions:
    """How a shot is drawn; the options of its clips are `SamplingOptions`."""

    exact_keys: Annotated[
        bool, Option("show keys exactly as drawn, pixel by pixel, and not as the decoder draws them again")
    ] = True
    through_keys: Annotated[
        bool,
        Option("draw the frames around each key again, in a pass that sees both sides, to match the motion across it"),
    ] = False
    unevenness: Annotated[
        float,
        Option(
            "how much shorter than the timing wants a step from drawing to drawing may be, as a share: less needs more "
            "clips",
            least=0.01,
            most=0.5,
        ),
    ] = 0.5


ShotOptions.__doc__ = with_attributes(ShotOptions.__doc__, ShotOptions)


class Shot(NamedTuple):
    """A shot to make.

    Attributes:
      keys: frame number -> key drawing, ascending, two at least; the shot begins with the first and ends with the last.
      prompt: what happens, for all frames or by spans of them.
      sketches: frame number -> drawing that guides it.
      timing: of all gaps, or: frame of a gap's first key -> its timing; the others have that of None, or are linear.
      exposure: of all gaps, or: frame of a gap's first key -> its exposure; the others have that of None, or ones.
      seed, fps, negative_prompt: as of a `Pair`.
      loop: whether the last key is the first again, where the shot starts over: it is not shown a second time.
      options: see `ShotOptions`.
    """

    keys: Keys
    prompt: Prompts = ""
    sketches: Mapping[int, Sketch | Picture] | None = None
    timing: TimingLike | Mapping[int | None, TimingLike] = "linear"
    exposure: ExposureLike | Mapping[int | None, ExposureLike] = 1
    seed: int = DEFAULT_SEED
    fps: int = DEFAULT_FPS
    negative_prompt: str = ""
    loop: bool = False
    options: ShotOptions = ShotOptions()


class Gap(NamedTuple):
    """What is between two keys.

    Attributes:
      first, last: frames of the keys.
      timing: how its timing is written.
      exposure: its holds.
      offsets: first frame of each drawing, counted from the first key's.
      positions: of each drawing, above 0 and below 1.
      clip: how they are drawn; None where there are none.
    """

    first: int
    last: int
    timing: str
    exposure: tuple[int, ...]
    offsets: tuple[int, ...]
    positions: tuple[float, ...]
    clip: PlannedClip | None


class Layout(NamedTuple):
    """A shot, checked.

    Attributes:
      keys: frame -> picture, ascending.
      gaps: between them.
      prompts: (first frame, last frame, prompt), ascending; nothing where none counts.
      sketches: (gap, number of a drawing in it) -> frame that was named, and the sketch.
      frames: of the result.
    """

    keys: Mapping[int, Picture]
    gaps: tuple[Gap, ...]
    prompts: tuple[tuple[int, int, str], ...]
    sketches: Mapping[tuple[int, int], tuple[int, Sketch | Picture]]
    frames: int

    def places(self) -> dict[Place, slice]:
        """The frames of the result, counted from 0, that show each key and each drawing; a loop's last key has none."""
        found: dict[Place, slice] = {}
        for number, gap in enumerate(self.gaps):
            start = gap.first - self.gaps[0].first
            ends = [*gap.offsets, gap.last - gap.first]
            found[gap.first] = slice(start, start + ends[0])
            for drawing, (first, end) in enumerate(pairwise(ends)):
                found[number, drawing] = slice(start + first, start + end)
        after = self.gaps[-1].last - self.gaps[0].first
        return found | ({self.gaps[-1].last: slice(after, after + 1)} if after < self.frames else {})

    def prompt_of(self, gap: Gap, numbers: Sequence[int]) -> str:
        """The prompt that counts for most of the frames which show these drawings of a gap."""
        shown: Counter[str] = Counter()
        ends = (*gap.offsets[1:], gap.last - gap.first)
        for number in numbers:
            first, last = gap.first + gap.offsets[number], gap.first + ends[number] - 1
            for start, end, prompt in self.prompts:
                shown[prompt] += max(0, min(last, end) - max(first, start) + 1)
        return shown.most_common(1)[0][0] if any(shown.values()) else ""


def lay_out(shot: Shot, options: SamplingOptions) -> Layout:
    """Checks everything of a shot that can be checked without reading a picture, and plans its clips.

    Says on one line each where a prompt or a sketch counts for other frames than those that were named.

    Raises:
      UserError: for keys out of order, a timing that does not fit, a sketch or prompt of a frame that is not there, or
        a setting out of range.
    """
    keys = _keys(shot.keys)
    frames = list(keys)
    if not isinstance(plain(shot.loop), bool):
        raise UserError(f"loop must be True or False, not {shot.loop!r}")
    _check_options(shot.options)
    timings = _of_gaps(shot.timing, frames, "timing", timing_of, "linear")
    exposures = _of_gaps(shot.exposure, frames, "exposure", exposure_of, 1)
    gaps: list[Gap] = []
    clips: dict[tuple[float, ...], PlannedClip | None] = {}
    for (first, last), timing, exposure in zip(pairwise(frames), timings, exposures, strict=True):
        where = f"the gap from frame {first} to {last}"
        found = drawings_between(last - first, timing, exposure, where)
        if found.held:
            note(
                f"in {where}, {found.held} drawing{'' if found.held == 1 else 's'} would be less than a thousandth of "
                "the motion from the next: the drawing before is held instead"
            )
        places = {index: drawing.position for index, drawing in enumerate(found.drawings)}
        offsets = tuple(drawing.offset for drawing in found.drawings)
        positions = tuple(places.values())
        if positions not in clips:  # many gaps of a shot are alike
            clips[positions] = planned(places, options.frames, shot.options.unevenness) if places else None
        gaps.append(Gap(first, last, timing.text, exposure, offsets, positions, clips[positions]))
    prompts = prompt_spans(shot.prompt, frames[0], frames[-1])
    layout = Layout(keys, tuple(gaps), prompts, _sketches(shot.sketches, frames, gaps), _length(shot, frames))
    _check_settings(shot, layout, options)
    return layout


def _check_options(options: object) -> None:
    """Raises UserError unless these are `ShotOptions`, each of its type and in its range."""
    if not isinstance(options, ShotOptions):
        raise UserError(f"the options of a shot must be tooncrafter_jax.ShotOptions, not {type(options).__name__}")
    check_ranges(from_dict(ShotOptions, to_dict(options), "the shot options"))


def _length(shot: Shot, frames: Sequence[int]) -> int:
    return frames[-1] - frames[0] + (0 if shot.loop else 1)


def _keys(given: object) -> dict[int, Picture]:
    """The keys by frame.

    Raises:
      UserError: they are no list of frames and pictures, too few, out of order, or two are on one frame.
    """
    if isinstance(given, Mapping):
        items = list(given.items())
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        if not all(isinstance(item, tuple | list) and len(item) == 2 for item in given):
            raise UserError("keys must be frame numbers with pictures, such as {0: first, 24: second}")
        items = [(item[0], item[1]) for item in given]
    else:
        raise UserError(
            f"keys must be a mapping of frame numbers to pictures, such as {{0: first, 24: second}}, not "
            f"{type(given).__name__}"
        )
    keys: dict[int, Picture] = {}
    before = -1
    for frame, picture in items:
        number = whole_number(frame, "the frame of a key")
        if number < 0:
            raise UserError(f"there is a key on frame {number}: frames are numbered from 0 on")
        if number in keys:
            raise UserError(f"there are two keys on frame {number}: give one of them another frame")
        if number < before:
            raise UserError(f"the key on frame {number} comes after that on frame {before}: order keys by their frames")
        keys[number], before = picture, number
    if len(keys) < 2:
        raise UserError(f"a shot needs at least two keys, not {len(keys)}")
    first, last = min(keys), max(keys)
    if last - first >= MOST_FRAMES:
        raise UserError(
            f"the keys on frames {first} and {last} make a shot of {last - first + 1:,} frames: at most "
            f"{MOST_FRAMES:,} are drawn, so cut it into several"
        )
    return keys


def _of_gaps(
    given: object, frames: Sequence[int], what: str, parse: Callable[..., Setting], default: object
) -> list[Setting]:
    """A setting for each gap, from one for all or a mapping of the frames of gaps' first keys."""
    if not isinstance(given, Mapping):
        return [parse(given, f"the {what}")] * (len(frames) - 1)
    found = {}
    for frame, value in given.items():
        if frame is None:
            default = value
            continue
        number = whole_number(frame, f"the frame of a {what}")
        if number not in frames[:-1]:
            raise UserError(
                f"there is {'an' if what[0] == 'e' else 'a'} {what} for the gap after frame {number}, where no gap "
                f"begins: gaps begin at the keys on frames {listed(frames[:-1])}"
            )
        found[number] = parse(value, f"the {what} of the gap after frame {number}")
    return [found[frame] if frame in found else parse(default, f"the {what}") for frame in frames[:-1]]


def listed(frames: Sequence[int]) -> str:
    """The first of some frames' numbers, as sentences name them."""
    shown = [str(frame) for frame in frames[:8]]
    return ", ".join(shown) + (", ..." if len(frames) > 8 else "")


def prompt_spans(given: object, first: int, last: int) -> tuple[tuple[int, int, str], ...]:
    """Spans with their prompts, in order.

    Args:
      given: see `Prompts`.
      first: frame of the shot.
      last: frame of the shot.

    Raises:
      UserError: a span is not of the shot, or two of them share a frame.
    """
    if not isinstance(given, Mapping):
        return ((first, last, _text(given)),)
    from_on = sorted(whole_number(frame, "the frame of a prompt") for frame in given if not isinstance(frame, tuple))
    spans: list[tuple[int, int, str]] = []
    for key, prompt in given.items():
        if isinstance(key, tuple):
            if len(key) != 2:
                raise UserError(f"the span of a prompt is {key!r}, which should be its first and last frame")
            start, end = (whole_number(frame, "the frame of a prompt") for frame in key)
        else:
            start = whole_number(key, "the frame of a prompt")
            later = [
                frame for frame in (*from_on, *(span[0] for span in given if isinstance(span, tuple))) if frame > start
            ]
            end = min(later) - 1 if later else last
        if not first <= start <= end <= last:
            frames = f"frames {start} to {end}" if isinstance(key, tuple) else f"frame {start} on"
            raise UserError(
                f"the prompt '{printable(str(prompt), 40)}' is for {frames}, but the shot has frames {first} to {last}"
            )
        spans.append((start, end, _text(prompt)))
    spans.sort(key=lambda span: span[:2])
    for one, other in pairwise(spans):
        if other[0] <= one[1]:
            raise UserError(
                f"two prompts are for frame {other[0]}: the spans {one[0]} to {one[1]} and {other[0]} to "
                f"{other[1]} overlap"
            )
    return tuple(spans)


def _text(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise UserError(f"a prompt must be text, not {type(prompt).__name__}")
    return prompt


def _sketches(
    given: object, frames: Sequence[int], gaps: Sequence[Gap]
) -> dict[tuple[int, int], tuple[int, Sketch | Picture]]:
    """Which drawing each sketch guides.

    Raises:
      UserError: it is for a frame that is not there, for a key, or the second for one drawing.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError(
            f"sketches must be a mapping of frame numbers to drawings, such as {{7: drawing}}, not "
            f"{type(given).__name__}"
        )
    found: dict[tuple[int, int], tuple[int, Sketch | Picture]] = {}
    numbered = {whole_number(frame, "the frame of a sketch"): sketch for frame, sketch in given.items()}
    for frame in sorted(numbered):
        if not frames[0] <= frame <= frames[-1]:
            raise UserError(f"there is no frame {frame} for a sketch: the shot has frames {frames[0]} to {frames[-1]}")
        if frame in frames:
            raise UserError(f"the sketch for frame {frame} is for a key, which is drawn already: leave it out")
        index = held_at(frames, frame)
        gap = gaps[index]
        number = held_at(gap.offsets, frame - gap.first)
        if number < 0:
            raise UserError(
                f"the sketch for frame {frame} has nothing to guide: the key on frame {gap.first} is held there, "
                f"until frame {gap.first + gap.offsets[0] if gap.offsets else gap.last}"
            )
        start = gap.first + gap.offsets[number]
        if (index, number) in found:
            raise UserError(
                f"the sketches for frames {found[index, number][0]} and {frame} are for one drawing, which is held "
                f"from frame {start} on: leave one of them out"
            )
        if start != frame:
            note(f"the sketch for frame {frame} guides the drawing that is held there, from frame {start} on")
        found[index, number] = (frame, numbered[frame])
    return found


def _check_settings(shot: Shot, layout: Layout, options: SamplingOptions) -> None:
    """Raises UserError for prompts, seeds or pictures that no pair could have."""
    if options.two_backgrounds:
        raise UserError("a shot is drawn over one background: leave two_backgrounds out")
    if shot.options.through_keys and options.frames < LEAST_BRIDGE:
        raise UserError(f"drawing through keys needs clips of at least {LEAST_BRIDGE} frames, not {options.frames}")
    if shot.options.through_keys and options.timesteps is None and options.steps == 1:
        note(
            "frames around keys are drawn in several steps, but this model is sampled in one: look at them, and leave "
            "through_keys out if they are worse"
        )
    if options.strength < 1:
        raise UserError(
            f"a strength of {options.strength:g} says how much of a draft is drawn anew, but a shot has none: "
            "leave it out"
        )
    pictures = list(layout.keys.values())
    texts = [prompt for _, _, prompt in layout.prompts] or [""]
    drawings = [sketch for _, sketch in layout.sketches.values()]
    for prompt in texts:
        check_settings(
            Pair(pictures[0], pictures[-1], prompt, seed=shot.seed, fps=shot.fps, negative_prompt=shot.negative_prompt),
            options,
        )
    for picture in (*pictures, *(one.image if isinstance(one, Sketch) else one for one in drawings)):
        if isinstance(picture, str | os.PathLike):
            check_is_picture_file(os.fspath(picture))
    for gap in layout.gaps:
        _tell_prompts(layout, gap)


def _tell_prompts(layout: Layout, gap: Gap) -> None:
    """Says which prompt counts where several meet in one clip."""
    if gap.clip is None:
        return
    spans = [span for span in layout.prompts if span[0] < gap.last and span[1] > gap.first]
    if len({prompt for _, _, prompt in spans}) < 2:
        return
    chosen = layout.prompt_of(gap, list(gap.clip.places))
    parts = "; its parts follow their own" if gap.clip.parts else ""
    note(
        f"several prompts meet between the keys on frames {gap.first} and {gap.last}: the clip between them follows "
        f"'{printable(chosen, 40)}', which has the most frames{parts}"
    )
