"""Requests with pictures, as they arrive: forms and JSON, bounded, and kept under names of the server's own."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io import read_picture
from tooncrafter_jax.io.timesheets.xdts import parse_xdts
from tooncrafter_jax.notes import collected
from tooncrafter_jax.serving.answers import LayerAnswer, SheetAnswer, ShownDrawing
from tooncrafter_jax.serving.database import KnownPicture
from tooncrafter_jax.serving.descriptions import AnyDescription, parse
from tooncrafter_jax.serving.engine import Busy
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.storage import NoRoom, Storage
from tooncrafter_jax.typing import JsonObject

LARGEST_SHEET = 2**22
"""Bytes of a time sheet."""
REQUEST = "request"
"""The part of a form that is the request itself."""
LARGEST_REQUEST = 2**18
"""Bytes of a request without its pictures."""
TOO_LARGE = f"a request has at most {LARGEST_REQUEST} bytes beside its pictures"
AT_ONCE = 2
"""Pictures that are decoded at a time: a large one takes some 400 MB."""
FORMS_AT_ONCE = 16
"""Forms that are read at a time: each has up to a megabyte of each of its pictures in memory."""
FORMS_OF_A_CLIENT = 4
"""Of them, those of one client, with those that wait: slow ones of one keep no other waiting."""
SHOWN = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}
"""How files begin that every browser shows -> media type. Each was read as a picture when it came: RIFF is WebP."""


class Uploads:
    """Takes requests with their pictures.

    Args:
      storage: keeps the pictures.
      limits: see there.

    Attributes:
      decoding: is held by whoever decodes pictures.
    """

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._storage, self._limits = storage, limits
        self.decoding, self._forms = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(FORMS_AT_ONCE)
        self._forms_of: Counter[str] = Counter()

    @asynccontextmanager
    async def holding(self, client: str) -> AsyncIterator[set[str]]:
        """Inside, pictures stay that a request brings or names; where it comes to no job, those that it brought go."""
        try:
            with self._storage.holding() as held:
                yield held
        except Exception:
            await run_in_threadpool(self._storage.forget_pictures, client)
            raise

    async def job(
        self, request: Request, client: str, held: set[str]
    ) -> tuple[JsonObject, AnyDescription, dict[str, str]]:
        """A job's request as it was sent, what it says, and what it calls a picture -> checksum.

        Args:
          request: JSON, or a form with pictures.
          client: whose.
          held: of `holding`.

        Raises:
          UserError: it is none, or a picture that it names is not there.
          Busy: the client sends too many forms at a time.
          NoRoom: the disk is nearly full.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            values, asked = parse(await _body(request, LARGEST_REQUEST, TOO_LARGE))
            return values, asked, await run_in_threadpool(self._known, asked, client, {}, held)
        if kind != "multipart/form-data":
            raise HTTPException(415, "send the request as application/json, or as multipart/form-data with pictures")
        async with self._form(request, client) as form:
            text = form.get(REQUEST)
            if isinstance(text, UploadFile):  # curl -F request=@job.json
                data = await text.read(LARGEST_REQUEST + 1)
                if len(data) > LARGEST_REQUEST:
                    raise HTTPException(413, TOO_LARGE)
                text = data.decode("utf-8", "replace")
            if text is None:
                raise UserError(f"the form has no part '{REQUEST}', which says what to draw")
            values, asked = parse(text)
            parts = {name: part for name, part in form.items() if isinstance(part, UploadFile) and name != REQUEST}
            unused = sorted(set(parts) - asked.references())
            if unused:
                raise UserError(
                    f"the form has a picture '{printable(unused[0], 60)}', but the request does not name it"
                )
            pictures = {name: await self._taken(part, client, name, held) for name, part in parts.items()}
        sent = {name: picture.sha256 for name, picture in pictures.items()}
        return values, asked, await run_in_threadpool(self._known, asked, client, sent, held)

    async def picture(self, request: Request, client: str) -> KnownPicture:
        """The one picture of a form.

        Raises:
          UserError: there is none that can be read.
          Busy: the client sends too many forms at a time.
          NoRoom: the disk is nearly full.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise HTTPException(415, "send the picture as multipart/form-data")
        async with self._form(request, client) as form:
            part = form.get("picture")
            if not isinstance(part, UploadFile):
                raise UserError("the form has no file 'picture'")
            return await self._taken(part, client, part.filename or "picture", None)

    async def sheet(self, request: Request) -> SheetAnswer:
        """What an XDTS time sheet says.

        Raises:
          UserError: it is none.
        """
        data = await _body(request, LARGEST_SHEET, f"a time sheet has at most {LARGEST_SHEET} bytes")
        return await run_in_threadpool(_sheet, data)

    async def shown(self, sha256: str, client: str) -> tuple[bytes, str]:
        """A picture of a client's as a browser shows it, and its media type.

        Raises:
          FileNotFoundError: the client has no such picture.
        """
        async with self.decoding:
            return await run_in_threadpool(self._shown, sha256, client)

    def _shown(self, sha256: str, client: str) -> tuple[bytes, str]:
        if self._storage.database.picture(client, sha256) is None:
            raise FileNotFoundError(sha256)
        path = self._storage.picture(sha256)
        data = path.read_bytes()
        for start, kind in SHOWN.items():
            if data.startswith(start):
                return data, kind
        buffer = io.BytesIO()
        Image.fromarray(read_picture(path)).save(buffer, "PNG")
        return buffer.getvalue(), "image/png"

    @asynccontextmanager
    async def _form(self, request: Request, client: str) -> AsyncIterator[FormData]:
        """The parts of a form, which are gone afterwards.

        Raises:
          HTTPException: it has too many or too large parts, or is none.
          Busy: the client sends too many forms at a time.
          NoRoom: the disk is nearly full.
        """
        length = request.headers.get("content-length", "0")
        async with self._place(client):
            await run_in_threadpool(self._storage.check_room, 2 * int(length))
            try:
                form = await request.form(
                    max_files=self._limits.upload_pictures + 1, max_fields=8, max_part_size=LARGEST_REQUEST
                )
            except OSError as error:  # of the temporary file that a large part goes to
                raise NoRoom from error
            except HTTPException as error:
                if error.status_code != 400:  # it is ours
                    raise
                raise self._explained(error.detail) from error
            try:
                yield form
            finally:
                await form.close()

    @asynccontextmanager
    async def _place(self, client: str) -> AsyncIterator[None]:
        """Inside, a form of a client's may be read.

        Raises:
          Busy: the client sends too many at a time.
        """
        if self._forms_of[client] >= FORMS_OF_A_CLIENT:
            most = FORMS_OF_A_CLIENT
            raise Busy(f"you send {most} requests with pictures, which is as many as this server reads at a time", 5.0)
        self._forms_of[client] += 1
        try:
            async with self._forms:
                yield
        finally:
            self._forms_of[client] -= 1
            if not self._forms_of[client]:
                del self._forms_of[client]

    def _explained(self, words: str) -> HTTPException:
        """What Starlette says of a form, in words of this program's."""
        if words.startswith("Too many files"):
            most = self._limits.upload_pictures
            return HTTPException(413, f"a form has at most {most} pictures: send further ones before, one by one")
        if "exceeded maximum size" in words:
            return HTTPException(413, TOO_LARGE)
        return HTTPException(400, "the body is not a form that can be read: send multipart/form-data, with few fields")

    async def _taken(self, part: UploadFile, client: str, name: str, held: set[str] | None) -> KnownPicture:
        async with self.decoding:
            return await run_in_threadpool(self._take, part, client, printable(name, 60), held)

    def _take(self, part: UploadFile, client: str, name: str, held: set[str] | None) -> KnownPicture:
        self._storage.check_room(part.size or 0)
        incoming = self._storage.incoming()
        try:
            with incoming.open("xb") as target:
                shutil.copyfileobj(part.file, target)
        except OSError as error:
            incoming.unlink(missing_ok=True)
            raise NoRoom from error
        return self._storage.take_picture(incoming, client, name, held, self._limits.client_megabytes)

    def _known(self, asked: AnyDescription, client: str, sent: Mapping[str, str], held: set[str]) -> dict[str, str]:
        """The checksums of all pictures that a request names."""
        found = dict(sent)
        for name in asked.references() - set(found):
            self._storage.hold(held, name)
            if self._storage.database.picture(client, name) is None:
                raise UserError(
                    f"there is no picture '{printable(name, 100)}': send it as a part of the form of this name, or "
                    "before, and name its sha256"
                )
            found[name] = name
        return found


async def _body(request: Request, most: int, too_large: str) -> bytes:
    """A body that is not a form.

    Raises:
      HTTPException: it is larger, in these words.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, too_large)
    return bytes(body)


def _sheet(data: bytes) -> SheetAnswer:
    with collected() as notes:
        try:
            sheet = parse_xdts(data)
        except ValueError as error:
            raise UserError(f"this is no XDTS time sheet: {printable(error, 300)}") from error
    layers = [
        LayerAnswer(
            name=layer.name,
            drawings=[ShownDrawing(frame=one.frame, drawing=one.drawing) for one in layer.exposures],
        )
        for layer in sheet.layers
    ]
    return SheetAnswer(name=sheet.name, duration=sheet.duration, layers=layers, notes=list(notes))
