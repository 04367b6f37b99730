"""What clips are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.batch.jobs import Job, default_name, with_unique_names, with_variations
from tooncrafter_jax.sampling.batch.manifests import manifest_scenes
from tooncrafter_jax.sampling.request import Pair
from tooncrafter_jax.sampling.sequence import Shot


def test_names_never_collide():
    pair = Pair("a.png", "b.png")
    jobs = with_unique_names([Job(name, pair) for name in ("a", "a", "a_2", "a")])
    assert [job.name for job in jobs] == ["a", "a_2", "a_2_2", "a_3"]
    many = with_variations(with_unique_names([Job(name, pair) for name in ("a", "a_sample0", "a")]), 2)
    assert len({job.name for job in many}) == 6


@pytest.mark.parametrize(("file", "name"), [("a.png", "a"), ("a.b.png", "a"), (".a.png", "a"), ("..png", "clip")])
def test_clips_are_called_by_their_first_picture_up_to_its_first_dot(file: str, name: str):
    assert default_name(Path("d.x") / file) == name


def test_a_manifest_names_a_folder_of_frames_to_be_drawn_anew(tmp_path: Path):
    rough = tmp_path / "rough"
    rough.mkdir()
    for name in ("f10.png", "f2.png", ".f1.png", "notes.txt"):
        (rough / name).touch()
    manifest = tmp_path / "shots.jsonl"
    manifest.write_text(
        '{"first": "a.png", "last": "b.png", "draft": "rough", "negative_prompt": "rain"}\n'
        '{"first": "a.png", "last": "b.png"}\n'
    )
    jobs = manifest_scenes(manifest, Pair("", "", negative_prompt="snow"), Shot({}))
    first, second = (job.pair for job in jobs if isinstance(job, Job))
    assert first.draft == [rough / "f2.png", rough / "f10.png"] and first.negative_prompt == "rain"
    assert second.draft is None and second.negative_prompt == "snow"
    manifest.write_text('{"first": "a.png", "last": "b.png", "draft": "gone"}\n')
    with pytest.raises(UserError, match="line 1 of .*: cannot read the folder .*gone.*a draft is a folder"):
        manifest_scenes(manifest, Pair("", ""), Shot({}))
