"""Requests with pictures, as they arrive: forms and JSON, bounded, and kept under names of the server's own."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import Mapping

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
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.storage import NoRoom, Storage
from tooncrafter_jax.typing import JsonObject

LARGEST_SHEET = 2**22
"""Bytes of a time sheet."""
REQUEST = "request"
"""The part of a form that is the request itself."""
LARGEST_REQUEST = 2**18
"""Bytes of a request without its pictures."""
AT_ONCE = 2
"""Pictures that are decoded at a time: a large one takes some 400 MB."""
SHOWN = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}
"""How files begin that every browser shows -> media type. Each was read as a picture when it came: RIFF is WebP."""


class Uploads:
    """Takes requests with their pictures.

    Args:
      storage: keeps the pictures.
      limits: see there.
    """

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._storage, self._limits = storage, limits
        self._decoding = asyncio.Semaphore(AT_ONCE)

    async def job(self, request: Request, client: str) -> tuple[JsonObject, AnyDescription, dict[str, str]]:
        """A job's request as it was sent, what it says, and what it calls a picture -> checksum.

        Raises:
          UserError: it is none, or a picture that it names is not there.
          NoRoom: the disk is nearly full.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            what = "a request has at most {} bytes beside its pictures"
            values, asked = parse(await _body(request, LARGEST_REQUEST, what))
            return values, asked, await run_in_threadpool(self._known, asked, client, {})
        if kind != "multipart/form-data":
            raise HTTPException(415, "send the request as application/json, or as multipart/form-data with pictures")
        form = await self._form(request)
        try:
            text = form.get(REQUEST)
            if isinstance(text, UploadFile):  # curl -F request=@job.json
                text = (await text.read(LARGEST_REQUEST)).decode("utf-8", "replace")
            if text is None:
                raise UserError(f"the form has no part '{REQUEST}', which says what to draw")
            values, asked = parse(text)
            parts = {name: part for name, part in form.items() if isinstance(part, UploadFile) and name != REQUEST}
            unused = sorted(set(parts) - asked.references())
            if unused:
                raise UserError(
                    f"the form brings the picture '{printable(unused[0], 60)}', which the request names not"
                )
            pictures = {name: await self._taken(part, client, name) for name, part in parts.items()}
        finally:
            await form.close()
        sent = {name: picture.sha256 for name, picture in pictures.items()}
        return values, asked, await run_in_threadpool(self._known, asked, client, sent)

    async def picture(self, request: Request, client: str) -> KnownPicture:
        """The one picture of a form.

        Raises:
          UserError: there is none that can be read.
          NoRoom: the disk is nearly full.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise HTTPException(415, "send the picture as multipart/form-data")
        form = await self._form(request)
        try:
            part = form.get("picture")
            if not isinstance(part, UploadFile):
                raise UserError("the form has no file 'picture'")
            return await self._taken(part, client, part.filename or "picture")
        finally:
            await form.close()

    async def sheet(self, request: Request) -> SheetAnswer:
        """What an XDTS time sheet says.

        Raises:
          UserError: it is none.
        """
        data = await _body(request, LARGEST_SHEET, "a time sheet has at most {} bytes")
        return await run_in_threadpool(_sheet, data)

    async def shown(self, sha256: str, client: str) -> tuple[bytes, str]:
        """A picture of a client's as a browser shows it, and its media type.

        Raises:
          FileNotFoundError: the client has no such picture.
        """
        async with self._decoding:
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

    async def _form(self, request: Request) -> FormData:
        length = request.headers.get("content-length", "0")
        await run_in_threadpool(self._storage.check_room, 2 * int(length))
        try:
            return await request.form(
                max_files=self._limits.upload_pictures + 1, max_fields=8, max_part_size=LARGEST_REQUEST
            )
        except OSError as error:  # of the temporary file that a large part goes to
            raise NoRoom("the server's disk is full: nothing is lost, so try again once there is room") from error

    async def _taken(self, part: UploadFile, client: str, name: str) -> KnownPicture:
        async with self._decoding:
            return await run_in_threadpool(self._take, part, client, printable(name, 60))

    def _take(self, part: UploadFile, client: str, name: str) -> KnownPicture:
        self._storage.check_room(part.size or 0)
        incoming = self._storage.incoming()
        try:
            with incoming.open("xb") as target:
                shutil.copyfileobj(part.file, target)
        except OSError as error:
            incoming.unlink(missing_ok=True)
            raise NoRoom("the server's disk is full: nothing is lost, so try again once there is room") from error
        return self._storage.take_picture(incoming, client, name)

    def _known(self, asked: AnyDescription, client: str, sent: Mapping[str, str]) -> dict[str, str]:
        """The checksums of all pictures that a request names."""
        found = dict(sent)
        for name in asked.references() - set(found):
            if self._storage.database.picture(client, name) is None:
                raise UserError(
                    f"there is no picture '{printable(name, 100)}': send it as a part of the form of this name, or "
                    "before, and name its sha256"
                )
            found[name] = name
        return found


async def _body(request: Request, most: int, what: str) -> bytes:
    """A body that is not a form.

    Raises:
      HTTPException: it is larger; says `what`, with the number in it.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, what.format(most))
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
