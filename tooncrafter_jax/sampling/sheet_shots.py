"""A time sheet as shots: drawings that have pictures are keys, and what a layer asks for between them is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.cels import is_transparent
from tooncrafter_jax.io.timesheets import Layer, PlacedCel, Run, TimeSheet
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.request_pictures import Picture, Sketch, as_picture, name_of
from tooncrafter_jax.sampling.sequence import MOST_FRAMES, Prompts, Setting, Shot, prompt_spans
from tooncrafter_jax.sampling.timing import TimingLike, exposure_of, timing_of


class SheetRun(NamedTuple):
    """Frames of a layer without an empty one between.

    Attributes:
      start, end: its first frame, and the frame after its last.
      keys: frame -> name of the drawing, of those that have pictures; the first is at the start.
      named: frame -> name, of those that the sheet names and that are to be drawn.
      picture: of the first key.
      shot: from the first key to the last; None where there is one alone.
    """

    start: int
    end: int
    keys: Mapping[int, str]
    named: Mapping[int, str]
    picture: Picture
    shot: Shot | None


@dataclass(frozen=True)
class SheetLayer:
    """A layer that is drawn.

    Attributes:
      layer: of the sheet.
      runs: its parts, in order.
    """

    layer: Layer
    runs: tuple[SheetRun, ...]

    @cached_property
    def is_transparent(self) -> bool:
        """Whether a key of it has transparency.

        Raises:
          UserError: one cannot be read.
        """
        return any(is_transparent(as_picture(one, name_of(one, "a drawing of the sheet"))) for one in self.pictures())

    def shots(self) -> list[Shot]:
        """Those of its runs."""
        return [run.shot for run in self.runs if run.shot is not None]

    def with_seed_after(self, number: int) -> SheetLayer:
        """The same with seeds that are higher by a number."""
        runs = (
            run if run.shot is None else run._replace(shot=run.shot._replace(seed=run.shot.seed + number))
            for run in self.runs
        )
        return replace(self, runs=tuple(runs))

    def pictures(self) -> list[Picture]:
        """All keys."""
        keys = [list(dict(shot.keys).values()) for shot in self.shots()]
        return [*(picture for one in keys for picture in one), *(run.picture for run in self.runs if run.shot is None)]


def layers_of_sheet(
    sheet: TimeSheet,
    template: Shot,
    names: Sequence[str] = (),
    sketches: str | None = None,
    *,
    dark_lines: bool | None = None,
) -> tuple[SheetLayer, ...]:
    """What of a sheet is drawn, and how; says on one line each what the sheet leaves open.

    Where layers ask for in-betweens (by marks, or by drawings without pictures between marked keys), these are drawn,
    and every other drawing is held. If none does, all gaps are filled as the template says.

    Args:
      sheet: with the pictures that were found.
      template: prompt, timing, exposure and so on, on frames of the sheet; its keys do not matter.
      names: of layers; without any, all that are shown.
      sketches: the layer whose drawings guide the frames of the only layer that is drawn, where they begin.
      dark_lines: whether that layer's drawings have dark lines on bright paper; None: as each shows.

    Raises:
      UserError: there is no such layer, it shows nothing, a drawing has no picture, or the sheet is too long.
    """
    if sheet.duration > MOST_FRAMES:
        raise UserError(
            f"the sheet '{printable(sheet.name, 60)}' has {sheet.duration:,} frames: at most {MOST_FRAMES:,} are "
            "drawn, so cut it into several"
        )
    if names:
        for name in names:
            sheet.layer(name)
        layers = [layer for layer in sheet.layers if layer.name in names]
    else:
        layers = [layer for layer in sheet.layers if layer.visible and layer.exposures and layer.name != sketches]
        _note_hidden(sheet, sketches)
    if empty := [layer for layer in layers if not layer.exposures]:
        raise UserError(f"the layer '{printable(empty[0].name, 60)}' of the sheet shows nothing: choose another")
    if not layers:
        raise UserError(f"the sheet '{printable(sheet.name, 60)}' shows nothing: no layer that is shown has a drawing")
    if (sketches or template.sketches) and len(layers) > 1:
        found = ", ".join(f"'{printable(layer.name, 60)}'" for layer in layers)
        raise UserError(f"sketches guide one layer, but {len(layers)} are drawn ({found}): choose one of them")
    guides = {} if sketches is None else _guides(sheet, sketches, layers[0], dark_lines)
    opened = [_open(layer, sheet.duration) for layer in layers]
    _check_gaps(template, layers, opened, sheet.duration)
    asking = [bool(one) or bool(layer.in_betweens()) for layer, one in zip(layers, opened, strict=True)]
    _note_gaps(layers, asking, template, sheet.duration)

    def run_of(layer: Layer, run: Run, open_frames: Mapping[int, str]) -> SheetRun:
        return _run(layer, run, open_frames, any(asking), sheet, template, guides)

    return tuple(
        SheetLayer(layer, tuple(run_of(layer, run, one) for run in layer.runs(sheet.duration)))
        for layer, one in zip(layers, opened, strict=True)
    )


def _note_hidden(sheet: TimeSheet, sketches: str | None) -> None:
    hidden = [layer.name for layer in sheet.layers if not layer.visible and layer.exposures and layer.name != sketches]
    if hidden:
        names = ", ".join(f"'{printable(name, 60)}'" for name in dict.fromkeys(hidden))
        note(f"hidden layers of the sheet are left out, unless they are named: {names}")


def _note_gaps(layers: Sequence[Layer], asking: Sequence[bool], template: Shot, duration: int) -> None:
    """Says what becomes of gaps where nothing is asked for, and of an exposure that does not count."""
    silent = [
        f"'{printable(layer.name, 60)}'"
        for layer, asks in zip(layers, asking, strict=True)
        if not asks and any(len(run.drawings) > 1 for run in layer.runs(duration))
    ]
    if any(asking):
        if isinstance(template.exposure, Mapping) or exposure_of(template.exposure) != (1,):
            note("the sheet asks for in-betweens, and so says how long drawings are held: exposure does not count")
        if silent:
            note(f"the sheet asks for in-betweens, but not of {', '.join(silent)}: the drawings there are held")
    elif silent:
        note(
            f"the sheet asks for no in-betweens: all gaps of {', '.join(silent)} are filled, as timing and exposure say"
        )


def _open(layer: Layer, duration: int) -> dict[int, str]:
    """Frame -> drawing, of those without a picture that are to be drawn.

    Raises:
      UserError: another one has no picture.
    """
    place = f"the layer '{printable(layer.name, 60)}'"
    marked = any(exposure.role == "key" for exposure in layer.exposures)
    roles = {exposure.frame: exposure.role for exposure in layer.exposures}
    open_frames: dict[int, str] = {}
    for run in layer.runs(duration):
        known = [frame for frame, drawing in run.drawings.items() if drawing in layer.cels]
        missing = [frame for frame in run.drawings if frame not in known]
        for frame in sorted(missing, key=lambda frame: roles[frame] is None):  # a missing key leaves others open, too
            drawing = run.drawings[frame]
            if not (marked and roles[frame] is None and known and known[0] < frame < known[-1]):
                why = " and is none of the in-betweens that marked keys leave open" if marked else ""
                raise UserError(
                    f"the drawing '{printable(drawing, 60)}' of {place}, shown from frame {frame} on, has no picture "
                    f"beside the sheet{why}: put it there, or mark the keys on the sheet to have the others drawn"
                )
            open_frames[frame] = drawing
    if twice := [name for name, count in Counter(open_frames.values()).items() if count > 1]:
        raise UserError(
            f"the drawing '{printable(twice[0], 60)}' of {place} has no picture, and is shown again later: give the "
            "other one a number of its own"
        )
    return open_frames


def _run(
    layer: Layer,
    run: Run,
    open_frames: Mapping[int, str],
    asks: bool,
    sheet: TimeSheet,
    template: Shot,
    guides: Mapping[int, Sketch],
) -> SheetRun:
    keys = {frame: drawing for frame, drawing in run.drawings.items() if frame not in open_frames}
    named = {frame: drawing for frame, drawing in run.drawings.items() if frame in open_frames}
    pictures: dict[int, Picture] = {frame: _picture(layer, drawing, sheet.size) for frame, drawing in keys.items()}
    first, last = run.start, max(keys)
    sketches = {frame: one for frame, one in (template.sketches or {}).items() if first <= frame < run.end}
    shot = None
    if len(keys) == 1 and sketches:
        raise UserError(f"the sketch for frame {min(sketches)} has nothing to guide: one drawing is held there")
    if len(keys) > 1:
        wanted = {*named, *run.in_betweens}
        # what is drawn already needs no guide
        beside = {frame: one for frame, one in guides.items() if first < frame < last and frame not in keys}
        shot = template._replace(
            keys=pictures,
            prompt=_prompts(template, sheet.duration, first, last),
            sketches={**beside, **sketches} or None,
            timing=_timings(layer, template, keys, wanted) if asks else _of_gaps(template.timing, keys),
            exposure=_holds(keys, wanted) if asks else _of_gaps(template.exposure, keys),
        )
    return SheetRun(run.start, run.end, keys, named, pictures[run.start], shot)


def _picture(layer: Layer, drawing: str, size: tuple[int, int] | None) -> Picture:
    cel = layer.cels[drawing]
    return cel.path if size is None or cel.centre is None else PlacedCel(cel, size)


def _holds(keys: Mapping[int, str], wanted: set[int]) -> dict[int | None, tuple[int, ...]]:
    """Frame of a gap's first key -> how long each drawing is held, so that new ones begin at the wanted frames."""
    found: dict[int | None, tuple[int, ...]] = {}
    for first, last in pairwise(keys):
        begins = [first, *sorted(frame for frame in wanted if first < frame < last), last]
        found[first] = tuple(after - before for before, after in pairwise(begins))
    return found


def _timings(layer: Layer, template: Shot, keys: Mapping[int, str], wanted: set[int]) -> dict[int | None, TimingLike]:
    """Frame of a gap's first key -> timing of the wanted drawings in it.

    Raises:
      UserError: a chart has another number of drawings.
    """
    found: dict[int | None, TimingLike] = {}
    for first, last in pairwise(keys):
        count = sum(first < frame < last for frame in wanted)
        if not count:
            found[first] = "linear"
            continue
        given = template.timing
        value = given.get(first, given.get(None, "linear")) if isinstance(given, Mapping) else given
        chart = timing_of(value, "the timing").chart
        if chart is not None and len(chart) != count:
            raise UserError(
                f"the layer '{printable(layer.name, 60)}' asks for {count} drawing{'' if count == 1 else 's'} between "
                f"the frames {first} and {last}, but the chart {timing_of(value).text} has {len(chart)}: give that gap "
                "a timing of its own"
            )
        found[first] = value
    return found


def _of_gaps(
    setting: Setting | Mapping[int | None, Setting], keys: Mapping[int, str]
) -> Setting | dict[int | None, Setting]:
    """A timing or an exposure, of the gaps of a run."""
    if not isinstance(setting, Mapping):
        return setting
    begins = list(keys)[:-1]
    return {frame: value for frame, value in setting.items() if frame is None or frame in begins}


def _prompts(template: Shot, duration: int, first: int, last: int) -> Prompts:
    """The prompts of a run's frames."""
    if not isinstance(template.prompt, Mapping):
        return template.prompt
    spans = prompt_spans(template.prompt, 0, duration - 1)
    within = {(max(start, first), min(end, last)): prompt for start, end, prompt in spans}
    return {span: prompt for span, prompt in within.items() if span[0] <= span[1]} or ""


def _guides(sheet: TimeSheet, name: str, drawn: Layer, dark_lines: bool | None) -> dict[int, Sketch]:
    """The drawings of a layer as sketches, where each begins."""
    layer = sheet.layer(name)
    if layer.name == drawn.name:
        raise UserError(f"the layer '{printable(name, 60)}' cannot guide itself: choose another for the sketches")
    found: dict[int, Sketch] = {}
    for frame, drawing, _ in layer.exposures:
        if drawing is None:
            continue
        if drawing not in layer.cels:
            raise UserError(
                f"the sketch '{printable(drawing, 60)}' of the layer '{printable(name, 60)}', shown from frame "
                f"{frame} on, has no picture beside the sheet: put it there"
            )
        found[frame] = Sketch(_picture(layer, drawing, sheet.size), dark_lines=dark_lines)
    return found


def _check_gaps(template: Shot, layers: Sequence[Layer], opened: Sequence[Mapping[int, str]], duration: int) -> None:
    """Raises UserError for a timing or exposure of a gap, or a sketch, that no layer has; `opened` are the drawings of
    each that are to be drawn, with which no gap begins.
    """
    runs = [
        [frame for frame in run.drawings if frame not in open_frames]
        for layer, open_frames in zip(layers, opened, strict=True)
        for run in layer.runs(duration)
    ]
    begins = sorted({frame for keys in runs for frame in keys[:-1]})
    for what, setting in (("timing", template.timing), ("exposure", template.exposure)):
        for frame in setting if isinstance(setting, Mapping) else ():
            if frame is not None and frame not in begins:
                raise UserError(
                    f"there is a {what} for the gap after frame {frame}, where no gap of the sheet begins: gaps begin "
                    f"at the frames {', '.join(map(str, begins[:8]))}{', ...' if len(begins) > 8 else ''}"
                )
    runs = [run for layer in layers for run in layer.runs(duration)]
    for frame in template.sketches or ():
        if not any(run.start <= frame < run.end for run in runs):
            raise UserError(
                f"there is a sketch for frame {frame}, where the sheet shows nothing: its frames are numbered 0 to "
                f"{duration - 1}"
            )
