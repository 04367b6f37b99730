"""The manual's session works as it is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.serving.world import PAIR, ROOT, serving
from tooncrafter_jax.serving.api import ROUTES

MANUAL = ROOT / "docs" / "serving.md"


def test_the_session_with_curl(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.fail("needs curl")
    found = re.search(r"<!-- a test runs this -->\n```sh\n(.*?)```", MANUAL.read_text(), re.S)
    assert found is not None
    (tmp_path / "first.png").write_bytes(PAIR["a"])
    (tmp_path / "last.png").write_bytes(PAIR["b"])
    with serving(tmp_path / "data") as server:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", found[1]],
            cwd=tmp_path,
            env=os.environ | {"SERVER": server.url},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"state":"done"') == 2
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"
    assert len(zipfile.ZipFile(tmp_path / "frames.zip").namelist()) == 16
    assert any(name.endswith(".xdts") for name in zipfile.ZipFile(tmp_path / "shot.zip").namelist())


def test_every_route_is_in_the_manual() -> None:
    text = MANUAL.read_text()
    for route in ROUTES.routes:
        path = (
            getattr(route, "path", "").replace("{id}", "ID").replace("{form}", "FORMAT").replace("{sha256}", "SHA256")
        )
        for method in getattr(route, "methods", ()):
            assert f"`{method} {path}`" in text, f"{method} {path}"
