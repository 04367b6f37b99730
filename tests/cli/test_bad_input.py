"""Everything that a user can get wrong ends in one sentence, and costs nothing that was there before."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.cli.bad_models import CONVERSIONS, MODELS, converting, malicious_checkpoint
from tests.cli.bad_requests import FAILED_PAIRS, LATE, LISTS, PICTURES, REQUESTS, SETTINGS, Case
from tests.cli.world import (
    Command,
    World,
    write_folder,
    write_manifest,
)
from tooncrafter_jax.models.tokenizer import tokenizer

REPOSITORY = Path(__file__).parents[2]

OTHERS = [
    Case("unknown-command", lambda w: [], ("unknown command 'covnert'", "did you mean convert?"), "covnert"),
    Case("verify-no-folder", lambda w: [str(w.path / "no")], ("no",), "verify"),
    Case("verify-unknown-option", lambda w: ["--dytpe=x", "a"], ("did you mean --dtype?",), "verify"),
]


def snapshot(directory: Path) -> dict[str, bytes | tuple[int, int]]:
    """What every file holds; of large ones, how large they are and when they were written."""
    found: dict[str, bytes | tuple[int, int]] = {}
    for path in filter(Path.is_file, directory.rglob("*")):
        status = path.stat()
        found[str(path)] = path.read_bytes() if status.st_size < 2**20 else (status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id)
        for case in (*PICTURES, *SETTINGS, *REQUESTS, *LISTS, *MODELS, *CONVERSIONS, *OTHERS, *LATE)
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(case: Case, world: World, command: Command):
    argv = case.argv(world)
    before = snapshot(world.path)
    result = command(case.command, *argv)
    assert result.code == case.code, result
    assert len(result.err.splitlines()) == 1 and result.err.startswith("error: "), result.err
    for phrase in case.phrases:
        assert phrase in result.err
    assert not result.err.rstrip().endswith(".")
    assert snapshot(world.path) == before, "files were changed, lost or left behind"
    assert not any(path.name.startswith(".") for path in world.path.rglob("*"))
    assert case in LATE or not world.model.batches, "sampled before the mistake was found"


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in FAILED_PAIRS])
def test_a_broken_pair_does_not_stop_the_others(case: Case, world: World, command: Command):
    argv = case.argv(world)
    result = command("sample", *argv)
    assert result.code == 1
    assert len(result.err.splitlines()) == len(result.errors) == 1, result.err
    for phrase in case.phrases:
        assert phrase in result.err
    made = sorted(path.stem for path in world.out.glob("*.json") if path.stem != "ab")
    count = 1 if case.id.startswith("manifest") else 2
    assert len(made) == count and all((world.out / f"{name}.mp4").is_file() for name in made)
    assert f"{count} made, 0 done before, 1 failed" in result.out
    assert (world.out / "ab.mp4").read_text() == "ab.mp4 of an earlier run"


def test_there_is_a_case_for_every_kind_of_mistake():
    cases = [*PICTURES, *SETTINGS, *REQUESTS, *LISTS, *MODELS, *CONVERSIONS, *OTHERS, *LATE, *FAILED_PAIRS]
    assert len(cases) == len({case.id for case in cases}) >= 100


def test_no_code_of_a_malicious_checkpoint_is_run(world: World, command: Command):
    command("convert", *converting(malicious_checkpoint, name="weights.ckpt")(world))
    assert not (world.path / "code-was-run").exists()
    # The trap works: whoever unpickles it runs its code.
    with zipfile.ZipFile(world.path / "weights.ckpt") as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert (world.path / "code-was-run").exists()


def test_a_prompt_of_ten_thousand_characters_is_cut(world: World, command: Command):
    prompt = "a cat jumps, " * 800
    assert command("sample", *world.pair(f"--prompt={prompt}")).code == 0
    tokens = tokenizer()([prompt])
    assert tokens.shape == (1, 77) and np.array_equal(tokens, tokenizer()([prompt[:2000]]))
    assert json.loads((world.out / "ab.json").read_text())["request"]["prompt"] == prompt


def test_ctrl_c_in_a_folder_run_and_resuming_it(world: World, command: Command):
    argv = world.folder(write_folder(world.path / "folder", 4))

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    world.model.before = interrupt
    result = command("sample", *argv)
    assert result.code == 130
    assert "Traceback" not in result.err and "interrupted: finished files are kept" in result.err
    assert "2 made, 0 done before, 0 failed, 2 left" in result.out
    first_half = snapshot(world.out)

    world.model.before = lambda number: None
    world.model.batches.clear()
    result = command("sample", *argv)
    assert result.code == 0 and result.err == ""
    assert "2 made, 2 done before, 0 failed" in result.out
    assert world.model.batches == [1, 1]
    assert snapshot(world.out).items() >= first_half.items()
    assert len(list(world.out.glob("?_a.mp4"))) == 4


# --- as real processes ---

SLOW_RUN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a background job inherit it ignored
import pytest
from tests.cli.world import FakeModel
from tooncrafter_jax.cli.common import run
from tooncrafter_jax.cli.sample import main
model = FakeModel(before=lambda number: time.sleep(0 if number < 1 else 60))
model.install(pytest.MonkeyPatch())
sys.exit(run(main))
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}


def test_ctrl_c_as_the_terminal_sends_it(world: World):
    folder = write_folder(world.path / "folder", 3)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, *world.folder(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while not (world.out / "0_a.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.split() and "Traceback" not in err
    assert "1 made" in out and "2 left" in out
    assert not list(world.out.glob(".*"))


@pytest.mark.parametrize(
    ("argv", "phrase"),
    [
        (["sample.py", "--first=no.png", "--last=no.png", "--out=a.mp4", "--random-weights=tiny"], "'no.png' does not"),
        (["-m", "tooncrafter_jax", "convert", "no.ckpt", "model"], "no file no.ckpt"),
        (["-m", "tooncrafter_jax", "convert", "malicious.ckpt", "model"], "malicious.ckpt was refused"),
    ],
    ids=["sample", "convert", "malicious"],
)
def test_the_real_commands_end_in_one_line(argv: list[str], phrase: str, tmp_path: Path):
    if argv[0] == "sample.py":
        argv = [str(REPOSITORY / "sample.py"), *argv[1:]]
    malicious_checkpoint(tmp_path / "malicious.ckpt")
    process = subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1
    assert process.stderr.startswith("error: ") and phrase in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["malicious.ckpt"]


def test_a_manifest_is_not_replaced_by_a_record(world: World, command: Command):
    world.manifest()
    manifest = write_manifest(world.path / "first.json", {"first": "first.png", "last": "last.png"})
    result = command("sample", f"--manifest={manifest}", f"--out={world.path}", *world.common)
    assert result.code == 2 and "the inputs are there" in result.err
    assert json.loads(manifest.read_text())["last"] == "last.png"
