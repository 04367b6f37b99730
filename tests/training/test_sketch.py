"""How a new sketch encoder begins."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.small import SIZE, config
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.sketch import draw_hints
from tooncrafter_jax.training.start import architecture


@pytest.fixture(scope="module", params=["zeros", "scaled"])
def encoder(request, tmp_path_factory):
    """How its hint convolutions begin, and the new encoder bound to its parameters."""
    run = config(tmp_path_factory.mktemp("set"), "sketch", sketch={"hint_start": request.param})
    stage = make_stage(run, architecture(run))
    fresh = dict(stage.components.init(0, ["unet", "sketch_encoder"]))
    missing = {path for path in fresh if path.startswith("sketch_encoder.")}
    derived = {path: one.value(fresh) for path, one in stage.derive(missing).items()}
    params = {path: jnp.asarray(value) for path, value in (fresh | derived).items()}
    return request.param, stage.components.bind("sketch_encoder", params), fresh


def test_a_new_encoder_shares_the_denoisers_layers_and_adds_nothing(encoder):
    _, network, fresh = encoder
    assert np.array_equal(network.time_embedding.hidden.kernel[...], fresh["unet.time_embedding.hidden.kernel"])
    for tap in (*network.skip_taps, network.mid_tap):
        assert not np.any(tap.kernel[...]) and not np.any(tap.bias[...])


def test_scaled_hint_convolutions_keep_a_drawings_contrast(encoder):
    start, network, _ = encoder
    paper = np.zeros((1, 1, SIZE * 2, SIZE * 2, 1), np.float32)
    drawing = paper.copy()
    drawing[:, :, SIZE // 2, 10:50] = drawing[:, :, 10:50, SIZE] = 1.0
    contrast = float(jnp.std(network.hint_features(jnp.asarray(drawing)) - network.hint_features(jnp.asarray(paper))))
    assert contrast == 0 if start == "zeros" else 0.2 < contrast < 10


class _Extractor:
    """Draws a picture's red channel, and counts the pictures."""

    line_thickness = 1.0

    def __init__(self):
        self.drawn = []

    def __call__(self, images):
        self.drawn.append(len(images))
        return 1 - (images[..., :1] + 1) / 4


@pytest.mark.parametrize("every_frame", [False, True])
def test_hints_are_the_sketches_of_the_chosen_frames(every_frame):
    extractor = _Extractor()
    video = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 4, 3), np.uint8)
    sketched = np.zeros((3, 5), bool)
    sketched[0, 2] = sketched[2, 4] = sketched[2, 0] = True
    hints = draw_hints(extractor, {"video": video, "sketched": sketched}, every_frame=every_frame)
    chosen = np.ones_like(sketched) if every_frame else sketched
    expected = video[..., :1] / 255 / 2 * chosen[..., None, None, None]
    np.testing.assert_allclose(hints, expected, atol=1e-6)
    assert extractor.drawn == [16 if every_frame else 4]


def test_clips_without_sketches_need_no_extractor():
    extractor = _Extractor()
    batch = {"video": np.ones((2, 3, 4, 4, 3), np.uint8), "sketched": np.zeros((2, 3), bool)}
    hints = draw_hints(extractor, batch, every_frame=False)
    assert hints.shape == (2, 3, 4, 4, 1) and not hints.any() and not extractor.drawn
