"""The loader: batches of training examples, the same for any number of processes and workers, resumed exactly.

Examples are numbered over epochs and processes: number n is the clip at place n mod N of epoch n // N, and all that is
random about it is a function of the seed and n (`data.examples`). Global batch k holds the numbers k·B to (k+1)·B - 1,
and a process loads those of its rows that the process's devices hold, which the sharding of a batch tells
(`training.sharding.process_rows`): several processes may hold the same row, and a process's rows need not be
neighbours. So the only state is how many examples all processes together have been given. A batch may span the end of
an epoch; nothing is dropped there.

In a program with workers (`num_workers` > 0), what starts the program stands under `if __name__ == "__main__":`, as the
workers import its file.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import parent_process
from typing import Any, SupportsIndex, cast

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Int

from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.data.embeddings import EmbeddingSource
from tooncrafter_jax.data.examples import Batch, Examples, LoaderConfig, PixelSource, Source
from tooncrafter_jax.data.records import Clip
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostArray

__all__ = ["Batch", "Loader", "LoaderConfig"]

_UNUSABLE = ("too_short", "damaged")
_SHARED_MEMORY = "/dev/shm"
_SMALLEST_SHARED = 2**16  # bytes of an array from which on shared memory is cheaper than a pipe
_GRAIN_FLAG = "grain_enable_multiprocess_worker_profiling"
_log = logging.getLogger(__name__)


class Loader(Iterator[Batch]):
    """Batches of a set of clips, or of embeddings made of it; close it, or use it in a `with` statement.

    Attributes:
      config: how examples are made.
      clips: number of clips in the set.
      unusable: clips that were left out so far, "too_short" or "damaged", as this process met them; an epoch later they
        are met again.
    """

    def __init__(
        self,
        source: Sequence[Clip] | Source,
        config: LoaderConfig | None = None,
        *,
        rows: Sequence[int] | Int[np.ndarray, "rows"] | None = None,
    ) -> None:
        """Opens a loader at its beginning; nothing is read before the first batch is asked for.

        Args:
          source: a `ClipSet`, or an `EmbeddingSource`; `Loader.open` opens what the config names.
          config: how examples are made; the published recipe by default.
          rows: which rows of every global batch are loaded, ascending; all of them by default. In a distributed run
            `training.sharding.process_rows` tells which ones a process needs.

        Raises:
          UserError: the set is empty, or has no such examples.
          ValueError: there are no such rows in a batch.
        """
        self.config = config = LoaderConfig() if config is None else config
        self._rows = np.arange(config.batch) if rows is None else np.array(rows, int)
        outside = not len(self._rows) or self._rows[0] < 0 or self._rows[-1] >= config.batch
        if outside or np.any(np.diff(self._rows) < 1):
            raise ValueError(f"a batch of {config.batch} has no rows {self._rows.tolist()}, or they do not ascend")
        self._source = source if isinstance(source, Source) else PixelSource(source)
        self.clips = len(self._source)
        if not self.clips:
            raise UserError("the set to load has no clips: make it again with other thresholds or more sources")
        self._source.check(config)
        self.unusable: dict[str, int] = dict.fromkeys(_UNUSABLE, 0)
        self._examples = 0
        self._batches: grain.DatasetIterator | None = None
        self._closed = False

    @classmethod
    def open(cls, config: LoaderConfig, *, rows: Sequence[int] | Int[np.ndarray, "rows"] | None = None) -> Loader:
        """Opens what the config names: the embeddings if it names any, else the set.

        Raises:
          UserError: as the constructor, and where the set or the embeddings are missing or damaged.
        """
        if not config.directory and (config.video or not config.embeddings):
            raise UserError("config.data.directory is empty: name the directory of a set that `curate` made")
        clips = ClipSet(config.directory, config.split) if config.directory else None
        source = EmbeddingSource(config.embeddings, clips) if config.embeddings else clips
        return cls(cast(Source, source), config, rows=rows)

    # ---------------------------------------------------------------------------------------------------------- batches

    def __next__(self) -> Batch:
        """The loader's rows of the next global batch, in their order, in ordinary writable arrays.

        Raises:
          StopIteration: at the end of the set, with `repeat` off.
          UserError: a clip is damaged (it is named), or a worker died. Asking again tries the same batch again.
        """
        if self._closed:
            raise ValueError("the loader is closed")
        if self._batches is None:
            self._batches = self._open()
        try:
            rows = next(self._batches)
        except StopIteration:
            self._stop()
            raise
        except BaseException as error:
            self._stop()
            if isinstance(error, RuntimeError) and "terminated unexpectedly" in str(error):
                raise UserError(
                    "a worker process of the loader was ended from outside, probably because memory ran out: lower "
                    "config.data.num_workers or config.data.prefetch"
                ) from error
            raise
        self._examples += self.config.batch
        batch = {name: _own(value) for name, value in rows.items()}
        self._count_unusable({reason: int(batch.pop(reason).sum()) for reason in _UNUSABLE})
        return cast(Batch, batch)

    def _count_unusable(self, found: Mapping[str, int]) -> None:
        before = sum(self.unusable.values())
        for reason, count in found.items():
            self.unusable[reason] += count
        total = sum(self.unusable.values())
        if total.bit_length() > before.bit_length():  # at 1, 2, 4, 8, ...
            _log.warning(
                "clips left out so far: %d with fewer than %d frames, %d damaged",
                *(self.unusable["too_short"], self.config.frames, self.unusable["damaged"]),
            )

    # ------------------------------------------------------------------------------------------------------------ state

    def state(self) -> dict[str, int]:
        """Where it stands: the same on every process, in JSON values.

        It may be restored with another number of processes or workers, and with another batch.
        """
        return {"examples": self._examples, "clips": self.clips, "seed": self.config.seed, "ends": self._ends}

    @functools.cached_property
    def _ends(self) -> int:
        """Stands for the ids of the first and the last clip: a set that lies elsewhere now is known by them."""
        ends = [self._source.identity(record) for record in (0, self.clips - 1)]
        return int.from_bytes(hashlib.sha256(json.dumps(ends).encode()).digest()[:6])

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes on where a loader of the same set and seed stood, as if it had never been interrupted.

        Raises:
          UserError: the state is of another set or seed, or no state.
        """
        own = self.state()
        given = {name: state.get(name) for name in own}
        if given["ends"] is None:  # earlier versions did not note them down
            given["ends"] = own["ends"]
        if not all(isinstance(value, int) and value >= 0 for value in given.values()):
            raise UserError(f"{dict(state)} is no state of the loader: start the data afresh")
        for name in ("clips", "seed"):
            if given[name] != own[name]:
                raise UserError(
                    f"the data loader's state was saved with {name} = {given[name]}, but now it is {own[name]}: go on "
                    "with the same set and seed, or start the data afresh"
                )
        if given["ends"] != own["ends"]:
            raise UserError(
                "the data loader's state was saved with a set that begins or ends with another clip: go on with the "
                "same set, or start the data afresh"
            )
        self._stop()
        self._examples = int(state["examples"])

    # ---------------------------------------------------------------------------------------------------------- opening

    def _open(self) -> grain.DatasetIterator:
        """The pipeline from the present example on."""
        config, local = self.config, len(self._rows)
        # example number -> index of a clip -> example
        places = grain.MapDataset.range(self.clips)
        if config.shuffle:
            places = places.shuffle(seed=config.seed % 2**32)
        places = places.repeat()
        if not config.repeat:
            places = places[: -(-self.clips // config.batch) * config.batch]
        numbered = grain.MapDataset.source(_Numbered(places, self._examples, config.batch, self._rows))
        batches = numbered.map(_Unpacked(Examples(self._source, config))).batch(local, drop_remainder=True)
        if not config.num_workers:
            threads = grain.ReadOptions(num_threads=config.prefetch, prefetch_buffer_size=config.prefetch)
            return batches.to_iter_dataset(threads).__iter__()
        in_turn = batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        smallest = 2**62 if self._shared_memory_is_small(local) else _SMALLEST_SHARED
        in_turn = grain.experimental.WithOptionsIterDataset(
            in_turn, grain.experimental.DatasetOptions(min_shm_size=smallest)
        )
        if _GRAIN_FLAG in flags.FLAGS:
            # grain 0.2.18 reads this flag, and fails in a program that does not parse absl's flags (google/grain#1355)
            flags.FLAGS[_GRAIN_FLAG].present = 1
        workers = grain.MultiprocessingOptions(config.num_workers, per_worker_buffer_size=max(1, config.prefetch))
        return in_turn.mp_prefetch(workers, worker_init_fn=_start_worker).__iter__()

    def _shared_memory_is_small(self, local: int) -> bool:
        """Whether batches should come through pipes: a worker that finds shared memory full is killed by the system."""
        if not os.path.isdir(_SHARED_MEMORY):
            return False
        config = self.config
        # As much again as the pixels for everything else. A worker's batches wait twice, on its side and on this one,
        # and one is in work on each.
        batch = 2 * local * config.frames * config.height * config.width * 3
        return shutil.disk_usage(_SHARED_MEMORY).free < config.num_workers * (2 * config.prefetch + 2) * batch

    # ---------------------------------------------------------------------------------------------------------- closing

    def _stop(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def close(self) -> None:
        """Ends the workers; the loader gives no more batches."""
        self._closed = True
        self._stop()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Numbered:
    """Numbers of the examples in some rows of the batches from a place on, each with the index of its clip."""

    def __init__(self, places: grain.MapDataset, start: int, batch: int, rows: Int[np.ndarray, "rows"]) -> None:
        self._places, self._start, self._batch, self._rows = places, start, batch, rows

    def __len__(self) -> int:
        return (len(self._places) - self._start) // self._batch * len(self._rows)

    def __getitem__(self, index: SupportsIndex) -> tuple[int, int]:
        batch, row = divmod(int(index), len(self._rows))
        number = self._start + batch * self._batch + int(self._rows[row])
        return number, int(cast(Any, self._places[number]))


class _Unpacked:
    """Makes the example of a number and a clip that come as one; a callable that travels to other processes."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __call__(self, numbered: tuple[int, int]) -> dict[str, Any]:
        return self._examples(*numbered)


def _own(array: np.ndarray) -> HostArray:
    """The array, or a copy where it is a view: of shared memory, which a worker's arrays give back, or of a
    constant.
    """
    return array if type(array) is np.ndarray and array.flags.owndata else np.array(array)


def _start_worker(index: int, count: int) -> None:
    """What a worker process does first."""
    import signal

    # Ctrl-C reaches every process of the terminal; the one that the user started ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker has no use for an accelerator, and must not take it from the training.
    jax.config.update("jax_platforms", "cpu")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, killed perhaps."""
    parent: Any = parent_process()
    with contextlib.suppress(OSError):
        parent.join()
    os._exit(1)
