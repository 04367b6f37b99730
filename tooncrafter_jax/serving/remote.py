"""`tooncrafter sample --server`: pairs are drawn elsewhere, and their files are written here as they are locally."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io import read_picture
from tooncrafter_jax.notes import note
from tooncrafter_jax.options import shown
from tooncrafter_jax.sampling.batch.jobs import Job
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.batch.run_request import BatchResult, Listener
from tooncrafter_jax.sampling.batch.selection import inputs_of
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.records import RECORD_FORMAT, request_of
from tooncrafter_jax.sampling.request import (
    Pair,
    Picture,
    SamplingOptions,
    Sketch,
    check_settings,
    make_options,
    sketches_by_frame,
)
from tooncrafter_jax.serving.client import Client, Upload


@dataclass(frozen=True)
class RemoteRequest:
    """Clips of one pair to be made by a server.

    Attributes:
      jobs: the clips, which differ in their seeds.
      given: options of sampling that were given; the others are the model's own, or the published ones.
      plan: where the files go.
      client: asks the server.
      model: one of the server's; empty: its first.
    """

    jobs: Sequence[Job]
    given: Mapping[str, Any]
    plan: OutputPlan
    client: Client
    model: str = ""

    def make(self, listener: Listener, result: BatchResult) -> BatchResult:
        """Makes all; what can be wrong is found before anything is sent.

        Args:
          listener: hears how it goes.
          result: is brought up to date.

        Raises:
          UserError: something is wrong with the request, or the server refuses it.
        """
        model = self._described()
        options = make_options({**model["sampling"], **self.given})
        if options.alpha:
            self.plan.check_holds_alpha()
        for job in self.jobs:
            check_settings(job.pair, options)
        for picture in inputs_of(self.jobs[0].pair):
            read_picture(picture)
        self.plan.check([path for job in self.jobs for path in inputs_of(job.pair)], [job.name for job in self.jobs])
        for job in self.jobs:
            self.plan.check_ours(job.name)
        with self._sent() as ids:
            for job, id in zip(self.jobs, ids, strict=True):
                self._make(job, id, model, options, listener, result)
        return result

    def _described(self) -> Mapping[str, Any]:
        models = self.client.models()
        found = [one for one in models if not self.model or one["name"] == self.model]
        if not found:
            names = ", ".join(one["name"] for one in models)
            raise UserError(f"the server has no model '{printable(self.model, 60)}': choose one of {names}")
        return found[0]

    @contextlib.contextmanager
    def _sent(self) -> Iterator[list[str]]:
        """Sends all jobs, and has the server forget them in the end."""
        ids: list[str] = []
        try:
            for number, job in enumerate(self.jobs):
                request, pictures = described(job.pair, self.given, self.model)
                answer = self.client.submit(request, pictures)
                ids.append(answer["id"])
                for sentence in answer["notes"] if number == 0 else ():
                    note(sentence)
            yield ids
        finally:
            for id in ids:
                with contextlib.suppress(UserError):
                    self.client.remove(id)

    def _make(
        self,
        job: Job,
        id: str,
        model: Mapping[str, Any],
        options: SamplingOptions,
        listener: Listener,
        result: BatchResult,
    ) -> None:
        with listener.sampling(job, result, options.steps) as on_progress:

            def changed(now: Mapping[str, Any]) -> None:
                done, total = now["progress"]["done"], now["progress"]["total"]
                if total:
                    on_progress(Progress(done, total, _no_preview))

            done = self.client.wait(id, changed)
        frames = self.client.frames(id)
        request = request_of(job.pair, options, model["record"], model["dtype"], self.plan.stamps)
        made_by = {**done["made_by"], "seconds": done["seconds"]}
        record = {"format": RECORD_FORMAT, "request": request | shown(self.plan), "made_by": made_by}
        self.plan.write(job.name, frames, record)
        result.made.append(job.name)


def described(pair: Pair, given: Mapping[str, Any], model: str) -> tuple[dict[str, Any], dict[str, Upload]]:
    """A pair as the server is asked for it, and the pictures that are sent with it.

    Args:
      pair: its pictures are paths.
      given: options of sampling.
      model: of the server; empty: its first.
    """
    pictures: dict[str, Upload] = {"first": _path(pair.first), "last": _path(pair.last)}
    sketches = {}
    for frame, one in sketches_by_frame(pair.sketches).items():
        sketch = one if isinstance(one, Sketch) else Sketch(one)
        name = f"sketch-{frame}"
        pictures[name] = _path(sketch.image)
        sketches[str(frame)] = {"picture": name, "dark_lines": sketch.dark_lines}
    draft = None
    if pair.draft is not None:
        draft = [f"draft-{number}" for number in range(len(pair.draft))]
        pictures |= {name: _path(picture) for name, picture in zip(draft, pair.draft, strict=True)}
    request: dict[str, Any] = {
        "first": "first",
        "last": "last",
        "prompt": pair.prompt,
        "negative_prompt": pair.negative_prompt,
        "seed": pair.seed,
        "fps": pair.fps,
        "sketches": sketches,
        "options": dict(given),
    }
    request |= {"draft": draft} if draft else {}
    return request | ({"model": model} if model else {}), pictures


def _path(picture: Picture | None) -> str:
    if not isinstance(picture, str | os.PathLike):
        raise UserError("pictures that are sent to a server must be files")
    return os.fspath(picture)


def _no_preview() -> np.ndarray:
    raise UserError("a server's previews are at /v1/jobs/ID/preview")
