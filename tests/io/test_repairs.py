"""Files that Pillow refuses although every pixel is there; and the true reason where one is not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.picture_files import DISPLAY_P3, png_chunk, png_of, rgb_profile
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import read_image, rgb_of_image
from tooncrafter_jax.notes import collected

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
LONG = b"x" * (3 << 19)  # 1.5 MiB, of which Pillow reads one


def text_chunk(kind: str) -> bytes:
    return {
        "tEXt": png_chunk(b"tEXt", b"Comment\0" + LONG * 50),  # 75 MiB in all, of which Pillow allows 64
        "zTXt": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
        "iTXt": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    }[kind]


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
@pytest.mark.parametrize("before", [True, False])
def test_text_of_any_length_does_not_keep_a_png_from_being_read(tmp_path, kind, before):
    chunk, path = text_chunk(kind), tmp_path / "a.png"
    path.write_bytes(png_of(NOISE, 8, *([chunk] if before else []), after=b"" if before else chunk))
    with collected() as notes:
        np.testing.assert_array_equal(read_image(path), NOISE)
        if not before:  # a user cannot open the other
            with Image.open(path) as image:
                np.testing.assert_array_equal(rgb_of_image(image), NOISE)
    assert all("MiB of text, which is ignored" in sentence for sentence in notes)


def test_a_large_colour_profile_of_a_png_is_used(tmp_path):
    profile = rgb_profile(DISPLAY_P3, 2.2, "large", size=2 << 20)
    red = np.broadcast_to(np.array([234, 51, 35], np.uint8), (16, 16, 3))
    path = tmp_path / "a.png"
    path.write_bytes(png_of(red, 8, png_chunk(b"iCCP", b"large\0\0" + zlib.compress(profile))))
    with collected() as notes:
        image = read_image(path)
    np.testing.assert_allclose(image[8, 8], [255, 0, 0], atol=3)
    assert len(notes) == 2 and "large colour profile" in notes[0] and "'large': converted" in notes[1]


def test_an_absurd_colour_profile_is_said_and_ignored(tmp_path):
    bomb = zlib.compress(bytes(1 << 27), 9)  # 128 MiB in 130 KiB
    path = tmp_path / "a.png"
    path.write_bytes(png_of(NOISE, 8, png_chunk(b"iCCP", b"bomb\0\0" + bomb)))
    with collected() as notes:
        np.testing.assert_array_equal(read_image(path), NOISE)
    assert "cannot be used" in notes[-1]


def test_absurd_exif_sizes_do_not_matter(tmp_path):
    header = b"MM\0*" + struct.pack(">I", 8)
    entries = {
        "many entries": struct.pack(">H", 65535),
        "long value": struct.pack(">HHHII", 1, 0x010F, 2, 2**32 - 1, 26),
        "next directory": struct.pack(">HHHIII", 1, 0x0112, 3, 1, 1 << 16, 8),
    }
    for entry in entries.values():
        path = tmp_path / "a.png"
        path.write_bytes(png_of(NOISE, 8, png_chunk(b"eXIf", header + entry)))
        np.testing.assert_array_equal(read_image(path), NOISE)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lacking", [1, 2])
def test_a_jpeg_without_its_end_marker_is_read(tmp_path, lacking, progressive):
    path = tmp_path / "a.jpg"
    Image.fromarray(NOISE).save(path, quality=90, progressive=progressive)
    whole = read_image(path)
    path.write_bytes(path.read_bytes()[:-lacking])
    with collected() as notes:
        np.testing.assert_array_equal(read_image(path), whole)
    assert notes == [f"'{path}' lacks its end marker, but no pixel is missing"]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lacking", [8, 40, 2000])
def test_a_jpeg_that_lacks_pixels_is_refused(tmp_path, lacking, progressive):
    path = tmp_path / "a.jpg"
    Image.fromarray(NOISE).save(path, quality=90, progressive=progressive)
    path.write_bytes(path.read_bytes()[:-lacking])
    with pytest.raises(UserError, match=r"damaged or cut short \(.+\): copy or export"):
        read_image(path)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_closed_image_is_said_to_be_closed(tmp_path, loaded):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    if loaded:
        image.load()
    image.close()
    with pytest.raises(UserError, match="the first picture is a closed Pillow image: open it again"):
        rgb_of_image(image, name="the first picture")


@pytest.mark.parametrize("extension", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_damaged_bytes_never_end_in_another_error(tmp_path, extension):
    """A few hundred damaged files of each format: a picture, or a sentence."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if extension in ("gif", "bmp") else {"exif": exif, "icc_profile": rgb_profile(DISPLAY_P3, 2.2)}
    Image.fromarray(NOISE).save(tmp_path / f"a.{extension}", **options)
    whole = (tmp_path / f"a.{extension}").read_bytes()
    random = np.random.default_rng(1)
    path, refused = Path(tmp_path / "damaged"), 0
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, min(len(data), 1200), random.integers(1, 6)):
            data[place] = random.integers(256)
        path.write_bytes(data)
        sentence = _refusal(path)
        if sentence:
            refused += 1
            assert str(path) in sentence and "\n" not in sentence
    assert refused > 10


def _refusal(path: Path) -> str:
    """Why a picture is not read, or nothing where it is."""
    try:
        with collected():
            read_image(path)
    except UserError as error:
        return str(error)
    return ""
