"""Films come upright, square, in their colours, at a constant rate; and damaged ones are reported."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.curation.film_files import LOSSLESS, number_of, numbered, scene, write_film, write_sound
from tooncrafter_jax.curation.film_reading import constant_rate, fitted_size, rate_of_film, read_film
from tooncrafter_jax.errors import UserError

LARGE = (4000, 4000)


def read(path: Path, cover: tuple[int, int] = LARGE, **settings) -> np.ndarray:
    return np.stack(list(read_film(path, cover, **settings)))


def test_pictures_come_back_as_they_were(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 33, 35, 3), np.uint8)  # odd sizes too
    film = write_film(tmp_path / "Ein Film – 映画.mkv", pictures, fps=24, **LOSSLESS)
    np.testing.assert_array_equal(read(film), pictures)
    assert rate_of_film(film) == 24


def test_shrinking_covers_and_averages(tmp_path):
    pictures = np.zeros((2, 64, 96, 3), np.uint8)
    pictures[:, :, ::2] = 200  # columns too narrow for the result become grey
    film = write_film(tmp_path / "a.mkv", pictures, **LOSSLESS)
    for resampling in ("lanczos", "area"):
        small = read(film, (16, 16), resampling=resampling)
        assert small.shape == (2, 16, 24, 3)
        assert np.abs(small.astype(int)[:, 4:-4, 4:-4] - 100).max() <= 3


@pytest.mark.parametrize(
    ("size", "cover", "expected"),
    [
        ((480, 640), (320, 512), (384, 512)),
        ((1080, 1920), (320, 512), (320, 569)),
        ((240, 320), (320, 512), (240, 320)),
        ((640, 272), (320, 512), (640, 272)),
    ],
)
def test_sizes(size, cover, expected):
    height, width = size
    assert fitted_size(height, width, cover) == expected


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_every_orientation_is_undone(tmp_path, degrees, mirrored):
    """The metadata say to turn the picture to the left, and then to mirror it."""
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32], stored[:24, 32:], stored[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    film = write_film(
        tmp_path / "a.mp4",
        [stored] * 2,
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )
    turned = np.rot90(stored, degrees // 90)
    expected = turned[:, ::-1] if mirrored else turned
    shown = read(film)[0]
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 10


def test_wide_pixels_become_square(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    film = write_film(tmp_path / "a.mp4", [scene(0)] * 2, prepare=wide)
    assert read(film).shape[1:3] == (36, 96)
    film = write_film(
        tmp_path / "b.mp4",
        [scene(0)] * 2,
        prepare=lambda s: setattr(s.codec_context, "sample_aspect_ratio", Fraction(1, 2)),
    )
    assert read(film).shape[1:3] == (72, 48)


@pytest.mark.parametrize(
    ("matrix", "red_weight", "blue_weight"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (9, 0.2627, 0.0593)]
)
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_by_the_tagged_matrix_and_range(tmp_path, matrix, red_weight, blue_weight, full_range):
    """Against the definition of ITU-T H.273; 10 bits, so that rounding does not hide an error."""
    colour = np.array([0.85, 0.25, 0.1])
    luma = red_weight * colour[0] + (1 - red_weight - blue_weight) * colour[1] + blue_weight * colour[2]
    blue, red = (colour[2] - luma) / (2 - 2 * blue_weight), (colour[0] - luma) / (2 - 2 * red_weight)
    codes = (
        (1023 * luma, 1023 * blue + 512, 1023 * red + 512)
        if full_range
        else (64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red)
    )
    frame = av.VideoFrame(32, 16, "yuv444p10le")
    for plane, code in zip(frame.planes, codes, strict=True):
        plane.update(np.full(plane.buffer_size // 2, round(code), "<u2").tobytes())
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv444p10le"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full_range else 1
        for frame.pts in range(2):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(read(tmp_path / "a.mkv").reshape(-1, 3) - 255 * colour).max() <= 2


def test_a_varying_rate_becomes_constant(tmp_path):
    times = [0, 100, 200, 500, 600, 630, 700]  # a drawing held for three ticks, and one too many at 600
    film = write_film(tmp_path / "a.mkv", numbered(7), fps=10, times=times, **LOSSLESS)
    assert [number_of(p) for p in read(film, fps=10.0)] == [0, 1, 2, 2, 2, 3, 5, 6]
    assert [number_of(p) for p in read(film, fps=4.0)] == [1, 2, 4, 6]


def test_rounded_times_neither_repeat_nor_drop():
    """Matroska keeps milliseconds: 24 frames a second are at 0, 42, 83, 125, ..."""
    frames = [(round(n / 24, 3), n) for n in range(100)]
    assert list(constant_rate(frames, Fraction(24))) == list(range(100))


def test_missing_and_jumping_times():
    frames = [(None, 0), (0.1, 1), (0.2, 2), (None, 3), (5000.0, 4), (5000.1, 5), (0.0, 6), (0.1, 7)]
    assert list(constant_rate(frames, Fraction(10))) == list(range(8))


def test_interlaced_frames_are_deinterlaced(tmp_path):
    """A white square that moves between the two fields is combed; afterwards its edge is the same in all rows."""
    combed = np.zeros((6, 64, 64, 3), np.uint8)
    for index, picture in enumerate(combed):
        picture[::2, 4 + 8 * index : 12 + 8 * index] = 255
        picture[1::2, 8 + 8 * index : 16 + 8 * index] = 255

    def comb(pictures: np.ndarray) -> float:
        return float(np.abs(pictures[2:-2, 8:-8:2].astype(int) - pictures[2:-2, 9:-7:2]).mean())

    interlaced = write_film(
        tmp_path / "a.mpg", combed, fps=25, codec="mpeg2video", options={"flags": "+ilme+ildct", "b": "4000000"}
    )
    assert len(read(interlaced)) == 6
    assert comb(read(interlaced)) < 0.3 * comb(combed)
    progressive = write_film(tmp_path / "b.mpg", combed, fps=25, codec="mpeg2video", options={"b": "4000000"})
    assert comb(read(progressive)) > 0.8 * comb(combed)


def test_films_that_are_none(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"not a film at all, only some text" * 50)
    whole = write_film(tmp_path / "whole.mp4", numbered(40), fps=1).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    cases = {
        "missing.mp4": "does not exist",
        "empty.mp4": "is empty",
        "text.mp4": "not a film or is cut off",
        "headless.mp4": "not a film or is cut off",
        write_sound(tmp_path / "sound.wav").name: "only sound",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            read(tmp_path / name)
        assert name in str(error.value)


def test_a_film_that_ends_early_is_reported_after_its_pictures(tmp_path):
    film = write_film(
        tmp_path / "a.mp4",
        np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8),
        fps=1,
        codec="mjpeg",
        pixels="yuvj420p",
        container_options={"movflags": "faststart"},
    )
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    pictures = read_film(film, LARGE)
    assert next(pictures).shape == (32, 32, 3)
    with pytest.raises(UserError, match="damaged|cut off"):
        list(pictures)


def test_a_cover_picture_is_no_film(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound, cover = container.add_stream("aac", rate=8000), container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1, 32)[0], format="rgb24")))
        for stream in (sound, cover):
            container.mux(stream.encode(None))
    with pytest.raises(UserError, match="only sound"):
        read(tmp_path / "song.mp4")
