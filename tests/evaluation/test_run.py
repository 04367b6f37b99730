"""An evaluation measures every clip once, goes on where it stopped, and does not depend on how it is cut."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.small_set import Darker, make_set, numbers
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics import make_metrics
from tooncrafter_jax.evaluation.report import costs_of, write_report
from tooncrafter_jax.evaluation.row_store import RowStore, file_name
from tooncrafter_jax.evaluation.run import Evaluation, Truth, per_clip
from tooncrafter_jax.evaluation.true_clips import TrueClips, WindowRule
from tooncrafter_jax.io.lossless import read_lossless, write_lossless
from tooncrafter_jax.options import as_shown, shown
from tooncrafter_jax.sampling.request import SamplingOptions

METRICS = ("psnr", "key_frames")


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory) -> TrueClips:
    return TrueClips(make_set(tmp_path_factory.mktemp("set")), WindowRule(16, 32, 32))


def evaluation(
    true: TrueClips, directory: Path, methods: list[Any], metrics: tuple[str, ...] = METRICS, **settings: Any
) -> Evaluation:
    settings_by_name = {method.name: method.settings() for method in methods}
    store = RowStore(directory, {"clips": true.fingerprint}, settings_by_name, restart=settings.pop("restart", False))
    return Evaluation(true, methods, make_metrics(metrics), store, **{"batch": 3, **settings})


def test_numbers_are_those_of_the_definition(true: TrueClips, tmp_path: Path) -> None:
    run = evaluation(true, tmp_path, [Truth(), Darker(10), Darker(20)])
    found = numbers(run, run.run())
    assert found["darker 10"]["psnr"] == pytest.approx(20 * np.log10(255 / 10), abs=0.2)
    assert found["darker 10"]["psnr"] - found["darker 20"]["psnr"] == pytest.approx(20 * np.log10(2), abs=0.1)
    assert found["truth"]["psnr"] > 60


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batches_change_nothing(true: TrueClips, tmp_path: Path, batch: int) -> None:
    """7 clips: batches of one, one whole batch, and one that is filled up."""
    by_three = evaluation(true, tmp_path / "three", [Darker(10)])
    other = evaluation(true, tmp_path / "other", [Darker(10)], batch=batch)
    for metric, rows in by_three.run()[0].rows.items():
        for name, values in rows.items():
            np.testing.assert_allclose(other.run()[0].rows[metric][name], values, rtol=1e-6)


def test_a_run_goes_on_where_it_stopped(true: TrueClips, tmp_path: Path) -> None:
    class Interrupted(Darker):
        def make(self, clips: Any) -> np.ndarray:
            if self.asked >= 3:
                raise KeyboardInterrupt
            return super().make(clips)

    with pytest.raises(KeyboardInterrupt):
        evaluation(true, tmp_path, [Interrupted(10, "d")]).run()
    rest = Darker(10, "d")
    again = evaluation(true, tmp_path, [rest])
    measured = again.run()
    assert rest.asked == len(true) - 3
    whole = evaluation(true, tmp_path / "whole", [Darker(10, "d")])
    assert numbers(again, measured) == numbers(whole, whole.run())


def test_more_metrics_need_no_second_making(true: TrueClips, tmp_path: Path) -> None:
    evaluation(true, tmp_path, [Darker(10, "d")]).run()
    method = Darker(10, "d")
    more = evaluation(true, tmp_path, [method], (*METRICS, "ssim"))
    assert set(numbers(more, more.run())["d"]) == {*METRICS, "ssim"}
    assert method.asked == 0


def test_without_videos_nothing_is_kept_of_them(true: TrueClips, tmp_path: Path) -> None:
    run = evaluation(true, tmp_path, [Darker(10)], keep_videos=False)
    run.run()
    assert not (tmp_path / "videos").exists()
    expected = np.maximum(true[2].video.astype(int) - 10, 0)
    np.testing.assert_array_equal(run.videos_of(run.methods[0], 2), expected)


@pytest.mark.parametrize("how", ["cut off", "empty", "of other clips"])
def test_damaged_rows_are_measured_again(true: TrueClips, tmp_path: Path, how: str) -> None:
    first = evaluation(true, tmp_path, [Darker(10)])
    expected = numbers(first, first.run())
    path = tmp_path / "rows" / file_name("darker 10") / "00001.npz"
    if how == "of other clips":
        path.write_bytes((path.parent / "00000.npz").read_bytes())
    else:
        path.write_bytes(path.read_bytes()[: 100 if how == "cut off" else 0])
    again = evaluation(true, tmp_path, [Darker(10)])
    assert numbers(again, again.run()) == expected


def test_a_damaged_video_is_made_again(true: TrueClips, tmp_path: Path) -> None:
    evaluation(true, tmp_path, [Darker(10)]).run()
    again = evaluation(true, tmp_path, [Darker(10)], (*METRICS, "ssim"))
    path = again.store.video_path("darker 10", true.ids[0])
    path.write_bytes(path.read_bytes()[:200])
    again.run()
    assert again.methods[0].asked == 3  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_array_equal(read_lossless(path), np.maximum(true[0].video.astype(int) - 10, 0))


def test_another_evaluation_is_not_mixed_in(true: TrueClips, tmp_path: Path) -> None:
    evaluation(true, tmp_path, [Darker(10, "d")]).run()
    with pytest.raises(UserError, match="holds another evaluation .the method d differ"):
        evaluation(true, tmp_path, [Darker(11, "d")])
    fewer = TrueClips(true.clips, true.rule, 3)
    with pytest.raises(UserError, match="holds another evaluation .the clips differ"):
        evaluation(fewer, tmp_path, [Darker(10, "d")])
    other = evaluation(fewer, tmp_path, [Darker(11, "d")], restart=True)
    assert len(other.run()[0].rows["psnr"]["psnr"]) == 3
    evaluation(fewer, tmp_path, [Darker(5, "another")]).run()  # one more method is welcome
    evaluation(fewer, tmp_path, [Darker(11, "d")]).run()


@pytest.mark.parametrize("name", ["report.md", "report.json", "plots", "rows", "videos", "cases"])
def test_somebodys_own_files_of_such_names_are_not_replaced(name: str, true: TrueClips, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}' would be replaced, but no record says"):
        evaluation(true, tmp_path, [Darker(10)])
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_an_evaluation_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    now = {"dtype": "float32", **shown(SamplingOptions(steps=7))}
    before = {"dtype": "float32", **asdict(SamplingOptions(steps=7, decode_frames_per_chunk=2))}
    del before["solver"]  # as if there had been no such option
    RowStore(tmp_path, {}, {"model": before})
    as_now = partial(as_shown, SamplingOptions)
    for other in ({"solver": "another"}, {"steps": 8}, {"dtype": "bfloat16"}):
        with pytest.raises(UserError, match="holds another evaluation"):
            RowStore(tmp_path, {}, {"model": {**now, **other}}, as_now=as_now)
    RowStore(tmp_path, {}, {"model": now}, as_now=as_now)
    assert json.loads((tmp_path / "run.json").read_text())["methods"] == {"model": now}


def test_restarting_throws_away_an_evaluation_and_nothing_else(true: TrueClips, tmp_path: Path) -> None:
    """Its report's files are some whose names the report gives."""
    pytest.importorskip("matplotlib", reason="needs the extra 'eval'")
    run = evaluation(true, tmp_path, [Darker(10, "d")])
    write_report(run, run.run(), {}, shown=range(2))
    (tmp_path / "videos" / "d" / f"{file_name(true.ids[0])}.mp4").rename(tmp_path / "first.mp4")
    made = {path for part in ("rows", "videos", "cases", "plots") for path in (tmp_path / part).rglob("*.*")}
    assert {path.suffix for path in made} == {".npz", ".mp4", ".png"} and len(made) > 20
    mine = [
        tmp_path / name
        for name in (
            "videos/d/mine.mp4",
            "videos/d/notes.txt",
            "videos/mine.mp4",
            "cases/mine.png",
            "cases/best.png",
            "plots/mine.png",
            "rows/d/mine.npz",
        )
    ]
    for path in mine:
        path.write_text("mine")
    evaluation(true, tmp_path, [Darker(11, "d")], restart=True)
    assert all(path.read_text() == "mine" for path in mine)
    left = {path for part in ("rows", "videos", "cases", "plots") for path in (tmp_path / part).rglob("*.*")}
    assert left == set(mine)


def test_a_report_compares_methods_clip_by_clip(true: TrueClips, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'eval'")
    run = evaluation(true, tmp_path, [Truth(), Darker(10, "one"), Darker(20, "other")])
    text = write_report(run, run.run(), {}, against="one").read_text()
    assert "## Against one" in text
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["against"] == "one" and list(found["differences"]) == ["other"]
    for metric, value in found["differences"]["other"].items():
        one, other = (found["numbers"][name][metric]["value"] for name in ("one", "other"))
        assert value["value"] == pytest.approx(other - one)
        assert value["low"] <= value["value"] <= value["high"]
    assert "| other | -" in text and "**" not in text.split("## Against one")[1].split("Differences")[0]


def test_restarting_takes_nothing_for_its_own_that_no_rows_tell_of(true: TrueClips, tmp_path: Path) -> None:
    """A run that was stopped between the videos and the rows of a batch leaves videos that no record names."""
    evaluation(true, tmp_path, [Darker(10, "d")]).run()
    for path in (tmp_path / "rows").rglob("*.npz"):
        path.unlink()
    RowStore(tmp_path, {"clips": true.fingerprint}, {"d": {"levels": 11}}, restart=True, clips=true.ids)
    method = Darker(11, "d")
    evaluation(true, tmp_path, [method]).run()
    assert method.asked == len(true)


def test_mistakes(true: TrueClips, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two methods are called 'd'"):
        evaluation(true, tmp_path, [Darker(1, "d"), Darker(2, "d")])
    with pytest.raises(UserError, match="--batch-size is 0"):
        evaluation(true, tmp_path, [Darker(1)], batch=0)

    class Short(Darker):
        def make(self, clips: Any) -> np.ndarray:
            return super().make(clips)[:, :8]

    with pytest.raises(UserError, match="'short' made clips of shape .8, 32, 32, 3., but the true ones have"):
        evaluation(true, tmp_path, [Short(1, "short")]).run()
    for foreign in (
        "{",
        "[]",
        "{}",
        '{"request": [], "methods": {}}',
        '{"request": {}, "methods": {"d": 1}}',
        "[" * 9999,
    ):
        (tmp_path / "run.json").write_text(foreign)
        with pytest.raises(UserError, match="run.json' would be replaced, .*: choose another --out, or move it away"):
            evaluation(true, tmp_path, [Darker(1)])
        assert (tmp_path / "run.json").read_text() == foreign


def test_seconds_are_those_of_making(true: TrueClips, tmp_path: Path) -> None:
    """Not of the first batch, in which programs are compiled. The last one is filled up, so that none is compiled for
    its size. They are kept with the rows.
    """
    sizes = []

    class Slow(Darker):
        def make(self, clips: Any) -> Any:
            sizes.append(len(clips))
            time.sleep(0.06)
            return super().make(clips)

        def denoiser_flops(self) -> float:
            return 2.5e12

    methods: list[Any] = [Slow(10), Darker(20)]
    run = evaluation(true, tmp_path, methods)
    measured = run.run()
    slow = measured[0].seconds
    assert sizes == [3, 3, 3], "7 clips in batches of 3"
    assert np.isnan(slow[:3]).all() and (slow[3:] >= 0.02).all() and slow[6] < 0.06
    np.testing.assert_array_equal(evaluation(true, tmp_path, methods).run()[0].seconds, slow)
    assert costs_of(methods[0], measured[0]) == {"seconds": pytest.approx(np.nanmedian(slow)), "denoiser_tflop": 2.5}
    assert costs_of(methods[1], measured[1])["denoiser_tflop"] is None


def test_numbers_of_single_clips(true: TrueClips, tmp_path: Path) -> None:
    run = evaluation(true, tmp_path, [Darker(10)])
    (measured,) = run.run()
    single = per_clip(run.metrics[0], measured.rows["psnr"])
    assert single.shape == (len(true),)
    assert single.mean() == pytest.approx(run.metrics[0].summarise(measured.rows["psnr"]))


@pytest.mark.parametrize("shape", [(16, 32, 32, 3), (5, 17, 31, 3), (1, 8, 8, 3)])
def test_videos_are_kept_to_the_pixel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    frames = np.concatenate([frames, frames[-1:], frames[-1:]])  # equal neighbours stay frames of their own
    write_lossless(tmp_path / "a.mp4", frames)
    np.testing.assert_array_equal(read_lossless(tmp_path / "a.mp4"), frames)
    assert read_lossless(tmp_path / "b.mp4") is None


def test_file_names() -> None:
    names = ["a", "a b", "a_b", "a/b", "é", "x" * 300, "x" * 299 + "y", "..", ".a", ""]
    made = [file_name(name) for name in names]
    assert made[0] == "a" and len(set(made)) == len(names)
    assert all(name not in ("", ".", "..") and "/" not in name and len(name.encode()) < 150 for name in made)


PROGRAM = """
import sys
import time
import jax
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from pathlib import Path
from tests.evaluation.small_set import Darker, numbers
from tests.evaluation.test_run import evaluation
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.evaluation.true_clips import TrueClips, WindowRule
true = TrueClips(ClipSet(sys.argv[3], "test"), WindowRule(16, 32, 32))
run = evaluation(true, Path(sys.argv[4]), [Darker(10)], batch=2)
found = numbers(run, run.run())
print(found["darker 10"]["psnr"], found["darker 10"]["key_frames"], run.methods[0].asked)
"""


@pytest.mark.gate
def test_two_processes_share_the_clips(true: TrueClips, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    arguments = [str(port), "0", str(true.clips.directory), str(tmp_path / "two")]
    children = []
    for process in ("0", "1"):
        arguments[1] = process
        command = [sys.executable, "-c", PROGRAM, *arguments]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    printed = [child.communicate(timeout=120)[0].splitlines()[-1].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    run = evaluation(true, tmp_path / "one", [Darker(10)])
    found = numbers(run, run.run())["darker 10"]
    for psnr, key_frames, _ in printed:
        assert float(psnr) == pytest.approx(found["psnr"], rel=1e-6)
        assert float(key_frames) == pytest.approx(found["key_frames"], rel=1e-6)
    assert sorted(int(asked) for *_, asked in printed) == [3, 4]  # batches of 2, 2, 2 and 1, taken in turns
