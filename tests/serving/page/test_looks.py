"""How the page looks, what it says of itself, and who may see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving.page.hands import (
    LIMITS,
    NARROW,
    WIDE,
    Opened,
    draw,
    drop_keys,
    enter,
    jobs_of,
    scribble,
    seek,
    shot_of,
    wait,
)
from tests.serving.world import Server, serving

pytestmark = pytest.mark.gate


LOOKS = """() => {
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (!box.width || !element.checkVisibility()) continue;
    const size = parseFloat(getComputedStyle(element).fontSize);
    const hasText = [...element.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (hasText && size < 12) found.push(`${element.outerHTML.slice(0, 80)} has ${size} px`);
    const isPressed = element.matches("button, select, summary");
    if (isPressed && (box.height < 24 || box.width < 24)) found.push(`${element.outerHTML.slice(0, 80)} is small`);
  }
  for (const part of document.querySelectorAll("html, .work, .side, .take, header, .inspector")) {
    const { scrollWidth, clientWidth, className } = part;
    if (scrollWidth > clientWidth) found.push(`${part.tagName} ${className}: ${scrollWidth} in ${clientWidth}`);
  }
  return found;
}"""


@pytest.mark.parametrize("size", [NARROW, WIDE, (3840, 2160)], ids=str)
def test_it_fits_and_can_be_read(opened: Opened, size: tuple[int, int]) -> None:
    page = opened(size, "dark")
    assert page.evaluate(LOOKS) == []
    drop_keys(page)
    page.locator("details.panel:not([open]) summary").click()
    assert page.evaluate(LOOKS) == []
    page.select_option("#count", "2")
    page.click("#draw")
    page.locator(".state.done").nth(1).wait_for()
    for item in ("keys-0", "gaps-0"):
        page.locator(f"[data-id={item}]").click()
        page.locator("#inspector input").first.wait_for()
        assert page.evaluate(LOOKS) == []


def test_light_and_dark_follow_the_system_or_the_switch(opened: Opened) -> None:
    for scheme in ("light", "dark"):
        page = opened(scheme=scheme)
        colour = "getComputedStyle(document.body).backgroundColor"
        system = page.evaluate(colour)
        other = "dark" if scheme == "light" else "light"
        page.select_option("#theme", other)
        assert page.evaluate(colour) != system
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.evaluate(colour) != system
        page.select_option("#theme", "system")
        assert page.evaluate(colour) == system


def test_options_have_the_help_of_the_command_line(opened: Opened, server: Server) -> None:
    page = opened()
    schema = server.ask("GET", "/v1/openapi.json").json["components"]["schemas"]["Options"]["properties"]
    for name, one in schema.items():
        help_text = page.locator(f"#option-{name}-help").text_content()
        assert help_text and one["description"].startswith(help_text)
    assert page.get_attribute("#option-guidance_scale", "placeholder") == "5"  # the model's own
    enter(page, "#option-steps", "7")
    page.check("#option-loop")
    shot = shot_of(page)
    assert shot["options"] == {"steps": 7} and shot["settings"] == {"loop": True}


def test_a_value_that_cannot_be_is_said_and_not_drawn_with(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    enter(page, "#option-steps", "0")
    page.click("#draw")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem-text").startswith("steps: ") and page.input_value("#option-steps") == "0"
    assert jobs_of(page) == []
    page.click("#new-shot")
    wait(page, "document.querySelector('#option-steps').value === ''")


def test_a_server_with_a_token_asks_for_it(chromium: Any, tmp_path: Path) -> None:
    with serving(tmp_path, token=True, limits=LIMITS) as server:
        token = server.access.new_token()
        page = chromium.new_page()
        page.goto(server.url)
        page.fill("#token", "a guess")
        page.keyboard.press("Enter")
        page.wait_for_selector("#door-problem:not([hidden])")
        assert page.inner_text("#door-problem") == "That is not the token."
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.locator("#problem").is_hidden()
        page.context.clear_cookies()
        page.reload()
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem:not([hidden])")
        assert "a new key" in page.inner_text("#problem-text")
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: Opened, axe: str, scheme: str) -> None:
    page = opened(NARROW if scheme == "dark" else WIDE, scheme)
    check = "() => axe.run().then((found) => found.violations.map((one) => [one.id, one.impact, one.nodes[0].html]))"
    page.evaluate(axe)
    assert page.evaluate(check) == []
    drop_keys(page)
    seek(page, 7)
    scribble(page)
    page.locator("[data-id=gaps-0]").click()
    draw(page)
    assert page.evaluate(check) == []
    page.click("#open-history")
    page.wait_for_selector("#history-list li")
    assert page.evaluate(check) == []
