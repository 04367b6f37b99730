"""What a client sees: a job from its request to its frames, and of others' jobs nothing."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.world import PAIR, SMALL, FakeModel, Held, Server, pair, picture, serving, shot, until
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.options import declared
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, make_options, prepare
from tooncrafter_jax.serving.client import Client
from tooncrafter_jax.serving.limits import Limits
from tooncrafter_jax.serving.results import RESULTS
from tooncrafter_jax.serving.uploads import AT_ONCE, LARGEST_REQUEST

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model() -> FakeModel:
    return FakeModel(broken_seed=666)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: FakeModel) -> Iterator[Server]:
    limits = Limits(free_megabytes=0, clip_frames=32, clip_pixels=128 * 128, shot_frames=50, requests_per_minute=10**6)
    with serving(tmp_path_factory.mktemp("serving") / "data", model, FakeModel("other"), limits=limits) as one:
        yield one


@pytest.fixture(scope="module")
def done(client: Client) -> dict[str, Any]:
    """A clip that is done."""
    return client.wait(client.submit(pair(7, name="mine"), PAIR)["id"])


@pytest.fixture(scope="module")
def described(server: Server) -> dict[str, Any]:
    """The OpenAPI description."""
    return server.ask("GET", "/v1/openapi.json").json


def test_a_pair_becomes_what_it_becomes_locally(client: Client, done: dict[str, Any], tmp_path: Path) -> None:
    for name, data in PAIR.items():
        (tmp_path / name).write_bytes(data)
    model, options = FakeModel(), make_options(SMALL)
    prepared = prepare(Pair(tmp_path / "a", tmp_path / "b", seed=7), options, model.described.config)
    expected = ((np.clip(model.sample([prepared], options)[0], -1, 1) + 1) / 2 * 255).astype(np.uint8)
    np.testing.assert_array_equal(client.frames(done["id"]), expected)
    assert done["shape"] == list(expected.shape) and done["made_by"] == {"platform": "a test"}
    assert done["request"] == pair(7, name="mine") and set(done["pictures"]) == {"a", "b"}


@pytest.mark.parametrize("form", RESULTS)
def test_every_format_can_be_had(server: Server, client: Client, done: dict[str, Any], form: str) -> None:
    answer = server.ask("GET", f"/v1/jobs/{done['id']}/result/{form}", client.key)
    assert answer.status == 200 and answer.body
    if answer.headers["content-type"] == "application/zip":
        names = zipfile.ZipFile(io.BytesIO(answer.body)).namelist()
        assert sum(name.endswith(".png") for name in names) == 5, names
    again = server.ask("GET", f"/v1/jobs/{done['id']}/result/{form}", client.key, headers={"Range": "bytes=0-9"})
    assert again.status == 206 and again.body == answer.body[:10]  # a player asks for parts


def test_a_shot_is_drawn_clip_by_clip(client: Client, model: FakeModel) -> None:
    request, pictures = shot(3, timing={"4": "ease-in"}, exposure=1, prompt={"0-3": "walks"})
    before = len(model.batches)
    job = client.wait(client.submit(request, pictures)["id"])
    assert job["kind"] == "shot" and job["shape"][0] == 13 and len(model.batches) - before >= 3
    assert len(client.frames(job["id"])) == 13


def test_pictures_that_were_sent_before_are_named_by_their_checksum(server: Server, client: Client) -> None:
    names = {}
    for name, data in PAIR.items():
        body = b"--x\r\nContent-Disposition: form-data; name=picture; filename=../a\r\n\r\n" + data + b"\r\n--x--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = server.ask("POST", "/v1/pictures", client.key, body, kind)
        assert answer.status == 201, answer.body
        names[name] = answer.json["sha256"]
    request = pair(8) | {"first": names["a"], "last": names["b"]}
    sent = server.ask("POST", "/v1/jobs", client.key, json.dumps(request).encode(), JSON)
    assert sent.status == 201 and client.wait(sent.json["id"])["state"] == "done"
    stranger = server.client()
    refused = server.ask("POST", "/v1/jobs", stranger.key, json.dumps(request).encode(), JSON)
    assert refused.status == 422 and "there is no picture" in refused.json["detail"]


def test_a_picture_that_was_sent_before_goes_when_it_is_let_go_and_no_job_needs_it(
    server: Server, client: Client
) -> None:
    needed, other = client.send(picture(21)), client.send(picture(22))
    id = client.submit(pair(8) | {"first": needed}, {"b": PAIR["b"]})["id"]
    server.client().let_go(other)  # somebody else's key has no say
    client.let_go(needed)
    paths = [server.engine.storage.picture(sha256) for sha256 in (needed, other)]
    assert all(path.exists() for path in paths)
    client.let_go(other)
    assert [path.exists() for path in paths] == [True, False]
    client.wait(id)
    client.remove(id)
    until(lambda: not paths[0].exists())


def test_events_tell_of_progress_and_previews(tmp_path: Path) -> None:
    model = FakeModel(seconds=0.1, chunks=20)
    with serving(tmp_path, model) as server:
        client = server.client()
        id = client.submit(pair(), PAIR)["id"]
        seen = list(client.events(id))
        assert [job["state"] for job in seen][-1] == "done" and seen[0]["state"] in ("waiting", "running")
        steps = [job["progress"]["done"] for job in seen if job["state"] == "running"]
        assert steps == sorted(steps) and steps[-1] > steps[0]
        assert max(job["previews"] for job in seen) >= 1
        answer = server.ask("GET", f"/v1/jobs/{id}/preview", client.key)
        assert answer.headers["content-type"] == "image/webp" and answer.body[8:12] == b"WEBP"
        model.chunks = 6
        unseen = client.submit(pair(2), PAIR)["id"]
        assert max(job["previews"] for job in client.events(unseen, previews=False)) == 0


def test_events_of_several_jobs_come_on_one_connection(tmp_path: Path) -> None:
    with serving(tmp_path, FakeModel(seconds=0.02)) as server:
        client, stranger = server.client(), server.client()
        ids = [client.submit(pair(seed), PAIR)["id"] for seed in (1, 2)]
        others = [stranger.submit(pair(3), PAIR)["id"], "0" * 32]
        wanted = "&".join(f"id={id}" for id in ids + others + ids)
        answer = server.ask("GET", f"/v1/events?{wanted}", client.key)
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = [block.split("\n") for block in answer.body.decode().split("\n\n") if block.startswith("event: ")]
        told = [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in seen]
        assert [data["id"] for kind, data in told if kind == "removed"] == others
        ends = {data["id"]: data["state"] for kind, data in told if kind == "job"}
        assert ends == dict.fromkeys(ids, "done")
        assert server.ask("GET", "/v1/events", client.key).status == 422
        assert server.ask("GET", f"/v1/events?{wanted}").status == 401


def test_jobs_of_others_are_not_there(server: Server, client: Client, done: dict[str, Any]) -> None:
    stranger = server.client()
    assert stranger.key != client.key
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/preview"),
        ("GET", "/result/mp4"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ):
        answer = server.ask(method, f"/v1/jobs/{done['id']}{path}", stranger.key)
        assert (answer.status, answer.json) == (404, {"detail": "you have no such job"}), (method, path)
        unknown = server.ask(method, f"/v1/jobs/{'0' * 32}{path}", stranger.key)
        assert (unknown.status, unknown.body) == (answer.status, answer.body)
        assert server.ask(method, f"/v1/jobs/{done['id']}{path}").status == 401
    assert stranger.job and server.ask("GET", "/v1/jobs", stranger.key).json["jobs"] == []
    assert client.job(done["id"])["state"] == "done"


def test_own_jobs_are_listed_by_pages(server: Server) -> None:
    client = server.client()
    ids = [client.submit(pair(seed), PAIR)["id"] for seed in range(5)]
    found, before = [], ""
    while before is not None:
        page = server.ask("GET", f"/v1/jobs?most=2{before}", client.key).json
        found += [job["id"] for job in page["jobs"]]
        before = None if page["before"] is None else f"&before={page['before']}"
    assert found == ids[::-1]


def test_a_job_is_cancelled_and_removed(tmp_path: Path) -> None:
    held = Held()
    with serving(tmp_path, held.model) as server:
        client = server.client()
        running, waiting = (client.submit(pair(seed), PAIR)["id"] for seed in (1, 2))
        until(lambda: client.job(running)["state"] == "running")
        assert client.cancel(waiting)["state"] == "cancelled" and client.cancel(running)["state"] == "cancelled"
        with pytest.raises(UserError, match="the job was cancelled"):
            client.wait(running)
        assert server.ask("GET", f"/v1/jobs/{running}/result/mp4", client.key).status == 409
        third = client.submit(pair(4), PAIR)["id"]
        until(lambda: client.job(third)["state"] == "running")
        client.remove(third)
        held.let_go()
        assert client.wait(client.submit(pair(3), PAIR)["id"])["state"] == "done"
        assert server.ask("GET", f"/v1/jobs/{third}", client.key).status == 404
        until(lambda: not (tmp_path / "jobs" / third).exists())
        for id in (running, waiting):
            client.remove(id)
            assert server.ask("GET", f"/v1/jobs/{id}", client.key).status == 404
            until(lambda id=id: not (tmp_path / "jobs" / id).exists())


def test_pictures_go_with_the_job_that_they_came_with(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        client = server.client()
        with pytest.raises(UserError, match="'seed'"):
            client.submit(pair(-1), PAIR)
        with pytest.raises(UserError, match="must be"):
            client.submit(pair(options={"steps": 0}), PAIR)
        assert not list((tmp_path / "pictures").iterdir())
        ids = [client.wait(client.submit(pair(seed), PAIR)["id"])["id"] for seed in (1, 2)]
        client.remove(ids[0])
        assert len(list((tmp_path / "pictures").iterdir())) == 2
        client.remove(ids[1])
        until(lambda: not list((tmp_path / "pictures").iterdir()))


def test_a_job_that_is_removed_while_it_ends_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as server:
        engine, client = server.engine, server.client()
        record, removed = engine.storage.record, list[str]()

        def record_and_remove(id: str) -> None:
            record(id)
            job = engine.storage.database.job(id)
            if job is not None and job.state == "done":
                removed.append(id)
                engine.remove(job)

        monkeypatch.setattr(engine.storage, "record", record_and_remove)
        id = client.submit(pair(), PAIR)["id"]
        until(lambda: removed == [id])
        until(lambda: not (tmp_path / "jobs" / id).exists())


def test_few_pictures_are_decoded_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as server:
        submit, running, most = server.engine.submit, list[int](), 0

        def watched(*given: Any) -> Any:
            nonlocal most
            running.append(1)
            most = max(most, len(running))
            time.sleep(0.05)
            try:
                return submit(*given)
            finally:
                running.pop()

        monkeypatch.setattr(server.engine, "submit", watched)
        client = server.client()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda seed: client.submit(pair(seed), PAIR), range(6)))
        assert most == AT_ONCE


def test_a_client_listens_to_so_many_jobs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tooncrafter_jax.serving.api.MOST_STREAMS", 1)
    held = Held()
    with serving(tmp_path, held.model) as server:
        client, board = server.client(), server.engine.board
        id = client.submit(pair(), PAIR)["id"]
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", f"/v1/jobs/{id}/events", headers={"Authorization": f"Bearer {client.key}"})
        answer = connection.getresponse()
        assert answer.status == 200
        until(lambda: board.has_listeners(id))
        refused = server.ask("GET", f"/v1/jobs/{id}/events", client.key)
        assert refused.status == 429 and "as many as this server gives" in refused.json["detail"]
        answer.close()
        connection.close()
        until(lambda: not board.has_listeners(id))
        held.let_go()
        assert client.wait(id)["state"] == "done"
        assert until(lambda: server.ask("GET", f"/v1/jobs/{id}/events", client.key).status == 200)


def test_a_server_that_draws_no_longer_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.engine.devices.stop()
        answer = server.ask("GET", "/v1/health")
        assert answer.status == 503 and "has ended" in answer.json["detail"]


def test_a_failed_job_says_why(client: Client) -> None:
    with pytest.raises(UserError, match="the frames contain NaN"):
        client.wait(client.submit(pair(666), PAIR)["id"])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"sed": 1}, "'sed'"),
    "an unknown option": ({"options": {"guidance": 3}}, "did you mean 'guidance_scale'"),
    "a setting out of range": ({"options": {"steps": 0}}, "must be"),
    "a number as text": ({"seed": "1"}, "'seed'"),
    "a negative seed": ({"seed": -1}, "'seed'"),
    "a size that the model has not": ({"options": {"height": 65}}, "must be a multiple of"),
    "a clip that is too large": ({"options": {"height": 64, "width": 1024}}, "larger than this server draws"),
    "a clip that is too long": ({"options": {"frames": 33}}, "longer than this server draws"),
    "a picture that is not there": ({"first": "c"}, "but the request does not name it"),
    "a path": ({"first": "/etc/passwd"}, "does not name it"),
    "a model that is not there": ({"model": "large"}, "choose one of tiny, other"),
    "a sketch for no frame": ({"sketches": {"99": "a"}}, "there is no frame 99"),
    "a frame that is no number": ({"sketches": {"x": "a"}}, "cannot be read"),
    "a draft without strength": ({"draft": ["a"] * 5}, "at strength 1"),
    "keys beside pictures": ({"keys": {"0": "a", "4": "b"}}, "'first'"),
    "half a character": ({"prompt": "\ud800"}, ""),
    "no list": ({"draft": "a"}, "'draft'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_request_is_one_sentence(server: Server, client: Client, case: str) -> None:
    changes, words = BAD[case]
    with pytest.raises(UserError) as error:
        client.submit(pair(**changes), PAIR)
    assert words in str(error.value) and "/" not in str(error.value).replace(server.url, "").replace("/etc", "")
    if changes.get("prompt"):
        return
    assert str(server.engine.storage.folder) not in str(error.value)


BAD_SHOTS: dict[str, tuple[dict[str, Any], str]] = {
    "one key": ({"keys": {"0": "key-0"}}, "'keys'"),
    "a timing that is none": ({"timing": "slowly"}, "slowly"),
    "a gap that is not there": ({"exposure": {"3": 2}}, "no gap"),
    "too long": ({"keys": {"0": "key-0", "60": "key-1"}}, "longer than this server draws"),
    "a prompt of no frame": ({"prompt": {"90": "runs"}}, "frames"),
    "no loop": ({"loop": 1}, "'loop'"),
}


@pytest.mark.parametrize("case", BAD_SHOTS)
def test_what_is_wrong_with_a_shot_is_one_sentence(client: Client, case: str) -> None:
    changes, words = BAD_SHOTS[case]
    request, pictures = shot(2)
    request |= changes
    named = set(request["keys"].values())
    with pytest.raises(UserError, match=words):
        client.submit(request, {name: data for name, data in pictures.items() if name in named})


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"{" * 99999, "application/json", 422),
        (b'{"first": "a", "first": "b"}', "application/json", 422),
        (b'{"first": NaN, "last": 1}', "application/json", 422),
        (b'{"seed": ' + b"9" * 9999 + b"}", "application/json", 422),
        (b" " * (2**18 + 1), "application/json", 413),
        (b"\xff\xfe", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"", "", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=y", 400),
        (b"--y--\r\n", "multipart/form-data; boundary=y", 422),
    ],
)
def test_a_body_that_is_no_request(server: Server, client: Client, body: bytes, kind: str, status: int) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = server.ask("POST", "/v1/jobs", client.key, body, headers)
    assert answer.status == status and isinstance(answer.json["detail"], str), answer


@pytest.mark.parametrize("form", ["field", "file"])
def test_a_request_in_a_form_is_bounded(server: Server, client: Client, form: str) -> None:
    head = 'name="request"' + ('; filename="job.json"' if form == "file" else "")
    data = json.dumps(pair(prompt="x" * LARGEST_REQUEST)).encode()
    body = f"--y\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n--y--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=y"}
    answer = server.ask("POST", "/v1/jobs", client.key, body, kind)
    assert answer.status == 413 and "beside its pictures" in answer.json["detail"]


def test_notes_of_the_pictures_come_with_the_job(client: Client) -> None:
    job = client.submit(pair(1), {"a": picture(1, 64, 96), "b": picture(2, 64, 96)})
    assert any("'a'" in note and "fit=pad" in note for note in job["notes"]), job["notes"]


def test_the_description_is_made_from_the_declared_options(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["Options"]["additionalProperties"] is False
    for name, one in declared(SamplingOptions).items():
        if one.option.of_python:
            assert name not in schemas["Options"]["properties"]
            continue
        schema = schemas["Options"]["properties"][name]
        assert one.description in schema["description"]
        values = next(part for part in schema["anyOf"] if part.get("type") != "null")
        if one.choices:
            assert values.get("enum", [values.get("const")]) == list(one.choices)
        else:
            assert (values.get("minimum"), values.get("maximum")) == (one.option.least, one.option.most)
    assert schemas["PairDescription"]["properties"]["seed"]["maximum"] == 2**32 - 1
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            is_open = path in ("/v1/health", "/v1/session")
            assert is_open or route["security"] == [{"bearer": []}, {"cookie": []}], (method, path)


def test_health_metrics_and_models(server: Server, client: Client, done: dict[str, Any]) -> None:
    assert server.ask("GET", "/v1/health").json["status"] == "ok"
    text = server.ask("GET", "/v1/metrics").body.decode()
    assert 'tooncrafter_job_seconds_count{state="done"}' in text and "tooncrafter_clips_total" in text
    assert [one["name"] for one in client.models()] == ["tiny", "other"]
    assert client.models()[0]["sampling"] == {"guidance_scale": 5.0}
