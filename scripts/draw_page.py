"""Makes the pictures of the page that docs/serving.md shows: the bundled model draws a shot in a browser.

  python scripts/draw_page.py [--out=docs]

Needs the extras app and browser, and chromium. Written are page-light.png, a drawn clip, and page-dark.png, a sketch
between two keys at the width of a telephone.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.serving.page.hands import browser, drop, scribble, seek  # noqa: E402
from tests.serving.world import until  # noqa: E402

WAIT = 120.0
"""Seconds for the server's start."""
SETTLED = 8.0
"""Seconds until the frames of a clip that is done are there."""
SIZES: dict[Literal["light", "dark"], tuple[int, int]] = {"light": (1280, 800), "dark": (375, 812)}
"""Of the pictures, in pixels."""


def is_ready(url: str) -> bool:
    """Whether the server answers that it has compiled what it draws most."""
    try:
        with urlopen(f"{url}/v1/health") as answer:
            return json.load(answer)["devices"] == "ready"
    except OSError:
        return False


@contextmanager
def served() -> Iterator[str]:
    """The address of a server that is new."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "tooncrafter_jax", "app", f"--port={port}", f"--data={data}", "--quiet"]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            until(lambda: is_ready(f"http://127.0.0.1:{port}"), WAIT)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Makes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder (default: docs)")
    out = parser.parse_args().out
    penguin = ROOT / "examples" / "penguin"
    keys = {f"{name}.png": (penguin / f"{name}.png").read_bytes() for name in ("first", "last")}
    path = browser()
    if path is None:
        sys.exit("error: needs the browser 'chromium'")
    with served() as url, sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for scheme, (width, height) in SIZES.items():
            page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.set_default_timeout(1000 * WAIT)
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            if page.locator("#new-shot").is_enabled():
                page.click("#new-shot")
            drop(page, "#stage", keys)
            page.wait_for_selector("[data-id=keys-15]")
            page.fill("#name", "penguin")
            page.fill("#prompt", "a penguin leans over")
            if scheme == "light":
                page.click("#draw")
                page.locator(".state.done").wait_for()
                page.check("#mode-clip")
                seek(page, 8)
            else:
                seek(page, 7)
                scribble(page)
                page.evaluate("scrollTo(0, 0)")
            page.evaluate("document.activeElement.blur()")
            page.wait_for_timeout(1000 * SETTLED)
            shot = out / f"page-{scheme}.png"
            page.screenshot(path=shot)
            Image.open(shot).convert("RGB").quantize(256).save(shot, optimize=True)
        chromium.close()


if __name__ == "__main__":
    main()
