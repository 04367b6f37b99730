"""Preprocessing gives the reference's pixels, for any size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.clip_weights import TOLERANCE, error, golden
from tests.models.test_clip_image import picture
from tooncrafter_jax.models.clip_preprocess import MEAN, STD, preprocess, resize_matrix

GREY = (0.5 - np.asarray(MEAN)) / np.asarray(STD)


def channels_first(image: jax.Array) -> np.ndarray:
    """(B H W C) to (B C H W), the layout of the reference."""
    return np.asarray(image).transpose(0, 3, 1, 2)


def test_a_picture_equals_the_reference() -> None:
    arrays = golden("image_encoder")
    ours = channels_first(jax.jit(preprocess)(picture()))
    assert error(ours[:, :, ::4], arrays["preprocessed_rows"]) <= TOLERANCE
    assert error(ours[:, :, :16, :16], arrays["preprocessed_corner"]) <= TOLERANCE
    statistics = np.stack([ours.mean((2, 3)), ours.std((2, 3), ddof=1)])
    np.testing.assert_allclose(statistics, arrays["preprocessed_mean_std"], atol=1e-5)


def test_a_smaller_picture_equals_the_reference() -> None:
    ours = channels_first(preprocess(picture()[:, ::5, ::4]))  # 64 x 128
    assert error(ours[:, :, ::16, ::2], golden("image_encoder")["small_preprocessed"]) <= TOLERANCE


def test_an_odd_wide_picture_equals_the_reference() -> None:
    wide = jnp.tile(picture(), (1, 1, 2, 1))[:, :300, :1001]
    ours = channels_first(preprocess(wide))
    assert error(ours[:, :, ::16, ::2], golden("image_encoder")["wide_preprocessed"]) <= TOLERANCE


@pytest.mark.parametrize("size", [(320, 512), (64, 128), (300, 1001), (1, 1), (224, 224)])
def test_the_zero_image_is_mid_grey_at_any_size(size: tuple[int, int]) -> None:
    ours = np.asarray(preprocess(jnp.zeros((1, *size, 3))))
    np.testing.assert_allclose(ours, np.broadcast_to(GREY, ours.shape), rtol=1e-6)


@pytest.mark.parametrize("source", [1, 2, 3, 64, 223, 224, 225, 320, 1001])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_flat_picture_stays_flat(source: int, antialias: bool) -> None:
    matrix = resize_matrix(source, 224, antialias)
    assert matrix.shape == (224, source) and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("source", [1, 2, 64, 223, 224])
def test_an_axis_that_does_not_shrink_is_not_blurred(source: int) -> None:
    np.testing.assert_array_equal(resize_matrix(source, 224, True), resize_matrix(source, 224, False))


def test_a_picture_of_the_right_size_is_not_changed() -> None:
    np.testing.assert_array_equal(resize_matrix(224, 224, False), np.eye(224, dtype=np.float32))


def test_corners_are_aligned_and_a_smaller_picture_keeps_its_pixels() -> None:
    matrix = resize_matrix(5, 9, False)  # every second output lies on a pixel
    np.testing.assert_allclose(matrix[::2], np.eye(5), atol=1e-7)


def test_blurring_calms_the_finest_pattern() -> None:
    stripes = np.where(np.arange(1000) % 2, 1.0, -1.0).astype(np.float32)
    assert np.abs(resize_matrix(1000, 224, True) @ stripes).max() < 0.05
    assert np.abs(resize_matrix(1000, 224, False) @ stripes).max() > 0.9


def test_values_beyond_the_range_are_not_clipped() -> None:
    edge = np.where(np.arange(64) < 32, -1.0, 1.0).astype(np.float32)
    assert (resize_matrix(64, 224, False) @ edge).max() > 1.02


def test_the_result_is_float32_for_half_precision_pictures() -> None:
    assert preprocess(jnp.zeros((1, 8, 8, 3), jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 3, 8, 8)])
def test_a_wrong_layout_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        preprocess(jnp.zeros(shape))
