"""Takes on the page: how they are asked for, followed and shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.page.hands import KEYS, SLOW_SEED, Opened, draw, drop, drop_keys, enter, jobs_of, wait

pytestmark = pytest.mark.gate


def test_many_takes_take_one_connection_and_a_refused_one_is_made_again(opened: Opened) -> None:
    page = opened(allowed="status of 429")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/events" in request.url else None)
    page.route("**/v1/events**", lambda route: route.fulfill(status=429), times=1)
    drop_keys(page)
    page.select_option("#count", "4")
    page.click("#draw")
    page.locator(".state.done").nth(3).wait_for()
    assert len(asked) <= 2 and all(url.count("id=") >= 1 for url in asked)


def test_what_did_not_come_is_asked_for_again_and_told_of_once(opened: Opened) -> None:
    page = opened(allowed="status of 500")
    told: list[str] = []
    page.expose_function("told", lambda text: told.append(text))
    page.evaluate("""() => new MutationObserver(() => {
      const text = document.querySelector("#problem-text").textContent;
      if (text) told(text);
    }).observe(document.querySelector("#problem-text"), { childList: true })""")
    page.route("**/v1/pictures/*", lambda route: route.fulfill(status=500))
    page.route("**/result/png", lambda route: route.fulfill(status=500), times=2)
    drop(page, "#stage", KEYS)
    page.wait_for_selector("#problem:not([hidden])")
    page.unroute("**/v1/pictures/*")
    wait(page, "[...document.querySelectorAll('.item.keys img')].every((one) => one.naturalWidth > 0)")
    draw(page)
    wait(page, PAINTED)
    assert len(told) == len(set(told)) == 2


PAINTED = """(() => {
  const canvas = document.querySelector("#take-list canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  return copy.getImageData(0, 0, canvas.width, canvas.height).data.some((one) => one > 0);
})()"""


def test_frames_of_takes_that_are_gone_are_dropped_and_the_others_bounded(opened: Opened) -> None:
    page = opened()
    script = """async () => {
      const { Frames } = await import("/page/player.js");
      const frames = new Frames(() => {}, (problem) => { throw problem; });
      const canvas = new OffscreenCanvas(2048, 2048);
      canvas.getContext("2d");
      const file = await canvas.convertToBlob();
      const jobs = ["a", "b"].map((id) => ({ id, state: "done", request: {} }));
      for (const { id } of jobs) frames._files.set(id, Array(20).fill(file));
      const ready = () => [...frames._decoded.values()].filter(Boolean).length;
      for (const job of jobs) for (let frame = 0; frame < 20; frame += 1) {
        while (!frames.frame(job, frame)) await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const most = ready();
      frames.keep(["b"]);
      return [most, [...frames._files.keys()], [...frames._decoded.keys()].every((name) => name.startsWith("b "))];
    }"""
    most, files, are_kept = page.evaluate(script)
    assert most <= 33 and files == ["b"] and are_kept


def test_the_frame_before_does_not_shine_through_a_transparent_one(opened: Opened) -> None:
    page = opened()
    script = """async () => {
      const { Takes } = await import("/page/takes.js");
      const canvas = new OffscreenCanvas(4, 4);
      const context = canvas.getContext("2d");
      context.fillRect(0, 0, 4, 4);
      const frame = await createImageBitmap(new ImageData(4, 4));
      const frames = { frame: () => frame };
      const own = { _canvases: new Map([["a", canvas]]), _frames: frames, _parent: document, _store: { view: {} } };
      Takes.prototype._drawCard.call(own, { id: "a", state: "done", previews: 0, progress: { done: 0, total: 0 } });
      return [...context.getImageData(0, 0, 1, 1).data];
    }"""
    assert page.evaluate(script) == [0, 0, 0, 0]


def test_a_shot_is_asked_for_once_however_often_draw_is_pressed(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    page.evaluate("() => { const draw = document.querySelector('#draw'); draw.click(); draw.click(); }")
    page.wait_for_selector(".state.done")
    assert len(jobs_of(page)) == 1
    page.keyboard.press("?")
    page.keyboard.press("Control+Enter")  # behind the dialog
    page.keyboard.press("Escape")
    page.keyboard.down("Control")
    for _ in range(4):  # held down
        page.keyboard.down("Enter")
        page.wait_for_timeout(100)
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    page.wait_for_selector(".state.done")
    assert len(jobs_of(page)) == 2


def test_takes_that_are_being_drawn_stay_when_others_are_asked_for(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    for seed in (SLOW_SEED, 7):
        enter(page, "#option-seed", str(seed))
        page.click("#draw")
        page.get_by_label(f"Cancel the take with seed {seed}").wait_for()
    assert page.locator(".take").count() == 2
    page.get_by_label(f"Cancel the take with seed {SLOW_SEED}").click()
    page.wait_for_selector(".state.cancelled")
    page.wait_for_selector(".state.done")


def test_what_was_asked_for_before_another_shot_was_opened_stays_with_its_shot(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    page.evaluate("() => { for (const id of ['#draw', '#new-shot']) document.querySelector(id).click(); }")
    wait(page, "fetch('/v1/jobs').then((answer) => answer.json()).then((found) => found.jobs.length === 1)")
    wait(page, "document.querySelector('#draw').ariaDisabled === 'false'")
    assert page.locator(".take").count() == 0
    page.click("#undo")
    page.wait_for_selector(".state.done")


def test_a_new_shot_while_the_page_loads_stays(opened: Opened) -> None:
    page = opened()
    drop_keys(page)
    draw(page)
    held: list[Any] = []
    page.route("**/v1/jobs?most=100", lambda route: held.append(route), times=1)
    page.reload()
    while not held:
        page.wait_for_timeout(20)
    page.click("#new-shot")
    held[0].continue_()
    page.wait_for_selector("body[data-ready]")
    assert page.locator(".take").count() == page.locator(".item.keys").count() == 0
    assert page.locator("#problem").is_hidden()


def test_a_browser_that_keeps_its_key_is_not_told_that_its_shots_are_gone(opened: Opened) -> None:
    page = opened(allowed="status of 401")
    drop_keys(page)
    draw(page)
    page.route("**/v1/jobs?most=*", lambda route: route.fulfill(status=401), times=1)
    page.click("#open-history")
    page.wait_for_selector("#history-list li")
    assert page.locator("#problem").is_hidden()


def test_what_the_server_refuses_is_not_asked_for_again(opened: Opened) -> None:
    page = opened(allowed="status of")
    asked: list[str] = []

    def refuse(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(status=500 if "/broken/" in route.request.url else 404)

    page.route("**/result/png", refuse)
    page.route("**/v1/pictures/none", refuse)
    script = """async () => {
      const { Frames } = await import("/page/player.js");
      const { pictureOf } = await import("/page/pictures.js");
      let loaded = 0;
      const frames = new Frames(() => (loaded += 1), () => {});
      for (const id of ["gone", "broken"]) frames.frame({ id, state: "done", request: {} }, 0);
      pictureOf("none", () => {});
      await new Promise((resolve) => setTimeout(resolve, 1000));
      frames.keep(["gone"]);
      frames._files.set("broken", []); // a newer one
      await new Promise((resolve) => setTimeout(resolve, 4500));
      return [loaded, frames._files.has("broken")];
    }"""
    assert page.evaluate(script) == [0, True]
    assert sorted(url.split("/v1/")[1] for url in asked) == [
        "jobs/broken/result/png",
        "jobs/gone/result/png",
        "pictures/none",
        "pictures/none",  # why
    ]
