"""What the loader costs beside decoding, and that it keeps no memory (make test-slow)."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tooncrafter_jax.data.clip_sets import ClipReference, ClipSet, write_clips
from tooncrafter_jax.data.loader import Loader, LoaderConfig
from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.data.transforms import Draw, choose_window, generator

CLIPS, FRAMES = 12, 100
BATCH, ROUNDS, WARM_UP, STEPS = 4, 2, 10, 12
MIB = 2**20


def _cartoon(number: int, height: int, width: int, frames: int) -> Clip:
    """Flat areas with sharp borders that drift, and a little grain: about as many bytes as a scanned cartoon has."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 6, (height // 16, width // 16 + frames), dtype=np.uint8)
    areas = np.asarray(Image.fromarray(coarse).resize((width + 16 * frames, height), Image.Resampling.NEAREST))
    palette = rng.integers(0, 256, (6, 3))
    grain = rng.integers(-4, 5, (height, width, 3))
    pictures = [palette[areas[:, 5 * t : 5 * t + width]] + grain for t in range(frames)]
    return clip_of_pictures(
        np.clip(pictures, 0, 255).astype(np.uint8), id=f"{number}/0", source=str(number), fps=24.0, caption="a cartoon"
    )


def _make_set(directory: Path, height: int, width: int, frames: int) -> ClipSet:
    references = [
        ClipReference(f"{n}/0", 10**6, functools.partial(_cartoon, n, height, width, frames)) for n in range(CLIPS)
    ]
    write_clips(directory, {"train": references})
    return ClipSet(directory)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    return _make_set(tmp_path_factory.mktemp("set"), 480, 640, FRAMES)


def _without_type_checks(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) in a process of its own, as users have it: the tests' checks of types cost time and
    memory.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(320, 512), (128, 128)])
def test_speed(clips: ClipSet, height: int, width: int) -> None:
    """Clips a second of 16 frames from 480x640, the best of some rounds in alternation.

    What is asserted is processor time of all processes together, since on a busy machine the clock says little, and
    loosely, since there it grows too; on an idle one the loader takes a third more than decoding alone.
    """
    costs = _without_type_checks(_costs, clips, height, width)
    alone = costs["decoding alone"]
    for name, cost in costs.items():
        print(
            f"{height}x{width} {name:22} {BATCH / cost.clock:6.1f} clips/s, {alone.clock / cost.clock:.2f} of decoding "
            "alone; "
            f"{1000 * cost.processor / BATCH:4.0f} ms of a core a clip, {cost.processor / alone.processor:.2f} times "
            "decoding"
        )
    for name in ("no worker", "1 worker", "2 workers"):
        assert costs[name].processor < 2.5 * alone.processor, name


class _Cost(NamedTuple):
    """Seconds a batch."""

    clock: float
    processor: float


def _costs(clips: ClipSet, height: int, width: int) -> dict[str, _Cost]:
    config = LoaderConfig(batch=BATCH, height=height, width=width, prefetch=0)
    configs = {
        "no worker": config,
        "no worker, antialiased": replace(config, antialias=True),
        "1 worker": replace(config, num_workers=1, prefetch=1),
        "2 workers": replace(config, num_workers=2, prefetch=1),
    }
    measured: dict[str, list[_Cost]] = {}
    for _ in range(ROUNDS):
        measured.setdefault("decoding alone", []).append(_measure(_decoding(clips, config.seed)))
        for name, each in configs.items():
            with Loader(clips, each) as loader:  # a fresh one: workers of another would take the cores
                measured.setdefault(name, []).append(_measure(loader))
    return {name: _Cost(*map(min, zip(*costs, strict=True))) for name, costs in measured.items()}


def _measure(batches: Iterator[Any]) -> _Cost:
    """The cost after what workers have made while they were started has been taken away."""
    for _ in range(WARM_UP):
        next(batches)
    clock, processor = time.perf_counter(), _processor_seconds()
    for _ in range(STEPS):
        next(batches)
    return _Cost((time.perf_counter() - clock) / STEPS, (_processor_seconds() - processor) / STEPS)


def _processor_seconds() -> float:
    """Of this process and its workers, so far."""
    ticks = 0
    for pid in ("self", *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system time
    return ticks / os.sysconf("SC_CLK_TCK")


def _decoding(clips: ClipSet, seed: int) -> Iterator[None]:
    """Reads and decodes the windows of a batch, and does nothing else."""
    number = 0
    while True:
        for _ in range(BATCH):
            clip = clips[number % len(clips)]
            clip.decode(choose_window(generator(seed, number, Draw.WINDOW), len(clip)).frames)
            number += 1
        yield


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_flat_over_2000_batches(tmp_path: Path, workers: int) -> None:
    """All processes together; 2 % is for what the allocators move."""
    sizes = _without_type_checks(_sizes, _make_set(tmp_path, 32, 48, 20), workers)
    print(f"{workers} workers, resident MiB every 200 batches: {' '.join(f'{size / MIB:.0f}' for size in sizes)}")
    assert max(sizes[1:]) < 1.02 * sizes[0]


def _sizes(clips: ClipSet, workers: int) -> list[int]:
    sizes = []
    with Loader(clips, LoaderConfig(batch=4, height=64, width=64, num_workers=workers, prefetch=2)) as loader:
        for count in range(1, 2001):
            next(loader)
            if count % 200 == 0:
                pids = ["self", *(child.pid for child in multiprocessing.active_children())]
                assert len(pids) == 1 + workers
                sizes.append(sum(_resident(pid) for pid in pids))
    return sizes


def _resident(pid: int | str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
