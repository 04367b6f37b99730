"""How errors become answers: a status, and one sentence in `detail`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.serving.engine import Busy
from tooncrafter_jax.serving.storage import NoRoom, is_full

_log = logging.getLogger(__name__)


def add_refusals(app: FastAPI) -> None:
    """Has an application answer errors."""
    for error, status in ((UserError, 422), (NoRoom, 507), (Busy, 429), (RequestValidationError, 422)):
        app.add_exception_handler(error, _answered(status))
    app.add_exception_handler(Exception, _unexpected)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(OSError, _unwritable)


def _answered(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        headers = {"Retry-After": str(max(1, round(error.seconds + 0.5)))} if isinstance(error, Busy) else None
        return JSONResponse({"detail": _sentence(error)}, status, headers)

    return answer


def _sentence(error: Exception) -> str:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return f"'{'.'.join(map(str, first['loc']))}' cannot be read: {first['msg']}"
    return str(error)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # which nobody reads: the client went in the middle of its request


async def _unwritable(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and is_full(error):
        return JSONResponse({"detail": str(NoRoom())}, 507)
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    return await _unexpected(request, error)


async def _unexpected(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": f"something went wrong inside the server ({type(error).__name__})"}, 500)
