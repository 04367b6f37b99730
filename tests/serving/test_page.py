"""The page in a real browser: a shot is made by hand, from two dropped keys to an exported file."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.serving.world import ROOT, FakeModel, Server, serving, until
from tooncrafter_jax.io.timesheets import Exposure, Layer, TimeSheet
from tooncrafter_jax.io.timesheets.xdts import xdts_bytes
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.typing import HostVideos

pytestmark = pytest.mark.gate
LIMITS = Limits(free_megabytes=0, requests_per_minute=10**6)
WIDE, NARROW = (1440, 900), (375, 812)
AXE = ROOT / ".cache" / "axe-core" / "axe.min.js"
WAIT = 60_000
"""Milliseconds."""


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


SLOW_SEED = 501


class Unhurried(FakeModel):
    """Takes so long for one seed that even a busy machine cancels it in time."""

    def sample(
        self,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> HostVideos:
        """Draws clips."""
        self.seconds = 1.5 if any(pair.seed == SLOW_SEED for pair in pairs) else 0.12
        return super().sample(pairs, options, on_progress)


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser', beside 'chromium'")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs the browser 'chromium'")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = Unhurried(seconds=0.12, chunks=6)
    with serving(tmp_path_factory.mktemp("serving"), model, limits=LIMITS) as one:
        yield one


Opened = Callable[..., Any]


@pytest.fixture
def opened(chromium: Any, server: Server) -> Iterator[Opened]:
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


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_shot_from_two_drawings_to_a_file(opened: Opened, size: tuple[int, int], scheme: str) -> None:
    page = opened(size, scheme)
    drop(page, "#stage", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
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
    page.fill("#option-seed", str(SLOW_SEED - 1))
    page.locator("#option-seed").press("Tab")
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
    page.locator("[data-id=exposure]").fill("2")
    page.locator("[data-id=exposure]").press("Tab")
    page.wait_for_selector("[data-id=gaps-0]:has-text('on twos')")
    page.locator("[data-id=timing]").fill("ease-in-out")
    page.locator("[data-id=timing]").press("Tab")
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
    drop(page, "#stage", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
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


def test_frames_are_shown_exactly(opened: Opened) -> None:
    page = opened()
    drop(page, "#track", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
    page.click("#draw")
    page.wait_for_selector(".state.done")
    shown = []
    for frame in (0, 8, 15):
        seek(page, frame)
        page.wait_for_timeout(300)
        shown.append(Image.open(BytesIO(page.locator("#take-list canvas").screenshot())).convert("RGB").tobytes())
    assert len(set(shown)) == 3


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


def test_a_time_sheet_brings_its_drawings(opened: Opened) -> None:
    page = opened()
    sheet = TimeSheet("cut", 24, (Layer("A", (Exposure(0, "1"), Exposure(8, "2"), Exposure(20, "1"))),))
    files = {"cut.xdts": xdts_bytes(sheet), "A_0001.png": KEYS["a.png"], "A_0002.png": KEYS["b.png"]}
    drop(page, "#stage", files)
    page.wait_for_selector("[data-id=keys-20]")
    assert keys_of(page) == [0, 8, 20] and "3 keys" in page.inner_text("#status")
    keys = shot_of(page)["keys"]
    assert keys["0"]["picture"] == keys["20"]["picture"] != keys["8"]["picture"]


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
    drop(page, "#stage", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
    assert page.locator("#problem").is_hidden()
    page.fill("#option-height", "65")
    page.locator("#option-height").press("Tab")
    page.click("#draw")
    page.wait_for_selector("#problem:not([hidden])")
    assert "the height must be a multiple of" in page.inner_text("#problem-text")


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
    drop(page, "#stage", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
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
    page.fill("#option-steps", "7")
    page.locator("#option-steps").press("Tab")
    page.check("#option-loop")
    shot = shot_of(page)
    assert shot["options"] == {"steps": 7} and shot["settings"] == {"loop": True}


def test_a_server_with_a_token_asks_for_it(chromium: Any, tmp_path: Path) -> None:
    with serving(tmp_path, token=True, limits=LIMITS) as server:
        token = server.access.new_token()
        page = chromium.new_page()
        page.goto(server.url)
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        page.close()


@pytest.fixture(scope="module")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: Opened, axe: str, scheme: str) -> None:
    page = opened(NARROW if scheme == "dark" else WIDE, scheme)
    check = "() => axe.run().then((found) => found.violations.map((one) => [one.id, one.impact, one.nodes[0].html]))"
    page.evaluate(axe)
    assert page.evaluate(check) == []
    drop(page, "#stage", KEYS)
    page.wait_for_selector("[data-id=keys-15]")
    seek(page, 7)
    scribble(page)
    page.locator("[data-id=gaps-0]").click()
    page.click("#draw")
    page.wait_for_selector(".state.done")
    assert page.evaluate(check) == []
    page.click("#open-history")
    page.wait_for_selector("#history-list li")
    assert page.evaluate(check) == []
