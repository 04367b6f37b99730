"""Sets of clips: written, read back, in any order, by any reader."""

import functools
import math
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tests.data.splits import split_sizes
from tooncrafter_jax.data.clip_sets import ClipFile, ClipReference, ClipSet, write_clip_file, write_clips
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.errors import UserError


def _clip(number: int, frames: int = 3, **fields):
    pictures = np.empty((frames, 24, 32, 3), np.uint8)
    pictures[:] = 10 * number + np.arange(frames)[:, None, None, None]
    fields = {
        "caption": "a fox, être",
        "scores": {"motion": number / 2},
        "fingerprint": "ff00",
        "thresholds": "1",
    } | fields
    return clip_of_pictures(
        pictures, id=f"film {number}/é", source=f"film {number}", fps=24.0, effective_fps=12.0, **fields
    )


def _references(*numbers, **fields):
    return [ClipReference(f"film {n}/é", 4000, functools.partial(_clip, n, **fields)) for n in numbers]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("set")
    write_clips(directory, {"train": _references(0, 1, 2, 3, 4), "test": _references(9, frames=2)}, shard_bytes=9000)
    return directory


def test_every_field_comes_back(directory):
    clip = ClipSet(directory, "test")[0]
    assert _fields(clip) | {"scores": {}} == _fields(_clip(9, frames=2)) | {"scores": {}}
    assert clip.scores["motion"] == 4.5
    assert all(math.isnan(clip.scores[name]) for name in ("text_area", "aesthetic", "agreement"))


def _fields(clip):
    return {name: getattr(clip, name) for name in clip.__dataclass_fields__}


def test_frames_decode_to_the_pictures_chosen(directory):
    clip = ClipSet(directory, "test")[-1]
    assert clip.decode().shape == (2, 24, 32, 3)
    np.testing.assert_allclose(clip.decode([1, 0, 1])[:, 0, 0, 0], [91, 90, 91], atol=1)


def test_sizes_and_membership(directory):
    assert split_sizes(directory) == {"train": 5, "test": 1}
    assert len(list(directory.glob("**/*train.array_record-*-of-00003"))) == 3
    assert {clip.source for clip in ClipSet(directory)} == {f"film {n}" for n in range(5)}


def test_order_does_not_depend_on_the_order_of_making(directory, tmp_path):
    write_clips(tmp_path, {"train": _references(3, 1, 4, 0, 2)})
    assert [clip.id for clip in ClipSet(tmp_path)] == [clip.id for clip in ClipSet(directory)]


def test_a_set_travels_to_another_process(directory):
    clips = pickle.loads(pickle.dumps(ClipSet(directory)))
    assert [clip.id for clip in clips] == [clip.id for clip in ClipSet(directory)]


def test_writing_again_replaces_the_set(tmp_path):
    write_clips(tmp_path, {"train": _references(1)})
    write_clips(tmp_path, {"train": _references(2, 3)})
    assert sorted(clip.source for clip in ClipSet(tmp_path)) == ["film 2", "film 3"]


def test_a_failed_writing_leaves_the_old_set(tmp_path):
    write_clips(tmp_path, {"train": _references(1)})

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clips(tmp_path, {"train": [*_references(2), ClipReference("z", 1, interrupt)]})
    assert [clip.source for clip in ClipSet(tmp_path)] == ["film 1"]


def test_plain_tfds_reads_it_without_tensorflow_and_without_this_package(directory):
    program = f"""
        import sys, tensorflow_datasets as tfds
        source = tfds.builder("cartoon_clips", data_dir={str(directory)!r}).as_data_source("train")
        example = source[0]
        assert len(source) == 5 and example["frames"][0].shape == (24, 32, 3) and example["fps"] == 24, example
        assert not [name for name in ("tensorflow", "tooncrafter_jax") if name in sys.modules]
        print(example["caption"].decode())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout.strip()) == (0, "a fox, être"), done.stderr[-2000:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: ClipSet(d / "nowhere"), "does not exist"),
        (lambda d: ClipSet(d, "validation"), "no split 'validation': it has"),
        (lambda d: write_clips(d / "twice", {"train": _references(1, 1)}), "two clips have the id"),
        (lambda d: write_clips(d / "none", {"train": []}), "no clips"),
    ],
)
def test_mistakes_are_reported(directory, make, message):
    with pytest.raises(UserError, match=message):
        make(directory)


def test_a_cut_shard_is_reported(tmp_path):
    shards = write_clips(tmp_path, {"train": _references(0, 1, 2, 3, 4)})
    (shard,) = shards.glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match="write the set again"):
        list(ClipSet(tmp_path))


def test_a_clip_file_holds_clips_in_order(tmp_path):
    assert write_clip_file(tmp_path / "film.array_record", (_clip(n) for n in (2, 0, 1))) == 3
    clips = pickle.loads(pickle.dumps(ClipFile(tmp_path / "film.array_record")))
    assert [clip.source for clip in clips] == ["film 2", "film 0", "film 1"]
    (tmp_path / "film.array_record").write_bytes(b"no records")
    with pytest.raises(UserError, match="damaged"):
        list(ClipFile(tmp_path / "film.array_record"))


def test_an_interrupted_clip_file_leaves_nothing(tmp_path):
    def clips():
        yield _clip(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clip_file(tmp_path / "film.array_record", clips())
    assert not list(tmp_path.iterdir())


def test_one_frame_and_unknown_scores(tmp_path):
    write_clip_file(tmp_path / "still", [_clip(1, frames=1)])
    assert len(ClipFile(tmp_path / "still")[0]) == 1
    with pytest.raises(ValueError, match="unknown scores"):
        _clip(1, scores={"beauty": 1.0})
