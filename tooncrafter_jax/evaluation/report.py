"""The report of an evaluation: `report.md`, `report.json`, plots, and pictures of the best and the worst clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tooncrafter_jax.evaluation.metrics.i3d_features import LOGITS, too_few_clips
from tooncrafter_jax.evaluation.metrics.intervals import Interval, difference, interval
from tooncrafter_jax.evaluation.metrics.metric import Metric
from tooncrafter_jax.evaluation.pictures import write_side_by_side, write_together
from tooncrafter_jax.evaluation.plots import write_by_frame, write_intervals
from tooncrafter_jax.evaluation.run import Evaluation, Measured, Method, Truth, denoiser_flops_of, per_clip
from tooncrafter_jax.io import write_json
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.io.markup import markdown_code, markdown_text
from tooncrafter_jax.typing import HostArray, JsonObject

RANKED_BY = ("lpips_alexnet", "lpips_vgg16", "psnr", "ssim")
"""Metrics by which the best and the worst clips are chosen: the first of these that was measured."""
CASES = 4
"""Clips that are shown of each kind."""
FASTEST = 24
"""Frames a second of the videos at most; slower ones play at their clip's own rate."""


@dataclass(frozen=True)
class Numbers:
    """What a report says.

    Attributes:
      found: method -> metric -> number with its interval.
      by_frame: method -> metric -> means by frame (T,), of metrics of frames.
    """

    found: Mapping[str, Mapping[str, Interval]]
    by_frame: Mapping[str, Mapping[str, HostArray]]


def numbers_of(metrics: Sequence[Metric], measured: Sequence[Measured]) -> Numbers:
    """The numbers of all methods."""
    found, curves = {}, {}
    for method in measured:
        found[method.name] = {metric.name: interval(metric, method.rows[metric.name]) for metric in metrics}
        by_frame = {metric.name: metric.by_frame(method.rows[metric.name]) for metric in metrics}
        curves[method.name] = {name: values for name, values in by_frame.items() if values is not None}
    return Numbers(found, curves)


def write_report(
    evaluation: Evaluation,
    measured: Sequence[Measured],
    request: JsonObject,
    shown: Sequence[int] = (),
    against: str | None = None,
) -> Path:
    """Writes the report into the evaluation's directory, in place of an older one.

    Args:
      evaluation: the run.
      measured: what it returned.
      request: what was asked for, for the report's head.
      shown: indices of clips that are shown whatever their numbers.
      against: name of the method that the others are compared with; None for no comparison.

    Returns:
      `report.md`.

    Raises:
      UserError: a file cannot be written, or matplotlib is not installed.
    """
    directory, metrics = evaluation.store.directory, evaluation.metrics
    numbers = numbers_of(metrics, measured)
    differences = {} if against is None else differences_from(against, metrics, measured)
    costs = {method.name: costs_of(method, one) for method, one in zip(evaluation.methods, measured, strict=True)}
    write_json(
        directory / "report.json",
        {
            "request": dict(request),
            "clips": len(evaluation.clips),
            "costs": costs,
            "left_out": evaluation.clips.left_out,
            "methods": {method.name: method.title for method in measured},
            "numbers": {
                name: {metric: asdict(value) for metric, value in of_method.items()}
                for name, of_method in numbers.found.items()
            },
            "by_frame": numbers.by_frame,
            "against": against,
            "differences": {
                name: {metric: asdict(value) for metric, value in of_method.items()}
                for name, of_method in differences.items()
            },
        },
    )
    lines = [*_head(evaluation, request), *_table(metrics, measured, numbers)]
    if against is not None:
        lines += _compared(against, metrics, measured, differences)
    lines += [*_costs_table(measured, costs), *_notes(metrics, measured)]
    titles = [method.title for method in measured]
    panels = [(m.title, m.better, [numbers.found[method.name][m.name] for method in measured]) for m in metrics]
    write_intervals(directory / "plots" / "intervals.png", titles, panels)
    lines += ["## Numbers with their intervals", "", "![intervals](plots/intervals.png)", ""]
    framewise = [metric for metric in metrics if metric.name in numbers.by_frame[measured[0].name]]
    if framewise:
        lines += ["## By frame", "", "As in the paper's Figure 8. Frames 0 and the last are given.", ""]
    for metric in framewise:
        curves = {method.title: numbers.by_frame[method.name][metric.name] for method in measured}
        write_by_frame(directory / "plots" / f"{metric.name}.png", metric.title, metric.better, curves)
        lines += [f"![{metric.title}](plots/{metric.name}.png)", ""]
    lines += _chosen(evaluation, shown) + _cases(evaluation, measured)
    path = directory / "report.md"
    write_atomically(path, "\n".join(lines).encode(errors="backslashreplace"))
    return path


def costs_of(method: Method, measured: Measured) -> dict[str, float | None]:
    """What a clip takes: the median of its seconds, and TFLOP of the denoiser; None where that is not known."""
    known = measured.seconds[np.isfinite(measured.seconds)]
    flops = denoiser_flops_of(method)
    return {
        "seconds": float(np.median(known)) if len(known) else None,
        "denoiser_tflop": None if flops is None else flops / 1e12,
    }


def differences_from(
    against: str, metrics: Sequence[Metric], measured: Sequence[Measured]
) -> dict[str, dict[str, Interval]]:
    """By how much each other method's number is larger than that of the method `against`: method -> metric -> the
    difference, whose interval comes of the same draws of clips for both.
    """
    base = next(method for method in measured if method.name == against)
    return {
        method.name: {
            metric.name: difference(metric, method.rows[metric.name], base.rows[metric.name]) for metric in metrics
        }
        for method in measured
        if method.name not in (against, Truth.name)
    }


def _compared(
    against: str,
    metrics: Sequence[Metric],
    measured: Sequence[Measured],
    differences: Mapping[str, Mapping[str, Interval]],
) -> list[str]:
    """The differences as a table; what is better beyond its interval is bold."""
    titles = {method.name: method.title for method in measured}
    lines = [f"## Against {markdown_text(titles[against])}", ""]
    lines.append("| method | " + " | ".join(metric.title for metric in metrics) + " |")
    lines.append("|---" * (len(metrics) + 1) + "|")
    for name, of_method in differences.items():
        cells = []
        for metric in metrics:
            value = of_method[metric.name]
            is_better = value.high < 0 if metric.better == "lower" else value.low > 0
            text = "–" if math.isnan(value.value) else ("+" if value.value > 0 else "") + _text(value)
            cells.append(f"**{text}**" if is_better else text)
        lines.append(f"| {markdown_text(titles[name])} | " + " | ".join(cells) + " |")
    return [*lines, "", "Differences clip by clip; in bold, what is better beyond the 95 % interval.", ""]


def _head(evaluation: Evaluation, request: JsonObject) -> list[str]:
    settings = [f"- {name}: {markdown_code(value)}" for name, value in request.items()]
    return ["# Evaluation", "", evaluation.clips.sentence(), "", *settings, ""]


def _table(metrics: Sequence[Metric], measured: Sequence[Measured], numbers: Numbers) -> list[str]:
    """A row a method, with the best number of each metric in bold; the truth, where it is one of them, never is."""
    arrows = {"lower": "↓", "higher": "↑"}
    lines = ["| method | " + " | ".join(f"{metric.title} {arrows[metric.better]}" for metric in metrics) + " |"]
    lines.append("|---" * (len(metrics) + 1) + "|")
    rivals = [method for method in measured if method.name != Truth.name]
    for method in measured:
        cells = []
        for metric in metrics:
            value = numbers.found[method.name][metric.name]
            others = [numbers.found[rival.name][metric.name].value for rival in rivals]
            others = [other for other in others if not math.isnan(other)]
            best = (min if metric.better == "lower" else max)(others, default=math.nan)
            text = "–" if math.isnan(value.value) else _text(value)
            is_best = method in rivals and len(rivals) > 1 and value.value == best
            cells.append(f"**{text}**" if is_best else text)
        lines.append(f"| {markdown_text(method.title)} | " + " | ".join(cells) + " |")
    return [*lines, "", "Behind ± are the 95 % intervals of a bootstrap over clips.", ""]


def _costs_table(measured: Sequence[Measured], costs: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    lines = ["## What a clip takes", "", "| method | seconds | TFLOP of the denoiser |", "|---|---|---|"]
    for method in measured:
        numbers = ["–" if value is None else _digits(value, 3) for value in costs[method.name].values()]
        lines.append(f"| {markdown_text(method.title)} | " + " | ".join(numbers) + " |")
    said = (
        "Seconds are the median over clips, in batches, on this run's devices, without compiling and without measuring."
    )
    return [*lines, "", said, ""]


def _text(value: Interval) -> str:
    reach = value.high - value.value
    number = _digits(value.value, 4)
    return number if math.isnan(reach) else f"{number} ± {_digits(reach, 2)}"


def _digits(number: float, digits: int) -> str:
    """A number with so many significant digits and no exponent; 0 for what is only rounding."""
    return np.format_float_positional(0.0 if abs(number) < 1e-9 else number, digits, fractional=False, trim="-")


def _notes(metrics: Sequence[Metric], measured: Sequence[Measured]) -> list[str]:
    rows = [rows for rows in measured[0].rows.values() if LOGITS in rows]
    note = too_few_clips(len(rows[0][LOGITS])) if rows else ""
    names = [metric.title for metric in metrics if LOGITS in measured[0].rows[metric.name]]
    return [f"Note: {' and '.join(names)} were {note}.", ""] if note else []


def _cases(evaluation: Evaluation, measured: Sequence[Measured]) -> list[str]:
    """Sheets and videos of the clips that the first method but the truth made worst and best, and of some between."""
    metric_of_rank = next((metric for name in RANKED_BY for metric in evaluation.metrics if metric.name == name), None)
    ranked = next((method for method in measured if method.name != Truth.name), None)
    if metric_of_rank is None or ranked is None:
        return []
    scores = per_clip(metric_of_rank, ranked.rows[metric_of_rank.name])
    order = np.argsort(scores if metric_of_rank.better == "lower" else -scores, kind="stable")  # best first
    middle = len(order) // 2
    kinds = {"best": order[:CASES], "middling": order[middle : middle + CASES], "worst": order[::-1][:CASES]}
    lines = [f"## Clips by {metric_of_rank.title} of {markdown_text(ranked.title)}", ""]
    for kind, indices in kinds.items():
        for place, index in enumerate(indices.tolist(), start=1):
            lines += _case(evaluation, index, f"{kind}-{place}", f"{kind} {place}, {scores[index]:.4g}")
    return lines


def _chosen(evaluation: Evaluation, shown: Sequence[int]) -> list[str]:
    """Sheets and videos of the clips that were asked for."""
    lines = ["## Clips that were asked for", ""] if shown else []
    for place, index in enumerate(shown, start=1):
        lines += _case(evaluation, index, f"asked-{place}", f"{place}")
    return lines


def _case(evaluation: Evaluation, index: int, name: str, title: str) -> list[str]:
    """Writes the sheet and the video of a clip, the truth and every method; returns the lines that show them."""
    clip = evaluation.clips[index]
    methods = [method for method in evaluation.methods if method.name != Truth.name]
    videos = [clip.video, *(evaluation.videos_of(method, index) for method in methods)]
    path = evaluation.store.directory / "cases" / name
    sketches: list[Any] = [method.settings().get("sketches", {}) for method in methods]
    guided = {frame for of_method in sketches for frame in of_method.get("frames", ())}
    titles = ["truth", *(method.title for method in methods)]
    write_side_by_side(path.with_suffix(".png"), titles, videos, also=sorted(guided))
    write_together(path.with_suffix(".mp4"), videos, float(min(clip.fps, FASTEST)))
    prompt = f", “{markdown_text(clip.prompt)}”" if clip.prompt else ""
    shown = f"{title}: {markdown_code(clip.id)}{prompt} ([video](cases/{name}.mp4))"
    return [shown, "", f"![{markdown_text(clip.id)}](cases/{name}.png)", ""]
