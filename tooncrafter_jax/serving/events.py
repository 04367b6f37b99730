"""Server-sent events of one job (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tooncrafter_jax.serving.board import Board

PING_SECONDS = 15.0
"""Without news a comment is sent so often, so that nobody between takes the connection for dead."""


class JobEvents(Response):
    """An answer that goes on for as long as a job is open and somebody listens.

    Args:
      board: says when the job changes.
      id: of the job.
      look: what is said of the job, None if it is no longer there, and whether nothing more will come.
    """

    media_type = "text/event-stream"

    def __init__(self, board: Board, id: str, look: Callable[[], tuple[BaseModel | None, bool]]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._board, self._id, self._look = board, id, look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, as ASGI has it."""
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with self._board.listening(self._id) as changed:
                await self._follow(changed, gone, send)
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        except OSError:  # the client went while it was written to
            pass
        finally:
            gone.cancel()

    async def _follow(self, changed: asyncio.Event, gone: asyncio.Future[None], send: Send) -> None:
        sent = None
        while not gone.done():
            changed.clear()
            answer, is_last = await run_in_threadpool(self._look)
            if answer is None:
                await _write(send, format_sse_event(event="removed", data_str="{}"))
            elif answer != sent:
                data = answer.model_dump_json()
                await _write(send, format_sse_event(event="job", data_str=data))
                sent = answer
            if is_last:
                return
            news = asyncio.ensure_future(changed.wait())
            waits: set[asyncio.Future[Any]] = {gone, news}
            done, _ = await asyncio.wait(waits, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if not done:
                await _write(send, format_sse_event(comment="nothing new"))


async def _disconnected(receive: Receive) -> None:
    """Waits until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
