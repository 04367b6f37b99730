"""The profile that drawings for Krita have: one of sRGB to Pillow's LittleCMS, and none to our reader."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from tooncrafter_jax.io.encoding import encode_png
from tooncrafter_jax.io.images import read_picture
from tooncrafter_jax.io.srgb_profile import srgb_profile
from tooncrafter_jax.notes import collected


def test_it_is_srgb_to_a_level_of_rounding():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    assert ImageCms.getProfileDescription(profile).strip() == "sRGB"
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = ImageCms.profileToProfile(Image.fromarray(picture), profile, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(found).astype(int) - picture).max() <= 1


def test_a_picture_with_it_is_read_as_it_is(tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(Image.fromarray(picture), srgb_profile()))
    with collected() as said:
        np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), picture)
    assert said == []
