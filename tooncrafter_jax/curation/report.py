"""The page that shows a set's curation: how many clips each threshold drops, histograms of all scores, and pictures of
what was kept, of what was dropped and why, and of the cuts.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tooncrafter_jax.curation.contact_sheets import write_clip_sheet, write_cut_sheet
from tooncrafter_jax.curation.decision import Decision
from tooncrafter_jax.curation.plots import write_counts, write_histogram
from tooncrafter_jax.curation.thresholds import CRITERIA, DUPLICATE, REASONS, TOO_SHORT, Thresholds
from tooncrafter_jax.curation.workspace import ClipRecord, SourceResult, Workspace
from tooncrafter_jax.data.records import SCORES
from tooncrafter_jax.io.atomic_files import cannot_write, replace_directory
from tooncrafter_jax.io.json_files import read_at_most
from tooncrafter_jax.io.markup import html_text
from tooncrafter_jax.io.owned_files import foreign
from tooncrafter_jax.typing import JsonObject

_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums } img { max-width: 100%; border: 1px solid #ddd }
h2 { margin-top: 2em } .note { color: #666 }
"""


PAGE = "index.html"
_LARGEST_PAGE = 2**26
"""Bytes of a page that can be ours: it has a few lines for each source that failed."""
_TITLE = "Clips from "


def write_report(
    directory: Path,
    run: JsonObject,
    results: Sequence[SourceResult],
    decision: Decision,
    workspace: Workspace,
    thresholds: Thresholds,
) -> Path:
    """Writes the page with its pictures; an older one stays until it is whole.

    Args:
      directory: of the page.
      run: what was asked for, as `Workspace.write_run` keeps it.
      results: of all sources.
      decision: what became of the clips.
      workspace: where their pictures are.
      thresholds: that were applied.

    Returns:
      The page.

    Raises:
      UserError: it cannot be written, a clip file is damaged, or matplotlib is not installed.
    """
    earlier = _earlier_page(directory)
    staging = directory.with_name(f".{directory.name}.incomplete")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            page = _Page(staging, results, decision, workspace, thresholds)
            page.write(run)
            replace_directory(
                staging, directory, lambda name: name in (PAGE, "cuts.png") or f'<img src="{name}"' in earlier
            )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise cannot_write(os.fspath(directory), error) from error
    return directory / PAGE


def _earlier_page(directory: Path) -> str:
    """The page of an earlier report, which names its pictures; empty if there is none.

    Raises:
      UserError: there is a page that is not ours.
    """
    not_ours = foreign(directory / PAGE, "move it away, or choose another directory")
    try:
        page = read_at_most(directory / PAGE, _LARGEST_PAGE).decode(errors="replace")
    except OSError:
        return ""
    except ValueError as error:
        raise not_ours from error
    if page and f"<title>{_TITLE}" not in page:
        raise not_ours
    return page


class _Page:
    """Collects the page's parts and writes its pictures."""

    def __init__(
        self,
        directory: Path,
        results: Sequence[SourceResult],
        decision: Decision,
        workspace: Workspace,
        thresholds: Thresholds,
    ):
        self.directory, self.results, self.decision = directory, results, decision
        self.thresholds = thresholds
        self.files = {result.source: workspace.clip_file(result) for result in results if result.file}
        self.details = {result.source: workspace.failure(result.source) for result in results}
        self.clips = [clip for result in results for clip in result.clips]
        self.kept = [clip for clips in decision.splits.values() for clip in clips]
        self.parts: list[str] = []

    def write(self, run: JsonObject) -> None:
        title = f"{_TITLE}{run['production']}"
        self._summary(title, run)
        self._counts()
        self._splits()
        self._histograms()
        self._pictures()
        self._failures()
        body = "\n".join(self.parts)
        head = f"<!doctype html>\n<meta charset=utf-8>\n<title>{html_text(title)}</title>\n<style>{_STYLE}</style>"
        page = f"{head}\n{body}\n"
        (self.directory / PAGE).write_text(page, encoding="utf-8", errors="xmlcharrefreplace")

    def _summary(self, title: str, run: Mapping[str, Any]) -> None:
        failed = sum(bool(result.failure) for result in self.results)
        frames = sum(map(len, self.kept))
        seconds = sum(len(clip) / clip.fps for clip in self.kept)
        stages = ", ".join(stage["name"] for stage in run["stages"]) or "none"
        self._add(
            f"<h1>{html_text(title)}</h1>",
            f"<p>{len(self.results)} sources, {failed} of them failed; {len(self.clips)} clips, {len(self.kept)} kept "
            f"({frames} frames, {seconds / 60:.1f} minutes). Stages: {html_text(stages)}. "
            f"Thresholds: version {html_text(self.decision.version)}.</p>",
        )

    def _counts(self) -> None:
        left, rows, bars = len(self.clips), [], [("made", len(self.clips))]
        for reason, meaning in REASONS.items():
            dropped = len(self.decision.dropped.get(reason, ()))
            left -= dropped
            rows.append((reason, meaning, self._limit(reason), dropped, left))
            bars.append((reason, left))
        write_counts(self.directory / "counts.png", bars)
        self._add("<h2>What was dropped, in this order</h2>")
        self._table(("reason", "meaning", "threshold", "dropped", "left"), rows)
        self._image("counts.png", "clips left after each threshold")

    def _limit(self, reason: str) -> str:
        fields = {criterion.reason: criterion.limit for criterion in CRITERIA}
        fields |= {TOO_SHORT: "min_frames", DUPLICATE: "max_duplicate_distance"}
        if reason not in fields:
            return ""
        value = getattr(self.thresholds, fields[reason])
        return f"{fields[reason]} = {'off' if value is None else f'{value:g}'}"

    def _splits(self) -> None:
        self._add("<h2>Splits</h2>")
        rows = [
            (name, len(clips), len({clip.source for clip in clips}), sum(map(len, clips)))
            for name, clips in self.decision.splits.items()
        ]
        self._table(("split", "clips", "sources", "frames"), rows)
        if len(rows) == 1:
            self._add("<p class=note>Nothing is held out, as one source alone has good clips.</p>")

    def _histograms(self) -> None:
        self._add("<h2>Scores</h2>")
        kept = {clip.id for clip in self.kept}
        limits = {criterion.score: criterion.limit for criterion in CRITERIA}
        for score, unit in SCORES.items():
            values = [(clip.scores[score], clip.id in kept) for clip in self.clips]
            self._histogram(score, unit, values, getattr(self.thresholds, limits[score]))
        frames = [(float(len(clip)), clip.id in kept) for clip in self.clips]
        self._histogram("frames", "frames of a clip", frames, self.thresholds.min_frames)
        rates = [(clip.effective_fps, clip.id in kept) for clip in self.clips]
        self._histogram("effective_fps", "drawings a second", rates, None)

    def _histogram(self, name: str, unit: str, values: list[tuple[float, bool]], limit: int | float | None) -> None:
        measured = [pair for pair in values if not math.isnan(pair[0])]
        if not measured:
            self._add(f"<p class=note>{html_text(name)}: not measured.</p>")
            return
        write_histogram(self.directory / f"histogram-{name}.png", name, unit, measured, limit)
        self._image(f"histogram-{name}.png", f"histogram of {name}")
        if len(measured) < len(values):
            self._add(
                f"<p class=note>{html_text(name)}: not measured in {len(values) - len(measured)} of {len(values)} "
                "clips.</p>"
            )

    def _pictures(self) -> None:
        groups: list[tuple[str, str, Sequence[ClipRecord]]] = [("kept", "Kept", self.kept)]
        for reason, clips in self.decision.dropped.items():
            groups.append((f"dropped-{reason}", f"Dropped: {REASONS[reason]} ({reason})", clips))
        by_id = {clip.id: clip for clip in self.clips}
        scores = {criterion.reason: criterion.score for criterion in CRITERIA}
        for name, title, clips in groups:
            if not clips:
                continue
            partners = {c.id: by_id[self.decision.same_as[c.id]] for c in clips if c.id in self.decision.same_as}
            score = scores.get(name.removeprefix("dropped-"))
            shown = write_clip_sheet(self.directory / f"{name}.png", clips, self.files, score, partners)
            self._add(
                f"<h2>{html_text(title)}</h2>",
                f"<p class=note>{_shown(shown, len(clips), 'clips')}; first, middle and last frame",
            )
            self._add("of the dropped clip, then of the one that is kept.</p>" if partners else "of each.</p>")
            self._image(f"{name}.png", title)
        shown, total = write_cut_sheet(self.directory / "cuts.png", self.results, self.files)
        if total:
            self._add(
                "<h2>Cuts</h2>", f"<p class=note>{_shown(shown, total, 'cuts')}; last frame before and first after.</p>"
            )
            self._image("cuts.png", "cuts")

    def _failures(self) -> None:
        failed = [result for result in self.results if result.failure]
        empty = [result.source for result in self.results if not result.failure and not result.clips]
        self._add("<h2>Sources that failed</h2>")
        self._table(("source", "what was wrong"), [(result.source, result.failure) for result in failed])
        for result in failed:
            if result.details:
                path = self.details[result.source]
                self._add(f"<p class=note>{html_text(result.source)}: details in {html_text(os.fspath(path))}</p>")
        if empty:
            self._add(f"<p>Without a single clip: {html_text(', '.join(empty))}.</p>")

    def _table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        if not rows:
            self._add("<p class=note>None.</p>")
            return
        lines = ["<tr>" + "".join(f"<th>{html_text(name)}</th>" for name in head) + "</tr>"]
        for row in rows:
            cells = (f"<td{' class=number' * isinstance(cell, int)}>{html_text(cell)}</td>" for cell in row)
            lines.append(f"<tr>{''.join(cells)}</tr>")
        self._add("<table>", *lines, "</table>")

    def _image(self, name: str, alternative: str) -> None:
        self._add(f'<p><img src="{name}" alt="{html_text(alternative)}"></p>')

    def _add(self, *parts: str) -> None:
        self.parts.extend(parts)


def _shown(shown: int, total: int, what: str) -> str:
    return f"{total} {what}" if shown == total else f"{shown} of {total} {what}"
