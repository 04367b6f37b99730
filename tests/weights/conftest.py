"""Fixtures of the tests of weights. Imports the package inside functions only, as tests/conftest.py does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hub_server.Hub]:
    """A hub with one repository of one part of the tiny model, which this process uses."""
    from tests.weights.hub_models import NAME, PROJECTOR, part
    from tooncrafter_jax.models.configuration import tiny
    from tooncrafter_jax.notes import heard_by
    from tooncrafter_jax.weights import hub, hub_download

    with hub_server.Hub() as server, heard_by(lambda sentence: None):
        server.use(monkeypatch, str(tmp_path))
        monkeypatch.setattr(hub_download, "WAITS", (0.0, 0.0))
        monkeypatch.setattr(hub, "preset", lambda name: tiny())
        server.repository(NAME.repository).commit({"model.safetensors": part(PROJECTOR), "README.md": b"text"})
        yield server
