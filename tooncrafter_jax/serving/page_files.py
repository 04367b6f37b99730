"""The page: plain files beside this one, at `/` and below `/page`, made by no build and complete without a network."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "page"
FRESH = {"Cache-Control": "no-cache"}
"""A browser asks each time whether its copy is still the server's: another version may have been installed."""


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(FRESH)
        return answer


async def _index() -> Response:
    return FileResponse(FOLDER / "index.html", headers=FRESH)


def add_page(app: FastAPI) -> None:
    """Lets an application serve the page; whoever opens it still needs a key for all else."""
    app.add_api_route("/", _index, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/page", _Files(directory=FOLDER), name="page")
