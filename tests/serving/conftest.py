"""A client of the server that the tests of a file share. Imports the package for its types alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.world import Server
    from tooncrafter_jax.serving.client import Client


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    """A client of the file's own `server`."""
    return server.client()
