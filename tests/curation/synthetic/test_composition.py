"""Composing: places in fractions of pixels, edges without a fringe."""

import numpy as np
import pytest

from tooncrafter_jax.curation.synthetic.backgrounds import DRAWN, PLAIN, paint_background
from tooncrafter_jax.curation.synthetic.composition import Layer, compose

WHOLE = np.array([[0.0, 0.0, 64.0, 48.0]])


def _square(side=16, colour=(200, 100, 50), opacity=255):
    frame = np.zeros((1, side, side, 4), np.uint8)
    frame[0, 4:-4, 4:-4] = (*(np.array(colour) * opacity // 255), opacity)
    return frame


def _layer(frames, x, y, scale=1.0, **options):
    return Layer(frames, np.array([x]), np.array([y]), np.array([scale]), **options)


def _background(value=30):
    return np.full((48, 64, 3), value, np.uint8)


def test_at_whole_pixels_the_picture_is_copied():
    (frame,) = compose(_background(), WHOLE, [_layer(_square(), 32.0, 24.0)], 48, 64)
    expected = _background()
    expected[20:28, 28:36] = (200, 100, 50)
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("shift", [0.25, 0.5, 0.75])
def test_fractions_of_pixels_move_the_centre_of_mass(shift):
    (frame,) = compose(_background(0), WHOLE, [_layer(_square(), 32.0 + shift, 24.0 - shift)], 48, 64)
    mass = frame[..., 0].astype(float)
    rows, columns = np.indices(mass.shape) + 0.5
    assert (columns * mass).sum() / mass.sum() == pytest.approx(32 + shift, abs=0.02)
    assert (rows * mass).sum() / mass.sum() == pytest.approx(24 - shift, abs=0.02)


@pytest.mark.parametrize("scale", [0.37, 0.8, 1.9])
def test_edges_have_no_fringe(scale):
    """Over a background of its own colour, a picture leaves no trace, however it is resampled."""
    background = np.broadcast_to(np.array((200, 100, 50), np.uint8), (48, 64, 3)).copy()
    (frame,) = compose(background, WHOLE, [_layer(_square(), 31.3, 22.6, scale)], 48, 64)
    assert np.abs(frame.astype(int) - background).max() <= 2


def test_half_opaque_pictures_mix():
    (frame,) = compose(_background(30), WHOLE, [_layer(_square(opacity=128), 32.0, 24.0)], 48, 64)
    np.testing.assert_allclose(frame[24, 32], np.array((200, 100, 50)) * 0.5 + 15, atol=2)


def test_later_layers_are_in_front_and_outside_is_nothing():
    layers = [
        _layer(_square(colour=(255, 0, 0)), 32.0, 24.0),
        _layer(_square(colour=(0, 255, 0)), 36.0, 24.0),
        _layer(_square(), -40.0, 24.0),
        _layer(_square(colour=(0, 0, 255)), 64.0, 24.0),
    ]
    (frame,) = compose(_background(), WHOLE, layers, 48, 64)
    assert frame[24, 30].tolist() == [255, 0, 0] and frame[24, 34].tolist() == [0, 255, 0]
    assert frame[24, 62].tolist() == [0, 0, 255] and frame[24, 2].tolist() == [30, 30, 30]


def test_turned_and_mirrored():
    frames = _square()
    frames[0, 4:-4, 4:8] = (0, 0, 255, 255)
    (mirrored,) = compose(_background(), WHOLE, [_layer(frames, 32.0, 24.0, mirrored=True)], 48, 64)
    assert mirrored[24, 34].tolist() == [0, 0, 255]
    (turned,) = compose(_background(), WHOLE, [_layer(frames, 32.0, 24.0, degrees=np.array([90.0]))], 48, 64)
    assert turned[26, 32].tolist() == [0, 0, 255] and turned[22, 32].tolist() == [200, 100, 50]


def test_the_view_is_what_is_seen():
    background = np.zeros((48, 64, 3), np.uint8)
    background[:, 32:] = 240
    views = np.array([[0.0, 0.0, 32.0, 24.0], [16.0, 0.0, 48.0, 24.0], [32.0, 0.0, 64.0, 24.0]])
    frames = compose(background, views, [], 24, 32)
    assert [float((frame > 120).mean()) for frame in frames] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("kind", [*PLAIN, *DRAWN])
def test_backgrounds_depend_on_the_generator_alone(kind):
    one, same, other = (paint_background(kind, np.random.default_rng(seed), 40, 70) for seed in (1, 1, 2))
    assert one.shape == (40, 70, 3)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one.astype(int) - other).mean() > 1
    assert (one.std(axis=(0, 1)).max() > 3) == (kind in DRAWN or kind == "gradient")
