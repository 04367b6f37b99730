"""Requests: pictures of any kind as arrays, and settings out of range refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.media import fit_image, read_image
from tooncrafter_jax.models.configuration import ModelConfig, tiny, tooncrafter_512
from tooncrafter_jax.requests import (
    MAX_PROMPT,
    Pair,
    SamplingOptions,
    Sketch,
    as_rgb,
    check_sketch_encoder,
    make_options,
    prepare,
)

OPTIONS = SamplingOptions(height=64, width=128)


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return tiny()


def drawing(height: int = 96, width: int = 192) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1).astype(np.uint8)


def lines(height: int = 96, width: int = 192, dark: bool = True) -> np.ndarray:
    """A sketch of one vertical line in the middle."""
    sketch = np.full((height, width, 3), 255 if dark else 0, np.uint8)
    sketch[:, width // 2 - 6 : width // 2 + 6] = 0 if dark else 255
    return sketch


def refusal(config: ModelConfig, pair: Pair, options: SamplingOptions = OPTIONS) -> str:
    with pytest.raises(UserError) as caught:
        prepare(pair, options, config)
    return str(caught.value)


# --- options ---


def test_defaults_are_the_published_ones():
    options = SamplingOptions()
    assert (options.steps, options.eta, options.guidance_scale, options.guidance_rescale) == (50, 1.0, 7.5, 0.7)
    assert (options.spacing, options.frames, options.second_pass) == ("uniform_trailing", 16, True)
    assert options.size(tooncrafter_512()) == (320, 512)
    assert Pair("a", "b").seed == 123 and Pair("a", "b").fps == 10


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"steps": 0}, "steps must be from 1 to 1000"),
        ({"steps": 1001}, "not 1001"),
        ({"eta": -0.1}, "eta must be from 0 to 1"),
        ({"eta": float("nan")}, "eta must be from 0 to 1"),
        ({"guidance_scale": 101.0}, "guidance scale must be from 0 to 100"),
        ({"guidance_rescale": 1.5}, "guidance rescale must be from 0 to 1"),
        ({"image_guidance_scale": -1.0}, "image guidance scale must be"),
        ({"control_scale": -1.0}, "control scale must be"),
        ({"frames": 2}, "frames must be from 3 to 1024"),
        ({"decode_frames_per_chunk": 0}, "decode_frames_per_chunk must be at least 1"),
        ({"steps_per_chunk": 0}, "steps_per_chunk must be at least 1"),
        ({"height": 0}, "height must be a multiple of 64"),
        ({"width": 500}, "try 512"),
        ({"width": 20}, "try 64"),
    ],
)
def test_a_setting_out_of_range_is_named(changes: dict[str, Any], phrase: str, config: ModelConfig):
    with pytest.raises(UserError, match=phrase.replace("(", r"\(")):
        SamplingOptions(**changes).check(config)


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ({"setps": 3}, "did you mean 'steps'"),
        ({"steps": "3"}, "must be of type int"),
        ({"spacing": "cosine"}, "one of uniform_trailing, uniform, not 'cosine'"),
        ({"fit": "stretch"}, "one of crop, pad, not 'stretch'"),
    ],
)
def test_options_from_keywords(values: dict[str, Any], phrase: str):
    with pytest.raises(UserError, match=phrase):
        make_options(values)
    assert make_options({"steps": 3, "guidance_scale": 2}) == SamplingOptions(steps=3, guidance_scale=2.0)


# --- pictures ---


def test_a_path_an_array_and_a_pillow_image_are_the_same_picture(tmp_path: Path, config: ModelConfig):
    path = tmp_path / "a.png"
    Image.fromarray(drawing()).save(path)
    pictures = (path, str(path), drawing(), Image.fromarray(drawing()))
    prepared = [prepare(Pair(p, p), OPTIONS, config).ends for p in pictures]
    assert prepared[0].shape == (2, 64, 128, 3) and prepared[0].dtype == np.float32
    for ends in prepared[1:]:
        np.testing.assert_array_equal(ends, prepared[0])
    np.testing.assert_array_equal(prepared[0][0], fit_image(drawing(), 64, 128))


def test_a_pillow_image_is_treated_as_its_file_would_be(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = Image.fromarray(drawing(24, 40)).convert("RGBA")
    clear.putalpha(99)
    pictures = {
        "deep": Image.fromarray(np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 60),
        "clear": clear,
        "rotated": Image.fromarray(drawing(24, 40)),
    }
    pictures["rotated"].info["exif"] = exif.tobytes()
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png", **({"exif": exif} if name == "rotated" else {}))
        with Image.open(tmp_path / f"{name}.png") as opened:
            np.testing.assert_array_equal(as_rgb(opened, name), read_image(tmp_path / f"{name}.png"))
        if name != "rotated":
            np.testing.assert_array_equal(as_rgb(picture, name), read_image(tmp_path / f"{name}.png"))


@pytest.mark.parametrize(
    ("picture", "phrase"),
    [
        (np.zeros((64, 64, 3), np.float32), "the first picture must be uint8"),
        (np.zeros((64, 64), np.uint8), "the first picture must be uint8"),
        (np.zeros((64, 64, 4), np.uint8), "the first picture must be uint8"),
        (np.zeros((1, 1, 3), np.uint8), "1 x 1 pixels"),
        (Image.new("RGB", (1, 1)), "the first picture is 1 x 1 pixels"),
        ("nowhere.png", "'nowhere.png' does not exist"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any, phrase: str, config: ModelConfig):
    assert phrase in refusal(config, Pair(picture, drawing()))


# --- prompts, seeds, rates ---


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"seed": -1}, "seed must be from 0 to 4294967295"),
        ({"seed": 2**32}, "not 4294967296"),
        ({"fps": 0}, "fps must be from 1 to 1000"),
        ({"prompt": "a" * (MAX_PROMPT + 1)}, "100,001 characters"),
        ({"prompt": "\ud800"}, "not text in UTF-8"),
    ],
)
def test_a_pair_out_of_range_is_refused(changes: dict[str, Any], phrase: str, config: ModelConfig):
    assert phrase in refusal(config, Pair(drawing(), drawing())._replace(**changes))


def test_the_largest_seed_prompt_and_rate_are_accepted(config: ModelConfig):
    pair = Pair(drawing(), drawing(), "a" * MAX_PROMPT, None, 2**32 - 1, 1000)
    prepared = prepare(pair, OPTIONS, config)
    assert (prepared.prompt, prepared.seed, prepared.fps) == pair[2:3] + pair[4:]
    assert prepared.hints is None


def test_numpy_numbers_count_as_whole_numbers(config: ModelConfig):
    pair = Pair(drawing(), drawing())._replace(seed=np.int64(5), fps=np.uint8(7))
    prepared = prepare(pair, OPTIONS, config)
    assert (prepared.seed, prepared.fps) == (5, 7) and type(prepared.seed) is int


# --- sketches ---


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("dark", [True, False])
def test_a_hint_is_bright_where_lines_are_whatever_the_polarity(fit: Any, dark: bool, config: ModelConfig):
    options = SamplingOptions(height=64, width=128, fit=fit)
    pair = Pair(drawing(), drawing(), sketches={7: Sketch(lines(dark=dark), dark_lines=dark)})
    hints = prepare(pair, options, config).hints
    assert hints is not None and hints.shape == (16, 64, 128, 1) and hints.dtype == np.float32
    assert (hints[7, :, 62:66] == 1).all() and (hints[7, :, :40] == 0).all()
    assert not hints[np.arange(16) != 7].any()


@pytest.mark.parametrize("dark", [True, False])
def test_a_transparent_sketch_is_lines_on_paper_of_the_other_colour(dark: bool, config: ModelConfig):
    rgba = np.zeros((96, 192, 4), np.uint8)
    rgba[:, 90:102] = (0, 0, 0, 255) if dark else (255, 255, 255, 255)
    options = SamplingOptions(height=64, width=128, fit="pad")
    for picture in (Image.fromarray(rgba), _png(rgba)):
        pair = Pair(drawing(), drawing(), sketches={7: Sketch(picture, dark_lines=dark)})
        hints = prepare(pair, options, config).hints
        assert hints is not None and (hints[7, :, 62:66] == 1).all() and (hints[7, :, :40] == 0).all()


def _png(rgba: np.ndarray) -> Image.Image:
    """The picture as it is after saving and opening it."""
    import io

    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return Image.open(buffer)


def test_padding_adds_no_lines(config: ModelConfig):
    pair = Pair(drawing(96, 96), drawing(96, 96), sketches={0: lines(96, 96)})
    hints = prepare(pair, SamplingOptions(height=64, width=128, fit="pad"), config).hints
    assert hints is not None and (hints[0, :, :32] == 0).all() and (hints[0, :, 96:] == 0).all()


@pytest.mark.parametrize(
    ("sketches", "phrase"),
    [
        ({16: lines()}, "no frame 16"),
        ({-1: lines()}, "no frame -1"),
        ({7: lines(96, 96)}, "96 x 96 pixels, the drawings are 192 x 96"),
        ({7: np.zeros((9, 9), np.float32)}, "the sketch for frame 7 must be uint8"),
        ({7: "nowhere.png"}, "'nowhere.png' does not exist"),
    ],
)
def test_a_sketch_that_does_not_fit_is_refused(sketches: Any, phrase: str, config: ModelConfig):
    assert phrase in refusal(config, Pair(drawing(), drawing(), sketches=sketches))


def test_a_sketch_of_another_resolution_but_the_same_shape_is_accepted(config: ModelConfig):
    hints = prepare(Pair(drawing(), drawing(), sketches={7: lines(48, 96)}), OPTIONS, config).hints
    assert hints is not None and hints[7].any()


def test_sketches_need_an_encoder_of_the_latents_size(config: ModelConfig):
    check_sketch_encoder(config, {"sketch_encoder"})
    with pytest.raises(UserError, match="no sketch encoder: convert its file"):
        check_sketch_encoder(config, {"unet"})
    half = replace(config, autoencoder=replace(config.autoencoder, multipliers=(1, 2, 4)))
    with pytest.raises(UserError, match="sketches become 8 times smaller, but this model's latents 4 times"):
        check_sketch_encoder(half, {"sketch_encoder"})
