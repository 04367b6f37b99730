"""Colours that are not sRGB: converted, and said so; broken descriptions of colour are said and ignored."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.io.picture_files import ADOBE_RGB, DISPLAY_P3, SRGB, png_chunk, png_of, rgb_profile
from tooncrafter_jax.io import read_image
from tooncrafter_jax.notes import collected

RED_OF_SRGB_IN_P3 = (234, 51, 35)
"""What the numbers of sRGB's pure red become in Display P3."""
SRGB_CURVE = 2.2
"""Close enough to sRGB's curve for saturated colours: within 1 level from 60 up."""


def flat(*colour: int, side: int = 16) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, np.uint8), (side, side, len(colour))).copy()


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    with collected() as notes:
        return read_image(path), notes


def save(path: Path, picture: np.ndarray | Image.Image, **options: Any) -> Path:
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp"])
def test_red_of_display_p3_arrives_as_the_red_of_srgb(tmp_path, extension):
    options = {"png": {}, "tif": {}, "jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}[extension]
    profile = rgb_profile(DISPLAY_P3, SRGB_CURVE, "Display P3")
    path = save(tmp_path / f"a.{extension}", flat(*RED_OF_SRGB_IN_P3), icc_profile=profile, **options)
    image, notes = read(path)
    np.testing.assert_allclose(image, flat(255, 0, 0), atol=4 if extension == "jpg" else 3)  # profiles have 16 bits
    assert notes == [f"'{path}' has the colour profile 'Display P3': converted to sRGB"]


def test_every_colour_that_srgb_has_survives_the_way_through_display_p3(tmp_path):
    colours = np.random.default_rng(0).integers(40, 216, (32, 32, 3)).astype(np.uint8)
    target = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(DISPLAY_P3, SRGB_CURVE)))
    stored = ImageCms.profileToProfile(Image.fromarray(colours), ImageCms.createProfile("sRGB"), target)
    assert stored is not None and np.abs(np.asarray(stored).astype(int) - colours).max() > 15
    image, _ = read(save(tmp_path / "a.png", stored, icc_profile=target.tobytes()))
    np.testing.assert_allclose(image, colours, atol=3)  # rounded to 8 bits on both ways


def test_transparency_and_palettes_keep_with_a_profile(tmp_path):
    profile = rgb_profile(DISPLAY_P3, SRGB_CURVE)
    picture = np.dstack([flat(*RED_OF_SRGB_IN_P3), np.full((16, 16), 255, np.uint8)])
    picture[:8, :, 3] = 0
    image, _ = read(save(tmp_path / "a.png", picture, icc_profile=profile))
    assert (image[:8] == 255).all()
    np.testing.assert_allclose(image[8:], flat(255, 0, 0)[8:], atol=3)
    palette = Image.fromarray(np.zeros((16, 16), np.uint8), mode="P")
    palette.putpalette(list(RED_OF_SRGB_IN_P3))
    np.testing.assert_allclose(read(save(tmp_path / "p.png", palette, icc_profile=profile))[0], flat(255, 0, 0), atol=3)


def test_profiles_of_srgb_change_nothing_and_are_not_mentioned(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(save(tmp_path / "a.png", picture, icc_profile=profile))
    np.testing.assert_array_equal(image, picture)


@pytest.mark.parametrize("sixteen_bits", [False, True])
def test_a_grey_profile(tmp_path, sixteen_bits):
    """Linear light of 0.2140 is the middle grey 127.5 of sRGB."""
    grey = np.full((16, 16), round(0.2140 * 65535) if sixteen_bits else 55, np.uint16 if sixteen_bits else np.uint8)
    profile = rgb_profile((), 1.0, "linear grey", grey=True)
    path = save(tmp_path / "a.png", grey)
    pixels = path.read_bytes()
    chunk = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
    path.write_bytes(pixels[:33] + chunk + pixels[33:])
    image, notes = read(path)
    np.testing.assert_allclose(image, flat(128, 128, 128), atol=1)
    assert "'linear grey'" in notes[0]


def test_a_profile_of_colours_serves_grey_pixels(tmp_path):
    image, _ = read(
        save(tmp_path / "a.jpg", np.full((16, 16), 55, np.uint8), icc_profile=rgb_profile(SRGB, 1.0), quality=100)
    )
    np.testing.assert_allclose(image, flat(128, 128, 128), atol=2)


def cmyk_profile() -> bytes:
    """A printer profile whose inks are so: the lightness is 100 less 25 for each ink, without any colour."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 2)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lab = np.stack([100 - 25 * grid.sum(axis=1), np.zeros(16), np.zeros(16)], axis=-1)
    encoded = np.stack([lab[:, 0] * 255 / 100, lab[:, 1] + 128, lab[:, 2] + 128], axis=-1).round().astype(np.uint8)
    identity = np.arange(256, dtype=np.uint8).tobytes()
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + encoded.tobytes() + identity * 3
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    tags, offset = (
        {b"desc": description, b"A2B0": table, b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)},
        0,
    )
    head, data, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        head, data = head + name + struct.pack(">II", offset + len(data), len(content)), data + content
    header = struct.pack(">I4sI4s4s4s12x4s", 0, b"test", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    whole = (header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + head + data
    return struct.pack(">I", len(whole)) + whole[4:]


def test_printing_colours_go_through_their_profile(tmp_path):
    inks = np.zeros((16, 48, 4), np.uint8)
    inks[:, 16:32, 0] = 255  # this printer's cyan is a light grey: a lightness of 75 is 185 in sRGB
    inks[:, 32:, :2] = 255  # and two inks are a middle grey: 50 is 119
    picture = Image.fromarray(inks, mode="CMYK")
    path = save(tmp_path / "a.tif", picture, icc_profile=cmyk_profile())
    image, notes = read(path)
    # Black-point compensation pulls this printer's black to sRGB's: white stays, and greys keep their order and no
    # colour.
    white, one, two = image[8, 8].astype(int), image[8, 24].astype(int), image[8, 40].astype(int)
    np.testing.assert_allclose(white, 255, atol=2)
    np.testing.assert_allclose(one, 185, atol=3)
    np.testing.assert_allclose(two, 119, atol=3)
    assert notes == [f"'{path}' has the colour profile 'inks': converted to sRGB"]


def test_printing_colours_without_a_profile_are_said_to_be_guessed(tmp_path):
    _, notes = read(save(tmp_path / "a.tif", Image.new("CMYK", (16, 16))))
    assert len(notes) == 1 and "without a profile" in notes[0]


# --- PNG's own chunks, and cameras ---


def gamma_chunk(gamma: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chromaticity_chunk(*numbers: float) -> bytes:
    return png_chunk(b"cHRM", struct.pack(f">{len(numbers)}I", *(round(number * 100_000) for number in numbers)))


P3_POINTS = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)


def written(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "a.png").write_bytes(data)
    return tmp_path / "a.png"


@pytest.mark.parametrize("depth", [8, 16])
def test_gamma_of_a_png_without_a_profile(tmp_path, depth):
    linear = np.full((16, 16), 55 if depth == 8 else round(0.2140 * 65535), np.uint16)
    path = written(tmp_path, png_of(linear, depth, gamma_chunk(1.0)))
    image, notes = read(path)
    np.testing.assert_allclose(image, flat(128, 128, 128), atol=1)
    assert notes == [f"'{path}' has gAMA and cHRM values other than sRGB's: converted to sRGB"]


def test_primaries_of_a_png_without_a_profile(tmp_path):
    chunks = chromaticity_chunk(*P3_POINTS), gamma_chunk(0.45455)
    image, _ = read(written(tmp_path, png_of(flat(*RED_OF_SRGB_IN_P3), 8, *chunks)))
    np.testing.assert_allclose(image, flat(255, 0, 0), atol=1)


def test_a_white_point_becomes_white(tmp_path):
    chunks = chromaticity_chunk(0.3457, 0.3585, *P3_POINTS[2:]), gamma_chunk(0.45455)
    image, _ = read(written(tmp_path, png_of(flat(255, 255, 255), 8, *chunks)))
    np.testing.assert_array_equal(image, flat(255, 255, 255))


@pytest.mark.parametrize(
    "chunks",
    [
        (gamma_chunk(0.45455),),
        (gamma_chunk(0.45455), chromaticity_chunk(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)),
        (png_chunk(b"sRGB", b"\0"), gamma_chunk(1.0)),  # the later chunk counts for less
    ],
)
def test_what_is_srgb_is_left_alone(tmp_path, chunks):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    image, notes = read(written(tmp_path, png_of(picture, 8, *chunks)))
    np.testing.assert_array_equal(image, picture)
    assert notes == []


def test_a_profile_counts_for_more_than_gamma(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    chunks = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)), gamma_chunk(1.0)
    image, notes = read(written(tmp_path, png_of(flat(9, 99, 199), 8, *chunks)))
    np.testing.assert_array_equal(image, flat(9, 99, 199))
    assert notes == []


@pytest.mark.parametrize("rule", ["R03", "R98"])
def test_cameras_say_adobe_rgb_without_a_profile(tmp_path, rule):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: rule}
    path = save(tmp_path / "a.jpg", flat(219, 0, 0), exif=exif, quality=100, subsampling=0)
    image, notes = read(path)
    # Adobe RGB's numbers for sRGB's pure red are 219, 0, 0.
    assert (image[8, 8, 0] >= 252) == (rule == "R03") and len(notes) == (rule == "R03")


# --- what is broken ---


@pytest.mark.parametrize(
    ("profile", "phrase"),
    [
        (b"not a profile", "cannot be used"),
        (rgb_profile(DISPLAY_P3, 2.2)[:200], "cannot be used"),
        (rgb_profile((), 1.0, grey=True), "for GRAY colours on RGB pixels"),
    ],
)
def test_a_broken_profile_is_said_and_ignored(tmp_path, profile, phrase):
    path = save(tmp_path / "a.png", flat(9, 99, 199), icc_profile=profile)
    image, notes = read(path)
    np.testing.assert_array_equal(image, flat(9, 99, 199))
    assert len(notes) == 1 and phrase in notes[0] and str(path) in notes[0] and "ignored" in notes[0]


@pytest.mark.parametrize(
    "chunks",
    [
        (gamma_chunk(0),),
        (gamma_chunk(20_000),),
        (chromaticity_chunk(*[0] * 8),),
        (chromaticity_chunk(0.3, 0.3),),
        (chromaticity_chunk(0.3127, 0.329, *[0.3, 0.3] * 3),),
    ],
)
def test_impossible_chunks_are_said_and_ignored(tmp_path, chunks):
    image, notes = read(written(tmp_path, png_of(flat(9, 99, 199), 8, *chunks)))
    np.testing.assert_array_equal(image, flat(9, 99, 199))
    assert len(notes) == 1 and "impossible gAMA and cHRM" in notes[0]


def test_adobe_rgb_by_profile_and_by_chunks_agree(tmp_path):
    picture = np.random.default_rng(0).integers(60, 200, (16, 16, 3)).astype(np.uint8)
    by_profile, _ = read(save(tmp_path / "b.png", picture, icc_profile=rgb_profile(ADOBE_RGB, 563 / 256)))
    chunks = chromaticity_chunk(0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), gamma_chunk(256 / 563)
    by_chunks, _ = read(written(tmp_path, png_of(picture, 8, *chunks)))
    np.testing.assert_allclose(by_profile, by_chunks, atol=2)  # profiles have 16 bits, and 8 for the gamma


def test_the_examples_have_no_colours_of_their_own():
    files = sorted((Path(__file__).parents[2] / "examples").rglob("*.png"))
    assert files
    for file in files:
        image, notes = read(file)
        assert notes == []
        with Image.open(file) as stored:
            if stored.mode == "RGB":
                np.testing.assert_array_equal(image, np.asarray(stored))
