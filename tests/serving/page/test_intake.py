"""Pictures and time sheets that come to the page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.page.hands import KEYS, Opened, drawing, drop, keys_of, seek, shot_of, wait
from tooncrafter_jax.io.timesheets import Exposure, Layer, TimeSheet
from tooncrafter_jax.io.timesheets.xdts import xdts_bytes

pytestmark = pytest.mark.gate


def test_pictures_are_pasted_and_placed_by_the_numbers_in_their_names(opened: Opened) -> None:
    page = opened()
    numbered = {"walk_0025.png": drawing(90), "walk_0001.png": drawing(10), "walk_0009.png": drawing(50)}
    drop(page, "#stage", numbered)
    page.wait_for_selector("[data-id=keys-24]")
    assert keys_of(page) == [0, 8, 24]
    dragged, width = page.locator("[data-id=keys-24]"), page.locator("#rows").bounding_box()["width"] / 33
    box = dragged.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 10 - 4 * width, box["y"] + 10, steps=4)
    page.mouse.up()
    page.wait_for_selector("[data-id=keys-20]")
    assert keys_of(page) == [0, 8, 20]
    seek(page, 4)
    drop(page, "body", {"image.png": drawing(30)}, "paste")
    page.wait_for_selector("[data-id=keys-4]")
    drop(page, "#row-sketches", {"lines_01.png": drawing(30), "lines_03.png": drawing(40)})
    for frame in (0, 2):  # from the left of the row on
        page.wait_for_selector(f"[data-id=sketches-{frame}]")
    seek(page, 6)
    with page.expect_file_chooser() as chooser:
        page.click("#add-sketches")
    chooser.value.set_files([{"name": "more.png", "mimeType": "image/png", "buffer": drawing(60)}])
    page.wait_for_selector("[data-id=sketches-6]")


def test_a_time_sheet_brings_its_drawings(opened: Opened) -> None:
    page = opened()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    sheet = TimeSheet("cut", 24, (Layer("A", (Exposure(0, "1"), Exposure(8, "2"), Exposure(20, "1"))),))
    files = {"cut.xdts": xdts_bytes(sheet), "A_0001.png": KEYS["a.png"], "A_0002.png": KEYS["b.png"]}
    drop(page, "#stage", files)
    page.wait_for_selector("[data-id=keys-20]")
    assert keys_of(page) == [0, 8, 20] and "3 keys" in page.inner_text("#status")
    assert sum(url.endswith("/pictures") for url in sent) == 2  # each drawing once
    keys = shot_of(page)["keys"]
    assert keys["0"]["picture"] == keys["20"]["picture"] != keys["8"]["picture"]


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["a_5", "b_1"], [3, 7]),
        (["first", "lines_4", "lines_9"], [3, 4, 5]),  # not all are numbered
        (["A_0001", "B_0001"], [3, 4]),
        (["lines_10", "lines_12", "lines_11"], [3, 4, 5]),
    ],
    ids=str,
)
def test_sketches_stand_where_the_numbers_in_their_names_say(
    opened: Opened, names: list[str], frames: list[int]
) -> None:
    page = opened()
    script = """async (names) => {
      const [shots, { numberOf }] = await Promise.all([import("/page/shot.js"), import("/page/pictures.js")]);
      const pictures = names.map((name) => ({ picture: name, number: numberOf(name) }));
      const { shot, frames } = shots.withSketches(shots.emptyShot(), pictures, 3);
      return [frames, Object.keys(shot.sketches).map(Number)];
    }"""
    assert page.evaluate(script, names) == [frames, frames]


def test_pictures_that_come_after_another_shot_was_opened_are_not_put_into_it(opened: Opened) -> None:
    page = opened()
    held: list[Any] = []
    page.route("**/v1/pictures", lambda route: held.append(route))
    page.fill("#name", "the first")
    drop(page, "#stage", {"a.png": KEYS["a.png"]})
    wait(page, "document.querySelector('#status').textContent === 'Sending the picture.'")
    page.click("#new-shot")
    wait(page, "document.querySelector('#name').value === ''")
    held[0].continue_()
    page.wait_for_selector("#problem:not([hidden])")
    assert "another shot was opened" in page.inner_text("#problem-text") and keys_of(page) == []


def test_a_sheet_that_the_page_does_not_read_is_told_of(opened: Opened) -> None:
    page = opened()
    drop(page, "#stage", KEYS | {"cut.oca": b"{}"})
    page.wait_for_selector("#problem:not([hidden])")
    assert "cut.oca" in page.inner_text("#problem-text") and keys_of(page) == []


def test_drawings_of_a_sheet_are_those_in_the_folder_of_their_layer(opened: Opened) -> None:
    page = opened()
    script = """async () => {
      const [{ filesOf }, { keysOf }] = await Promise.all([import("/page/pictures.js"), import("/page/timesheet.js")]);
      const one = (path) => ({
        isFile: true, fullPath: path, file: (resolve) => resolve(new File([path], path.split("/").at(-1))),
      });
      const folder = (...entries) => ({
        createReader: () => ({ readEntries: (resolve) => resolve(entries.splice(0)) }),
      });
      const [a, b] = [["/cut/A/1.png", "/cut/A/2.png"], ["/cut/B/1.png", "/cut/B/3.png"]];
      const cut = folder(folder(...a.map(one)), folder(...b.map(one)));
      const files = await filesOf({ items: [{ kind: "file", webkitGetAsEntry: () => cut }] });
      const drawings = ["1", "2", "3"].map((drawing, number) => ({ frame: 8 * number, drawing }));
      const found = keysOf([{ name: "a", drawings }, { name: "b", drawings: drawings.slice(0, 1) }], files);
      return Promise.all(found.keys.map(async ({ frame, file }) => [frame, await file.text()]));
    }"""
    assert page.evaluate(script) == [[0, "/cut/A/1.png"], [8, "/cut/A/2.png"]]
