"""What a client says to a server for `tooncrafter sample --server`, and what it makes of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.world import picture
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch
from tooncrafter_jax.sampling.sequence import Shot, lay_out
from tooncrafter_jax.serving.descriptions import described
from tooncrafter_jax.serving.remote import served_model
from tooncrafter_jax.serving.remote_requests import asked_for, changed_options


def unsent(upload: object) -> str:
    raise AssertionError("it goes with the request")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for number, path in enumerate(paths):
        path.write_bytes(picture(10 * number))
    return paths


def test_a_picture_that_is_used_several_times_is_sent_once_and_named_in_sentences(files: list[Path]) -> None:
    a, b, _ = files
    shot = Shot({0: a, 4: b, 8: a}, timing={4: [0.25, 0.5], None: "ease-in"}, exposure=(1, 2), prompt={4: "runs"})
    asked = asked_for(shot, lay_out(shot, SamplingOptions()), {"steps": 2}, "film", unsent)
    assert asked.uploads == {"key-0": a, "key-4": b} and asked.request["keys"] == {
        "0": "key-0",
        "4": "key-4",
        "8": "key-0",
    }
    assert asked.request["timing"] == {"0": "ease-in", "4": [0.25, 0.5]} and asked.request["exposure"] == [1, 2]
    assert asked.request["prompt"] == {"4-8": "runs"} and asked.request["model"] == "film"
    assert asked.told("'key-4' has transparent pixels, key-0 not") == f"'{b}' has transparent pixels, key-0 not"
    assert described(asked.request).references() == {"key-0", "key-4"}


def test_a_clip_of_sketches_needs_no_last_picture(files: list[Path]) -> None:
    a, b, c = files
    pair = Pair(a, None, "walks", [b, Sketch(c, dark_lines=True)], draft=[a, b])
    asked = asked_for(pair, None, {}, "", unsent)
    assert "last" not in asked.request and "model" not in asked.request
    assert asked.request["draft"] == ["first", "sketch-0"]
    one = {"picture": "sketch-1", "dark_lines": True, "may_be_blank": True}
    assert asked.request["sketches"]["1"] == one
    assert described(asked.request).references() == {"first", "sketch-0", "sketch-1"}


@pytest.mark.parametrize("first", [np.zeros((64, 64, 3), np.uint8), None])
def test_what_is_no_file_is_not_sent(files: list[Path], first: Any) -> None:
    with pytest.raises(UserError, match="must be files"):
        asked_for(Pair(first, files[0]), None, {}, "", unsent)
    with pytest.raises(UserError, match=r"gone\.png' cannot be read"):
        asked_for(Pair(files[0].parent / "gone.png", files[0]), None, {}, "", unsent)


def test_options_are_sent_that_the_server_would_not_take_by_itself() -> None:
    usual = SamplingOptions(steps=8, background="red")
    assert changed_options(usual, usual) == {}
    assert changed_options(SamplingOptions(steps=8, alpha=True), usual) == {"alpha": True, "background": None}


def test_a_server_of_an_earlier_version_is_told_from_ours() -> None:
    class Earlier:
        def models(self) -> list[dict[str, Any]]:
            return [{"name": "small", "dtype": "float32"}]

    with pytest.raises(UserError, match="of an earlier version"):
        served_model(Earlier())  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="has no model 'film': choose one of small"):
        served_model(Earlier(), "film")  # pyright: ignore[reportArgumentType]
