"""The page in a real browser, and a server for it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.serving.page.hands import LIMITS, SLOW_SEED, WAIT, WIDE, browser
from tests.serving.world import ROOT, FakeModel, Server, serving

AXE = ROOT / ".cache" / "axe-core" / "axe.min.js"


class Seen:
    """What a page did that it should not do."""

    def __init__(self, page: Any, own: str, allowed: str) -> None:
        self.problems: list[str] = []
        self._allowed = allowed
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._asked(request.url, own))

    def _said(self, message: Any) -> None:
        is_allowed = self._allowed and self._allowed in message.text
        if message.type in ("error", "warning") and not is_allowed:  # where a violation of the policy is told, too
            self.problems.append(f"{message.type}: {message.text}")

    def _asked(self, url: str, own: str) -> None:
        if not url.startswith((own, "blob:", "data:")):
            self.problems.append(f"a request to {url}")


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """The system's browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser', beside 'chromium'")
    path = browser()
    if path is None:
        pytest.skip("needs the browser 'chromium'")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = FakeModel(chunks=6)

    def hurry(seeds: Sequence[int]) -> None:
        model.seconds = 1.5 if SLOW_SEED in seeds else 0.12

    model.before = hurry
    with serving(tmp_path_factory.mktemp("serving"), model, limits=LIMITS) as one:
        yield one


@pytest.fixture
def opened(chromium: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page as somebody who was never here; afterwards, nothing it should not do was done."""
    contexts, seen = [], []

    def open_page(size: tuple[int, int] = WIDE, scheme: str = "light", allowed: str = "") -> Any:
        viewport = {"width": size[0], "height": size[1]}
        context = chromium.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        seen.append(Seen(page, server.url, allowed))
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [problem for one in seen for problem in one.problems] == []


@pytest.fixture(scope="package")
def axe() -> str:
    """The checks of accessibility, from npm: fetched once into `.cache`."""
    if not AXE.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("needs npm beside 'chromium'")
        AXE.parent.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            [npm, "pack", "axe-core@4", "--silent"], cwd=AXE.parent, capture_output=True, text=True
        )
        if fetched.returncode:
            pytest.skip(f"needs npm's registry beside 'chromium': {fetched.stderr[-200:]}")
        with tarfile.open(AXE.parent / fetched.stdout.split()[-1]) as archive:
            member = archive.extractfile("package/axe.min.js")
            assert member is not None
            AXE.write_bytes(member.read())
    return AXE.read_text()
