"""Rivals are made by name, and a wrong name is put right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.in_betweener import InBetweener
from tooncrafter_jax.evaluation.rivals.registry import FACTORIES, in_betweener


@pytest.mark.parametrize("name", FACTORIES)
def test_a_rivals_name_is_its_key(name: str) -> None:
    rival = in_betweener(name)
    assert isinstance(rival, InBetweener) and rival.name == name


def test_titles_differ() -> None:
    titles = [in_betweener(name).title for name in FACTORIES]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(("given", "near"), [("crossfade", "cross_fade"), ("RIFE", "rife"), ("flowwarp", "flow_warp")])
def test_an_unknown_name_names_the_nearest(given: str, near: str) -> None:
    with pytest.raises(
        UserError, match=rf"no rival '{given}' \(did you mean '{near}'\?\): choose of still, .*folder:PATH"
    ):
        in_betweener(given)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere' is not a folder: name the folder that holds one video for each clip"):
        in_betweener(f"folder:{tmp_path / 'nowhere'}")


def test_weights_are_looked_for_where_they_were_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/rife_v4.safetensors is not there"):
        in_betweener("rife", weights=tmp_path).require([])
