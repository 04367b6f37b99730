"""The report: what it counts, and that its pictures show the clips that they name."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.curation.fakes import make_clip
from tooncrafter_jax.curation.contact_sheets import HEIGHT, MAX_CLIPS, write_clip_sheet, write_cut_sheet
from tooncrafter_jax.curation.decision import decide
from tooncrafter_jax.curation.report import write_report
from tooncrafter_jax.curation.splits import SplitRule
from tooncrafter_jax.curation.thresholds import Thresholds
from tooncrafter_jax.curation.workspace import SourceResult, Workspace
from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.errors import UserError

RUN = {"production": "films", "stages": [{"name": "motion"}]}


def _result(workspace: Workspace, source: str, clips: list[Clip]) -> SourceResult:
    return workspace.write(source, ("0" * 32,), ((clip, ()) for clip in clips), 0.0)


def _fading(source: str, number: int, first: int, last: int) -> Clip:
    """A clip of one colour a frame, from one grey to another."""
    greys = np.linspace(first, last, 17).round().astype(np.uint8)
    pictures = np.broadcast_to(greys[:, None, None, None], (17, 24, 24, 3)).copy()
    return clip_of_pictures(pictures, fps=24.0, id=f"{source}/{number}", source=source, start_frame=20 * number)


def _colours(path: Path, columns: int) -> list[int]:
    """The grey in the middle of each frame of the first row of a sheet."""
    sheet = np.asarray(Image.open(path).convert("L")).astype(int)
    row = sheet[-HEIGHT // 2]
    width = sheet.shape[1] // columns
    return [int(row[width * column + width // 2]) for column in range(columns)]


def test_a_sheet_shows_first_middle_and_last_frame_then_those_of_the_partner(tmp_path):
    workspace = Workspace(tmp_path)
    result = _result(workspace, "a", [_fading("a", 0, 10, 90), _fading("a", 1, 110, 250)])
    files = {"a": workspace.clip_file(result)}
    one, other = result.clips
    assert write_clip_sheet(tmp_path / "sheet.png", [one], files, "motion", {one.id: other}) == 1
    np.testing.assert_allclose(_colours(tmp_path / "sheet.png", 6), [10, 50, 90, 110, 180, 250], atol=3)


def test_the_cut_sheet_shows_the_frames_beside_cuts_and_no_divided_shots(tmp_path):
    workspace = Workspace(tmp_path)
    clips = [_fading("a", 2, 200, 150), _fading("a", 1, 10, 90)]
    divided = dataclasses.replace(_fading("a", 3, 150, 200), start_frame=2 * 20 + 17)
    result = _result(workspace, "a", [*clips, divided])
    files = {"a": workspace.clip_file(result)}
    assert write_cut_sheet(tmp_path / "cuts.png", [result], files) == (1, 1)
    np.testing.assert_allclose(_colours(tmp_path / "cuts.png", 2), [90, 200], atol=3)
    assert write_cut_sheet(tmp_path / "none.png", [], files) == (0, 0) and not (tmp_path / "none.png").exists()


def test_of_many_clips_a_sheet_shows_the_same_choice_every_time(tmp_path):
    workspace = Workspace(tmp_path)
    result = _result(workspace, "a", [make_clip("a", number, 1) for number in range(MAX_CLIPS + 5)])
    files = {"a": workspace.clip_file(result)}
    for name, clips in (("one", result.clips), ("other", result.clips[::-1])):
        assert write_clip_sheet(tmp_path / f"{name}.png", clips, files) == MAX_CLIPS
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_the_page_counts_drops_and_names_failures_and_what_was_not_measured(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'data'")
    workspace = Workspace(tmp_path / "workspace")
    scores = [{"motion": 0.1}, {"motion": 3.0, "text_area": 0.5}, {"motion": 9.0}, {"motion": math.nan}]
    results = [
        _result(workspace, "a", [make_clip("a", n, scores=values) for n, values in enumerate(scores)]),
        _result(workspace, "b", [make_clip("b", 0, frames=3, scores={"motion": 2.0})]),
        _result(workspace, "silent", []),
        workspace.write_failure("<i>bad</i>", "'<i>bad</i>' is cut off: copy it again", "Traceback ...", 0.0),
    ]
    clips = [clip for result in results for clip in result.clips]
    decision = decide(clips, Thresholds(), SplitRule())
    page = write_report(tmp_path / "report", RUN, results, decision, workspace, Thresholds()).read_text()
    for reason, dropped, left in (("too-short", 1, 4), ("static", 1, 3), ("text", 1, 2), ("duplicate", 0, 2)):
        row = next(line for line in page.splitlines() if line.startswith(f"<tr><td>{reason}</td>"))
        assert row.endswith(f"<td class=number>{dropped}</td><td class=number>{left}</td></tr>"), row
    assert "4 sources, 1 of them failed; 5 clips, 2 kept" in page
    assert "motion: not measured in 1 of 5 clips" in page and "aesthetic: not measured." in page
    assert "<i>" not in page and "&lt;i&gt;bad&lt;/i&gt;&#x27; is cut off" in page
    assert "Without a single clip: silent." in page
    assert "Nothing is held out" in page
    named = {part.split('"')[0] for part in page.split('src="')[1:]}
    assert named == {path.name for path in (tmp_path / "report").glob("*.png")}
    assert {"dropped-text.png", "dropped-static.png", "dropped-too-short.png", "kept.png", "cuts.png"} <= named


def test_somebodys_own_files_stay(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'data'")
    workspace = Workspace(tmp_path / "workspace")
    results = [_result(workspace, "a", [make_clip("a", 1, scores={"motion": 3.0})])]
    decision = decide(results[0].clips, Thresholds(), SplitRule())
    arguments = (tmp_path / "report", RUN, results, decision, workspace, Thresholds())
    write_report(*arguments)
    (tmp_path / "report" / "photo.png").write_text("mine")
    none = [_result(workspace, "silent", [])]
    write_report(tmp_path / "report", RUN, none, decide([], Thresholds(), SplitRule()), workspace, Thresholds())
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"index.html", "counts.png", "photo.png"}
    (tmp_path / "report" / "index.html").write_text("<title>My page</title>")
    with pytest.raises(UserError, match="index.html' would be replaced"):
        write_report(*arguments)
    assert (tmp_path / "report" / "index.html").read_text() == "<title>My page</title>"


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="needs the extra 'data'")
    workspace = Workspace(tmp_path / "workspace")
    results = [_result(workspace, "a", [make_clip("a", 1)])]
    decision = decide(results[0].clips, Thresholds(), SplitRule())
    arguments = (tmp_path / "report", RUN, results, decision, workspace, Thresholds())
    page = write_report(*arguments)
    before = page.read_text()
    workspace.clip_file(results[0]).write_bytes(b"")
    with pytest.raises(UserError, match="is damaged: delete it"):
        write_report(*arguments)
    assert page.read_text() == before and not list(tmp_path.glob(".report*"))
