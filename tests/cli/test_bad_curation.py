"""`curate` on films that are damaged or unusual, and on requests that are wrong: a sentence each, and nothing is
lost.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.cli.world import Command
from tests.curation.film_files import LOSSLESS, moving, write_film, write_sound
from tests.data.splits import split_sizes
from tooncrafter_jax.__main__ import main as package_main
from tooncrafter_jax.cli.common import run
from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.errors import UserError

pytest.importorskip("cv2", reason="needs the extra 'data'")

COMMON = ("--workers=0", "--shots=cuts", "--motion=off", "--text=off", "--no-fingerprints", "--quiet")
GOOD = "good one"


class Place(NamedTuple):
    """A folder of films, the set that was made of it, and the test's monkeypatch."""

    films: Path
    out: Path
    monkeypatch: pytest.MonkeyPatch

    def argv(self, *changes: str) -> list[str]:
        return ["films", str(self.films), f"--out={self.out}", *COMMON, *changes]


def film(shots: int = 2, **size: int) -> np.ndarray:
    """Shots of 22 frames, enough for a clip each."""
    return np.concatenate([moving(seed, 22, step=3, **size) for seed in range(shots)])


@pytest.fixture(scope="session")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good film and the set of it; not to be written to."""
    directory = tmp_path_factory.mktemp("curated")
    write_film(directory / "films" / f"{GOOD}.mp4", film())
    argv = ["curate", "films", str(directory / "films"), f"--out={directory / 'out'}", *COMMON]
    assert run(package_main, argv) == 0
    return directory


@pytest.fixture
def place(curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    shutil.copytree(curated / "films", tmp_path / "films")
    shutil.copytree(curated / "out", tmp_path / "out")
    return Place(tmp_path / "films", tmp_path / "out", monkeypatch)


def clips_of(out: Path) -> dict[str, list]:
    clips: dict[str, list] = {}
    for split in split_sizes(out):
        for clip in ClipSet(out, split):
            clips.setdefault(clip.source, []).append(clip)
    return clips


def leftovers(directory: Path) -> list[Path]:
    return [path for path in directory.rglob(".*") if path.name.startswith((".tooncrafter", ".1.0", ".report"))]


# --- films ---


class Film(NamedTuple):
    """A film beside the good one.

    Attributes:
      name: of its file.
      write: makes it.
      clips: how many come of it, or what is said where it fails.
      shape: height and width of its clips.
      argv: what is asked for beside the usual.
    """

    name: str
    write: Callable[[Path], object]
    clips: int | tuple[str, ...]
    shape: tuple[int, int] | None = None
    argv: tuple[str, ...] = ()


def cut_in_half(path: Path) -> None:
    write_film(path, film())
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def irregular(path: Path) -> None:
    """Every third frame lasts thrice as long: 44 frames in 7.3 seconds at a stated 10 a second."""
    times = np.concatenate([[0], np.cumsum(np.tile([100, 100, 300], 15))])[:44]
    write_film(path, film(), times=[int(time) for time in times])


def not_text(path: Path) -> None:
    write_film(path, film())
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9.mp4")


FILMS = [
    Film("empty.mp4", Path.touch, ("'", "empty.mp4' is empty")),
    Film("truncated.mp4", cut_in_half, ("truncated.mp4'", "copy it again")),
    Film("truncated.mkv", cut_in_half, ("truncated.mkv'", "cut off")),
    Film("sound.mkv", write_sound, ("sound.mkv'", "only sound")),
    Film("letter.mp4", lambda path: path.write_text("Dear all,\n" * 99), ("letter.mp4' is not a film",)),
    Film("link.mp4", lambda path: path.symlink_to("/nowhere/film.mp4"), ("link.mp4'", "No such file")),
    Film("variable rate.mp4", irregular, 2),
    Film(
        "rotated.mp4",
        lambda path: write_film(path, film(), prepare=lambda stream: stream.set_display_rotation(90)),
        2,
        (96, 72),
    ),
    Film("ten bits.mp4", lambda path: write_film(path, film(), codec="libx265", pixels="yuv420p10le"), 2, (72, 96)),
    Film("odd.mkv", lambda path: write_film(path, film(height=73, width=97)[:, :71, :95], **LOSSLESS), 2, (71, 95)),
    Film("one frame.mp4", lambda path: write_film(path, film()[:1]), 0),
    Film("Ein Film – 映画 'n' \"co\".mp4", lambda path: write_film(path, film()), 2),
    Film("café.mp4", not_text, 2),
    Film("sub/folder/film.mp4", lambda path: write_film(path, film()), 2),
    Film(
        "one colour.mp4",
        lambda path: write_film(path, np.full((30, 72, 96, 3), 90, np.uint8)),
        0,
        argv=("--motion=dis", "--min-motion=0.01"),
    ),
    Film("same again.mp4", lambda path: write_film(path, film()), 0, argv=("--fingerprints",)),
    Film("folder.mp4", Path.mkdir, 0),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in FILMS])
@pytest.mark.gate
def test_an_unusual_film_gives_its_clips_or_a_sentence_and_the_others_are_unharmed(
    case: Film, place: Place, command: Command
):
    path = place.films / case.name
    path.parent.mkdir(parents=True, exist_ok=True)
    case.write(path)
    argv = [word for word in place.argv(*case.argv) if not ("--fingerprints" in case.argv and "fingerprints" in word)]
    result = command("curate", *argv)
    assert "Traceback" not in result.err
    clips = clips_of(place.out)
    good = clips.pop(GOOD, [])
    if isinstance(case.clips, tuple):
        assert result.code == 1 and len(result.errors) == 1, result
        for phrase in case.clips:
            assert phrase in result.errors[0]
        assert "0 made, 1 done before, 1 failed" in result.out
        assert not clips and not result.err.rstrip().endswith(".")
    else:
        assert (result.code, result.errors) == (0, []), result
        found = [clip for of_film in clips.values() for clip in of_film]
        assert len(found) == case.clips
        if case.shape is not None:
            assert {clip.decode([0]).shape[1:3] for clip in found} == {case.shape}
    assert len(good) == 2
    assert not leftovers(place.out)


# --- requests ---


class Request(NamedTuple):
    """A request that ends with a sentence and exit code 2.

    Attributes:
      id: what is wrong.
      argv: makes the arguments.
      phrases: what is said.
      measured: whether it is found only after films were read.
    """

    id: str
    argv: Callable[[Place], list[str]]
    phrases: tuple[str, ...]
    measured: bool = False


def with_captions(text: str, name: str = "captions.csv") -> Callable[[Place], list[str]]:
    def argv(place: Place) -> list[str]:
        file = place.out.parent / name
        file.write_text(text)
        return place.argv(f"--captions={file}")

    return argv


def unreadable(place: Place) -> list[str]:
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    (place.films / "closed").mkdir()
    place.monkeypatch.setattr(os, "scandir", refuse)
    return place.argv()


def only_bad_films(place: Place) -> list[str]:
    (place.films / f"{GOOD}.mp4").unlink()
    (place.films / "a.mp4").touch()
    return place.argv()


def no_films(place: Place) -> list[str]:
    (place.films / f"{GOOD}.mp4").unlink()
    return place.argv()


def disk_full(place: Place) -> list[str]:
    write_film(place.films / "more.mp4", film())
    replace = os.replace

    def fail(source, target):
        if str(target).endswith(".array_record"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    place.monkeypatch.setattr(os, "replace", fail)
    return place.argv()


def record_writer_full(place: Place) -> list[str]:
    """What the writer of records says when there is no space."""
    from tooncrafter_jax.data import clip_sets

    write_film(place.films / "more.mp4", film())

    class Writer:
        def __init__(self, path: str, options: str):
            Path(path).touch()

        def write(self, data: bytes) -> None:
            raise RuntimeError("Failed to write: No space left on device")

        def close(self) -> None:
            pass

    place.monkeypatch.setattr(clip_sets.array_record_module, "ArrayRecordWriter", Writer)
    return place.argv()


def without(package: str, *changes: str) -> Callable[[Place], list[str]]:
    def argv(place: Place) -> list[str]:
        write_film(place.films / "more.mp4", film())
        place.monkeypatch.setitem(sys.modules, package, None)
        return place.argv(*changes)

    return argv


def asking(*changes: str) -> Callable[[Place], list[str]]:
    return lambda place: place.argv(*changes)


def rethreshold(*changes: str, where: str = "out") -> Callable[[Place], list[str]]:
    return lambda place: ["rethreshold", str(place.out.parent / where), "--workers=0", "--quiet", *changes]


def onto_a_file(place: Place) -> list[str]:
    (place.out.parent / "notes.txt").write_text("mine")
    return place.argv(f"--out={place.out.parent / 'notes.txt'}")


def source_of_shards_gone(place: Place) -> list[str]:
    for file in (place.out / "workspace" / "sources").glob("*.array_record"):
        file.unlink()
    return rethreshold()(place)


REQUESTS = [
    Request("no-such-path", lambda p: ["films", "/nowhere", f"--out={p.out}"], ("'/nowhere' does not exist",)),
    Request("no-films", no_films, ("no film is in", "films end in")),
    Request("only-bad-films", only_bad_films, ("no source could be read", "a.mp4' is empty"), measured=True),
    Request("unreadable-directory", unreadable, ("closed' cannot be read (Permission denied)", "permissions")),
    Request("full-disk", disk_full, ("No space left on device", "free some space"), measured=True),
    Request("full-disk-in-the-record-writer", record_writer_full, ("No space left", "free some space"), measured=True),
    Request("out-is-a-file", onto_a_file, ("cannot be written", "notes.txt")),
    Request("no-out", lambda p: ["films", str(p.films)], ("required: --out", "curate films --help")),
    Request(
        "thresholds-drop-everything",
        asking("--motion=dis", "--min-motion=1e6"),
        ("drop all 2 clips (2 static)", "report", "curate rethreshold"),
        measured=True,
    ),
    Request(
        "rethresholds-drop-everything",
        rethreshold("--min-frames=999"),
        ("drop all 2 clips (2 too-short)", "curate rethreshold"),
        measured=True,
    ),
    Request("more-test-clips-than-there-are", asking("--test=1000"), ("'test' should have 1000 clips",), measured=True),
    Request("threshold-no-number", asking("--min-motion=much"), ("--min-motion", "invalid number value: 'much'")),
    Request("threshold-nan", asking("--min-motion=nan"), ("min_motion is nan",)),
    Request("threshold-no-share", asking("--max-text-area=5"), ("max_text_area is 5", "from 0 to 1")),
    Request("split-no-share", asking("--test=1.5"), ("'test' is 1.5", "a share from 0 to 1, or a count")),
    Request("splits-leave-nothing", asking("--test=0.6", "--validation=0.5"), ("leave no clips for training",)),
    Request("unknown-option", asking("--min-moton=1"), ("'--min-moton=1'", "did you mean --min-motion?")),
    Request("unknown-shots", asking("--shots=magic"), ("--shots", "'magic'")),
    Request("shot-threshold-nan", asking("--shot-threshold=nan"), ("the shot threshold must be from 0 to", "nan")),
    Request("shot-threshold-below", asking("--shot-threshold=-1"), ("from 0 to 255, not -1",)),
    Request("shot-threshold-above", asking("--shot-threshold=300"), ("from 0 to 255, not 300",)),
    Request("impossible-lengths", asking("--shortest=9"), ("from 9.0 s to 10.0 s", "twice the shortest")),
    Request("cover-no-size", asking("--cover=512"), ("--cover=512", "HEIGHTxWIDTH")),
    Request("negative-workers", asking("--workers=-1"), ("--workers is -1",)),
    Request("tiny-shards", asking("--shard-megabytes=0"), ("--shard-megabytes must be at least 1, not 0",)),
    Request("unknown-runner", asking("--", "--runner=FlonkRunner"), ("Beam has no such runner", "FlonkRunner")),
    Request(
        "head-without-clip", asking("--aesthetic-head=a.safetensors"), ("--aesthetic-head needs", "--clip-weights")
    ),
    Request("clip-missing", asking("--clip-weights=/nowhere/clip.safetensors"), ("/nowhere/clip.safetensors",)),
    Request("captions-missing", asking("--captions=/nowhere.csv"), ("'/nowhere.csv' cannot be read",)),
    Request(
        "captions-of-unknown-kind", with_captions("a cat", "captions.txt"), ("captions.txt' is of an unknown kind",)
    ),
    Request(
        "captions-damaged", with_captions('{"good one": "a cat"', "captions.json"), ("captions.json' is not JSON",)
    ),
    Request("captions-incomplete", with_captions("caption\na cat\n"), ("row 1 of", "lacks")),
    Request("blip2-missing", asking("--blip2=/nowhere/blip2"), ("'/nowhere/blip2' holds no model",)),
    Request("no-opencv", without("cv2"), ("'cv2'", "pip install 'tooncrafter-jax[data]'"), measured=True),
    Request("no-matplotlib", without("matplotlib.figure"), ("'matplotlib'", "tooncrafter-jax[data]"), measured=True),
    Request("no-beam", without("apache_beam"), ("'apache_beam'", "tooncrafter-jax[data]")),
    Request("rethreshold-nowhere", rethreshold(where="nowhere"), ("has no finished set", "curate")),
    Request("rethreshold-without-clips", source_of_shards_gone, ("missing or damaged", "made this set again")),
    Request("unknown-subcommand", lambda p: ["flims"], ("unknown command 'curate flims'", "films, fluent-emoji")),
    Request(
        "another-production",
        lambda p: ["bodies", f"--out={p.out}", "--count=1", "--workers=0"],
        ("holds a set made from films", "choose another directory"),
    ),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in REQUESTS])
def test_a_mistake_is_one_sentence_and_costs_nothing(case: Request, place: Place, command: Command):
    if case.id == "another-production":
        pytest.importorskip("pybullet", reason="needs the package 'pybullet' of the extra 'data'")
    argv = case.argv(place)
    before = {path: path.read_bytes() for path in place.out.rglob("*") if path.is_file()}
    result = command("curate", *argv)
    place.monkeypatch.undo()
    assert result.code == 2, result
    said = [line for line in result.err.splitlines() if not line.startswith("note: ")]
    assert len(said) == 1 and said[0].startswith("error: ") and not said[0].endswith("."), result.err
    for phrase in case.phrases:
        assert phrase in said[0]
    assert not leftovers(place.out.parent)
    kept = {path: data for path, data in before.items() if case.measured is False or "cartoon_clips" in path.parts}
    assert all(path.read_bytes() == data for path, data in kept.items() if path.exists())
    assert len(clips_of(place.out)[GOOD]) == 2, "the set of before is not whole"


def test_captions_of_other_films_are_reported_and_the_run_goes_on(place: Place, command: Command):
    argv = with_captions("source,caption\nanother film,a cat\n")(place)
    result = command("curate", *argv)
    assert result.code == 0
    (note,) = [line for line in result.err.splitlines() if "captions for" in line]
    assert "'another film'" in note and "check that it belongs to them" in note
    assert {clip.caption for clip in clips_of(place.out)[GOOD]} == {""}
    argv = with_captions(f"source,caption\n{GOOD}.mp4,a dog\n")(place)
    result = command("curate", *argv)
    assert result.code == 0 and "captions for" not in result.err
    assert {(clip.caption, clip.caption_from) for clip in clips_of(place.out)[GOOD]} == {("a dog", "sidecar")}


def test_a_shard_cut_in_half_is_reported_and_written_again(place: Place, command: Command):
    (shard,) = place.out.glob("cartoon_clips/*/*array_record*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="write the set again"):
        clips_of(place.out)
    assert command("curate", *rethreshold()(place)).code == 0
    assert shard.read_bytes() == whole


def test_a_film_that_is_mended_is_made_and_one_that_is_gone_leaves_the_set(place: Place, command: Command):
    path = place.films / "other.mp4"
    path.touch()
    assert command("curate", *place.argv()).code == 1
    write_film(path, film())
    (place.films / f"{GOOD}.mp4").unlink()
    result = command("curate", *place.argv())
    assert result.code == 0 and "1 made, 0 done before, 0 failed" in result.out
    assert set(clips_of(place.out)) == {"other"}


def test_there_are_cases_enough():
    assert len(FILMS) + len(REQUESTS) >= 50
    assert len({case.id for case in REQUESTS}) == len(REQUESTS)
