"""The loader: the right frames, the same batches for any number of processes and workers, exact resuming, clean
ends.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest

from tests.data.loader_world import GREEN, LENGTHS, RED, SMALL, make_set
from tooncrafter_jax.data import loader as loader_module
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.data.loader import Loader, LoaderConfig
from tooncrafter_jax.data.transforms import Draw, choose_window, generator, random_crop, resize_and_crop
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.training.sharding import make_mesh, process_rows, put_batch

CLIPS = len(LENGTHS)
SHARED = Path("/dev/shm")
STEPS = 7
"""28 examples: two epochs and a half."""


def _loader(clips, **options: Any) -> Any:
    rows = options.pop("rows", None)
    return Loader(clips, LoaderConfig(**{**SMALL, **options}), rows=rows)


def _take(loader, count) -> list[Any]:
    return [next(loader) for _ in range(count)]


def _assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def batches(clips):
    """What every arrangement must give."""
    with _loader(clips) as loader:
        return _take(loader, STEPS)


@pytest.fixture
def no_leftovers():
    """Fails where worker processes or shared memory stay behind."""
    before = set(SHARED.glob("psm_*"))
    yield
    leftovers = set(SHARED.glob("psm_*")) - before  # of other programs' perhaps, which remove them in time
    deadline = time.monotonic() + 10
    while (multiprocessing.active_children() or any(map(Path.exists, leftovers))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()
    assert not [path for path in leftovers if path.exists()]


# -------------------------------------------------------------------------------------------------------- what is in it


def test_shapes_and_types(batches):
    found = {name: (array.dtype.name, array.shape) for name, array in batches[0].items()}
    assert found == {
        "video": ("uint8", (4, 16, 16, 24, 3)),
        "token_ids": ("int32", (4, 77)),
        "drop_image": ("bool", (4,)),
        "fps": ("int32", (4,)),
        "stride": ("int32", (4,)),
        "sketched": ("bool", (4, 16)),
        "seed": ("uint32", (4,)),
        "record": ("int32", (4,)),
        "valid": ("bool", (4,)),
    }
    assert all(type(array) is np.ndarray and array.flags.writeable for array in batches[0].values())


def test_frames_are_those_of_the_window(clips, batches):
    """The frames' colours say which clip and frame they show (two levels for JPEG)."""
    empty, strides = tokenizer()([""])[0], []
    for step, batch in enumerate(batches):
        for row in range(4):
            clip = clips[int(batch["record"][row])]
            number, stride = int(clip.source.split()[1]), int(batch["stride"][row])
            window = choose_window(generator(20230211, 4 * step + row, Draw.WINDOW), len(clip))
            assert window.stride == stride
            colours = batch["video"][row, :, :, 4:20].mean((1, 2))  # between the black borders
            np.testing.assert_allclose(colours[:, 0], RED * number, atol=2)
            np.testing.assert_allclose(colours[:, 1], GREEN * np.asarray(window.frames), atol=2)
            assert batch["fps"][row] == (24 + number) // stride
            assert batch["sketched"][row].any()
            ids = batch["token_ids"][row]
            assert (ids == empty).all() or (ids == tokenizer()([f"number {number}"])[0]).all()
            strides.append(stride)
    assert set(strides) == set(range(1, 7))


def test_pixels_are_resized_and_cropped(clips):
    with _loader(clips, height=32, width=24, shuffle=False) as loader:
        batch = next(loader)
    window = choose_window(generator(20230211, 2, Draw.WINDOW), len(clips[2]))
    np.testing.assert_array_equal(batch["video"][2], resize_and_crop(clips[2].decode(window.frames), 32, 24))


def test_pixels_are_cut_out_of_larger_frames(clips):
    """The same windows at the same size, but for the place; every example has a place of its own."""
    options = {"shuffle": False, "height": 10, "width": 6}
    with _loader(clips, **options, crop_from=(20, 28)) as loader:
        batch = next(loader)
    for row in range(4):
        window = choose_window(generator(20230211, row, Draw.WINDOW), len(clips[row]))
        whole = resize_and_crop(clips[row].decode(window.frames), 20, 28)
        cut = random_crop(generator(20230211, row, Draw.CROP), whole, 10, 6)
        np.testing.assert_array_equal(batch["video"][row], cut)


def test_batches_may_be_written_to(clips):
    """Of batches of one, too, whose rows need no stacking: what was written is in no later batch."""
    with _loader(clips, batch=1, dropout=1 / 3) as loader:
        expected = _take(loader, 12)
        assert sum(batch["token_ids"][0, 1] == 49407 for batch in expected) > 1
        expected = [{name: array.copy() for name, array in batch.items()} for batch in expected]
        loader.restore({"examples": 0, "clips": CLIPS, "seed": 20230211})
        for step in range(12):
            batch = next(loader)
            _assert_equal([batch], expected[step : step + 1])
            for array in batch.values():
                array[:] = 1


def test_conditions_are_dropped_for_real(clips):
    with _loader(clips, dropout=1 / 3, height=8, width=8) as loader:
        rows = [row for _ in range(6) for row in _rows(next(loader))]
    dropped_texts = [bool((row["token_ids"][1] == 49407) and row["token_ids"][2] == 0) for row in rows]
    kinds = Counter(zip(dropped_texts, (bool(row["drop_image"]) for row in rows), strict=True))
    assert set(kinds) == {(True, False), (True, True), (False, True)}, "at p = 1/3 nothing keeps both"


def _rows(batch):
    return [{name: array[i] for name, array in batch.items()} for i in range(len(batch["record"]))]


def test_every_epoch_has_every_clip_once_in_another_order(batches):
    records = np.concatenate([batch["record"] for batch in batches]).tolist()
    epochs = [records[:CLIPS], records[CLIPS : 2 * CLIPS]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(CLIPS))] * 2
    assert epochs[0] != epochs[1] != list(range(CLIPS))
    seeds = np.concatenate([batch["seed"] for batch in batches])
    assert len(set(seeds.tolist())) == len(seeds)


def test_another_seed_gives_other_batches(clips, batches):
    with _loader(clips, seed=1) as loader:
        other = _take(loader, STEPS)
    assert [b["record"].tolist() for b in other] != [b["record"].tolist() for b in batches]
    assert not set(np.ravel([b["seed"] for b in other])) & set(np.ravel([b["seed"] for b in batches]))


def test_clips_without_sketches_are_else_the_same(clips, batches):
    """As many as asked for, and none in evaluation."""
    with _loader(clips, sketched_share=0.5) as loader:
        some = _take(loader, STEPS)
    sketched = np.concatenate([batch.pop("sketched") for batch in some])
    before = np.concatenate([batch["sketched"] for batch in batches])
    kept: Any = np.any(sketched, axis=1)
    np.testing.assert_array_equal(sketched, before & kept[:, None])
    assert abs(kept.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(kept))
    _assert_equal(some, [{name: rows for name, rows in batch.items() if name != "sketched"} for batch in batches])
    assert LoaderConfig(sketched_share=0.5).evaluation().sketched_share == 1.0


# ------------------------------------------------------------------------------------------------ processes and workers


@pytest.mark.parametrize(
    "shares", [[[0, 1], [2, 3]], [[0], [1], [2], [3]], [[0, 2], [1, 3]], [[0, 1, 2, 3], [1, 2]], [[3], [3], [0]]]
)
def test_processes_load_the_rows_they_are_asked_for(clips, batches, shares):
    """In blocks, not in blocks, the same rows several times: always those of the whole batch."""
    loaders = [_loader(clips, rows=rows) for rows in shares]
    for loader, rows in zip(loaders, shares, strict=True):
        expected = [{name: values[rows] for name, values in batch.items()} for batch in batches]
        _assert_equal(_take(loader, STEPS), expected)
    assert {json.dumps(loader.state()) for loader in loaders} == {json.dumps(loaders[0].state())}


@pytest.mark.gate
@pytest.mark.usefixtures("no_leftovers")
def test_workers_load_rows_that_are_not_neighbours(clips, batches):
    with _loader(clips, rows=[0, 3], num_workers=2, prefetch=1) as loader:
        _assert_equal(_take(loader, STEPS), [{name: v[[0, 3]] for name, v in batch.items()} for batch in batches])


@pytest.mark.parametrize("rows", [[], [4], [-1, 2], [2, 1], [1, 1]])
def test_rows_that_no_batch_has(clips, rows):
    with pytest.raises(ValueError, match="a batch of 4 has no rows"):
        _loader(clips, rows=rows)


@pytest.mark.gate
@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize(("workers", "prefetch", "shared_memory"), [(0, 3, True), (1, 2, False), (2, 1, True)])
def test_workers_and_prefetching_change_nothing(clips, batches, workers, prefetch, shared_memory, monkeypatch):
    """Workers begin at step 2: they must find the place from the state alone. Where shared memory is small, they use
    pipes.
    """
    thresholds = []
    options = grain.experimental.DatasetOptions
    monkeypatch.setattr(
        grain.experimental,
        "DatasetOptions",
        lambda min_shm_size: thresholds.append(min_shm_size) or options(min_shm_size=min_shm_size),
    )
    if not shared_memory:
        usage = type("Usage", (), {"free": 1000})
        monkeypatch.setattr(loader_module.shutil, "disk_usage", lambda path: usage)
    with _loader(clips, num_workers=workers, prefetch=prefetch) as loader:
        loader.restore({"examples": 8, "clips": CLIPS, "seed": 20230211})
        _assert_equal(_take(loader, STEPS - 2), batches[2:])
        assert all(type(array) is np.ndarray for array in next(loader).values())
    assert thresholds == ([] if not workers else [2**16] if shared_memory else [2**62])


@pytest.mark.parametrize("mesh", ["data:4,frames:2", "fsdp:2,tensor:2,frames:2", "data:2,fsdp:2,frames:2"])
def test_a_mesh_gets_its_rows(clips, batches, devices, mesh):
    """What one process loads becomes the global array, whatever the axes of the mesh share."""
    placed_on = make_mesh(mesh, devices)
    with _loader(clips, rows=process_rows(placed_on, 4)) as loader:
        batch = next(loader)
    for name, array in put_batch(batch, placed_on, 4).items():
        assert array.shape[0] == 4 and len(array.addressable_shards) == 8
        np.testing.assert_array_equal(array, batches[0][name])


# ------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_resuming_equals_no_interruption(clips, batches, steps, prefetch):
    with _loader(clips, prefetch=prefetch) as first:
        _take(first, steps)
        state = json.loads(json.dumps(first.state()))
    assert state["examples"] == 4 * steps
    with _loader(clips, prefetch=prefetch) as second:
        second.restore(state)
        _assert_equal(_take(second, STEPS - steps), batches[steps:])
    with _loader(clips, prefetch=prefetch) as third:
        next(third)
        third.restore(state)
        _assert_equal(_take(third, 1), batches[steps : steps + 1])


def test_it_may_be_resumed_on_other_processes_with_another_batch(clips, batches):
    examples = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    state = {"examples": 8, "clips": CLIPS, "seed": 20230211}
    for process in range(3):
        with _loader(clips, batch=6, rows=[2 * process, 2 * process + 1]) as loader:
            loader.restore(state)
            for step in range(2):
                start = 8 + 6 * step + 2 * process
                _assert_equal([next(loader)], [{name: array[start : start + 2] for name, array in examples.items()}])
            assert loader.state()["examples"] == 20


# ----------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_gives_every_clip_once_and_fills_the_last_batch(clips, processes):
    config = LoaderConfig(**SMALL).evaluation()
    records, counts = [], []
    for process in range(processes):
        with Loader(clips, config, rows=np.arange(4).reshape(processes, -1)[process]) as loader:
            found: list[Any] = list(loader)
            counts.append(len(found))
            assert next(loader, None) is None
            assert loader.state()["examples"] == 12
        assert {batch["video"].shape for batch in found} == {(4 // processes, 16, 16, 24, 3)}
        records.append([np.where(batch["valid"], batch["record"], -1) for batch in found])
    assert counts == [3] * processes, "all processes have the same number of batches"
    in_order = np.concatenate([np.concatenate(parts) for parts in zip(*records, strict=True)])
    assert in_order.tolist() == [*range(CLIPS), -1]


# ------------------------------------------------------------------------------------------------------- unusable clips


def test_short_clips_are_replaced_and_counted(tmp_path, caplog):
    clips = make_set(tmp_path, clip_3={"length": 15}, clip_8={"length": 1})
    short = {n for n in range(CLIPS) if len(clips[n]) < 16}
    with _loader(clips) as loader:
        found = _take(loader, 11)  # four epochs
        assert loader.unusable["too_short"] >= 8 and loader.unusable["damaged"] == 0
    assert not short & set(np.ravel([batch["record"] for batch in found]))
    assert all(batch["valid"].all() for batch in found)
    assert "clips left out so far: 8 with fewer than 16 frames, 0 damaged" in caplog.text
    with Loader(clips, LoaderConfig(**SMALL).evaluation()) as loader:
        found = list(loader)
        assert loader.unusable == {"too_short": 2, "damaged": 0}
    shown = [record for batch in found for record in batch["record"][batch["valid"]]]
    assert sorted(shown) == sorted(set(range(CLIPS)) - short)


def test_a_set_of_short_clips_only_is_reported(clips):
    with pytest.raises(UserError, match=r"1000 clips in a row cannot be used \(1000 have fewer than 200 frames, 0 are"):
        next(_loader(clips, frames=200))


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.gate
def test_a_damaged_clip_is_named_or_left_out(tmp_path, caplog):
    clips = make_set(tmp_path, clip_5={"damaged": True})
    for workers in (0, 1):
        with _loader(clips, num_workers=workers, prefetch=workers) as loader:
            with pytest.raises(UserError, match="frame .* of clip 'film 5/0' is damaged"):
                _take(loader, 3)
            stopped = loader.state()
            if not workers:
                with pytest.raises(UserError, match="film 5/0"):
                    next(loader)
            assert loader.state() == stopped, "asking again is the same batch again"
    with _loader(clips, on_damaged="skip") as loader:
        found = _take(loader, 6)
        assert loader.unusable["damaged"] >= 2
    assert "film 5" not in {clips[int(record)].source for batch in found for record in batch["record"]}
    assert "left out: frame" in caplog.text


@pytest.mark.usefixtures("unchecked_types")  # the check of a sequence's type reads one of its clips at random
def test_a_record_of_rotten_bytes_is_reported(tmp_path):
    make_set(tmp_path)
    (shard,) = tmp_path.glob("**/*.array_record-*")
    data = bytearray(shard.read_bytes())
    data[10_000:10_300] = bytes(300)  # inside a record, not in the headers by which a shard is opened
    shard.write_bytes(data)
    with _loader(ClipSet(tmp_path)) as loader, pytest.raises(UserError, match=r"record \d+ of .* is damaged"):
        _take(loader, 3)


# -------------------------------------------------------------------------------------------------------------- the end


def test_a_killed_worker_is_reported(clips):
    with _loader(clips, num_workers=1, prefetch=1) as loader:
        next(loader)
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(UserError, match="worker process of the loader was ended from outside"):
            _take(loader, 20)
        assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="closed"):
        next(loader)


@pytest.mark.gate
def test_workers_end_with_the_program(clips):
    """By Ctrl-C in the terminal, which reaches every process of it, and by SIGKILL, which reaches only one."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.data.loader_world", str(clips.directory)]
    programs = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, start_new_session=True
        )
        for _ in range(2)
    ]
    try:
        workers = [[int(pid) for pid in (program.stdout or io.StringIO()).readline().split()] for program in programs]
        assert [len(pids) for pids in workers] == [1, 1]
        os.killpg(programs[0].pid, signal.SIGINT)
        os.kill(programs[1].pid, signal.SIGKILL)
        complaints = [program.communicate(timeout=90)[1] for program in programs]
        assert [program.returncode for program in programs] == [130, -signal.SIGKILL]
        assert "Traceback" not in complaints[0]
        deadline = time.monotonic() + 10
        while (alive := [pid for pids in workers for pid in pids if _runs(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive
    finally:  # a worker that was left would keep a core busy
        for program in programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)


def _runs(pid):
    """Whether a process is there and not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch is 0, but must be at least 1"),
        ({"prefetch": -1}, "prefetch is -1, but must be at least 0"),
        ({"strides": (3, 2)}, "smallest and a largest"),
        ({"strides": (0, 2)}, "smallest and a largest"),
        ({"dropout": 0.4}, "from 0 to 1/3"),
        ({"crop_from": (15, 28)}, "a height and a width from 16 and 24 on"),
        ({"crop_from": (32,)}, "a height and a width from 16 and 24 on"),
        ({"bisection_share": 1.5}, "bisection_share is 1.5"),
        ({"sketched_share": -0.5}, "sketched_share is -0.5"),
        ({"most_random_sketches": -1}, "most_random_sketches is -1"),
        ({"bisection_depths": ()}, "bisection_depths are"),
        ({"bisection_depths": (0, 1)}, "bisection_depths are"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_mistakes_are_reported(clips, options, message):
    with pytest.raises(UserError, match=message):
        _loader(clips, **options)


def test_a_set_that_has_moved_is_known_by_its_clips(clips, tmp_path):
    state = _loader(clips).state()
    moved = make_set(tmp_path / "moved")
    _loader(moved).restore(state)
    del state["ends"]  # as earlier versions wrote it
    _loader(moved).restore(state)
    other = [replace(clip, id=f"other {clip.id}") for clip in clips]
    with pytest.raises(UserError, match="a set that begins or ends with another clip"):
        _loader(clips).restore(_loader(other).state())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"examples": 4, "clips": 3, "seed": 20230211}, "saved with clips = 3, but now it is 11"),
        ({"examples": 4, "clips": CLIPS, "seed": 2}, "saved with seed = 2"),
        ({"next_index": 4}, "no state of the loader"),
    ],
)
def test_a_state_of_another_set_is_refused(clips, state, message):
    with pytest.raises(UserError, match=message):
        _loader(clips).restore(state)


def test_an_empty_set_is_refused():
    with pytest.raises(UserError, match="no clips"):
        _loader([])
