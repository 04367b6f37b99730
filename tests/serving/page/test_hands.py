"""Pen, fingers and keyboard on the page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.page.hands import (
    KEYS,
    SLOW_SEED,
    Opened,
    drawing,
    drop,
    drop_keys,
    enter,
    frame_of,
    keys_of,
    seek,
    shot_of,
    wait,
)

pytestmark = pytest.mark.gate


DRAWN = [("pointerdown", 1), ("pointermove", 2), ("pointermove", 3), ("pointermove", 4), ("pointerup", 4)]
PEN: list[dict[str, Any]] = [{"type": type, "id": 7, "kind": "pen", "step": step} for type, step in DRAWN]
"""What a pen does to draw a stroke, and where, in steps from the middle of the stage."""


def touch(page: Any, *events: dict[str, Any]) -> None:
    """Pens and fingers on the stage, one event after the other."""
    script = """(events) => {
      const canvas = document.querySelector("#canvas");
      canvas.setPointerCapture = () => {};
      const box = canvas.getBoundingClientRect();
      for (const { type, id, kind, step, buttons = 1, pressure = 0.5, shift = false } of events) {
        canvas.dispatchEvent(new PointerEvent(type, {
          pointerId: id, pointerType: kind, pressure, buttons, bubbles: true, shiftKey: shift,
          clientX: box.left + box.width / 2 + 10 * step, clientY: box.top + box.height / 2,
        }));
      }
    }"""
    page.evaluate(script, list(events))


def strokes_of(page: Any) -> dict[str, list[int]]:
    """How many points the strokes of each sketch have."""
    sketches = shot_of(page)["sketches"]
    return {frame: [len(stroke["points"]) for stroke in one["strokes"]] for frame, one in sketches.items()}


def test_the_hand_that_holds_the_pen_does_nothing(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    seek(page, 5)
    palm = {"id": 8, "kind": "touch", "step": -3}
    down, moved, up = ({"type": f"pointer{name}", **palm} for name in ("down", "move", "up"))
    touch(page, PEN[0], down, moved, *PEN[1:], up)  # after the pen
    touch(page, down, moved, *PEN[:2], up, *PEN[2:])  # before it
    assert strokes_of(page) == {"5": [4, 4]}
    touch(page, *({**one, "kind": "touch"} for one in PEN))  # a finger draws where no pen does
    assert strokes_of(page) == {"5": [4, 4, 4]}
    touch(page, *({**one, "shift": True} for one in PEN))  # moves the paper
    finger = [{**one, "kind": "touch"} for one in PEN]
    touch(page, finger[0], down, *finger[1:], up)  # so do two fingers
    assert strokes_of(page) == {"5": [4, 4, 4]}
    touch(page, *PEN)  # and afterwards it draws again
    assert strokes_of(page) == {"5": [4, 4, 4, 4]}


def test_a_stroke_is_of_the_frame_that_it_began_on(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    seek(page, 3)
    enter(page, "#rate", "1")
    page.click("#play")
    touch(page, *PEN[:2])
    wait(page, "document.querySelector('#play').ariaPressed === 'false'")
    begun = frame_of(page)
    page.keyboard.press("ArrowRight")
    wait(page, f"document.querySelector('#ruler').ariaValueNow === '{begun + 1}'")
    touch(page, *PEN[2:])
    assert list(strokes_of(page)) == [str(begun)]


def test_points_that_cannot_be_told_apart_are_not_kept(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    seek(page, 5)
    touch(page, *(one | {"step": 1 + 0.01 * number} for number, one in enumerate(PEN)))
    assert strokes_of(page) == {"5": [1]}


def press_slowly(page: Any, where: str) -> None:
    """Presses as long as people do: what changes meanwhile is drawn."""
    box = page.locator(where).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.wait_for_timeout(300)
    page.mouse.up()


def test_a_press_that_ends_writing_counts(opened: Opened) -> None:
    page = opened()
    drop(page, "#stage", KEYS)
    page.locator("[data-id=gaps-0]").click()
    page.fill("[data-id=timing]", "ease-in")
    press_slowly(page, "[data-id=keys-15]")
    page.fill("[data-id=frame]", "12")
    press_slowly(page, "[data-id=again]")
    page.wait_for_selector("[data-id=keys-27]")
    assert keys_of(page) == [0, 12, 27] and shot_of(page)["timing"]["0"] == "ease-in"


def test_what_is_being_written_stays_when_something_else_changes(opened: Opened) -> None:
    page = opened()
    held: list[Any] = []
    drop_keys(page)
    seek(page, 4)
    page.click("#add-prompt")
    page.locator("[data-id=text]").press_sequentially("jum")
    page.route("**/v1/pictures", lambda route: held.append(route))
    drop(page, "#row-keys", {"c_0001.png": drawing(90)})
    wait(page, "document.querySelector('#status').textContent === 'Sending the picture.'")
    page.keyboard.type("p")
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    wait(page, "document.querySelector('#status').textContent.startsWith('A key is on')")
    page.locator("[data-id=keys-0][aria-label*='c_0001']").wait_for()
    assert page.evaluate("document.activeElement.dataset.id") == "text"
    page.keyboard.press("Tab")
    assert shot_of(page)["prompts"] == {"4": "jump"}


def test_the_frame_of_a_key_is_a_whole_number(opened: Opened) -> None:
    page = opened()
    drop(page, "#stage", KEYS)
    page.locator("[data-id=keys-15]").click()
    for wrong in ("", "7.5", "10000"):
        enter(page, "[data-id=frame]", wrong, "Enter")
        assert not page.evaluate("document.querySelector('[data-id=frame]').checkValidity()")
        assert keys_of(page) == [0, 15]
    enter(page, "[data-id=frame]", "15", "Enter")
    assert "already" not in page.inner_text("#status")
    enter(page, "[data-id=frame]", "0", "Enter")
    assert "already" in page.inner_text("#status") and page.input_value("[data-id=frame]") == "15"
    for frame in (16, 17):
        page.locator("[data-id=frame]").press("ArrowUp")
        page.wait_for_selector(f"[data-id=keys-{frame}]")
    assert page.evaluate("document.activeElement.dataset.id") == "frame"


def test_shortcuts_of_one_letter_can_be_switched_off(opened: Opened) -> None:
    page = opened()
    page.keyboard.press("e")
    wait(page, "document.querySelector('[name=tool][value=eraser]').checked")
    page.keyboard.press("?")
    page.keyboard.press("b")  # not behind a dialog
    page.uncheck("#letters")
    page.keyboard.press("Escape")
    page.locator("#canvas").focus()
    page.keyboard.press("h")
    page.wait_for_timeout(200)
    assert page.is_checked("[name=tool][value=eraser]")
    page.keyboard.press("Control+z")
    wait(page, "document.querySelector('#status').textContent === 'There is nothing to undo.'")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert not page.is_checked("#letters")


def test_the_focus_goes_on_to_what_is_there(opened: Opened) -> None:
    page = opened()
    drop(page, "#stage", {"a_0001.png": KEYS["a.png"], "b_0004.png": KEYS["b.png"]})
    page.wait_for_selector("[data-id=keys-3]")
    enter(page, "#option-seed", str(SLOW_SEED))
    page.click("#draw")
    page.locator(".take .actions button").press("Enter")  # Cancel
    page.wait_for_selector(".state.cancelled")
    wait(page, "document.activeElement.textContent === 'Remove'")
    page.keyboard.press("Enter")
    page.wait_for_selector(".take", state="detached")
    assert page.evaluate("document.activeElement.id") == "draw"


def test_an_empty_prompt_stays_selected_and_a_gap_without_frames_is_none(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    seek(page, 1)
    page.click("#add-prompt")
    enter(page, "[data-id=text]", "jumps", "Enter")
    page.wait_for_selector("[data-id=prompts-1]:has-text('jumps')")
    enter(page, "[data-id=text]", "", "Enter")
    page.wait_for_selector("[data-id=prompts-1]:has-text('no prompt')")
    assert page.locator("[data-id=text]").is_visible()
    page.locator("[data-id=keys-15]").click()
    wait(page, "document.querySelector('[data-id=frame]').value === '15'")  # the key's, no longer the prompt's
    enter(page, "[data-id=frame]", "1", "Enter")
    page.wait_for_selector("[data-id=keys-1]")
    assert page.locator(".item.gaps").count() == 0


def test_the_pen_has_pressure_and_an_eraser(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    seek(page, 5)
    for buttons in (1, 32):
        touch(page, *(one | {"buttons": buttons, "pressure": 0.2 * one["step"]} for one in PEN))
    stroke, erased = shot_of(page)["sketches"]["5"]["strokes"]
    assert [point[2] for point in stroke["points"]] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert (stroke["erases"], erased["erases"]) == (False, True) and erased["size"] > stroke["size"]


def test_everything_is_done_by_the_keyboard(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
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
