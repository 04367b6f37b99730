"""What the API answers, as JSON; its schema stands in the OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from tooncrafter_jax.config_codec import to_dict
from tooncrafter_jax.serving.board import Live
from tooncrafter_jax.serving.database import Job, State
from tooncrafter_jax.serving.devices import ServedModel


class Problem(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


class Session(BaseModel):
    """A client's key, which also stands in the cookie."""

    key: str = Field(description="for `Authorization: Bearer KEY`")
    is_new: bool = Field(description="false: it is that of the browser's cookie, which has jobs or pictures here")


class Health(BaseModel):
    """Whether the server works."""

    status: str
    version: str
    devices: Literal["compiling", "ready"] = Field(
        description="compiling: the server has just started, and what is asked for meanwhile waits"
    )


class ModelAnswer(BaseModel):
    """A model that can be named in a request."""

    name: str
    architecture: str
    height: int
    width: int
    dtype: str
    has_sketches: bool
    sampling: dict[str, Any] = Field(description="options that count where a request does not say")
    record: dict[str, str] = Field(description="what tells its weights from others")
    config: dict[str, Any] = Field(description="its sizes, as in a checkpoint's model.json")


class Models(BaseModel):
    """The models of a server; the first one counts where a request names none."""

    models: list[ModelAnswer]


class PictureAnswer(BaseModel):
    """A picture that was sent."""

    sha256: str = Field(description="names the picture in requests")
    bytes: int
    height: int
    width: int


class ShownDrawing(BaseModel):
    """What a layer shows from a frame on."""

    frame: int
    drawing: str | None = Field(description="as its files are called; null: nothing is shown")


class LayerAnswer(BaseModel):
    """A layer of a time sheet."""

    name: str
    drawings: list[ShownDrawing]


class SheetAnswer(BaseModel):
    """A time sheet that was read."""

    name: str
    duration: int = Field(description="in frames")
    layers: list[LayerAnswer] = Field(description="from the bottom to the top")
    notes: list[str] = Field(description="what was decided while it was read")


class ProgressAnswer(BaseModel):
    """Where a job stands; both are 0 until its first steps are done."""

    done: int
    total: int


class JobAnswer(BaseModel):
    """A job."""

    id: str
    number: int = Field(description="in the order in which jobs came")
    kind: str = Field(description="pair or shot")
    state: State
    created: float = Field(description="seconds since 1970")
    finished: float | None
    progress: ProgressAnswer
    previews: int = Field(description="how many previews there were; a new one replaces the one before")
    error: str = Field(description="of a failed job: what is wrong")
    notes: list[str] = Field(description="what was decided about its pictures")
    shape: list[int] = Field(description="of the frames of a job that is done: frames, height, width, channels")
    seconds: float
    made_by: dict[str, Any]
    pictures: dict[str, str] = Field(description="what the request calls a picture -> its sha256")
    request: dict[str, Any] = Field(description="as it was sent")


class Jobs(BaseModel):
    """Jobs of a client, the newest first."""

    jobs: list[JobAnswer]
    before: int | None = Field(description="asks for the next ones; null after the last")


def job_answer(job: Job, live: Live | None) -> JobAnswer:
    """What is said of a job."""
    live = live or Live()
    return JobAnswer(
        id=job.id,
        number=job.number,
        kind=job.kind,
        state=job.state,
        created=job.created,
        finished=job.finished,
        progress=ProgressAnswer(done=live.done, total=live.total),
        previews=live.previews,
        error=job.error,
        notes=list(job.notes),
        shape=list(job.shape),
        seconds=job.seconds,
        made_by=dict(job.made_by),
        pictures=dict(job.pictures),
        request=dict(job.request),
    )


def model_answer(model: ServedModel) -> ModelAnswer:
    """What is said of a model, which is not where it lies."""
    known = model.described
    path = known.record.get("path", "")
    record = {key: value.replace(path, known.config.name) for key, value in known.record.items() if key != "path"}
    return ModelAnswer(
        name=model.name,
        architecture=known.config.name,
        height=known.config.height,
        width=known.config.width,
        dtype=model.dtype,
        has_sketches="sketch_encoder" in known.components,
        sampling=dict(known.sampling),
        record=record if path else dict(known.record),
        config=to_dict(known.config),
    )
