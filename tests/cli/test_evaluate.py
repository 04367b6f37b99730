"""`tooncrafter evaluate`: a report that says what was measured, and mistakes in one sentence."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.cli.world import Command
from tests.evaluation.small_set import LENGTHS, make_set
from tests.evaluation.triplets import write_triplets
from tooncrafter_jax.io import write_png_sequence
from tooncrafter_jax.io.lossless import write_lossless

pytest.importorskip("cv2", reason="needs the extra 'eval'")

SIZE = ("--height=32", "--width=32", "--quiet")
CHEAP = ("--metrics", "psnr", "ssim", "key_frames")
SIMPLE = ("--methods", "truth", "still", "cross_fade")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of seven usable clips; not to be written to."""
    directory = tmp_path_factory.mktemp("clips")
    make_set(directory)
    return directory


@pytest.mark.gate
def test_a_report_says_what_was_measured(clips: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    result = command("evaluate", str(clips), f"--out={out}", *SIZE, *CHEAP, *SIMPLE)
    assert (result.code, result.out) == (0, f"report: {out / 'report.md'}\n")
    report = json.loads((out / "report.json").read_text())
    found = {name: {m: one["value"] for m, one in of.items()} for name, of in report["numbers"].items()}
    assert report["clips"] == len(LENGTHS) - 1 and report["left_out"] == 1
    assert found["truth"]["ssim"] == pytest.approx(1.0)
    assert found["truth"]["psnr"] > found["cross_fade"]["psnr"] > found["still"]["psnr"]
    assert found["cross_fade"]["key_frames"] == found["truth"]["key_frames"] > found["still"]["key_frames"]
    for of in report["numbers"].values():
        assert all(one["low"] <= one["value"] <= one["high"] for one in of.values())
    curve = report["by_frame"]["cross_fade"]["psnr"]
    assert len(curve) == 16 and min(curve) < min(curve[0], curve[-1])
    text = (out / "report.md").read_text()
    assert "| cross-fade | **" in text and "| truth | **" not in text
    for name in ("plots/intervals.png", "plots/psnr.png", "cases/worst-1.png", "cases/best-1.mp4"):
        assert (out / name).stat().st_size > 1000 and name in text


@pytest.mark.gate
def test_the_same_command_measures_nothing_twice(clips: Path, tmp_path: Path, command: Command) -> None:
    argv = ("evaluate", str(clips), f"--out={tmp_path}", *SIZE, *CHEAP, "--methods", "cross_fade")
    assert command(*argv).code == 0
    times = {path: path.stat().st_mtime_ns for path in [*tmp_path.glob("rows/*/*"), *tmp_path.glob("videos/*/*")]}
    first = (tmp_path / "report.md").read_bytes()
    assert len(times) == 2 + len(LENGTHS) - 1
    assert command(*argv).code == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (tmp_path / "report.md").read_bytes() == first
    assert command(*argv, "still").code == 0  # one more method; the others are kept
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert command(*argv, "--show", "film 3", "film 2").code == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    text = (tmp_path / "report.md").read_text()
    for place, clip in enumerate(("film 3/é 0", "film 2/é 0"), start=1):
        assert f"{place}: `{clip}`" in text and f"![{clip}](cases/asked-{place}.png)" in text
        assert (tmp_path / "cases" / f"asked-{place}.mp4").stat().st_size > 1000


@pytest.mark.gate
def test_decoders_are_compared(clips: Path, checkpoint: Path, tmp_path: Path, command: Command) -> None:
    methods = ("--methods", f"ours=reconstruction:{checkpoint}")
    argv = ("--metrics", "psnr", "--frames=4", "--limit=1", *methods)
    result = command("evaluate", str(clips), f"--out={tmp_path}", "--height=64", "--width=64", "--quiet", *argv)
    assert result.code == 0
    assert set(json.loads((tmp_path / "report.json").read_text())["numbers"]) == {"ours"}


class Case(NamedTuple):
    """A mistake.

    Attributes:
      name: of the test.
      argv: instead of the cheap metrics and simple methods.
      phrase: of the one sentence.
      prepare: makes the mistake in a folder that is the working directory.
    """

    name: str
    argv: tuple[str, ...]
    phrase: str
    prepare: Callable[[Path, Path, pytest.MonkeyPatch], object] = lambda here, clips, monkeypatch: None


def short_video(here: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(len(LENGTHS)):
        path = here / "theirs" / f"film {number}"
        write_lossless(path / "é 0.mp4", np.zeros((9, 32, 32, 3), np.uint8))


def large_pictures(here: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(len(LENGTHS)):
        write_png_sequence(here / "theirs" / f"film {number}" / "é 0", np.zeros((16, 40, 32, 3), np.uint8))


def damaged_set(here: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(clips, here / "set")
    shard = next((here / "set").rglob("*.array_record*"))
    shard.write_bytes(shard.read_bytes()[:100])


def full_disk(here: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tooncrafter_jax.io.atomic_files.write_and_sync", refuse)


def other_run(here: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "out").mkdir()
    (here / "out" / "run.json").write_text(json.dumps({"request": {"clips": "others"}, "methods": {}}))


CASES = [
    Case("no set", ("SET=nowhere",), "'nowhere' does not exist"),
    Case("no split", ("--split=holdout",), "has no split 'holdout'"),
    Case("damaged set", ("SET=set",), "is missing or cut off", damaged_set),
    Case("no metric", ("--metrics", "psnrr"), "did you mean 'psnr'?"),
    Case("no method", ("--methods", "cross_fad"), "did you mean 'cross_fade'?"),
    Case("no model", ("--methods", "."), "model.json"),
    Case("another name of the truth", ("--methods", "real=truth"), "gives the true clips another name"),
    Case("two of a name", ("--methods", "still", "still"), "two methods are called 'still'"),
    Case(
        "against none of them, told before any is loaded",
        ("--methods", "still", "sketched:nowhere", "--against=rife"),
        "--against=rife must be one of the methods that are compared: still, nowhere+sketches",
    ),
    Case("metrics and preset", ("--preset=table4", *CHEAP), "exclude each other"),
    Case("table 4 of nothing", ("--preset=table4",), "give --methods reconstruction:DIR"),
    Case("no decoder", ("--methods", "reconstruction:nowhere"), "there is no model 'nowhere'"),
    Case("sketches of nothing", ("--methods", "sketched:nowhere"), "there is no model 'nowhere'"),
    Case("no sketch extractor", ("--sketch-extractor=hedd",), "invalid choice: 'hedd'"),
    Case("CLIP without weights", ("--metrics", "clip_image"), "give them with --clip-weights"),
    Case("weights of nothing", ("--quick-gelu",), "--quick-gelu needs the weights of CLIP"),
    Case("networks not fetched", ("--metrics", "fvd", "--metric-weights=nowhere"), "fetch-metric-weights"),
    Case("RIFE not fetched", ("--methods", "rife", "--metric-weights=nowhere"), "fetch-metric-weights"),
    Case("too short for FVD", ("--frames=8", "--metrics", "fvd"), "at least 9 frames, not 8"),
    Case("clips too short", ("--frames=80",), "has 80 frames"),
    Case("two frames", ("--frames=2",), "--frames is 2, but must be at least 3"),
    Case("no stride", ("--stride=0",), "--stride is 0"),
    Case("no batch", ("--batch-size=0",), "--batch-size is 0"),
    Case("negative limit", ("--limit=-1",), "--limit is -1"),
    Case("no folder", ("--methods", "folder:nowhere"), "'nowhere' is not a folder"),
    Case("a clip is missing", ("--methods", "folder:."), "lacks 7 of 7 clips"),
    Case("other length", ("--methods", "folder:theirs"), "has 9 frames, but 16 are compared", short_video),
    Case("other size", ("--methods", "folder:theirs"), "32 x 40 pixels, but the clip is 32 x 32", large_pictures),
    Case("a file is in the way", ("--out=file",), "'file'", lambda here, clips, _: (here / "file").write_text("")),
    Case("another evaluation", (), "holds another evaluation (the clips differ)", other_run),
    Case("full disk", (), "free some space", full_disk),
    Case("no clip to show", ("--show", "film 99"), "none of the 7 clips has 'film 99' in its id; ids are like 'film"),
    Case("steps out of range", ("--steps=0",), "steps"),
    Case("unknown option", ("--strid=2",), "did you mean --stride?"),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_mistake_is_one_sentence(
    case: Case,
    clips: Path,
    checkpoint: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    metric_weights: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    case.prepare(tmp_path, clips, monkeypatch)
    argv = list(case.argv)
    where = str(clips)
    if argv and argv[0].startswith("SET="):
        where = argv.pop(0).removeprefix("SET=")
    if "--metrics" not in argv and not any(part.startswith("--preset") for part in argv):
        argv += CHEAP
    if "--methods" not in argv:
        argv += [*SIMPLE, str(checkpoint)] if case.name == "steps out of range" else SIMPLE
    if "fvd" in argv and not any(part.startswith("--metric-weights") for part in argv):
        argv.append(f"--metric-weights={metric_weights}")
    result = command("evaluate", where, "--out=out", *SIZE, *argv)
    assert result.code == 2, result
    assert len(result.errors) == 1 and case.phrase in result.errors[0]
    assert "Traceback" not in result.err
    assert not (tmp_path / "out" / "report.md").exists()


def test_triplets_are_measured_by_their_middle_drawing(tmp_path: Path, command: Command) -> None:
    write_triplets(tmp_path / "set")
    metrics = ("--metrics", "psnr", "ssim_grey")
    argv = ("evaluate", f"--atd12k={tmp_path / 'set'}", f"--out={tmp_path / 'out'}", *SIZE, *metrics, "--methods")
    result = command(*argv, "truth", "cross_fade", "still")
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    found = {name: {m: one["value"] for m, one in of.items()} for name, of in report["numbers"].items()}
    assert report["clips"] == 3 and found["truth"] == {"psnr": 100, "ssim_grey": pytest.approx(1)}
    assert 5 < found["still"]["psnr"] < found["cross_fade"]["psnr"] < 60 and report["by_frame"]["still"] == {}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "3 triplets of ATD-12K" in text and (tmp_path / "out" / "cases" / "worst-1.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["SET", "--atd12k=DIR"], "give a SET of clips or --atd12k=DIR, one of them"),
        ([], "give a SET of clips or --atd12k=DIR, one of them"),
        (["--atd12k=DIR", "--metrics", "fvd"], "fvd is no metric of single frames"),
        (["--atd12k=DIR", "--start=motion"], "--stride and --start choose frames"),
        (["--atd12k=DIR", "--split=train"], "--split is that of a SET"),
        (["--atd12k=DIR", "--preset=table1"], "--preset=table1 names metrics of whole clips: with --atd12k give"),
        (["--atd12k=DIR", "--methods", "sketched:small"], "'sketched:small' is given true frames"),
        (["--atd12k=nowhere"], "cannot read 'nowhere/test_2k_540p'"),
    ],
)
def test_what_triplets_cannot_be_asked_for(tmp_path: Path, command: Command, changes: list[str], words: str) -> None:
    changes = [change.replace("DIR", str(tmp_path)).replace("SET", str(tmp_path)) for change in changes]
    result = command("evaluate", *changes, f"--out={tmp_path / 'out'}", *SIZE)
    assert result.code == 2 and words in result.err and len(result.errors) == 1, result.err
