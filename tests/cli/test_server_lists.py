"""`tooncrafter sample --server` with lists, shots and time sheets: what a local run does, with a few jobs at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra 'app'")

from tests.cli.test_colouring import colouring, draw_sketches
from tests.cli.test_decisions import notes
from tests.cli.test_sheet_shots import cel
from tests.cli.world import Command, World, draw, draw_lines, write_folder
from tests.serving.world import FakeModel, Server, serving, until
from tooncrafter_jax.io.timesheets import Exposure, Layer, Mark, TimeSheet, write_timesheet
from tooncrafter_jax.models.configuration import COMPONENTS, tiny
from tooncrafter_jax.sampling.batch.model_source import DescribedModel
from tooncrafter_jax.serving import client as client_module
from tooncrafter_jax.serving import remote, remote_requests
from tooncrafter_jax.serving.limits import Limits

PAIRS = ({"first": "first.png", "last": "last.png", "name": "x", "seed": 7}, {"first": "last.png", "last": "first.png"})
MODEL_S = {"model", "dtype"}
"""Of a request, what the test's two models have each of its own."""


@pytest.fixture
def model(empty: World) -> FakeModel:
    """The model that local runs draw with, served."""
    model = FakeModel(described=DescribedModel({"weights": "none"}, tiny(), COMPONENTS, {}))

    def sample(pairs: Any, options: Any, on_progress: Any = None) -> np.ndarray:
        model.before([pair.seed for pair in pairs])
        model.batches.append([pair.seed for pair in pairs])
        return empty.model.sample(pairs, options, on_progress)

    model.sample = sample  # pyright: ignore[reportAttributeAccessIssue]
    return model


@pytest.fixture
def server(model: FakeModel, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "data", model, batch_size=4, gathering_seconds=0.2) as server:
        yield server


def remotely(server: Server, argv: list[str], out: Path) -> list[str]:
    """The arguments of a local run, for a server, with another place for its results."""
    kept = [one for one in argv if not one.startswith(("--model=", "--out="))]
    return [f"--server={server.url}", f"--out={out}", *kept]


def jobs(server: Server) -> list[Any]:
    return server.engine.storage.database.jobs()


def same_files(local: Path, far: Path, server: Server) -> None:
    """The same files but hidden ones, the same pictures, and records of the same requests; the server forgets all."""
    names = {path.relative_to(local) for path in local.rglob("*") if ".shot.clips" not in path.parts}
    names = {name for name in names if not name.parts[0].startswith(".")}
    assert {path.relative_to(far) for path in far.rglob("*")} == names
    for name in names:
        if name.suffix in (".png", ".csv"):
            assert (local / name).read_bytes() == (far / name).read_bytes(), name
        elif name.suffix == ".json" and len(name.parts) == 1:
            here, there = (json.loads((folder / name).read_text())["request"] for folder in (local, far))
            assert without_model(here) == without_model(there)
    assert jobs(server) == []


def wait_for(server: Server, count: int) -> Callable[[object], None]:
    """Has the model draw nothing until so many jobs were on the server at a time."""
    reached = threading.Event()

    def before(seeds: object) -> None:
        if not reached.is_set():
            until(lambda: len(jobs(server)) == count)
            reached.set()

    return before


def without_model(request: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key not in MODEL_S}


def test_a_manifest_is_drawn_by_a_server_and_only_once(
    empty: World, command: Command, server: Server, model: FakeModel, tmp_path: Path
) -> None:
    (empty.path / "broken.png").write_bytes(b"no picture")
    shot = {"keys": {"0": "first.png", "4": "last.png", "10": "first.png"}, "name": "s", "exposure": 2}
    argv = empty.manifest(*PAIRS, {"first": "broken.png", "last": "last.png"}, shot, changes=["--format=png"])
    far = remotely(server, argv, tmp_path / "far")
    model.before = wait_for(server, 2)
    result = command("sample", *far)
    assert result.code == 1 and "3 made, 0 done before, 1 failed" in result.out, result.err
    assert "broken failed:" in result.err and "broken.png" in result.err
    drawn = len(model.batches)
    again = command("sample", *far)
    assert again.code == 1 and "0 made, 3 done before, 1 failed" in again.out and len(model.batches) == drawn
    assert command("sample", *argv).code == 1
    same_files(empty.out, tmp_path / "far", server)
    record = json.loads((tmp_path / "far" / "s.json").read_text())
    assert record["made_by"]["platform"] == "a test" and record["made_by"]["seconds"] > 0


def test_a_folder_has_a_bounded_number_of_jobs_on_the_server(
    empty: World, command: Command, server: Server, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "AT_A_TIME", 3)
    monkeypatch.setattr(remote.RemoteArtist, "ahead", 4)
    most: list[int] = []
    model.before = lambda seeds: most.append(len([job for job in jobs(server) if job.is_open]))
    folder = write_folder(empty.path / "folder", 7)
    result = command("sample", *remotely(server, empty.folder(folder), tmp_path / "far"))
    assert result.code == 0 and "7 made" in result.out, result.err
    assert 1 < max(most) <= 3 and jobs(server) == []


def test_one_that_fails_on_the_server_costs_no_other(
    empty: World, command: Command, server: Server, model: FakeModel, tmp_path: Path
) -> None:
    empty.model.broken_seed = 7
    far = remotely(server, empty.manifest(*PAIRS), tmp_path / "far")
    result = command("sample", *far)
    assert result.code == 1 and "1 made, 0 done before, 1 failed" in result.out, result.err
    assert "x failed: " in result.err and "NaN" in result.err and jobs(server) == []
    empty.model.broken_seed = None
    assert "1 made, 1 done before, 0 failed" in command("sample", *far).out


def test_what_a_server_refuses_is_the_clip_s_own_failure(
    empty: World, command: Command, model: FakeModel, tmp_path: Path
) -> None:
    limits = Limits(free_megabytes=0, shot_frames=20)
    long = {"keys": {"0": "first.png", "30": "last.png"}, "name": "long"}
    with serving(tmp_path / "data", model, limits=limits) as server:
        result = command("sample", *remotely(server, empty.manifest(*PAIRS, long), tmp_path / "far"))
        assert result.code == 1 and "2 made, 0 done before, 1 failed" in result.out, result.err
        assert "long failed: " in result.err and "choose at most 20" in result.err and jobs(server) == []


def test_a_server_that_is_gone_ends_the_run(
    empty: World, command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise client_module.Unreachable("the server cannot be reached")

    monkeypatch.setattr(client_module.Client, "submit", gone)
    result = command("sample", *remotely(server, empty.manifest(*PAIRS), tmp_path / "far"))
    assert result.code == 2 and "cannot be reached" in result.errors[-1] and "0 made" in result.out


@pytest.mark.parametrize("what", ["list", "shot"])
def test_ctrl_c_has_the_server_forget_all(
    empty: World, command: Command, server: Server, model: FakeModel, tmp_path: Path, what: str
) -> None:
    go, main = threading.Event(), threading.main_thread()

    def interrupt(seeds: object) -> None:
        if not go.is_set():
            go.set()
            import signal

            signal.pthread_kill(main.ident or 0, signal.SIGINT)

    model.before, model.seconds = interrupt, 0.1
    lines = PAIRS if what == "list" else [{"keys": {"0": "first.png", "6": "last.png"}, "name": "s"}]
    result = command("sample", *remotely(server, empty.manifest(*lines), tmp_path / "far"))
    assert result.code == 130 and "the server was told to forget the rest" in result.err, result.err
    until(lambda: jobs(server) == [])
    assert "0 made" in result.out or "1 made" in result.out


def test_keys_by_a_server_are_those_of_a_local_run(
    empty: World, command: Command, server: Server, tmp_path: Path
) -> None:
    draw_lines(empty.path / "line.png")
    keys = ",".join(f"{frame}:{empty.path / name}.png" for frame, name in ((3, "first"), (12, "last"), (20, "first")))
    argv = [f"--keys={keys}", f"--out={empty.out / 'shot'}", "--format=png", *empty.common]
    argv += ["--timing=ease-in", "--timing=12:0.2,0.5,0.91", "--exposure=2", "--exposure=12:1", "--prompt-at=3-9:walks"]
    argv += ["--prompt-at=12:runs", f"--sketch=7:{empty.path / 'line.png'}", "--loop", "--no-exact-keys"]
    argv += ["--through-keys", "--unevenness=0.3", "--seed=9", "--samples-per-pair=2", "--negative-prompt=blur"]
    assert command("sample", *argv).code == 0
    result = command("sample", *remotely(server, argv, tmp_path / "far" / "shot"))
    assert result.code == 0, result.err
    assert len(set(notes(result.err))) == len(notes(result.err)), "what the server says too is said once"
    same_files(empty.out, tmp_path / "far", server)
    again = command("sample", *remotely(server, argv, tmp_path / "far" / "shot"))
    assert again.err.count("done before") == 2


def two_layers(world: World, ending: str) -> Path:
    """A sheet with a painting below two cels, one of which is drawn in two parts."""
    path = world.path / "two" / f"cut.{ending}"
    paint = np.asarray(Image.open(draw(world.path / "paint.png")))
    shown = {0: "1", 4: "2", 6: None, 8: "3", 11: "4"}
    layers = (
        Layer("BG", (Exposure(0, "1"),)),
        Layer("A", (Exposure(0, "1"), Exposure(8, "2")), (Mark(4, "in-between"),) if ending == "xdts" else ()),
        Layer("B", tuple(starmap(Exposure, shown.items())), (Mark(2, "in-between"),) if ending == "xdts" else ()),
    )
    cels = {str(number): cel(4 * number, (20, 200, 40)) for number in range(1, 5)}
    pictures = {"BG": {"1": paint}, "A": {"1": cel(4), "2": cel(36)}, "B": cels}
    write_timesheet(path, TimeSheet("cut", 12, layers, size=(64, 64), fps=24), pictures)
    return path


@pytest.mark.parametrize(("ending", "shots"), [("xdts", 3), ("oca", 3)])
def test_the_layers_of_a_time_sheet_by_a_server(
    empty: World, command: Command, server: Server, model: FakeModel, tmp_path: Path, ending: str, shots: int
) -> None:
    argv = [f"--timesheet={two_layers(empty, ending)}", f"--out={empty.out / 'shot'}", "--format=png,csv"]
    argv += empty.common
    assert command("sample", *argv).code == 0
    model.before = wait_for(server, shots)
    result = command("sample", *remotely(server, argv, tmp_path / "far" / "shot"))
    assert result.code == 0, result.err
    same_files(empty.out, tmp_path / "far", server)
    places = empty.record("shot")["request"]["layers"]["2"]["places"]
    assert bool(places) == (ending == "oca"), "pictures with a place are sent as they lie on the sheet"


def test_sketches_are_coloured_by_a_server(empty: World, command: Command, server: Server, tmp_path: Path) -> None:
    draw_sketches(empty)
    argv = colouring(empty, "--format=png")
    assert command("sample", *argv).code == 0
    result = command("sample", *remotely(server, argv, tmp_path / "far" / "ab.mp4"))
    assert result.code == 0, result.err
    assert "the sketches for frames 3 are blank: nothing guides these" in notes(result.err)
    same_files(empty.out, tmp_path / "far", server)


def test_the_best_of_what_a_server_draws_are_kept(
    empty: World, command: Command, server: Server, tmp_path: Path
) -> None:
    argv = empty.pair("--seed=998", "--samples-per-pair=4", "--pick=2", "--format=png")
    assert command("sample", *argv).code == 0
    result = command("sample", *remotely(server, argv, tmp_path / "far" / "ab.mp4"))
    assert result.code == 0, result.err
    same_files(empty.out, tmp_path / "far", server)
    here, there = (json.loads((folder / "ab.json").read_text()) for folder in (empty.out, tmp_path / "far"))
    assert here["picked"] == there["picked"] and [one["seed"] for one in there["picked"]] == [1000, 1001, 998, 999]


def test_pictures_that_are_too_many_for_a_form_are_sent_before(
    empty: World, command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_requests, "MOST_TOGETHER", 2)
    for frame in range(0, 12, 3):
        draw(empty.path / f"k{frame}.png", 5 * frame)
    keys = ",".join(f"{frame}:{empty.path}/k{frame}.png" for frame in range(0, 12, 3))
    argv = [f"--keys={keys}", f"--out={empty.out / 'shot'}", "--format=png", *empty.common]
    assert command("sample", *argv).code == 0
    result = command("sample", *remotely(server, argv, tmp_path / "far" / "shot"))
    assert result.code == 0, result.err
    same_files(empty.out, tmp_path / "far", server)
    assert list((server.engine.storage.folder / "pictures").iterdir()) == []
