"""What hands do with the page: they drop, draw, go to a frame, and look what is there."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from tests.serving.world import until
from tooncrafter_jax.serving.limits import Limits

LIMITS = Limits(free_megabytes=0, requests_per_minute=10**6)
WIDE, NARROW = (1440, 900), (375, 812)
WAIT = 60_000
"""Milliseconds."""
SLOW_SEED = 501
"""Drawn so slowly that even a busy machine cancels it in time."""
Opened = Callable[..., Any]


def browser() -> str | None:
    """The system's browser, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def drawing(x: int, width: int = 256, height: int = 160) -> bytes:
    """A ball on paper, as PNG."""
    image = Image.new("RGB", (width, height), "#f4ead2")
    pen = ImageDraw.Draw(image)
    pen.line((0, height - 30, width, height - 30), "#554433", 3)
    pen.ellipse((x, height - 90, x + 60, height - 30), "#d9482b", "#331111", 3)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


KEYS = {"a.png": drawing(20), "b.png": drawing(170)}


def drop(page: Any, where: str, files: Mapping[str, bytes], event: str = "drop") -> None:
    """Drops files on an element, or pastes them."""
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    script = """([where, files, kind]) => {
      const transfer = new DataTransfer();
      for (const [name, data] of Object.entries(files)) {
        const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: "image/png" }));
      }
      const target = document.querySelector(where);
      const box = target.getBoundingClientRect();
      const common = { bubbles: true, cancelable: true };
      const event = kind === "paste"
        ? new ClipboardEvent("paste", { ...common, clipboardData: transfer })
        : new DragEvent("drop", { ...common, dataTransfer: transfer, clientX: box.left + 5, clientY: box.top + 5 });
      target.dispatchEvent(event);
    }"""
    page.evaluate(script, [where, encoded, event])


def drop_keys(page: Any, where: str = "#stage") -> None:
    """Drops two pictures, which become the keys of frames 0 and 15."""
    drop(page, where, KEYS)
    page.wait_for_selector("[data-id=keys-15]")


def enter(page: Any, field: str, value: str, key: str = "Tab") -> None:
    """Writes into a field, and leaves it or sends it."""
    page.fill(field, value)
    page.locator(field).press(key)


def draw(page: Any) -> None:
    """Asks for takes, until one is there."""
    page.click("#draw")
    page.wait_for_selector(".state.done")


def wait(page: Any, condition: str) -> None:
    """Until a condition holds; Playwright's own way would evaluate text inside the page, which its policy forbids."""
    try:
        until(lambda: page.evaluate(condition), WAIT / 1000)
    except AssertionError as error:
        raise AssertionError(f"never true: {condition}") from error


def keys_of(page: Any) -> list[int]:
    """The frames that have keys on the time line."""
    return [int(one.get_attribute("data-id").split("-")[1]) for one in page.locator(".item.keys").all()]


def frame_of(page: Any) -> int:
    """Where the playhead is."""
    return int(page.locator("#ruler").get_attribute("aria-valuenow"))


def seek(page: Any, frame: int) -> None:
    """Goes to a frame by the keyboard."""
    page.locator("#ruler").press("Home")
    for _ in range(frame):
        page.keyboard.press("ArrowRight")
    wait(page, f"document.querySelector('#ruler').ariaValueNow === '{frame}'")


def jobs_of(page: Any) -> list[dict[str, Any]]:
    """One's jobs, as the server says."""
    return page.evaluate("fetch('/v1/jobs').then((answer) => answer.json())")["jobs"]


def shot_of(page: Any) -> dict[str, Any]:
    """The shot that is edited, as the browser remembers it."""
    return json.loads(page.evaluate("localStorage.getItem('tooncrafter.shot')"))


def scribble(page: Any) -> None:
    """Draws a stroke in the middle of the stage."""
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    for step in range(1, 8):
        page.mouse.move(x - 30 + 8 * step, y + 10 * (step % 2))
    page.mouse.up()
