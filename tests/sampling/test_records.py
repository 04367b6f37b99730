"""Records: which clips are made from the same request, also by a version that knows more options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tooncrafter_jax.io.owned_files import Stamps
from tooncrafter_jax.sampling.records import ClipRecord, request_of, request_of_shot
from tooncrafter_jax.sampling.request import Pair, SamplingOptions
from tooncrafter_jax.sampling.sequence import Shot, lay_out

DEFAULTS = {"playback_fps": 8.0, "drop_last": False}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    return Pair(tmp_path / "a.png", tmp_path / "b.png")


def request(pair: Pair, options: SamplingOptions | None = None, **files: Any) -> dict[str, Any]:
    return {
        **request_of(pair, options or SamplingOptions(), {"weights": "w"}, "float32", Stamps()),
        **DEFAULTS,
        **files,
    }


def record(request: Any) -> ClipRecord:
    return ClipRecord(request, {})


def test_an_option_of_tomorrow_leaves_the_records_of_today_valid(pair: Pair) -> None:
    today, tomorrow = request(pair), {**DEFAULTS, "border": None, "colours": (1, 2)}
    assert record(today).is_of({**today, "border": None, "colours": (1, 2)}, tomorrow)
    assert not record(today).is_of({**today, "border": 3, "colours": (1, 2)}, tomorrow)
    assert not record(today).is_of({**today, "border": None, "colours": (1, 3)}, tomorrow)


def test_a_shot_of_before_an_option_is_the_same_shot(pair: Pair) -> None:
    assert pair.last is not None
    shot = Shot({0: pair.first, 8: pair.last})
    layout = lay_out(shot, SamplingOptions())
    now: dict[str, Any] = (
        dict(request_of_shot(shot, layout, SamplingOptions(), {"weights": "w"}, "float32", Stamps())) | DEFAULTS
    )
    before = now | {"shot": {key: value for key, value in now["shot"].items() if key != "through_keys"}}
    assert record(before).is_of(now, DEFAULTS)
    assert not record(before).is_of(now | {"shot": now["shot"] | {"through_keys": True}}, DEFAULTS)


def test_what_a_clip_does_not_show_is_no_other_request(pair: Pair) -> None:
    found = record(request(pair))
    assert found.is_of(request(pair, SamplingOptions(decode_frames_per_chunk=1, steps_per_chunk=None)), DEFAULTS)
    assert found.is_of(request(pair, SamplingOptions(fit="crop")), DEFAULTS)
    assert not found.is_of(request(pair, SamplingOptions(fit="pad")), DEFAULTS)
    assert not found.is_of(request(pair, SamplingOptions(second_pass=False)), DEFAULTS)
    assert not found.is_of(request(pair, drop_last=True), DEFAULTS)


def test_a_request_says_every_option_that_a_clip_shows(pair: Pair) -> None:
    """So that the clip can be made again where a later version has other defaults."""
    options = request(pair)["options"]
    assert options["steps"] == 50 and options["fit"] == "crop" and options["height"] is None
    assert "decode_frames_per_chunk" not in options


def test_a_draft_and_a_negative_prompt_make_another_clip(pair: Pair, tmp_path: Path) -> None:
    with_both = pair._replace(draft=[tmp_path / "a.png", tmp_path / "b.png"], negative_prompt="rain")
    before = {key: value for key, value in request(pair).items() if key not in ("draft", "negative_prompt")}
    assert record(before).is_of(request(pair), DEFAULTS)
    for changed in (with_both, with_both._replace(draft=None), with_both._replace(negative_prompt="")):
        assert not record(before).is_of(request(changed), DEFAULTS)
        assert record(request(changed)).is_of(request(changed), DEFAULTS)
    moved = [(tmp_path / name).rename(tmp_path / f"moved_{name}") for name in ("a.png", "b.png")]
    elsewhere = with_both._replace(first=moved[0], last=moved[1], draft=moved)
    (tmp_path / "a.png").write_bytes(b"a.png")
    (tmp_path / "b.png").write_bytes(b"b.png")
    assert record(request(with_both)).is_of(request(elsewhere), DEFAULTS)
    assert not record(request(with_both)).is_of(request(elsewhere._replace(draft=moved[::-1])), DEFAULTS)


@pytest.mark.parametrize("broken", [None, 3, [], {"options": 3}, {"options": None}])
def test_what_is_no_request_is_of_none(broken: Any, pair: Pair) -> None:
    assert not record(broken).is_of(request(pair), DEFAULTS)
