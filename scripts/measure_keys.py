"""What --through-keys does to the motion across keys, measured on held-out clips.

  python scripts/measure_keys.py --set=DIR --out=DIR [--split=test] [--limit=20] [--gap=8] [--model=small] [--steps=N]

Of each clip the 2 * gap + 1 frames of most motion are taken. The first, the middle and the last are the keys of a shot,
which is drawn twice: as it is, and through its middle key. The speed (mean length of DIS optical flow, pixels a frame)
before and after that key is compared with the speed inside the gaps, for the true frames too: what they have of a stall
or a jump is no fault.

OUT gets a row for each clip, the clips that were drawn, a plot, and some shots as GIFs. A run that was stopped goes on
when it is started again; more clips can be asked for later with a larger --limit that is a multiple.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from held_out import end, held_out, parser_of
from scipy.special import stdtrit

from tooncrafter_jax import ClipStore, ToonCrafter, UserError
from tooncrafter_jax.curation.motion import DisFlow
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers.visits import visits
from tooncrafter_jax.evaluation.key_speeds import key_speeds, speeds_along
from tooncrafter_jax.evaluation.metrics.intervals import LEVEL, Interval
from tooncrafter_jax.evaluation.true_clips import TrueClip
from tooncrafter_jax.io import write_gif, write_json
from tooncrafter_jax.io.figures import new_figure, save_figure
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.sampling.request import SamplingOptions
from tooncrafter_jax.sampling.sequence import Shot, ShotOptions
from tooncrafter_jax.sampling.through_keys import options_of_bridges
from tooncrafter_jax.typing import JsonObject, Uint8Video

Row = Mapping[str, dict[str, Any]]
"""Way -> its numbers at the key, by name, and the `speeds` along it."""
WAYS = ("true frames", "shot", "through keys")
NUMBERS = {
    "stall": "slower of both steps / speed inside (1: even)",
    "jump": "faster of both steps / speed inside (1: even)",
    "turn": "turn at the key, degrees",
    "off": "difference from the true frames beside the key, levels",
}
BESIDE = (-2, -1, 1, 2)
"""Frames around the key that may be drawn again, from it on."""
LEAST_SPEED = 0.02
"""Pixels a frame, of a picture as a whole; where less moves inside the gaps, their speed is no measure."""
SHOWN = 4
"""Shots that are written as GIFs."""


class Setting(NamedTuple):
    """What is measured.

    Attributes:
      toon: draws.
      options: how.
      gap: frames between keys.
      out: where rows and clips go.
    """

    toon: ToonCrafter
    options: SamplingOptions
    gap: int
    out: Path


def drawn(one: TrueClip, setting: Setting) -> dict[str, Uint8Video]:
    """The true frames of a clip, and its shot, drawn in both ways; the clips of the gaps are the same in both."""
    keys = {frame: one.video[frame] for frame in (0, setting.gap, 2 * setting.gap)}
    store = ClipStore(setting.out / "clips", {"options": repr(setting.options)})
    videos = {WAYS[0]: one.video}
    for way, through in ((WAYS[1], False), (WAYS[2], True)):
        shot = Shot(keys, one.prompt, seed=one.seed, fps=one.fps, options=ShotOptions(through_keys=through))
        videos[way] = setting.toon.draw_shot(shot, setting.options, store=store)
    return videos


def row_of(videos: dict[str, Uint8Video], gap: int) -> Row:
    """What is kept of a clip: of each way its numbers at the key, and the speed along it."""
    flow, beside = DisFlow(), [gap + step for step in BESIDE if abs(step) < gap]
    row: dict[str, dict[str, Any]] = {}
    for way, video in videos.items():
        found = key_speeds(video, [0, gap, 2 * gap], flow)  # none where the key is in the middle of a hold
        speed = found[0] if found and found[0].inside >= LEAST_SPEED else None
        off = np.abs(video[beside].astype(float) - videos[WAYS[0]][beside]).mean()
        row[way] = {
            "stall": speed.stall if speed else None,
            "jump": speed.jump if speed else None,
            "turn": speed.turn if speed else None,
            "off": float(off),
            "speeds": speeds_along(video, flow).tolist(),
        }
    return row


def mean_of(values: np.ndarray) -> Interval:
    """The mean, and the bounds that hold that of other clips in 95 of 100 cases (Student)."""
    count, mean = len(values), float(np.mean(values)) if len(values) else float("nan")
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    reach = float(stdtrit(count - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(count))
    return Interval(mean, mean - reach, mean + reach)


def shown(found: Interval) -> str:
    """A number with what it may be off by."""
    return f"{found.value:.2f} ± {found.high - found.value:.2f}"


def table(rows: Sequence[Row]) -> list[str]:
    """The numbers of all ways, and how much larger they are through keys, clip by clip."""
    lines = [f"| | {' | '.join(WAYS)} | through keys - shot | clips |", f"|---|{'---|' * (len(WAYS) + 2)}"]
    for number, title in NUMBERS.items():
        values = np.array([[row[way][number] for way in WAYS] for row in rows], float)
        values = values[np.isfinite(values).all(axis=1)]
        means = [shown(mean_of(column)) for column in (*values.T, values[:, 2] - values[:, 1])]
        lines.append(f"| {title} | {' | '.join(means)} | {len(values)} |")
    return lines


def write_plot(path: Path, rows: Sequence[Row], gap: int) -> None:
    """Writes the mean speed along the shots, in units of each clip's true median, with its interval."""
    figure = new_figure(7.0, 4.0, extra="eval", purpose="the plot")
    axes = figure.add_subplot()
    true = np.array([np.median(row[WAYS[0]]["speeds"]) for row in rows])
    moving = [row for row, median in zip(rows, true, strict=True) if median >= LEAST_SPEED]
    steps = np.arange(1, 2 * gap + 1)
    for way, colour in zip(WAYS, ("#777777", "#d2691e", "#3b7dd8"), strict=True):
        speeds = np.array([row[way]["speeds"] for row in moving]) / true[true >= LEAST_SPEED, None]
        means = [mean_of(column) for column in speeds.T]
        axes.plot(steps, [one.value for one in means], marker="o", markersize=3, color=colour, label=way)
        bounds = np.nan_to_num([[one.low, one.high] for one in means]).T
        if len(moving) > 1:
            axes.fill_between(steps, *bounds, color=colour, alpha=0.15, linewidth=0)
    axes.axvline(gap + 0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step to frame; the dotted line is the key", ylabel="speed / true median speed", ylim=(0, None))
    axes.set_title(f"{len(moving)} clips, 95 % intervals", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def check_same_request(path: Path, request: JsonObject) -> None:
    """Begins, or goes on with what was begun.

    Raises:
      UserError: something else was measured there.
    """
    if path.exists() and read_json(path) != request:
        raise UserError(f"'{path}' is of another measurement: choose another --out")
    write_json(path, request)


def main() -> None:
    """Draws what is not drawn yet, and prints the table."""
    parser = parser_of(__doc__, limit=20)
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--gap", type=int, default=8, help="frames between keys, 4 at least (default: %(default)s)")
    parser.add_argument("--size", type=int, help="pixels of a side (default: the model's)")
    arguments = parser.parse_args()
    if arguments.gap < 4:
        raise UserError(f"--gap is {arguments.gap}: drawing through a key takes three drawings on either side, so 4")
    toon, options, rule, clips = held_out(arguments, frames=2 * arguments.gap + 1, start="motion", size=arguments.size)
    setting = Setting(toon, options, arguments.gap, arguments.out)
    of_set = {"set": str(arguments.set.resolve()), "split": arguments.split, "rule": repr(rule)}
    request = of_set | {"model": arguments.model, "options": repr(options)}
    check_same_request(arguments.out / "request.json", request)

    left = [one for one in range(len(clips)) if not row_path(setting, clips.ids[one]).exists()]
    again = len(visits(NoiseSchedule(toon.config.schedule), options_of_bridges(options).solver_options).timestep)
    print(
        f"{len(clips)} shots of three keys, {len(left)} of them to draw: each takes two clips of {options.frames} "
        f"frames at {rule.width} x {rule.height} in {options.steps} steps, and one in {again}",
        flush=True,
    )
    for number, index in enumerate(left):
        start, one = time.perf_counter(), clips[index]
        videos = drawn(one, setting)
        write_json(row_path(setting, one.id), row_of(videos, arguments.gap))
        if index < SHOWN:
            beside = np.concatenate([videos[way] for way in WAYS], axis=2)
            write_gif(arguments.out / f"shot_{index}.gif", beside, 8)
        seconds = time.perf_counter() - start
        what = (
            "compilation included" if number == 0 else f"about {seconds * (len(left) - number - 1) / 60:.0f} min left"
        )
        print(f"{number + 1} of {len(left)}: {one.id}, {seconds:.0f} s, {what}", flush=True)
    rows = [read_json(row_path(setting, clip_id)) for clip_id in clips.ids]
    print("\n".join(["", *table(rows), "", f"Behind ± are {100 * LEVEL:.0f} % intervals over clips."]))
    write_plot(arguments.out / "speeds.png", rows, arguments.gap)
    print(f"the speed along the shots: {arguments.out / 'speeds.png'}; {SHOWN} of them: shot_*.gif, {', '.join(WAYS)}")


def row_path(setting: Setting, clip_id: str) -> Path:
    """Where the row of a clip is kept."""
    return setting.out / "rows" / f"{''.join(c if c.isalnum() or c in '-_' else '_' for c in clip_id)[:150]}.json"


if __name__ == "__main__":
    end(main)
