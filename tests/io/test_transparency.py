"""Transparent values of every depth, and modes whose colours are multiplied by their opacity."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.picture_files import png_chunk, png_of
from tooncrafter_jax.io import read_image, read_picture, rgb_of_image

GREEN = (0, 255, 0)


def written(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "a.png").write_bytes(data)
    return tmp_path / "a.png"


def as_user(path: Path, loaded: bool) -> np.ndarray:
    """The file by way of a Pillow image, which may be loaded before we see it."""
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        if loaded:
            image.load()
        return rgb_of_image(image, GREEN)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_every_depth(tmp_path, depth):
    top = 2**depth - 1
    values = np.full((16, 16), top)
    values[4:8], values[8:] = top // 2, 0
    key = 0 if depth == 1 else top // 2
    path = written(tmp_path, png_of(values, depth, png_chunk(b"tRNS", struct.pack(">H", key))))
    transparent = (values == key)[..., None]
    opaque = np.repeat(np.round(values * 255 / top)[..., None], 3, axis=-1)
    for image in (read_image(path, GREEN), as_user(path, loaded=False), as_user(path, loaded=True)):
        np.testing.assert_array_equal(image, np.where(transparent, GREEN, opaque))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_every_depth(tmp_path, depth):
    scale = 257 if depth == 16 else 1
    colours = np.broadcast_to(np.array([10, 20, 200]), (16, 16, 3)).copy()
    colours[4:8] = [200, 30, 40]
    key = struct.pack(">3H", *(np.array([200, 30, 40]) * scale))
    path = written(tmp_path, png_of(colours * scale, depth, png_chunk(b"tRNS", key)))
    for image in (read_image(path, GREEN), as_user(path, loaded=False), as_user(path, loaded=True)):
        np.testing.assert_array_equal(image[5, 5], GREEN)
        np.testing.assert_array_equal(image[[0, 15], 0], [[10, 20, 200]] * 2)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_images_show_their_own_colour(mode):
    full = Image.new(
        {"La": "LA", "RGBa": "RGBA"}[mode], (16, 16), {"La": (200, 128), "RGBa": (200, 100, 40, 128)}[mode]
    )
    image = rgb_of_image(full.convert(mode), (0, 0, 0))
    colour = {"La": (200, 200, 200), "RGBa": (200, 100, 40)}[mode]
    np.testing.assert_allclose(image[8, 8], np.array(colour) * 128 / 255, atol=2)  # 8 bits, multiplied before
    np.testing.assert_array_equal(image, rgb_of_image(full.convert(mode), (0, 0, 0)))


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "CMYK", "HSV", "LA", "PA", "RGBA", "RGBX", "RGBa", "La", "I;16"]
)
@pytest.mark.filterwarnings("ignore::tooncrafter_jax.notes.Note")
def test_zeros_of_every_mode_are_a_picture(mode):
    image = rgb_of_image(Image.new(mode, (16, 16)), (0, 0, 0))
    assert image.shape == (16, 16, 3) and (image == (255 if mode == "CMYK" else 0)).all()


def test_opacity_is_kept_where_it_is_wanted(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 4)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), picture)
    Image.fromarray(picture[..., :3]).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png"), picture[..., :3])
