"""Trainings as several processes on this machine, which stand for hosts, and what each of them saw.

As a program it runs one process of such a training, and writes what it saw as JSON: the losses, a digest of every row
that its devices were given, and a digest of every piece of the last state that its devices hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

ROOT = Path(__file__).parents[2]
BATCH = 4


class Seen(NamedTuple):
    """What one process saw.

    Attributes:
      losses: by step.
      rows: by step: "name row" -> digest; of sketches "hints row frame".
      pieces: "leaf of the state, slice" -> digest.
      metrics: of the run's end.
    """

    losses: list[float]
    rows: list[dict[str, str]]
    pieces: dict[str, str]
    metrics: dict[str, float]


def train(
    clips: Path, workdir: Path, mesh: str, *, processes: int = 1, devices: int = 1, limit: float = 1500, **changes: Any
) -> list[Seen]:
    """Trains the narrow model in processes of `devices` devices each; what each of them saw."""
    settings = {"does": "train", "clips": str(clips), "workdir": str(workdir), "mesh": mesh, "changes": changes}
    return [Seen(**seen) for seen in _run(settings, workdir, processes, devices, limit)]


def place(
    clips: Path, workdir: Path, meshes: Sequence[tuple[str, list[int]]], *, processes: int, devices: int
) -> list[list[Seen]]:
    """Loads three batches on each of some meshes, given as a text and the order of the devices; by mesh what each
    process saw.
    """
    settings = {"does": "place", "clips": str(clips), "meshes": meshes}
    seen = _run(settings, workdir, processes, devices, 300)
    return [[Seen([], one[number], {}, {}) for one in seen] for number in range(len(meshes))]


def _run(settings: dict[str, Any], workdir: Path, processes: int, devices: int, limit: float) -> list[Any]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    workdir.mkdir(parents=True, exist_ok=True)
    settings |= {"processes": processes, "devices": devices, "port": port}
    cache = jax.config.jax_compilation_cache_dir or str(ROOT / ".cache" / "jax")  # pyright: ignore
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": cache}
    environment["XLA_FLAGS"] = (
        "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"  # compiles faster
    )
    answers = [workdir / f"seen-{process}.json" for process in range(processes)]
    running = []
    for process, answer in enumerate(answers):
        arguments = json.dumps(settings | {"process": process, "answer": str(answer)})
        command = [sys.executable, "-m", "tests.training.hosts", arguments]
        running.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in running:
            _, errors = process.communicate(timeout=limit)
            assert process.returncode == 0, f"{errors[:3000]}\n...\n{errors[-3000:]}"
    finally:
        for process in running:
            process.kill()
    return [json.loads(answer.read_text()) for answer in answers]


def all_rows(seen: list[Seen]) -> list[dict[str, str]]:
    """By step the rows of all processes together; those that several hold must be the same."""
    together: list[dict[str, str]] = [{} for _ in seen[0].rows]
    for process in seen:
        for step, rows in zip(together, process.rows, strict=True):
            differing = {key for key in rows.keys() & step.keys() if rows[key] != step[key]}
            assert not differing, f"processes hold other rows of the same number: {sorted(differing)}"
            step.update(rows)
    return together


def assert_replicas_are_equal(seen: list[Seen]) -> int:
    """Compares the pieces of the state that several processes hold; how many there are."""
    compared = 0
    for process in seen[1:]:
        shared = process.pieces.keys() & seen[0].pieces.keys()
        differing = sorted(piece for piece in shared if process.pieces[piece] != seen[0].pieces[piece])
        assert not differing, f"{len(differing)} copies of the same parameters differ: {differing[:3]}"
        compared += len(shared)
    return compared


def _digest(values: Any) -> str:
    array = np.asarray(values)
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def _rows_of(batch: dict[str, jax.Array]) -> dict[str, str]:
    """Digests of the rows, or of their frames where devices share the frames of a row, as those of sketches."""
    found: dict[str, str] = {}
    for name, values in batch.items():
        axes = 2 if name == "hints" else 1
        for shard in values.addressable_shards:
            firsts = [index.indices(size)[0] for index, size in zip(shard.index, values.shape, strict=True)]
            data = np.asarray(shard.data)
            assert data.shape[axes:] == values.shape[axes:], f"devices share more of {name} than they should"
            for place in np.ndindex(data.shape[:axes]):
                where = " ".join(str(first + offset) for first, offset in zip(firsts, place, strict=False))
                digest = _digest(data[place])
                assert found.setdefault(f"{name} {where}", digest) == digest, f"devices hold another {name} {where}"
    return found


def _pieces_of(state: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(state):
        for shard in leaf.addressable_shards:
            where = [index.indices(size)[:2] for index, size in zip(shard.index, leaf.shape, strict=True)]
            key, digest = f"{jax.tree_util.keystr(keys)} {where}", _digest(shard.data)
            assert found.setdefault(key, digest) == digest, f"devices of one process hold another {key}"
    return found


def _place(settings: dict[str, Any]) -> list[list[dict[str, str]]]:
    from tests.training.small import config
    from tooncrafter_jax.data.loader import Loader
    from tooncrafter_jax.training.sharding import make_mesh, process_rows, put_batch

    data, found = config(settings["clips"], data={"batch": BATCH}).data, []
    for text, order in settings["meshes"]:
        mesh = make_mesh(text, [jax.devices()[place] for place in order])
        with Loader.open(data, rows=process_rows(mesh, BATCH)) as loader:
            found.append([_rows_of(put_batch(cast(Any, next(loader)), mesh, BATCH)) for _ in range(3)])
    return found


def _compile_in_turn(step: Any, state: Any, batch: Any, settings: dict[str, Any]) -> None:
    """The first process compiles, the others then find the program in the cache, and all begin together: else each
    takes the cores from the others, and one may wait longer for another than gloo does (30 s).
    """
    lowered = step.lower(state, batch)
    done = [Path(settings["workdir"]) / f"compiled-{settings['port']}-{p}" for p in range(settings["processes"])]
    process = settings["process"]
    if process:
        _wait_for(done[0])
    lowered.compile()
    done[process].touch()
    for path in done:
        _wait_for(path)


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.1)


def _train(settings: dict[str, Any]) -> dict[str, Any]:
    from tests.training.small import NARROW_CHANGES, SIZE, config
    from tooncrafter_jax.training import trainer as module

    losses, rows, last = [], [], {}
    make_step = module.make_step

    def make_watched_step(*arguments: Any) -> Any:
        step = make_step(*arguments)

        def watched(state: Any, batch: dict[str, jax.Array]) -> Any:
            if not rows:
                _compile_in_turn(step, state, batch, settings)
            rows.append(_rows_of(batch))
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
            last["state"] = _pieces_of(state)
            return state, metrics

        return watched

    module.make_step = make_watched_step
    changes = dict(settings["changes"])
    data = {"batch": BATCH, "height": SIZE // 2, "width": SIZE // 2} | changes.pop("data", {})
    narrow = {"mesh": settings["mesh"], "model_changes": NARROW_CHANGES, "steps": 3, "data": data}
    trainer = module.Trainer(config(settings["clips"], **(narrow | changes)), Path(settings["workdir"]))
    outcome = trainer.run()
    assert outcome.finished
    return Seen(losses, rows, last["state"], outcome.metrics)._asdict()


def main(settings: dict[str, Any]) -> None:
    """Runs one process."""
    jax.config.update("jax_num_cpu_devices", settings["devices"])
    if settings["processes"] > 1:
        from tooncrafter_jax.runtime.distributed import initialize

        initialize(f"127.0.0.1:{settings['port']}", settings["processes"], settings["process"])
        multihost_utils.sync_global_devices("started")
    seen = _train(settings) if settings["does"] == "train" else _place(settings)
    Path(settings["answer"]).write_text(json.dumps(seen))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
