"""Files come from the hub whole or not at all, go on from where they were cut off, and lie where other programs
look.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import hub_server
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import collected
from tooncrafter_jax.weights import hub_download
from tooncrafter_jax.weights.hub_checks import check_content
from tooncrafter_jax.weights.hub_download import Access, Hub
from tooncrafter_jax.weights.hub_names import HubName

pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")

MEBI = 2**20
LARGE = np.random.default_rng(1).bytes(5 * MEBI + 77)
SHA256 = hashlib.sha256(LARGE).hexdigest()
NAME = HubName("owner/name", "main", "weights/model.ckpt")
CACHE = "hub/models--owner--name"
PART = f"{CACHE}/blobs/{SHA256}.tooncrafter.incomplete"


class Bar:
    """Counts what it is told."""

    def __init__(self, title: str, size: int, there: int) -> None:
        self.title, self.size, self.n = title, size, there
        Bar.last = self

    last: Bar

    def update(self, n: int) -> None:
        self.n += n

    def close(self) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hub_server.Hub]:
    """A hub with one repository, which this process uses."""
    with hub_server.Hub() as server:
        server.use(monkeypatch, str(tmp_path))
        monkeypatch.setattr(hub_download, "WAITS", (0.0, 0.0))
        server.repository("owner/name").commit({NAME.file or "": LARGE, "README.md": b"small"})
        yield server


def fetch(name: HubName = NAME) -> Path:
    hub = Hub()
    return hub.download(hub.describe(name), Bar)


def test_a_file_is_where_other_programs_look(server: hub_server.Hub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    path = fetch()
    assert path.read_bytes() == LARGE and path.name == "model.ckpt"
    assert (Bar.last.title, Bar.last.size, Bar.last.n) == ("model.ckpt", len(LARGE), len(LARGE))
    assert len(server.of_store()) == 1
    # The package finds it in its own cache: by a request for its description, and without one offline.
    again = hf_hub_download("owner/name", NAME.file or "", endpoint=server.endpoint, cache_dir=tmp_path / "hub")
    assert again == str(path) and len(server.of_store()) == 1
    count = len(server.log)
    offline = hf_hub_download("owner/name", NAME.file or "", cache_dir=tmp_path / "hub", local_files_only=True)
    assert offline == str(path) and Hub().cached(NAME) == path and len(server.log) == count
    assert sorted(one.name for one in (tmp_path / CACHE / "blobs").iterdir()) == [SHA256]
    check_content(path, NAME)


def test_a_small_file_has_the_checksum_of_git(server: hub_server.Hub) -> None:
    name = HubName("owner/name", "main", "README.md")
    path = fetch(name)
    assert path.read_bytes() == b"small"
    assert path.resolve().name == hashlib.sha1(b"blob 5\0small").hexdigest()
    check_content(path, name)
    path.resolve().write_bytes(b"smell")
    with pytest.raises(UserError, match="is damaged .its checksum is not its name.: delete it"):
        check_content(path, name)


def test_a_connection_that_breaks_is_taken_up_within_the_call(server: hub_server.Hub) -> None:
    server.cuts = [2 * MEBI, MEBI, 0]
    assert fetch().read_bytes() == LARGE
    assert [one.start for one in server.of_store()] == [0, 2 * MEBI, 3 * MEBI, 3 * MEBI]
    assert Bar.last.n == len(LARGE)


def test_a_later_call_goes_on_from_where_it_ended(server: hub_server.Hub, tmp_path: Path) -> None:
    server.cuts = [3 * MEBI + 5, 0, 0]
    with pytest.raises(UserError, match=r"broke at 0.00 of 0.01 GB of weights/model.ckpt .*it goes on from there"):
        fetch()
    assert (tmp_path / PART).stat().st_size == 3 * MEBI  # whole pieces count
    server.log.clear()
    assert fetch().read_bytes() == LARGE
    assert [one.start for one in server.of_store()] == [3 * MEBI]
    assert not (tmp_path / PART).exists()


def test_an_interruption_says_that_what_came_is_kept(server: hub_server.Hub, tmp_path: Path) -> None:
    class Interrupted(Bar):
        def update(self, n: int) -> None:
            raise KeyboardInterrupt

    hub = Hub()
    with pytest.raises(KeyboardInterrupt, match="what was downloaded is kept, and the same command goes on from there"):
        hub.download(hub.describe(NAME), Interrupted)
    assert (tmp_path / PART).stat().st_size == MEBI
    server.log.clear()
    assert fetch().read_bytes() == LARGE and [one.start for one in server.of_store()] == [MEBI]


def test_a_server_without_ranges_begins_anew(server: hub_server.Hub) -> None:
    server.obeys_ranges, server.cuts = False, [2 * MEBI]
    assert fetch().read_bytes() == LARGE
    assert Bar.last.n == len(LARGE)


def test_what_is_not_as_the_hub_states_is_not_kept(server: hub_server.Hub, tmp_path: Path) -> None:
    server.altered[SHA256] = b"\0" * len(LARGE)
    with pytest.raises(UserError, match=r"did not arrive as http://127.0.0.1:\d+ states it .another checksum."):
        fetch()
    assert not list((tmp_path / CACHE / "blobs").iterdir()) and Hub().cached(NAME) is None


def test_what_comes_beyond_the_end_is_left(server: hub_server.Hub) -> None:
    server.altered[SHA256], server.announced[SHA256] = LARGE + b"\0" * 3 * MEBI, len(LARGE)
    assert fetch().read_bytes() == LARGE


def test_a_size_that_no_file_has(server: hub_server.Hub) -> None:
    for size in (-5, "large"):
        server.announced[SHA256] = size  # pyright: ignore[reportArgumentType]
        with pytest.raises(UserError, match="does not answer as a hub does about owner/name@main/weights/model.ckpt"):
            Hub().describe(NAME)


def test_a_damaged_beginning_is_fetched_anew(server: hub_server.Hub, tmp_path: Path) -> None:
    (tmp_path / PART).parent.mkdir(parents=True)
    (tmp_path / PART).write_bytes(b"\0" * MEBI)
    with collected() as notes:
        assert fetch().read_bytes() == LARGE
    assert [one.start for one in server.of_store()] == [MEBI, 0]
    assert notes == ["weights/model.ckpt had been damaged when its download was cut off: beginning anew"]
    assert fetch(HubName("owner/name", "main", "README.md")).exists()


def test_a_beginning_longer_than_the_file_is_dropped(server: hub_server.Hub, tmp_path: Path) -> None:
    (tmp_path / PART).parent.mkdir(parents=True)
    (tmp_path / PART).write_bytes(b"\0" * (len(LARGE) + 1))
    assert fetch().read_bytes() == LARGE


def test_revisions(server: hub_server.Hub, tmp_path: Path) -> None:
    other = LARGE[::-1]
    commit = server.repository("owner/name").commit({"model.ckpt": other}, "refs/pr/4", "v1")
    for revision in ("refs/pr/4", "v1", commit):
        assert fetch(HubName("owner/name", revision, "model.ckpt")).read_bytes() == other
    assert len(server.of_store()) == 1
    assert (tmp_path / CACHE / "refs" / "refs" / "pr" / "4").read_text() == commit
    with pytest.raises(UserError, match="owner/name has no revision 'v2' at http"):
        Hub().describe(HubName("owner/name", "v2", "model.ckpt"))
    with pytest.raises(UserError, match="owner/name@v1 has no file 'x.ckpt' at http"):
        Hub().describe(HubName("owner/name", "v1", "x.ckpt"))


def test_the_token_goes_to_the_hub_alone(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repository("owner/name").refuses = "RepoNotFound"
    with pytest.raises(UserError, match="no repository owner/name at .* or it is private: .* set HF_TOKEN"):
        fetch()
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    server.log.clear()
    assert fetch().read_bytes() == LARGE
    tokens = {(one.host, one.token) for one in server.asked()}
    assert tokens == {("127.0.0.1", hub_server.TOKEN), ("localhost", None)}
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(UserError, match="does not know the token in HF_TOKEN: renew it"):
        Hub().describe(HubName("owner/name", "main", "README.md"))


@pytest.mark.parametrize(
    ("given", "variables", "sentence"),
    [
        ("hf_other", {}, "does not know the token that was given: renew it"),
        (None, {"HUGGING_FACE_HUB_TOKEN": "hf_other"}, "does not know the token in HUGGING_FACE_HUB_TOKEN"),
        ("hf_\u00fc", {}, "the token that was given has characters that no token has: copy it again"),
        (None, {"HF_TOKEN": "hf_\u00fc"}, "the token in HF_TOKEN has characters that no token has"),
        ("hf_a\0b", {}, "has characters that no token has"),
        (False, {"HF_TOKEN": hub_server.TOKEN}, "no repository owner/name at .* or it is private"),
        (f" {hub_server.TOKEN}\n", {}, ""),
        (True, {"HF_TOKEN": hub_server.TOKEN}, ""),
        ("", {"HF_TOKEN": hub_server.TOKEN}, ""),
    ],
)
def test_tokens(
    server: hub_server.Hub,
    monkeypatch: pytest.MonkeyPatch,
    given: str | bool | None,
    variables: dict[str, str],
    sentence: str,
) -> None:
    server.repository("owner/name").refuses = "RepoNotFound"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hub = Hub(Access(token=given))
    for ask in (hub.describe, hub.files):
        if not sentence:
            assert ask(NAME)
            continue
        with pytest.raises(UserError, match=sentence) as raised:
            ask(NAME)
        assert "hf_" not in str(raised.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "carrier-pigeon://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    from huggingface_hub import close_session

    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    close_session()  # huggingface_hub keeps its client
    try:
        for ask in (Hub().describe, Hub().files):
            with pytest.raises(
                UserError, match=r"by way of the proxy that the environment names \(.*correct HTTPS_PRO"
            ):
                ask(NAME)
    finally:
        close_session()


def test_what_is_in_the_cache_can_be_listed_without_the_hub(server: hub_server.Hub, tmp_path: Path) -> None:
    name = HubName("owner/name")
    assert Hub().cached_files(name) == {}
    fetch()
    fetch(HubName("owner/name", "main", "README.md"))
    count = len(server.log)
    assert Hub().cached_files(name) == {"README.md": 5, "weights/model.ckpt": len(LARGE)}
    commit = server.repository("owner/name").revisions["main"]
    assert Hub().cached_files(HubName("owner/name", commit)) and len(server.log) == count
    assert Hub().cached_files(HubName("owner/name", "v2")) == {}
    (tmp_path / CACHE / "refs" / "main").write_text("../../..")
    assert Hub().cached_files(name) == {}


def test_a_gated_repository(server: hub_server.Hub) -> None:
    server.repository("owner/name").refuses, server.repository("owner/name").status = "GatedRepo", 403
    with pytest.raises(
        UserError, match="owner/name is gated: accept its conditions at http.*/owner/name, then set HF_TO"
    ):
        fetch()
    with pytest.raises(UserError, match="is gated"):
        Hub().files(HubName("owner/name", "main"))


def test_a_repository_that_is_not_there(server: hub_server.Hub) -> None:
    for ask in (Hub().describe, Hub().files):
        with pytest.raises(UserError, match="there is no repository owner/nome at http"):
            ask(HubName("owner/nome", "main", "model.ckpt"))
    server.repository("owner/name").commit({"a.ckpt": b"1", "../b.ckpt": b"2", "c/../../d.ckpt": b"3", "e\n": b"4"})
    assert Hub().files(HubName("owner/name", "main")) == {"a.ckpt": 1}  # the others lead elsewhere, or cannot be shown


def test_no_network(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    server.stop()
    for ask in (Hub().describe, Hub().files):
        with pytest.raises(
            UserError, match=r"there is no answer from http://127.0.0.1:\d+ \(.*refused.*\): check the netw"
        ):
            ask(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for ask in (Hub().describe, Hub().files):
        with pytest.raises(
            UserError, match="is not on this machine, and HF_HUB_OFFLINE or local_files_only forbids to fetch it"
        ):
            ask(NAME)


def test_an_address_that_is_no_hub(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "hub.example")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "hub.example/{repo_id}/resolve/{revision}/{filename}")
    for ask in (Hub().describe, Hub().files):
        with pytest.raises(UserError, match="'hub.example' is no address of a hub"):
            ask(NAME)


def test_a_full_disk_ends_in_a_sentence_and_keeps_what_came(
    server: hub_server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real limit of a file's size, which the kernel refuses to write beyond as it does on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MEBI + 9, before[1]))
    try:
        with pytest.raises(
            UserError, match=r"cannot be written \(File too large\).*what was downloaded before is kept"
        ):
            fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / PART).stat().st_size == 2 * MEBI + 9
    server.log.clear()
    assert fetch().read_bytes() == LARGE
    assert [one.start for one in server.of_store()] == [2 * MEBI + 9]


def test_a_disk_that_fills_up(server: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hub_download, "_write_all", full)
    with pytest.raises(UserError, match=r"\(No space left on device\): free some space .*HF_HUB_CACHE.*is kept"):
        fetch()


def test_a_cache_without_links(server: hub_server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda *_: False)
    path = fetch()
    assert path.read_bytes() == LARGE and not path.is_symlink()
    assert not (tmp_path / CACHE / "blobs" / SHA256).exists()  # it would be there twice
    check_content(path, NAME)


def test_a_pointer_of_git_lfs(server: hub_server.Hub) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 10502089164\n"
    server.repository("owner/name").commit({"model.safetensors": pointer})
    name = HubName("owner/name", "main", "model.safetensors")
    with pytest.raises(UserError, match="model.safetensors is a pointer of Git LFS and not the weights"):
        check_content(fetch(name), name)
