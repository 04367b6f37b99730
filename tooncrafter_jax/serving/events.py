"""Server-sent events of jobs (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tooncrafter_jax.serving.board import Board

MOST_STREAMS = 16
"""Answers of this kind that a client may have at a time."""
PING_SECONDS = 15.0
"""Without news a comment is sent so often, so that nobody between takes the connection for dead."""


class JobEvents(Response):
    """An answer that goes on for as long as one of the jobs is open and somebody listens.

    Args:
      board: says when a job changes.
      ids: of the jobs, each once.
      look: what is said of a job, None if it is not there, and whether nothing more will come of it.
      client: who listens.
      streams: counts such answers of each client.
      previews: whether previews are made for it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        board: Board,
        ids: Sequence[str],
        look: Callable[[str], tuple[BaseModel | None, bool]],
        client: str,
        streams: Counter[str],
        previews: bool = True,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._board, self._ids, self._look, self._client, self._streams = board, ids, look, client, streams
        self._previews = previews

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, as ASGI has it."""
        gone = asyncio.ensure_future(_disconnected(receive))
        self._streams[self._client] += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with self._board.listening(self._ids, self._previews) as changed:
                await self._follow(changed, gone, send)
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        except OSError:  # the client went while it was written to
            pass
        finally:
            gone.cancel()
            self._streams[self._client] -= 1
            if not self._streams[self._client]:
                del self._streams[self._client]

    async def _follow(self, changed: asyncio.Event, gone: asyncio.Future[None], send: Send) -> None:
        sent: dict[str, BaseModel | None] = dict.fromkeys(self._ids)
        while not gone.done():
            changed.clear()
            for id, (answer, is_last) in (await run_in_threadpool(self._look_at, list(sent))).items():
                if answer is None:
                    await _write(send, format_sse_event(event="removed", data_str=json.dumps({"id": id})))
                elif answer != sent[id]:
                    await _write(send, format_sse_event(event="job", data_str=answer.model_dump_json()))
                sent[id] = answer
                if is_last:
                    del sent[id]
            if not sent:
                return
            news = asyncio.ensure_future(changed.wait())
            waits: set[asyncio.Future[Any]] = {gone, news}
            done, _ = await asyncio.wait(waits, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if not done:
                await _write(send, format_sse_event(comment="nothing new"))

    def _look_at(self, ids: Sequence[str]) -> dict[str, tuple[BaseModel | None, bool]]:
        return {id: self._look(id) for id in ids}


async def _disconnected(receive: Receive) -> None:
    """Waits until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
