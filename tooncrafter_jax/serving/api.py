"""The HTTP API, version 1."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import Field

from tooncrafter_jax import __version__
from tooncrafter_jax.io import PIXEL_FORMATS, PUBLISHED_FPS, PUBLISHED_PIXEL_FORMAT
from tooncrafter_jax.serving import answers
from tooncrafter_jax.serving.database import Job
from tooncrafter_jax.serving.descriptions import Options, PairDescription, ShotDescription
from tooncrafter_jax.serving.engine import Busy, Engine
from tooncrafter_jax.serving.events import MOST_STREAMS, JobEvents
from tooncrafter_jax.serving.example import give_example
from tooncrafter_jax.serving.limits import Limits, Rate
from tooncrafter_jax.serving.metrics import CONTENT_TYPE, Metrics
from tooncrafter_jax.serving.page_files import add_page
from tooncrafter_jax.serving.refusals import add_refusals
from tooncrafter_jax.serving.results import RESULTS, Results, ending, media_type
from tooncrafter_jax.serving.security import COOKIE_SECONDS, Access, Guard, bearer, is_encrypted
from tooncrafter_jax.serving.storage import room_explained
from tooncrafter_jax.serving.uploads import REQUEST, Uploads

ROUTES = APIRouter(prefix="/v1")
AUTHORIZATION: dict[str, Any] = {"security": [{"bearer": []}, {"cookie": []}]}
"""Of routes that are a client's own, in the OpenAPI description."""
ID = "^[0-9a-f]{32}$"
"""Of a job."""
if TYPE_CHECKING:
    Form = PixelFormat = str
else:
    Form, PixelFormat = Literal[RESULTS], Literal[PIXEL_FORMATS]


class Service:
    """What the routes work with.

    Args:
      engine: makes jobs.
      access: knows clients.
      limits: see there.
      has_example: whether the first page that is opened gets an example.
    """

    def __init__(self, engine: Engine, access: Access, limits: Limits, has_example: bool = False) -> None:
        self.engine, self.access, self.limits, self.has_example = engine, access, limits, has_example
        self.storage, self.database = engine.storage, engine.storage.database
        self.rate, self.metrics = Rate(limits.requests_per_minute), Metrics(engine)
        self.uploads, self.results = Uploads(engine.storage, limits), Results(engine.storage)
        self.streams: Counter[str] = Counter()

    def answer(self, job: Job) -> answers.JobAnswer:
        """What is said of a job."""
        return answers.job_answer(job, self.engine.board.live(job.id))

    def events(self, ids: Sequence[str], client: str, previews: bool) -> JobEvents:
        """What becomes of jobs of a client's; others are not there. With `previews` these are made meanwhile.

        Raises:
          Busy: the client listens to too many answers.
        """
        if self.streams[client] >= MOST_STREAMS:
            raise Busy(f"you have {MOST_STREAMS} streams of events, which is as many as this server gives", 5.0)

        def look(id: str) -> tuple[answers.JobAnswer | None, bool]:
            now = self.database.job(id)
            if now is None or now.client != client:
                return None, True
            return self.answer(now), not now.is_open or self.engine.is_ending

        return JobEvents(self.engine.board, ids, look, client, self.streams, previews)

    def check_rate(self, client: str) -> None:
        """Raises `Busy` for a client that asks too often."""
        if seconds := self.rate.wait(client):
            raise Busy("too many requests in a minute: wait a little before the next one", seconds)


def service_of(request: Request) -> Service:
    """What the routes work with."""
    return request.app.state.service


Served = Annotated[Service, Depends(service_of)]


def client_of(request: Request, service: Served) -> str:
    """Whose request this is."""
    client = service.access.client(request.headers)
    service.check_rate(client or _address(request))
    if client is None:
        raise HTTPException(401, "ask for a key first: POST /v1/session", headers={"WWW-Authenticate": "Bearer"})
    return client


Client = Annotated[str, Depends(client_of)]


def own_job(id: Annotated[str, Path(pattern=ID)], client: Client, service: Served) -> Job:
    """A job of the client's; of another's nothing is said."""
    job = service.database.job(id)
    if job is None or job.client != client:
        raise HTTPException(404, "you have no such job")
    return job


OwnJob = Annotated[Job, Depends(own_job)]

# ---------------------------------------------------------------------------------------------------------- the door


@ROUTES.post("/session", status_code=201, openapi_extra={"security": [{}, {"bearer": []}]})
def new_session(request: Request, response: Response, service: Served) -> answers.Session:
    """Makes the caller a client; where the server needs a token, with `Authorization: Bearer TOKEN`. A browser whose
    cookie has jobs or pictures here keeps its key.
    """
    service.check_rate(_address(request))
    if service.access.needs_token and not service.access.is_token(bearer(request.headers) or ""):
        raise HTTPException(
            401, "this server needs its token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )
    same = service.access.same_client(request.headers)
    key = same or service.access.new_client()
    if service.has_example and request.headers.get("sec-fetch-site") == "same-origin":  # which a page alone sends
        give_example(service.engine, service.access.id_of(key))
    _set_cookie(request, response, service, key)
    return answers.Session(key=key, is_new=same is None)


def _set_cookie(request: Request, response: Response, service: Service, key: str) -> None:
    response.set_cookie(
        service.access.cookie,
        key,
        max_age=COOKIE_SECONDS,
        httponly=True,
        secure=is_encrypted(request.headers),
        samesite="strict",
        path="/",
    )


@ROUTES.get("/health")
def health(service: Served) -> answers.Health:
    """Whether the server works."""
    service.database.count("waiting")
    if not service.engine.works:
        raise HTTPException(503, "what draws has ended: look at the server's log, and start it again")
    devices = "compiling" if service.engine.devices.has_chores else "ready"
    return answers.Health(status="ok", version=__version__, devices=devices)


@ROUTES.get("/metrics", response_class=Response, openapi_extra=AUTHORIZATION)
def metrics(request: Request, service: Served) -> Response:
    """Numbers for Prometheus; where the server needs a token, with it or a key."""
    if service.access.needs_token:
        client_of(request, service)
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


@ROUTES.get("/models", openapi_extra=AUTHORIZATION)
def models(request: Request, response: Response, client: Client, service: Served) -> answers.Models:
    """The models that can be named in requests. A browser's cookie is renewed: every page asks for them first."""
    if bearer(request.headers) is None and (key := service.access.cookie_key(request.headers)):
        _set_cookie(request, response, service, key)
    return answers.Models(models=[answers.model_answer(model) for model in service.engine.models.values()])


# ---------------------------------------------------------------------------------------------------------- pictures


@ROUTES.post(
    "/pictures",
    status_code=201,
    openapi_extra={
        **AUTHORIZATION,
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["picture"],
                        "properties": {"picture": {"type": "string", "format": "binary"}},
                    }
                }
            },
        },
    },
)
async def send_picture(request: Request, client: Client, service: Served) -> answers.PictureAnswer:
    """Sends a picture that several jobs will name."""
    picture = await service.uploads.picture(request, client)
    return answers.PictureAnswer(sha256=picture.sha256, bytes=picture.bytes, height=picture.height, width=picture.width)


@ROUTES.get("/pictures/{sha256}", response_class=Response, openapi_extra=AUTHORIZATION)
async def own_picture(
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], client: Client, service: Served
) -> Response:
    """A picture of the client's, for a browser: as it was sent, or as PNG where browsers do not show its format."""
    try:
        data, kind = await service.uploads.shown(sha256, client)
    except FileNotFoundError as error:
        raise HTTPException(404, "you have no such picture") from error
    return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=86400, immutable"})


@ROUTES.delete("/pictures/{sha256}", status_code=204, openapi_extra=AUTHORIZATION)
def let_picture_go(sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], client: Client, service: Served) -> None:
    """Removes a picture of the client's that was sent by itself; one that a job needs goes with the last of them."""
    service.storage.release_picture(client, sha256)


@ROUTES.post(
    "/timesheets",
    openapi_extra={
        **AUTHORIZATION,
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def read_timesheet(request: Request, client: Client, service: Served) -> answers.SheetAnswer:
    """Reads an XDTS time sheet, which is the body: what each layer shows from which frame on. Nothing is kept."""
    return await service.uploads.sheet(request)


# -------------------------------------------------------------------------------------------------------------- jobs


@ROUTES.post(
    "/jobs",
    status_code=201,
    openapi_extra={
        **AUTHORIZATION,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/JobDescription"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": [REQUEST],
                        "properties": {REQUEST: {"$ref": "#/components/schemas/JobDescription"}},
                        "additionalProperties": {"type": "string", "format": "binary"},
                    },
                    "encoding": {REQUEST: {"contentType": "application/json"}},
                },
            },
        },
    },
)
async def new_job(request: Request, client: Client, service: Served) -> answers.JobAnswer:
    """Asks for a pair (`first`, `last`) or a shot (`keys`). Pictures are parts of the form, or were sent before."""
    async with service.uploads.holding(client) as held:
        values, asked, pictures = await service.uploads.job(request, client, held)
        async with service.uploads.decoding:
            job = await run_in_threadpool(service.engine.submit, client, values, asked, pictures)
    return service.answer(job)


@ROUTES.get("/jobs", openapi_extra=AUTHORIZATION)
def jobs(
    client: Client,
    service: Served,
    most: Annotated[int, Query(ge=1, le=100)] = 50,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> answers.Jobs:
    """The client's own jobs, the newest first."""
    found = service.database.jobs(client=client, before=2**62 if before is None else before, most=most)
    following = found[-1].number if len(found) == most else None
    return answers.Jobs(jobs=[service.answer(job) for job in found], before=following)


@ROUTES.get("/jobs/{id}", openapi_extra=AUTHORIZATION)
def job(job: OwnJob, service: Served) -> answers.JobAnswer:
    """A job."""
    return service.answer(job)


@ROUTES.get(
    "/jobs/{id}/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events"}},
    openapi_extra=AUTHORIZATION,
)
def events(job: OwnJob, service: Served, previews: bool = True) -> Response:
    """What becomes of a job, until it ends: `job` is what `/v1/jobs/{id}` says, whenever that changes. While anybody
    listens, previews are made, which takes the devices' time: `previews` counts them; with `previews=false` none are
    made for this answer.
    """
    return service.events([job.id], job.client, previews)


@ROUTES.get(
    "/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events"}},
    openapi_extra=AUTHORIZATION,
)
def events_of_all(
    client: Client,
    service: Served,
    id: Annotated[list[Annotated[str, Field(pattern=ID)]], Query(min_length=1, max_length=100)],
    previews: bool = True,
) -> Response:
    """What becomes of several jobs, until all have ended, on one connection: `job` as of one; `removed` has the `id` of
    one that is not there.
    """
    return service.events(list(dict.fromkeys(id)), client, previews)


@ROUTES.get("/jobs/{id}/preview", response_class=FileResponse, openapi_extra=AUTHORIZATION)
def preview(job: OwnJob, service: Served) -> Response:
    """The last preview, an animated WebP; of a shot, of the clip that was drawn then."""
    try:
        data = (service.storage.job_folder(job.id) / "preview.webp").read_bytes()
    except OSError as error:
        raise HTTPException(404, "there is no preview yet: they are made while somebody listens to events") from error
    return Response(data, media_type="image/webp")


@ROUTES.get("/jobs/{id}/result/{form}", response_class=FileResponse, openapi_extra=AUTHORIZATION)
async def job_result(
    job: OwnJob,
    service: Served,
    form: Form,
    playback_fps: Annotated[float, Query(ge=0.01, le=1000, allow_inf_nan=False)] = float(PUBLISHED_FPS),
    pixel_format: PixelFormat = PUBLISHED_PIXEL_FORMAT,
) -> FileResponse:
    """The frames of a job that is done: a video, or a zip archive of pictures or of a time sheet with its drawings."""
    if job.state != "done":
        raise HTTPException(409, f"the job is {job.state}: there are no frames")
    with room_explained(service.storage):
        try:
            path = await service.results.file(job, form, playback_fps, pixel_format)
        except FileNotFoundError as error:
            raise HTTPException(404, "the frames of this job are gone") from error
    name = f"{job.id[:8]}.{ending(form)}"
    return FileResponse(path, media_type=media_type(form), filename=name, content_disposition_type="inline")


@ROUTES.post("/jobs/{id}/cancel", openapi_extra=AUTHORIZATION)
def cancel(job: OwnJob, service: Served) -> answers.JobAnswer:
    """Cancels a job that is still to be made; one that has ended stays as it is."""
    return service.answer(service.engine.cancel(job) or job)


@ROUTES.delete("/jobs/{id}", status_code=204, openapi_extra=AUTHORIZATION)
def remove(job: OwnJob, service: Served) -> None:
    """Removes a job with its frames; one that is still to be made is cancelled."""
    service.engine.remove(job)


# ----------------------------------------------------------------------------------------------------------- the app


def make_app(
    engine: Engine,
    access: Access,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    names: Sequence[str] = (),
    has_example: bool = False,
) -> FastAPI:
    """The application; starts and stops the engine with itself.

    Args:
      engine: makes jobs.
      access: knows clients.
      limits: see there.
      host: that the server listens on.
      names: other names that it is reached by.
      has_example: whether the first page that is opened gets an example.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with engine.storage.temporary_files_here():
            engine.start()
            yield
            await run_in_threadpool(engine.stop)

    app = FastAPI(
        title="tooncrafter-jax",
        version=__version__,
        summary="Draws the frames between pictures.",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
        responses={422: {"model": answers.Problem, "description": "Something is wrong with the request"}},
    )
    service = app.state.service = Service(engine, access, limits, has_example)
    app.include_router(ROUTES)
    add_page(app)
    app.openapi = lambda: _described(app)
    add_refusals(app)
    app.add_middleware(Guard, host=host, names=names, limits=limits, answered=service.metrics.answered)
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the schemas of what is read by hand."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (Options, PairDescription, ShotDescription):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        either = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in (PairDescription, ShotDescription)]
        schemas["JobDescription"] = {"title": "JobDescription", "anyOf": either}
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": app.state.service.access.cookie},
        }
        app.openapi_schema = document
    return app.openapi_schema


def _address(request: Request) -> str:
    return "unknown" if request.client is None else f"address {request.client.host}"
