"""Pen, fingers and keyboard on the page."""

from __future__ import annotations

import pytest

from tests.serving.page.hands import KEYS, Opened, drop, seek, shot_of, wait

pytestmark = pytest.mark.gate


def test_the_pen_has_pressure_and_an_eraser(opened: Opened) -> None:
    page = opened()
    drop(page, "#stage", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
    seek(page, 5)
    script = """(buttons) => {
      const canvas = document.querySelector("#canvas");
      canvas.setPointerCapture = () => {};
      const box = canvas.getBoundingClientRect();
      const send = (type, step) => canvas.dispatchEvent(new PointerEvent(type, {
        pointerId: 7, pointerType: "pen", pressure: 0.2 * step, buttons, bubbles: true,
        clientX: box.left + box.width / 2 + 10 * step, clientY: box.top + box.height / 2,
      }));
      send("pointerdown", 1);
      for (const step of [2, 3, 4]) send("pointermove", step);
      send("pointerup", 4);
    }"""
    for buttons in (1, 32):
        page.evaluate(script, buttons)
    stroke, erased = shot_of(page)["sketches"]["5"]["strokes"]
    assert [point[2] for point in stroke["points"]] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert (stroke["erases"], erased["erases"]) == (False, True) and erased["size"] > stroke["size"]


def test_everything_is_done_by_the_keyboard(opened: Opened) -> None:
    page = opened()
    drop(page, "#stage", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
    page.locator("[data-id=keys-15]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-id=keys-14]")
    assert page.evaluate("document.activeElement.dataset.id") == "keys-14"  # it stays in hand
    assert "frame 14" in page.inner_text("#status")
    page.locator("#ruler").focus()
    page.keyboard.press("Shift+ArrowLeft")
    wait(page, "document.querySelector('#ruler').ariaValueNow === '0'")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".state.done")
    page.keyboard.press("Space")
    wait(page, "document.querySelector('#play').ariaPressed === 'true'")
    page.keyboard.press("Space")
    page.locator("[data-id=keys-14]").focus()
    page.keyboard.press("Delete")
    page.wait_for_selector("[data-id=keys-14]", state="detached")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
