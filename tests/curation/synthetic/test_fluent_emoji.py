"""The emoji production: no subject in two sources, the same bytes always, and every mistake reported."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.curation.synthetic.emoji_files import write_emoji, write_package
from tooncrafter_jax.curation.protocols import ChangingSources, Production
from tooncrafter_jax.curation.synthetic import fluent_emoji
from tooncrafter_jax.curation.synthetic.emoji_packages import cache_directory, list_assets
from tooncrafter_jax.curation.synthetic.fluent_emoji import FluentEmoji
from tooncrafter_jax.errors import UserError

FIRST = {
    "1f3c3": {"hue": (240, 180, 60)},
    "1f3c3-1f3ff": {"hue": (90, 60, 40)},
    "1f3c3-1f3fb-200d-2640-fe0f": {"hue": (250, 210, 180), "frames": 24},
    "26bd-fe0f": {"frames": 1},  # a thing that moves along
    "1f1e6-1f1f1": {"frames": 1},  # a still picture without a part
}
SECOND = {
    "1f46e": {"shape": "bust"},
    "1f49a": {"hue": (40, 200, 80)},
    "1f499": {"hue": (40, 80, 220)},
    "1f680": {"frames": 12},  # too short
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    directory = tmp_path_factory.mktemp("packages")
    return (
        str(write_package(directory / "first", FIRST)),
        str(write_package(directory / "second", SECOND) / "package"),
    )


@pytest.fixture(scope="module")
def emoji(folders):
    return FluentEmoji(folders, height=40, width=48, scenes=3)


@pytest.fixture(scope="module")
def clips(emoji):
    return {source: list(emoji.clips(source)) for source in emoji.sources()}


def test_is_a_production(emoji):
    assert isinstance(emoji, Production) and isinstance(emoji, ChangingSources) and emoji.name == "fluent-emoji"
    assert pickle.loads(pickle.dumps(emoji)) == emoji


def test_sources_are_subjects(emoji):
    assert emoji.sources() == ["emoji-heart", "emoji-police-officer", "emoji-rocket", "emoji-runner"]


def test_every_drawing_has_every_scene(clips):
    assert [clip.id for clip in clips["emoji-runner"]] == [
        f"emoji-runner/{name}/{scene}" for name in sorted(FIRST)[1:4] for scene in range(3) if name != "1f1e6-1f1f1"
    ]
    assert {source: len(of_source) for source, of_source in clips.items()} == {
        "emoji-heart": 6,
        "emoji-police-officer": 3,
        "emoji-rocket": 0,
        "emoji-runner": 9,
    }


def test_fields(clips):
    for source, of_source in clips.items():
        for clip in of_source:
            assert (clip.source, clip.height, clip.width, clip.fps, clip.caption_from) == (
                source,
                40,
                48,
                24,
                "unicode",
            )
            assert 16 <= len(clip) <= 24 and clip.effective_fps > 20
            frames = clip.decode().astype(int)
            assert frames.shape == (len(clip), 40, 48, 3) and np.abs(np.diff(frames, axis=0)).mean() > 0.2
    plain = [clip.caption for clip in clips["emoji-runner"][::3]]
    assert plain == [f"cartoon animation of runner{rest}" for rest in ("", ", woman, light skin", ", dark skin")]
    assert clips["emoji-runner"][1].caption.startswith("cartoon animation of runner, ")


def test_no_clip_shows_the_subject_of_another_source(folders, monkeypatch):
    """What is read for a source's clips is its own drawings and things, and no thing is a subject."""
    emoji = FluentEmoji(folders, height=32, width=32, scenes=6)
    read = []
    monkeypatch.setattr(fluent_emoji, "read_animation", lambda path: read.append(path) or original(path))
    original = sys.modules["tooncrafter_jax.curation.synthetic.animated_pictures"].read_animation
    subject_of = {asset.path: "emoji-" + asset.emoji.slug for asset in list_assets(list(map(_path, folders)))}
    things = set()
    for source in emoji.sources():
        read.clear()
        list(emoji.clips(source))
        things |= {subject_of[path] for path in read} - {source}
    assert things == {"emoji-soccer-ball"} and not things & set(emoji.sources())


def _path(text):
    return fluent_emoji.Path(text)


def test_a_thing_that_is_animated_is_a_subject_and_no_thing(tmp_path):
    write_package(tmp_path, {"1f3c3": {}, "26bd-fe0f": {}, "26bd": {"frames": 1}})
    emoji = FluentEmoji((str(tmp_path),), height=32, width=32)
    assert emoji.sources() == ["emoji-runner", "emoji-soccer-ball"]
    assert not emoji.catalogue.props


def test_the_same_bytes_in_another_process_and_order(folders, clips):
    program = (
        "import hashlib, sys; from tooncrafter_jax.curation.synthetic.fluent_emoji import FluentEmoji\n"
        f"emoji = FluentEmoji({folders!r}, height=40, width=48, scenes=3)\n"
        "for source in ('emoji-runner', 'emoji-heart'):\n"
        "    for clip in emoji.clips(source):\n"
        "        print(clip.id, clip.caption, hashlib.sha256(b''.join(clip.frames)).hexdigest(), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    here = [_summary(clip) for source in ("emoji-runner", "emoji-heart") for clip in clips[source]]
    assert done.stdout.splitlines() == here


def _summary(clip):
    return f"{clip.id}|{clip.caption}|{fluent_emoji.hashlib.sha256(b''.join(clip.frames)).hexdigest()}"


def test_another_seed_makes_other_scenes(folders, clips):
    other = list(FluentEmoji(folders, height=40, width=48, seed=1).clips("emoji-police-officer"))
    assert [clip.id for clip in other] == [clip.id for clip in clips["emoji-police-officer"][:2]]
    assert all(_summary(a) != _summary(b) for a, b in zip(other, clips["emoji-police-officer"], strict=False))


def test_settings_change_with_what_clips_depend_on(folders, tmp_path):
    base = FluentEmoji(folders).settings()
    changed = [
        FluentEmoji(folders, height=64).settings(),
        FluentEmoji(folders, width=64).settings(),
        FluentEmoji(folders, scenes=1).settings(),
        FluentEmoji(folders, seed=1).settings(),
        FluentEmoji(folders, backgrounds=str(_pictures(tmp_path))).settings(),
        FluentEmoji(folders[1:]).settings(),  # other things to move along
    ]
    assert base == FluentEmoji(folders, cache="elsewhere").settings()
    assert all(settings != base for settings in changed)


def test_state_is_of_the_source_alone(folders, tmp_path):
    before = FluentEmoji(folders)
    other = write_package(tmp_path, SECOND | {"1f49a": {"frames": 17}})
    after = FluentEmoji((folders[0], str(other)))
    assert before.state("emoji-heart") != after.state("emoji-heart")
    assert before.state("emoji-runner") == after.state("emoji-runner")
    assert before.settings() == after.settings()


def _pictures(directory):
    (directory / "deeper").mkdir()
    Image.new("RGB", (90, 60), (10, 200, 30)).save(directory / "deeper" / "green.png")
    (directory / "damaged.png").write_bytes(b"no picture")
    return directory


def test_the_users_backgrounds_are_used(folders, tmp_path):
    """Damaged ones are passed over."""
    emoji = FluentEmoji(folders, height=40, width=48, scenes=2, backgrounds=str(_pictures(tmp_path)))
    for clip in emoji.clips("emoji-heart"):
        np.testing.assert_allclose(clip.decode([0])[0, 2, 2], (10, 200, 30), atol=6)
        assert "in front of" not in clip.caption


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d, f: FluentEmoji(f, height=8), "height is 8"),
        (lambda d, f: FluentEmoji(f, width=5000), "width is 5000"),
        (lambda d, f: FluentEmoji(f, scenes=0), "at least one clip"),
        (lambda d, f: FluentEmoji((str(d / "none"),)).sources(), "is not a folder"),
        (lambda d, f: FluentEmoji((str(d),)).sources(), "no WebP files"),
        (lambda d, f: FluentEmoji(f, backgrounds=str(d)).sources(), "has no pictures"),
        (lambda d, f: FluentEmoji(f, backgrounds=str(d / "none")).sources(), "is not a folder"),
        (lambda d, f: list(FluentEmoji(f).clips("emoji-dragon")), "no subject 'emoji-dragon'"),
    ],
)
def test_mistakes_are_reported(folders, tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, folders)


def test_still_pictures_alone_are_reported(tmp_path):
    write_emoji(tmp_path / "1f34e.webp", frames=1)
    with pytest.raises(UserError, match="is animated"):
        FluentEmoji((str(tmp_path),)).sources()


def test_only_damaged_backgrounds_are_reported(folders, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"damaged\.png"):
        list(FluentEmoji(folders, backgrounds=str(tmp_path)).clips("emoji-heart"))


def test_a_damaged_drawing_is_reported(tmp_path):
    write_package(tmp_path, {"1f680": {}})
    path = tmp_path / "package" / "assets" / "1f680.webp"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match="1f680"):
        list(FluentEmoji((str(tmp_path),)).clips("emoji-rocket"))


@pytest.mark.slow
def test_the_true_packages():
    """Counts of what the packages hold; needs them in the cache, where the first build puts them."""
    if len(list(cache_directory().glob("*/complete"))) < 4:
        pytest.skip("needs the packages of the emoji in the cache")
    emoji = FluentEmoji()
    assets = [asset for source in emoji.sources() for asset in emoji.assets(source)]
    assert (len(assets), len(emoji.sources())) == (2109, 510)
    assert len(emoji.catalogue.props) == len(fluent_emoji.PROPS)
    (plain, composed) = list(emoji.clips("emoji-rocket"))
    assert len(plain) == len(composed) == 73 and plain.effective_fps == 24
