"""The run of an evaluation: every method makes every clip, every metric measures it, batch by batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jax.experimental import multihost_utils

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch, Metric, Rows
from tooncrafter_jax.evaluation.row_store import RowStore
from tooncrafter_jax.evaluation.true_clips import TrueClip, TrueSet
from tooncrafter_jax.typing import HostArray, HostParams, JsonObject, Uint8Video, Uint8Videos

_SEPARATOR = "/"
"""Between a metric's name and that of its row, where rows of all metrics lie together."""
_SECONDS = f"made{_SEPARATOR}seconds"
"""Key of the seconds that clips took, beside the rows."""


@runtime_checkable
class Method(Protocol):
    """What makes clips: a model, a rival, a folder of videos made elsewhere.

    Attributes:
      name: of its column; unique in a run.
      title: for reports.
    """

    name: str
    title: str

    def settings(self) -> JsonObject:
        """What the clips depend on besides the truth, as JSON values."""
        ...

    def make(self, clips: Sequence[TrueClip]) -> Uint8Videos:
        """The clips again, (B, T, H, W, 3); what it makes of one clip does not depend on the others."""
        ...


@runtime_checkable
class Costed(Protocol):
    """A method whose operations may be known."""

    def denoiser_flops(self) -> float | None:
        """Operations of all passes of the denoiser for one clip; None where they are not known."""
        ...


def denoiser_flops_of(method: Method) -> float | None:
    """Operations of all passes of the denoiser for one clip, where a method knows them."""
    return method.denoiser_flops() if isinstance(method, Costed) else None


@dataclass(frozen=True)
class Measured:
    """What was measured of one method.

    Attributes:
      name, title: the method's.
      rows: metric -> its rows, of all clips in the set's order.
      seconds: that each clip took to make, (clips,); NaN where it was made before or while programs were compiled.
    """

    name: str
    title: str
    rows: Mapping[str, Rows]
    seconds: HostArray


class Evaluation:
    """Methods and metrics on true clips, kept in a directory.

    Batches are shared between the processes of a run, which must see the same directory; within a process, a batch is
    spread over its devices by whoever makes and measures it.

    Args:
      clips: the truth.
      methods: what makes them again; names must differ.
      metrics: what is measured.
      store: where rows and videos are kept.
      batch: clips that are made and measured together.
      keep_videos: whether what was made is kept, so that another metric can be added without making it again.
    """

    def __init__(
        self,
        clips: TrueSet,
        methods: Sequence[Method],
        metrics: Sequence[Metric],
        store: RowStore,
        *,
        batch: int = 4,
        keep_videos: bool = True,
    ) -> None:
        names = [method.name for method in methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"two methods are called '{twice[0]}': rename one of their folders")
        if batch < 1:
            raise UserError(f"--batch-size is {batch}, but must be at least 1")
        self.clips, self.methods, self.metrics, self.store = clips, methods, metrics, store
        self.batch, self.keep_videos = batch, keep_videos
        self._has_made: set[str] = set()

    @property
    def batches(self) -> int:
        """How many batches the clips make."""
        return -(-len(self.clips) // self.batch)

    def run(self, on_batch: Callable[[str, int, int], None] = lambda method, done, total: None) -> list[Measured]:
        """Makes and measures what is not yet kept.

        Args:
          on_batch: called after each batch of this process with the method, batches done and batches in all.

        Returns:
          The rows of all methods, on every process.

        Raises:
          UserError: a method cannot make a clip, a metric cannot measure it, or the directory cannot be written.
        """
        mine = range(jax.process_index(), self.batches, jax.process_count())
        done, total = 0, len(mine) * len(self.methods)
        for number in mine:  # the truth of a batch is decoded once, and its features are computed once
            indices = self._indices(number)
            ids = [self.clips.ids[index] for index in indices]
            truth: list[TrueClip] | None = None
            for method in self.methods:
                kept = self.store.rows(method.name, number, ids)
                missing = [metric for metric in self.metrics if not _has(kept, metric)]
                if missing:
                    truth = truth or [self.clips[index] for index in indices]
                    videos, seconds = self._videos(method, truth)
                    rows = kept | self._measured(missing, videos, truth)
                    rows[_SECONDS] = kept.get(_SECONDS, np.full(len(ids), seconds))
                    self.store.keep_rows(method.name, number, ids, rows)
                done += 1
                on_batch(method.name, done, total)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("all clips are measured")
        return [self._collected(method) for method in self.methods]

    def videos_of(self, method: Method, index: int) -> Uint8Video:
        """What a method made of a clip; made again if it was not kept."""
        return self._videos(method, [self.clips[index]])[0][0]

    def _indices(self, number: int) -> list[int]:
        return list(range(number * self.batch, min((number + 1) * self.batch, len(self.clips))))

    def _videos(self, method: Method, truth: Sequence[TrueClip]) -> tuple[Uint8Videos, float]:
        """What a method makes of clips, and the seconds that each took; NaN if it was kept, or the first that it makes.

        A last batch is filled up, so that nothing is compiled for its size.
        """
        kept = [self.store.video(method.name, clip.id) for clip in truth] if self.keep_videos else [None]
        whole = [video for video in kept if video is not None]
        if len(whole) == len(truth) and all(v.shape == c.video.shape for v, c in zip(whole, truth, strict=True)):
            return np.stack(whole), math.nan
        filled = _filled(truth, self.batch)
        started = time.perf_counter()
        videos = method.make(filled)[: len(truth)]
        seconds = (time.perf_counter() - started) / len(filled) if method.name in self._has_made else math.nan
        self._has_made.add(method.name)
        expected = (len(truth), *truth[0].video.shape)
        if videos.shape != expected:
            raise UserError(
                f"'{method.name}' made clips of shape {videos.shape[1:]}, but the true ones have {expected[1:]}: give "
                "--frames, --height and --width that it can make"
            )
        if self.keep_videos:
            self.store.keep_videos(method.name, [clip.id for clip in truth], videos)
        return videos, seconds

    def _measured(self, metrics: Sequence[Metric], videos: Uint8Videos, truth: Sequence[TrueClip]) -> HostParams:
        """Rows by "metric/row". A last batch is filled up, too."""
        count, filled = len(truth), _filled(truth, self.batch)
        batch = ClipBatch(
            np.concatenate([videos, np.repeat(videos[-1:], len(filled) - count, axis=0)]),
            np.stack([clip.video for clip in filled]),
            tuple(clip.prompt for clip in filled),
        )
        return {
            f"{metric.name}{_SEPARATOR}{name}": np.asarray(values)[:count]
            for metric in metrics
            for name, values in metric.measure(batch).items()
        }

    def _collected(self, method: Method) -> Measured:
        batches = []
        for number in range(self.batches):
            ids = [self.clips.ids[index] for index in self._indices(number)]
            rows = self.store.rows(method.name, number, ids)
            lacking = [metric.name for metric in self.metrics if not _has(rows, metric)]
            if lacking:
                raise UserError(
                    f"'{self.store.directory}' lacks the rows of {lacking[0]} of '{method.name}' that another process "
                    "measured: all processes must see the same --out"
                )
            batches.append(rows)
        found: dict[str, HostParams] = {metric.name: {} for metric in self.metrics}
        for key in batches[0]:
            metric, _, row = key.partition(_SEPARATOR)
            if metric in found:
                found[metric][row] = np.concatenate([rows[key] for rows in batches])
        unknown = [np.full(len(self._indices(number)), math.nan) for number in range(self.batches)]
        seconds = [rows.get(_SECONDS, nothing) for rows, nothing in zip(batches, unknown, strict=True)]
        return Measured(method.name, method.title, found, np.concatenate(seconds))


def _filled(clips: Sequence[TrueClip], count: int) -> list[TrueClip]:
    """The clips, and the last one again until there are so many."""
    return [*clips, *(clips[-1] for _ in range(count - len(clips)))]


def _has(rows: Mapping[str, HostArray], metric: Metric) -> bool:
    return any(key.startswith(metric.name + _SEPARATOR) for key in rows)


def per_clip(metric: Metric, rows: Rows) -> HostArray:
    """A metric's number of each clip alone, (clips,); of use only for metrics of frames."""
    count = len(next(iter(rows.values())))
    return np.array([metric.summarise({name: row[i : i + 1] for name, row in rows.items()}) for i in range(count)])


class Truth:
    """The true clips themselves: what every metric gives for a perfect method."""

    name, title = "truth", "truth"

    def settings(self) -> JsonObject:
        """None."""
        return {}

    def make(self, clips: Sequence[TrueClip]) -> Uint8Videos:
        """The true frames."""
        return np.stack([clip.video for clip in clips])
