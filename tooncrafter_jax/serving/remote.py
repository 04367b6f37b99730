"""`tooncrafter sample --server`: clips and shots are drawn elsewhere, and their files are written here as they are
locally.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tooncrafter_jax.config_codec import from_dict
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.models.configuration import COMPONENTS, ModelConfig
from tooncrafter_jax.notes import collected, note
from tooncrafter_jax.sampling.batch.artists import Artist, Clips, Desk, DrawShot, OnProgress, Variants
from tooncrafter_jax.sampling.batch.jobs import NamedJob
from tooncrafter_jax.sampling.batch.model_source import DescribedModel
from tooncrafter_jax.sampling.batch.scenes import SceneJob
from tooncrafter_jax.sampling.frame_room import Room, memory
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, make_options
from tooncrafter_jax.sampling.sequence import Shot, lay_out
from tooncrafter_jax.sampling.shot_preparation import PreparedShot
from tooncrafter_jax.serving.client import Client, Unreachable
from tooncrafter_jax.serving.remote_requests import Asked, asked_for, changed_options
from tooncrafter_jax.typing import JsonObject, Uint8Clip

AT_A_TIME = 8
"""Pairs and shots that wait or are drawn on the server, which can draw them together."""


class ServedModel(NamedTuple):
    """A model of a server.

    Attributes:
      name: what the server is asked for; empty: its first.
      described: what is known of it; what it lacks beside a sketch encoder, the server says.
      dtype: of its computation.
    """

    name: str
    described: DescribedModel
    dtype: str


def served_model(client: Client, name: str = "") -> ServedModel:
    """A model of a server.

    Args:
      client: asks it.
      name: of the model; empty: the server's first.

    Raises:
      UserError: there is none of this name, or the server is of a version that says other things of it.
    """
    models = client.models()
    found = next((one for one in models if not name or one["name"] == name), None)
    if found is None:
        names = ", ".join(one["name"] for one in models)
        raise UserError(f"the server has no model '{printable(name, 60)}': choose one of {names}")
    if "config" not in found:
        raise UserError("the server is of an earlier version, which says less of its models: update it")
    config = from_dict(ModelConfig, found["config"], "the config of the server's model")
    components = [one for one in COMPONENTS if one != "sketch_encoder" or found["has_sketches"]]
    return ServedModel(name, DescribedModel(found["record"], config, components, found["sampling"]), found["dtype"])


@dataclass(eq=False)
class _Errand:
    """A pair or a shot that the server draws for a job.

    Attributes:
      what: the pair or the shot.
      options: how.
      asked: what the server was asked for; None: it is not sent yet.
      id: of the server's job; empty: there is none.
      problem: why it could not be sent.
      is_over: whether it is waited for no longer.
      answer: what the server says of it when it is done.
    """

    what: Pair | Shot
    options: SamplingOptions
    asked: Asked | None = None
    id: str = ""
    problem: UserError | None = None
    is_over: bool = False
    answer: Mapping[str, Any] = field(default_factory=dict)


class RemoteArtist(Artist):
    """Has a server draw: what is asked for soon is sent before it is waited for, and the server forgets each job when
    its files were written, and in the end all of them.

    Args:
      client: asks the server.
      model: what draws.
    """

    ahead = AT_A_TIME - 1

    def __init__(self, client: Client, model: ServedModel) -> None:
        self._client, self._model = client, model
        self._usual = make_options(model.described.sampling)
        self._errands: dict[int, list[_Errand]] = {}
        self._unsent: deque[_Errand] = deque()
        self._sent: list[_Errand] = []

    def __exit__(self, *_: object) -> None:
        self._unsent.clear()
        with contextlib.suppress(Unreachable):
            for errand in list(self._sent):
                self._remove(errand)

    def get_ready(self) -> None:
        """See `Artist`; a server is ready, or lets wait."""

    def begin(self, job: NamedJob, wanted: Sequence[tuple[Pair | Shot, SamplingOptions]]) -> None:
        """See `Artist`; what cannot be sent is said where it is waited for."""
        errands = [_Errand(what, options) for what, options in wanted]
        self._errands[id(job)] = errands
        self._unsent += errands
        self._send_some()

    def clips(
        self, batch: Sequence[Variants], size: int, options: SamplingOptions, on_progress: OnProgress
    ) -> list[Clips]:
        """See `Artist`; a batch is a single job, as the server makes batches."""
        del size, options
        found: list[Clips] = []
        for one in batch:
            errands = self._errands[id(one.job)]
            clips = [
                self._frames(errand, memory, on_progress, (number, len(errands)))
                for number, errand in enumerate(errands)
            ]
            found.append(lambda clips=clips: clips)
        return found

    @contextlib.contextmanager
    def scene(self, job: SceneJob, options: SamplingOptions, desk: Desk) -> Iterator[DrawShot]:
        """See `Artist`; nothing is kept beside the files, as the server draws a shot as a whole."""
        del options
        errands = self._errands[id(job)]

        def draw(shot: Shot | PreparedShot, how: SamplingOptions, on_progress: OnProgress) -> Uint8Clip:
            del how  # which `begin` was told
            what = shot.shot if isinstance(shot, PreparedShot) else shot
            number = next(number for number, errand in enumerate(errands) if errand.what is what)
            return self._frames(errands[number], desk.room, on_progress, (number, len(errands)))

        yield draw

    def made_by(self, job: NamedJob, seconds: float) -> JsonObject:
        """See `Artist`; the seconds are those that the server took, for all shots of a job."""
        del seconds
        answers = [errand.answer for errand in self._errands[id(job)]]
        own = answers[0]["made_by"] if answers else {}
        return {**own, "seconds": round(sum(answer["seconds"] for answer in answers), 3)}

    def end(self, job: NamedJob) -> None:
        """See `Artist`; the server forgets the job."""
        for errand in self._errands.pop(id(job)):
            if errand in self._unsent:
                self._unsent.remove(errand)
            errand.is_over = True
            with contextlib.suppress(Unreachable):  # it is tried again in the end
                self._remove(errand)
        self._send_some()

    def check_goes_on(self, error: UserError) -> None:
        """See `Artist`; without the server there is nothing to be had."""
        if isinstance(error, Unreachable):
            raise error

    # ---------------------------------------------------------------------------------------------------------- errands

    def _send_some(self) -> None:
        """Sends what the server may have at a time."""
        while self._unsent and sum(not errand.is_over for errand in self._sent) < AT_A_TIME:
            errand = self._unsent.popleft()
            self._send(errand)
            if isinstance(errand.problem, Unreachable):  # perhaps it is there again when this one is waited for
                self._unsent.appendleft(errand)
                return

    def _send(self, errand: _Errand) -> None:
        errand.problem = None
        try:
            with collected():  # what is said of it was said when it was checked
                layout = lay_out(errand.what, errand.options) if isinstance(errand.what, Shot) else None
            options = changed_options(errand.options, self._usual)
            errand.asked = asked_for(errand.what, layout, options, self._model.name, self._client.send)
            try:
                errand.id = self._client.submit(errand.asked.request, errand.asked.uploads)["id"]
                self._sent.append(errand)
            finally:
                for sha256 in errand.asked.sent:  # they go with the job
                    self._client.let_go(sha256)
        except UserError as error:
            errand.problem = _told(error, errand)

    def _frames(self, errand: _Errand, room: Room, on_progress: OnProgress, place: tuple[int, int]) -> Uint8Clip:
        """What the server has drawn of an errand, which is waited for.

        Args:
          errand: is sent now if it is not yet.
          room: where the frames lie.
          on_progress: hears of all errands of the job together.
          place: number of this one, and how many there are.

        Raises:
          UserError: the server refuses it, it has failed, or the server cannot be reached.
        """
        while errand in self._unsent:
            self._send(self._unsent.popleft())
        if errand.problem is not None:
            raise errand.problem

        def changed(now: Mapping[str, Any]) -> None:
            done, total = now["progress"]["done"], now["progress"]["total"]
            if total:
                on_progress(Progress(place[0] * total + done, place[1] * total, _no_preview))

        try:
            errand.answer = self._client.wait(errand.id, changed, previews=False)
            errand.is_over = True
            self._send_some()
            for sentence in errand.answer["notes"]:
                note(sentence if errand.asked is None else errand.asked.told(sentence))
            return self._client.frames(errand.id, room)
        except UserError as error:
            raise _told(error, errand) from error

    def _remove(self, errand: _Errand) -> None:
        """Has the server forget an errand.

        Raises:
          Unreachable: it is not told.
        """
        if errand not in self._sent:
            return
        try:
            self._client.remove(errand.id)
        except Unreachable:
            raise
        except UserError:
            pass  # it is not there any more
        self._sent.remove(errand)


def _told(error: UserError, errand: _Errand) -> UserError:
    """What a server says, with the paths of pictures."""
    return error if errand.asked is None or isinstance(error, Unreachable) else UserError(errand.asked.told(str(error)))


def _no_preview() -> np.ndarray:
    raise UserError("a server's previews are at /v1/jobs/ID/preview")
