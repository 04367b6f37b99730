"""What names a published model, and what is a path."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.weights.hub_names import HubName, is_explicit, parse_name, published_name, with_revision
from tooncrafter_jax.weights.known_models import KNOWN_MODELS, known_model, published_file

NAMES = {
    "Doubiiu/ToonCrafter": HubName("Doubiiu/ToonCrafter"),
    "Doubiiu/ToonCrafter/model.ckpt": HubName("Doubiiu/ToonCrafter", None, "model.ckpt"),
    "a/b/folder/model.safetensors": HubName("a/b", None, "folder/model.safetensors"),
    "owner/name@v1.0": HubName("owner/name", "v1.0"),
    "owner/name@main/model.ckpt": HubName("owner/name", "main", "model.ckpt"),
    "owner/name@main/folder/x.bin": HubName("owner/name", "main", "folder/x.bin"),
    "owner/name@refs/pr/4": HubName("owner/name", "refs/pr/4"),
    "owner/name@refs/pr/4/model.safetensors": HubName("owner/name", "refs/pr/4", "model.safetensors"),
    "owner/name@refs/pr/4/refs/model.safetensors": HubName("owner/name", "refs/pr/4", "refs/model.safetensors"),
    "owner/name@feature%2Fx/model.ckpt": HubName("owner/name", "feature/x", "model.ckpt"),
}
ADDRESSES = {
    "hf://owner/name": HubName("owner/name"),
    "hf://owner/name/weights": HubName("owner/name", None, "weights"),
    "hf://owner/name@refs/pr/4/model.ckpt": HubName("owner/name", "refs/pr/4", "model.ckpt"),
    "https://huggingface.co/owner/name": HubName("owner/name"),
    "https://huggingface.co/owner/name/tree/main": HubName("owner/name", "main"),
    "https://huggingface.co/owner/name/blob/main/model.ckpt": HubName("owner/name", "main", "model.ckpt"),
    "https://huggingface.co/owner/name/resolve/refs%2Fpr%2F4/model.ckpt?download=true": HubName(
        "owner/name", "refs/pr/4", "model.ckpt"
    ),
    "https://hf.co/owner/name/resolve/v1/a%20b/model.ckpt": HubName("owner/name", "v1", "a b/model.ckpt"),
}


@pytest.mark.parametrize(("text", "name"), [*NAMES.items(), *ADDRESSES.items()])
def test_what_a_name_means(text: str, name: HubName) -> None:
    assert parse_name(text) == name and is_explicit(text) == (text in ADDRESSES)
    assert parse_name(str(name)) == name or name.file == "weights"  # without hf:// that is a folder


@pytest.mark.parametrize(
    "text",
    [
        "small",
        "model.ckpt",
        "/weights/tooncrafter",
        "./weights",
        "../a/b",
        "weights/model.ckpt",
        "runs/rectify/export",
        "a/b/c/d",
        "a/b/",
        "a//b",
        "-a/b",
        "a/b.",
        "a/x--y",
        "a/b.git",
        "a/b@",
        "a@main/b",
        "a/b@main//x.ckpt",
        "a/b@main/../x.ckpt",
        "a/b@main/x\n.ckpt",
        "a/" + "b" * 97,
        "C:\\a\\b",
        "gs://bucket/model",
        "datasets/b",
        "https://[broken",
        "https://example.org/owner/name",
    ],
)
def test_what_is_a_path(text: str) -> None:
    assert parse_name(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner",
        "hf://datasets/owner/name",
        "hf://owner/name@",
        "https://huggingface.co/docs",
        "https://huggingface.co/datasets/owner/name",
        "https://huggingface.co/owner/name/discussions/4",
    ],
)
def test_an_address_of_no_model_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"names no model on the hub: write hf://OWNER/NAME"):
        parse_name(text)


PIECES = st.sampled_from(
    ["owner", "name", "/", "@", "refs", "pr", "4", "%2F", "..", "model.ckpt", "hf://", "\0", "x" * 300]
)
ADDRESS = st.builds("https://huggingface.co/{}".format, st.text())


@given(st.text() | ADDRESS | st.lists(PIECES, max_size=12).map("".join))
def test_any_text_is_a_name_or_a_path_or_refused(text: str) -> None:
    names: list[HubName | None] = []
    with contextlib.suppress(UserError):
        names.append(published_name(text))
    assert names or is_explicit(text)
    for name in filter(None, names):
        assert parse_name(f"hf://{name}") == name  # it can be written down
        assert str(name).isprintable() and ".." not in str(name).split("/")


def test_what_is_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = HubName("owner/name")
    assert published_name("owner/name") == name
    assert published_name(Path("owner/name")) is None
    Path("owner").mkdir()
    assert published_name("owner/name") is None  # only its end is mistyped
    assert published_name("hf://owner/name") == name
    Path("owner/name").mkdir()
    assert published_name("owner/name") is None and published_name("hf://owner/name") == name


def test_every_known_model_is_found_by_its_name() -> None:
    for text, model in KNOWN_MODELS.items():
        name = parse_name(text)
        assert name is not None and str(name) == text and known_model(name) is model
        assert model.files[0].repository == name.repository and model.gigabytes > 0.5
        assert known_model(HubName(name.repository, "main", name.file)) is None
        for file in model.files:
            assert published_file(HubName(file.repository, None, file.file)) is file
            assert published_file(HubName(file.repository, "v2", file.file)).revision == "v2"
            assert len(file.revision) in (4, 40) and len(file.sha256 or "0" * 64) == 64
    assert published_file(HubName("a/b", None, "c.ckpt")).revision == "main"


def test_a_revision_is_of_a_repository(tmp_path: Path) -> None:
    assert with_revision("owner/name/a.safetensors", "refs/pr/4") == "hf://owner/name@refs/pr/4/a.safetensors"
    assert with_revision("owner/name@one", "one") == "hf://owner/name@one"
    for source, revision, phrase in (
        (str(tmp_path), "one", "is taken as a place of this machine"),
        ("small", "one", "is taken as a place of this machine"),
        ("owner/name@one", "two", "names the revision one, and two is asked for"),
        ("owner/name", "../x", "is no branch, tag or commit"),
    ):
        with pytest.raises(UserError, match=phrase):
            with_revision(source, revision)
