"""The page's files: all are served as what they are, nothing in them is written inline or comes from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.world import PAIR, Answer, Server, pair, serving
from tooncrafter_jax.io.timesheets import Exposure, Layer, TimeSheet
from tooncrafter_jax.io.timesheets.xdts import xdts_bytes
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.page_files import FOLDER

KINDS = {".html": "text/html", ".css": "text/css", ".js": "javascript", ".svg": "image/svg+xml"}
FILES = sorted(path.name for path in FOLDER.iterdir())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serving")) as one:
        yield one


def send(server: Server, key: str, data: bytes) -> str:
    body = b"--x\r\nContent-Disposition: form-data; name=picture; filename=a\r\n\r\n" + data + b"\r\n--x--\r\n"
    answer = server.ask("POST", "/v1/pictures", key, body, {"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status == 201, answer.body
    return answer.json["sha256"]


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_as_what_it_is(server: Server, name: str) -> None:
    answer = server.ask("GET", f"/page/{name}")
    assert answer.status == 200 and answer.body == (FOLDER / name).read_bytes()
    assert KINDS[Path(name).suffix] in answer.headers["content-type"] and answer.headers["cache-control"] == "no-cache"
    known = server.ask("GET", f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert known.status == 304


def test_the_page_itself_is_at_the_root(server: Server) -> None:
    answer = server.ask("GET", "/")
    assert answer.status == 200 and answer.body == (FOLDER / "index.html").read_bytes()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none.js", "/page/../api.py", "/page/%2e%2e/api.py", "/page//etc/passwd"]
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    assert server.ask("GET", path).status == 404


def test_nothing_is_inline_or_from_elsewhere() -> None:
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    assert re.findall(r"<script[^>]*>(.*?)</script>", html, re.S) == [""]
    for name in FILES:
        text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|@import|url\(|\beval\(|innerHTML|setAttribute\(\"style", text), name
        if name.endswith(".js"):
            assert all(one.startswith("./") for one in re.findall(r'from "([^"]+)"', text)), name
    for address in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert address.removeprefix("/page/") in FILES


def test_ids_that_the_scripts_look_for_are_there() -> None:
    html = (FOLDER / "index.html").read_text()
    there = re.findall(r'\sid="([^"]+)"', html)
    assert len(there) == len(set(there))
    for name in FILES:
        if name.endswith(".js"):
            assert set(re.findall(r'byId\("([^"]+)"\)', (FOLDER / name).read_text())) <= set(there), name


def test_a_picture_comes_back_as_it_was_sent(server: Server, client: Client) -> None:
    sha256 = send(server, client.key, PAIR["a"])
    answer = server.ask("GET", f"/v1/pictures/{sha256}", client.key)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "image/png", PAIR["a"])
    assert answer.headers["cache-control"].startswith("private")


@pytest.mark.parametrize(
    ("form", "kind"),
    [("JPEG", "image/jpeg"), ("GIF", "image/gif"), ("WEBP", "image/webp"), ("TIFF", "image/png"), ("BMP", "image/png")],
)
def test_a_browser_can_show_what_comes_back(server: Server, client: Client, form: str, kind: str) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(PAIR["a"])).save(buffer, form)
    answer = server.ask("GET", f"/v1/pictures/{send(server, client.key, buffer.getvalue())}", client.key)
    assert answer.status == 200 and answer.headers["content-type"] == kind
    shown = Image.open(io.BytesIO(answer.body))
    assert Image.MIME[shown.format or ""] == kind and shown.size == (64, 64)


def test_pictures_of_others_are_not_there(server: Server, client: Client) -> None:
    sha256 = send(server, client.key, PAIR["b"])
    stranger = server.client()
    answer = server.ask("GET", f"/v1/pictures/{sha256}", stranger.key)
    unknown = server.ask("GET", f"/v1/pictures/{'0' * 64}", stranger.key)
    assert answer.status == unknown.status == 404 and answer.body == unknown.body
    assert server.ask("GET", f"/v1/pictures/{sha256}").status == 401
    for wrong in ("..%2Fjobs.sqlite", "0" * 63, "A" * 64):
        assert server.ask("GET", f"/v1/pictures/{wrong}", client.key).status in (404, 422)


def test_a_request_comes_back_with_pictures_that_can_be_had(server: Server, client: Client) -> None:
    job = client.wait(client.submit(pair(3, name="again"), PAIR)["id"])
    assert job["request"] == pair(3, name="again")
    for name, data in PAIR.items():
        assert server.ask("GET", f"/v1/pictures/{job['pictures'][name]}", client.key).body == data


def ask_sheet(server: Server, key: str, data: bytes) -> Answer:
    return server.ask("POST", "/v1/timesheets", key, data, {"Content-Type": "application/octet-stream"})


def test_a_time_sheet_is_read(server: Server, client: Client) -> None:
    exposures = (Exposure(0, "1"), Exposure(8, None), Exposure(12, "2"))
    sheet = TimeSheet("cut", 16, (Layer("A", exposures),))
    answer = ask_sheet(server, client.key, xdts_bytes(sheet))
    assert answer.status == 200, answer.body
    shown = [{"frame": 0, "drawing": "1"}, {"frame": 8, "drawing": None}, {"frame": 12, "drawing": "2"}]
    assert answer.json["layers"] == [{"name": "A", "drawings": shown}] and answer.json["duration"] == 16


@pytest.mark.parametrize("data", [b"", b"x", b"exchangeDigitalTimeSheet Save Data\n{}", b"[" * 9999, b"\xff\xfe\x00"])
def test_what_is_no_time_sheet_is_refused_in_a_sentence(server: Server, client: Client, data: bytes) -> None:
    answer = ask_sheet(server, client.key, data)
    assert answer.status == 422 and "no XDTS time sheet" in answer.json["detail"]
    assert ask_sheet(server, "", data).status == 401


def test_a_time_sheet_is_bounded(server: Server, client: Client) -> None:
    assert ask_sheet(server, client.key, b" " * (2**22 + 1)).status == 413


def test_the_description_names_timings_and_formats(server: Server) -> None:
    """Which the page offers."""
    document = server.ask("GET", "/v1/openapi.json").json
    timing = document["components"]["schemas"]["ShotDescription"]["properties"]["timing"]
    assert {"linear", "ease-in-out", "favour-last"} <= set(timing["examples"])
    parameters = document["paths"]["/v1/jobs/{id}/result/{form}"]["get"]["parameters"]
    assert "mp4" in next(one for one in parameters if one["name"] == "form")["schema"]["enum"]
