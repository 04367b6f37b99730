"""What is written can be read back, and a failed write leaves nothing behind and says why."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import resource
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import (
    check_writable,
    grey_of_rgb,
    to_uint8,
    write_contact_sheet,
    write_gif,
    write_json,
    write_mp4,
    write_png_sequence,
    write_webp,
    writers,
)

WRITERS = {
    "a.mp4": write_mp4,
    "a.gif": write_gif,
    "a.webp": write_webp,
    "sheet.png": write_contact_sheet,
    "frames": write_png_sequence,
}


def cartoon(count: int = 16, height: int = 64, width: int = 96) -> np.ndarray:
    """A red disc with an outline that crosses a graded sky over a green ground."""
    y, x = np.mgrid[0:height, 0:width]
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[..., 0], frames[..., 1], frames[..., 2] = 90 + 60 * y / height, 150 + 60 * y / height, 240
    frames[:, y > 0.75 * height] = (60, 160, 40)
    for index, frame in enumerate(frames):
        distance = np.hypot(y - height / 2, x - width * (0.2 + 0.6 * index / max(count - 1, 1)))
        frame[distance < height / 4] = (20, 20, 20)
        frame[distance < height / 4 - 3] = (220, 40, 30)
    return frames


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def decode(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The frames, and what the file says of them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        codec = stream.codec_context
        assert stream.duration is not None and stream.time_base is not None
        return frames, {
            "codec": codec.name,
            "pixels": codec.pix_fmt,
            "matrix": codec.colorspace,
            "range": codec.color_range,
            "rate": stream.average_rate,
            "seconds": stream.duration * stream.time_base,
        }


def files(directory: Path) -> list[str]:
    """All names below a directory, hidden ones too."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# --- to_uint8 ---


def test_to_uint8_truncates_and_clamps():
    # 0.999 of a level above 127 is still 127; rounding would give 128.
    values = np.array([-3, -1, 0, 127.999 / 127.5 - 1, 128.001 / 127.5 - 1, 1, 7], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 127, 127, 128, 255, 255]
    assert to_uint8(values.astype(np.float16).reshape(7, 1)).shape == (7, 1)


def test_to_uint8_loses_at_most_one_level_of_a_picture():
    levels = np.arange(256, dtype=np.uint8)
    back = to_uint8(levels.astype(np.float32) / 255 * 2 - 1)
    lost = levels.astype(int) - back
    assert set(lost.tolist()) <= {0, 1} and lost.mean() < 0.5


def test_to_uint8_refuses_nan():
    with pytest.raises(UserError, match="NaN"):
        to_uint8(np.array([0, np.nan], np.float32))


# --- video and animations ---


def test_mp4_decodes_to_nearly_the_same_frames(tmp_path):
    frames = cartoon(16, 160, 256)
    write_mp4(tmp_path / "new" / "a.mp4", frames)
    decoded, facts = decode(tmp_path / "new" / "a.mp4")
    # Measured: 32.0 dB, where an ideal halving of the colour resolution alone gives 32.1. The luma has 44.3 dB; at the
    # encoder's default crf of 23 it would be 42.5.
    assert decoded.shape == frames.shape and psnr(decoded, frames) > 31
    luma, expected = (np.stack([grey_of_rgb(frame) for frame in video]) for video in (decoded, frames))
    assert psnr(luma, expected) > 43.5
    assert all(psnr(decoded[i], frames[i]) > psnr(decoded[i], frames[i - 1]) + 5 for i in range(1, 16))
    # Matrix 1 is BT.709 and range 1 is limited.
    assert facts == {"codec": "h264", "pixels": "yuv420p", "matrix": 1, "range": 1, "rate": 8, "seconds": 2}
    assert files(tmp_path / "new") == ["a.mp4"]


def test_mp4_keeps_saturated_colours(tmp_path):
    # A wrong colour matrix or range would move these by 10 to 30 levels.
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255), (255, 200, 160)]
    frames = np.stack([np.full((32, 32, 3), colour, np.uint8) for colour in colours])
    write_mp4(tmp_path / "a.mp4", frames)
    decoded, _ = decode(tmp_path / "a.mp4")
    assert np.abs(decoded.astype(int) - frames).max() <= 4


def test_mp4_crf_and_rate(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    write_mp4(tmp_path / "fine.mp4", frames, fps=Fraction(24000, 1001), crf=10)
    write_mp4(tmp_path / "coarse.mp4", frames, fps=12.5, crf=40)
    assert (tmp_path / "fine.mp4").stat().st_size > 3 * (tmp_path / "coarse.mp4").stat().st_size
    assert decode(tmp_path / "fine.mp4")[1]["rate"] == Fraction(24000, 1001)
    assert decode(tmp_path / "coarse.mp4")[1]["rate"] == Fraction(25, 2)


def test_one_frame_is_enough(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name, cartoon(1))
    assert decode(tmp_path / "a.mp4")[0].shape == (1, 64, 96, 3)
    assert files(tmp_path) == ["a.gif", "a.mp4", "a.webp", "frames", "frames/frame_00.png", "sheet.png"]


@pytest.mark.parametrize(("fps", "seconds"), [(8, 2.0), (7, 16 / 7), (24, 2 / 3)])
def test_gif_and_webp_last_as_long_as_they_should(tmp_path, fps, seconds):
    frames = cartoon()
    write_gif(tmp_path / "a.gif", frames, fps=fps)
    write_webp(tmp_path / "a.webp", frames, fps=fps, lossless=True)
    for name, tick, quality in (("a.gif", 0.01, 40), ("a.webp", 0.001, np.inf)):
        with Image.open(tmp_path / name) as image:
            assert image.info["loop"] == 0
            pictures, delays = [], []
            for picture in ImageSequence.Iterator(image):
                pictures.append(np.asarray(picture.convert("RGB")))
                delays.append(picture.info["duration"])
        assert len(pictures) == 16
        assert abs(sum(delays) / 1000 - seconds) <= tick / 2 + 1e-9
        assert max(delays) - min(delays) <= 1000 * tick
        with np.errstate(divide="ignore"):
            assert psnr(np.stack(pictures), frames) >= quality


def test_still_parts_of_a_gif_stay_still(tmp_path):
    frames = cartoon()
    write_gif(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as image:
        pictures = np.stack([np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(image)])
    still = (frames == frames[:1]).all(axis=(0, 3))
    assert still.mean() > 0.3
    np.testing.assert_array_equal(pictures[:, still], np.repeat(pictures[:1, still], 16, axis=0))


def test_webp_quality_matters(tmp_path):
    sizes = []
    for quality in (20, 95):
        write_webp(tmp_path / "a.webp", cartoon(), quality=quality)
        sizes.append((tmp_path / "a.webp").stat().st_size)
    assert sizes[1] > 1.3 * sizes[0]


def test_the_index_of_a_video_comes_first(tmp_path):
    """Browsers can then begin to play before they have the whole file."""
    write_mp4(tmp_path / "a.mp4", cartoon())
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


# --- pictures and records ---


def test_png_sequence_is_lossless_and_replaces_an_older_longer_one(tmp_path):
    directory = tmp_path / "deep" / "frames"
    frames = cartoon(12)
    paths = write_png_sequence(f"{directory}/", frames)
    assert [os.path.basename(path) for path in paths] == [f"frame_{i:02d}.png" for i in range(12)]
    for path, frame in zip(paths, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), frame)

    (directory / "notes.txt").write_text("mine")
    (directory / "other_05.png").write_text("mine")
    with pytest.raises(UserError, match="frame_00.png.*no record says that this program wrote it"):
        write_png_sequence(directory, frames[::-1][:3])
    np.testing.assert_array_equal(np.asarray(Image.open(directory / "frame_00.png")), frames[0])
    write_png_sequence(directory, frames[::-1][:3], replaces=[os.path.basename(path) for path in paths])
    expected = ["frame_00.png", "frame_01.png", "frame_02.png", "notes.txt", "other_05.png"]
    assert files(directory) == expected and files(tmp_path / "deep") == ["frames", *(f"frames/{n}" for n in expected)]
    np.testing.assert_array_equal(np.asarray(Image.open(directory / "frame_00.png")), frames[-1])


def test_png_sequence_numbers_sort_by_name(tmp_path):
    paths = write_png_sequence(tmp_path / "f", np.zeros((101, 8, 8, 3), np.uint8), stem="ab")
    assert sorted(paths) == paths and paths[-1].endswith("ab_100.png") and paths[0].endswith("ab_000.png")


@pytest.mark.parametrize("labels", [None, [f"frame {i}" for i in range(6)]])
def test_contact_sheet_holds_every_frame_once_in_reading_order(tmp_path, labels):
    frames = np.stack([np.full((64, 96, 3), 30 * i, np.uint8) for i in range(6)])
    write_contact_sheet(tmp_path / "a.png", frames, columns=4, labels=labels)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    corners = []
    for i in range(6):
        matches = (sheet == 30 * i).all(axis=-1)
        ys, xs = np.nonzero(matches)
        top, left = np.median(ys).astype(int) - 31, np.median(xs).astype(int) - 47
        np.testing.assert_array_equal(sheet[top : top + 64, left : left + 96], frames[i])
        corners.append((top, left))
    assert corners == sorted(corners)
    assert [row for row, _ in corners] == [corners[0][0]] * 4 + [corners[4][0]] * 2
    assert [column for _, column in corners[:2]] == [column for _, column in corners[4:]]
    band = sheet[: corners[0][0], corners[0][1] : corners[0][1] + 96]
    assert (band.min() < 100) == (labels is not None)


def test_long_labels_stay_in_their_column(tmp_path):
    frames = np.full((3, 64, 96, 3), 200, np.uint8)
    write_contact_sheet(tmp_path / "a.png", frames, columns=3, labels=["", "W" * 200, ""])
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    columns = np.nonzero((sheet < 128).all(axis=-1).any(axis=0))[0]
    left = 4 + 96 + 4
    assert len(columns) and left <= columns.min() and columns.max() < left + 96
    assert columns.max() > left + 60


def test_json_is_strict(tmp_path):
    record = {"seed": np.int64(3), "psnr": [np.float32(1.5), float("nan"), np.inf], 7: np.arange(3), "out": Path("a/b")}
    write_json(tmp_path / "a.json", {**record, "prompt": "歩く男", "ok": np.bool_(True), "none": None, "t": (1, 2)})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "seed": 3,
        "psnr": [1.5, None, None],
        "7": [0, 1, 2],
        "out": "a/b",
        "prompt": "歩く男",
        "ok": True,
        "none": None,
        "t": [1, 2],
    }
    assert "歩く男" in text and text.endswith("}\n")
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "b.json", {"x": object()})
    assert files(tmp_path) == ["a.json"]


# --- refusals ---


@pytest.mark.parametrize("name", WRITERS)
def test_wrong_frames_are_named(tmp_path, name):
    # Without the run-time type checks that tests may be run with, as in use.
    write = inspect.unwrap(WRITERS[name])
    wrong = [cartoon() / 255.0, cartoon()[0], cartoon()[..., :1], cartoon()[:0]]
    for frames in wrong:
        with pytest.raises(UserError, match=r"uint8 \(frames, height, width, 3\)") as caught:
            write(tmp_path / name, frames)
        assert str(frames.shape) in str(caught.value)
    with pytest.raises(UserError, match="not list"):
        write(tmp_path / name, [cartoon()[0]])
    assert files(tmp_path) == []


def test_impossible_settings_are_named(tmp_path):
    frames = cartoon()
    path = tmp_path / "a"
    with pytest.raises(UserError, match="96 x 63 pixels: H.264"):
        write_mp4(path, frames[:, :63])
    with pytest.raises(UserError, match="crf is 52"):
        write_mp4(path, frames, crf=52)
    for write in (write_mp4, write_gif, write_webp):
        for fps in (0, -1, float("nan"), float("inf"), 1e9):
            with pytest.raises(UserError, match=f"fps is {fps}"):
                write(path, frames, fps=fps)
    with pytest.raises(UserError, match="at most 50"):
        write_gif(path, frames, fps=60)
    with pytest.raises(UserError, match="quality is 101"):
        write_webp(path, frames, quality=101)
    with pytest.raises(UserError, match="16383"):
        write_webp(path, np.zeros((1, 8, 16384, 3), np.uint8))
    with pytest.raises(UserError, match="0 columns"):
        write_contact_sheet(path, frames, columns=0)
    with pytest.raises(UserError, match="2 labels for 16 frames"):
        write_contact_sheet(path, frames, labels=["a", "b"])
    assert files(tmp_path) == []


def test_missing_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "_H264_ENCODER", "no_such_encoder")
    with pytest.raises(UserError, match="no H.264 encoder"):
        write_mp4(tmp_path / "a.mp4", cartoon())


# --- failing disks ---


@contextlib.contextmanager
def largest_file(size: int):
    """Lets the operating system refuse to write beyond so many bytes of a file, in the middle of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_other(tmp_path, name):
    old = cartoon(3)
    WRITERS[name](tmp_path / name, old)
    before = {path: (tmp_path / path).read_bytes() for path in files(tmp_path) if (tmp_path / path).is_file()}
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), np.uint8)
    settings = {"replaces": [path.removeprefix("frames/") for path in before]} if name == "frames" else {}
    with largest_file(2000), pytest.raises(UserError) as caught:
        WRITERS[name](tmp_path / name, noise, **settings)
    assert str(tmp_path / name) in str(caught.value) and "File too large" in str(caught.value)
    after = {path: (tmp_path / path).read_bytes() for path in files(tmp_path) if (tmp_path / path).is_file()}
    assert after == before
    WRITERS[name](tmp_path / name, noise, **settings)
    assert any((tmp_path / path).read_bytes() != data for path, data in before.items())


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "No space left on device.*free some space"), (errno.EROFS, "Read-only.*may write to")],
)
def test_the_reason_and_the_remedy_are_named(tmp_path, monkeypatch, code, words):
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    for name, write in WRITERS.items():
        with pytest.raises(UserError, match=words) as caught:
            write(tmp_path / name, cartoon(2))
        assert f"'{tmp_path / name}'" in str(caught.value)
    with pytest.raises(UserError, match=words):
        check_writable(tmp_path / "out")
    assert files(tmp_path) == ["out"]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    for name, write in WRITERS.items():
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / name, cartoon(2))
    assert files(tmp_path) == []


def test_paths_that_cannot_be_files(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "directory").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        write_json(tmp_path / "directory", {})
    for write in (lambda path: write_json(path, {}), lambda path: write_png_sequence(path, cartoon(2)), check_writable):
        with pytest.raises(UserError, match="file/below"):
            write(tmp_path / "file" / "below" / "x")
    with pytest.raises(UserError, match="'[^']*file'"):
        write_png_sequence(tmp_path / "file", cartoon(2))
    with pytest.raises(UserError, match="a file is in the way"):
        check_writable(tmp_path / "file")
    assert files(tmp_path) == ["directory", "file"] and (tmp_path / "file").read_text() == "mine"


def test_check_writable_makes_the_directory_and_leaves_it_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert files(tmp_path) == ["a", "a/b"]
    (tmp_path / "a" / "b" / "kept").touch()
    check_writable(tmp_path / "a" / "b")
    assert files(tmp_path) == ["a", "a/b", "a/b/kept"]


def test_written_files_have_the_usual_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        write_json(tmp_path / "a.json", {})
        write_png_sequence(tmp_path / "frames", cartoon(1))
    finally:
        os.umask(old)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.json", "frames", "frames/frame_00.png")]
    assert modes == [0o644, 0o755, 0o644]


def test_a_relative_name_without_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json("a.json", {})
    write_png_sequence("frames", cartoon(1))
    check_writable("")
    assert files(tmp_path) == ["a.json", "frames", "frames/frame_00.png"]


@pytest.mark.parametrize(("pixel_format", "atol"), [("yuv420p", 110), ("yuv444p", 12), ("rgb24", 0)])
def test_a_thin_red_line_by_pixel_format(tmp_path, pixel_format, atol):
    """In yuv420p a line of one pixel shares its colour with its neighbours; the file must say how its colours are stored."""
    frames = np.full((3, 64, 64, 3), 255, np.uint8)
    frames[:, :, 31] = (255, 0, 0)
    write_mp4(tmp_path / "a.mp4", frames, pixel_format=pixel_format)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        codec = stream.codec_context
        assert (codec.colorspace, codec.color_range) == ((0, 2) if pixel_format == "rgb24" else (1, 1))
    line = np.stack(decoded)[:, 8:-8, 31].astype(int)
    worst = np.abs(line - (255, 0, 0)).max()
    assert worst <= atol and (pixel_format != "yuv420p" or worst > 60)


def test_an_unknown_pixel_format_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown pixel format 'yuv999': choose of yuv420p, yuv444p, rgb24"):
        write_mp4(tmp_path / "a.mp4", np.zeros((3, 64, 64, 3), np.uint8), pixel_format="yuv999")
