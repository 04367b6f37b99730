"""A shot in the browser: from two dropped keys to an exported file, and what is left of it."""

from __future__ import annotations

import base64
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serving.page.hands import (
    KEYS,
    LIMITS,
    NARROW,
    SLOW_SEED,
    WAIT,
    WIDE,
    Opened,
    draw,
    drop,
    drop_keys,
    enter,
    frame_of,
    jobs_of,
    keys_of,
    scribble,
    seek,
    shot_of,
    wait,
)
from tests.serving.world import FakeModel, serving, until

pytestmark = pytest.mark.gate


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_shot_from_two_drawings_to_a_file(opened: Opened, size: tuple[int, int], scheme: str) -> None:
    page = opened(size, scheme)
    drop_keys(page)
    assert keys_of(page) == [0, 15]

    seek(page, 7)
    scribble(page)
    page.wait_for_selector("[data-id=sketches-7]")
    page.keyboard.press("Control+z")
    page.wait_for_selector("[data-id=sketches-7]", state="detached")
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector("[data-id=sketches-7]")

    page.fill("#name", "ball")
    page.fill("#prompt", "a ball rolls")
    enter(page, "#option-seed", str(SLOW_SEED - 1))
    page.select_option("#count", "2")
    page.click("#draw")
    page.wait_for_selector("[data-preview]:not([hidden])")
    wait(page, "[...document.querySelectorAll('[data-preview]')].some((one) => one.naturalWidth > 0)")
    page.locator(f"button[aria-label='Cancel the take with seed {SLOW_SEED}']").click()
    page.wait_for_selector(".state.cancelled")
    page.wait_for_selector(".state.done")
    (cancelled, done) = jobs_of(page)
    assert (cancelled["state"], cancelled["request"]["seed"]) == ("cancelled", SLOW_SEED)
    assert (done["state"], done["request"]["seed"], done["request"]["prompt"]) == (
        "done",
        SLOW_SEED - 1,
        "a ball rolls",
    )
    assert list(done["request"]["sketches"]) == ["7"] and done["request"]["sketches"]["7"]["dark_lines"] is True

    page.click("#play")
    wait(page, "document.querySelector('#play').ariaPressed === 'true'")
    before = frame_of(page)
    wait(page, f"document.querySelector('#ruler').ariaValueNow !== '{before}'")
    page.click("#play")
    width = page.locator("#ruler").bounding_box()["width"]
    page.locator("#ruler").click(position={"x": width * 4.5 / 25, "y": 10})
    wait(page, "document.querySelector('#ruler').ariaValueNow === '4'")
    page.locator("#ruler").press("ArrowRight")
    wait(page, "document.querySelector('#ruler').ariaValueNow === '5'")

    page.locator("[data-id=keys-15]").press("Shift+ArrowLeft")  # retimed
    page.wait_for_selector("[data-id=keys-10]")
    page.locator("[data-id=gaps-0]").click()
    enter(page, "[data-id=exposure]", "2")
    page.wait_for_selector("[data-id=gaps-0]:has-text('on twos')")
    enter(page, "[data-id=timing]", "ease-in-out")
    page.wait_for_selector("[data-id=gaps-0]:has-text('ease-in-out')")
    page.select_option("#count", "1")
    page.click("#draw")
    wait(page, "document.querySelectorAll('.state').length === 1")
    page.wait_for_selector(".state.done")
    retimed = jobs_of(page)[0]
    assert list(retimed["request"]["keys"]) == ["0", "10"] and retimed["shape"][0] == 11
    assert retimed["request"]["exposure"] == {"0": 2} and retimed["request"]["timing"] == {"0": "ease-in-out"}

    assert len(page.locator("#format option").all()) >= 10
    for form, start in (("mp4", b"ftyp"), ("xdts", b"PK")):
        page.select_option("#format", form)
        with page.expect_download() as fetched:
            page.click("#export")
        data = Path(fetched.value.path()).read_bytes()
        assert start in data[:12] and fetched.value.suggested_filename.startswith(f"ball-{SLOW_SEED - 1}.")
    assert any(name.endswith(".xdts") for name in zipfile.ZipFile(BytesIO(data)).namelist())

    page.reload()
    page.wait_for_selector(".state.done")
    assert keys_of(page) == [0, 10] and page.input_value("#prompt") == "a ball rolls"
    page.click("#new-shot")
    wait(page, "document.querySelectorAll('.item.keys').length === 0")
    page.click("#open-history")
    page.wait_for_selector(f"[data-id=open-{retimed['id']}]")
    assert len(page.locator("#history-list li").all()) == 2
    page.locator(f"[data-id=open-{cancelled['id']}]").click()
    page.wait_for_selector("[data-id=keys-15]")
    assert keys_of(page) == [0, 15] and page.input_value("#name") == "ball"
    page.locator("[data-id=sketches-7]").wait_for()


def test_the_example_of_a_first_start_is_shown_and_plays(chromium: Any, tmp_path: Path) -> None:
    with serving(tmp_path, FakeModel(seconds=0.1), limits=LIMITS, has_example=True) as server:
        page = chromium.new_page()
        page.set_default_timeout(WAIT)
        page.goto(server.url)
        page.wait_for_selector("[data-id=keys-15]")
        page.wait_for_selector(".state.done")
        wait(page, "document.querySelector('#play').ariaPressed === 'true'")
        assert page.input_value("#name") == "an example"
        page.close()


def test_a_page_that_is_loaded_again_goes_on_watching(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    page.select_option("#count", "3")
    page.click("#draw")
    page.wait_for_selector(".state")
    page.reload()
    page.locator(".state.done").nth(2).wait_for()
    page.check("#traced")  # the drawn frame below the pen
    page.locator("[data-id=keys-0]").click()
    page.locator("[data-id=again]").click()
    page.wait_for_selector("[data-id=keys-30]")
    assert len(jobs_of(page)) == 3
    page.locator("[data-id=seed-125]").click()
    page.wait_for_selector("[data-id=seed-123]")
    assert shot_of(page)["settings"]["seed"] == 125 and page.input_value("#count") == "1"


def test_a_shot_that_was_not_drawn_comes_back_after_another_one(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    page.fill("#name", "first")
    draw(page)
    page.fill("#name", "never drawn")
    page.click("#new-shot")
    page.wait_for_selector(".item.keys", state="detached")
    assert "Undo brings back" in page.inner_text("#status") and page.locator("#takes").is_hidden()
    page.click("#undo")
    page.wait_for_selector("[data-id=keys-15]")
    assert page.input_value("#name") == "never drawn" and page.locator(".state.done").is_visible()
    page.click("#open-history")
    page.locator("#history-list .primary").first.click()
    wait(page, "document.querySelector('#name').value === 'first'")
    page.click("#undo")
    wait(page, "document.querySelector('#name').value === 'never drawn'")


def test_two_windows_keep_a_shot_each(opened: Opened) -> None:
    first = opened()
    second = first.context.new_page()
    for page, name in ((first, "one"), (second, "two")):
        page.goto(first.url)
        page.wait_for_selector("body[data-ready]")
        enter(page, "#name", name)
    for page, name in ((first, "one"), (second, "two")):
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.input_value("#name") == name


def test_a_browser_without_room_is_told_of_once(opened: Opened) -> None:
    page = opened()
    full = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"
    page.evaluate(f"() => {{ {full} }}")
    enter(page, "#name", "too large")
    page.wait_for_selector("#problem:not([hidden])")
    assert "no room to keep the shot" in page.inner_text("#problem-text")
    page.click("#close-problem")
    enter(page, "#name", "larger")
    page.wait_for_timeout(200)
    assert page.locator("#problem").is_hidden()


def test_a_take_that_is_longer_than_the_shot_plays_to_its_end(opened: Opened) -> None:
    page = opened()
    drop(page, "#stage", {"a_0001.png": KEYS["a.png"], "b_0031.png": KEYS["b.png"]})
    page.locator("[data-id=keys-30]").press("Shift+ArrowRight")
    page.wait_for_selector("[data-id=keys-35]")
    draw(page)
    page.click("#undo")  # the shot, not the take
    page.click("#undo")
    page.wait_for_selector(".item.keys", state="detached")
    page.click("#to-last")
    wait(page, "document.querySelector('#ruler').ariaValueNow === '35'")
    assert page.get_attribute("#ruler", "aria-valuemax") == "35"
    page.click("label:has(input[name=mode][value=edit])")
    wait(page, "document.querySelector('#ruler').ariaValueNow === '24'")


def test_frames_are_shown_exactly(opened: Opened) -> None:
    page = opened()
    drop_keys(page, "#track")
    draw(page)
    script = """(path) => fetch(path).then((answer) => answer.arrayBuffer())
      .then((data) => btoa(Array.from(new Uint8Array(data), (one) => String.fromCharCode(one)).join("")))"""
    archive = base64.b64decode(page.evaluate(script, f"/v1/jobs/{jobs_of(page)[0]['id']}/result/png"))
    frames = zipfile.ZipFile(BytesIO(archive))
    for frame in (0, 8, 15):
        seek(page, frame)
        wanted = pixels(frames.read(sorted(frames.namelist())[frame]))
        until(lambda wanted=wanted: shown(page) == wanted)


def pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    """Size and values of a picture."""
    image = Image.open(BytesIO(data)).convert("RGB")
    return image.size, image.tobytes()


def shown(page: Any) -> tuple[tuple[int, int], bytes]:
    """What the first take shows, before it is scaled for the screen."""
    return pixels(
        base64.b64decode(page.evaluate("document.querySelector('#take-list canvas').toDataURL()").split(",")[1])
    )


def test_what_is_wrong_is_said_in_the_servers_words(opened: Opened) -> None:
    page = opened(allowed="status of 422")  # which browsers tell of on their own
    page.click("#draw")
    page.wait_for_selector("#problem:not([hidden])")
    assert "two keys" in page.inner_text("#problem-text")
    page.click("#close-problem")
    assert page.locator("#problem").is_hidden()
    drop(page, "#stage", {"notes.png": b"no picture"})
    page.wait_for_selector("#problem:not([hidden])")
    assert "'notes.png'" in page.inner_text("#problem-text")
    drop_keys(page)
    assert page.locator("#problem").is_hidden()
    enter(page, "#option-height", "65")
    page.click("#draw")
    page.wait_for_selector("#problem:not([hidden])")
    assert "the height must be a multiple of" in page.inner_text("#problem-text")
