"""Requests: pictures of any kind as arrays, and settings out of range refused in words."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import fit_image, read_image
from tooncrafter_jax.models.configuration import ModelConfig, tiny, tooncrafter_512
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.notes import Note, collected
from tooncrafter_jax.options import published_names
from tooncrafter_jax.sampling import foreign_names
from tooncrafter_jax.sampling.request import (
    ARGUMENTS,
    MAX_PROMPT,
    MAX_SIDE,
    Pair,
    SamplingOptions,
    Sketch,
    as_rgb,
    check_sketch_encoder,
    make_options,
    make_pairs,
    prepare,
    with_variations,
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
        ({"decode_tile_size": 16}, "decode_tile_size must be at least 32, not 16"),
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
        ({"spacing": "cosine"}, "one of uniform_trailing, uniform, karras, not 'cosine'"),
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
        options: dict[str, Any] = {"exif": exif} if name == "rotated" else {}
        picture.save(tmp_path / f"{name}.png", **options)
        with Image.open(tmp_path / f"{name}.png") as opened:
            np.testing.assert_array_equal(as_rgb(opened, name), read_image(tmp_path / f"{name}.png"))
        if name != "rotated":
            np.testing.assert_array_equal(as_rgb(picture, name), read_image(tmp_path / f"{name}.png"))


@pytest.mark.parametrize(
    ("picture", "phrase"),
    [
        (np.zeros((64, 64, 3), np.float32), "the first picture must be uint8"),
        (np.zeros((64, 64), np.uint8), "the first picture must be uint8"),
        (np.zeros((64, 64, 5), np.uint8), "the first picture must be uint8"),
        (np.zeros((1, 1, 3), np.uint8), "1 x 1 pixels"),
        (Image.new("RGB", (1, 1)), "the first picture is 1 x 1 pixels"),
        ("nowhere.png", "'nowhere.png' does not exist"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any, phrase: str, config: ModelConfig):
    assert phrase in refusal(config, Pair(picture, drawing()))


# --- pictures of other shapes ---


def test_first_and_last_of_different_shapes_are_refused_unless_it_is_said_what_to_do(config: ModelConfig):
    pair = Pair(drawing(108, 192), drawing(192, 108))
    sentence = refusal(config, pair)
    assert "the first picture is 192 x 108 pixels, the last picture 108 x 192" in sentence and "fit" in sentence
    for fit in ("crop", "pad"):
        with collected():
            assert prepare(pair, replace(OPTIONS, fit=fit), config).ends.shape == (2, 64, 128, 3)
    with collected():
        prepare(Pair(drawing(108, 192), drawing(216, 383)), OPTIONS, config)  # a pixel less is the same shape


def test_what_is_cut_off_is_said_in_per_cent(config: ModelConfig, tmp_path: Path):
    wide = Pair(tmp_path / "wide.png", drawing(90, 160))
    Image.fromarray(drawing(90, 160)).save(tmp_path / "wide.png")
    square = SamplingOptions(height=64, width=64)
    with collected() as notes:
        prepare(wide, square, config)
    # 160 x 90 becomes 113 x 64, of which 64 columns stay: 43 % are lost.
    assert notes == [
        f"{name} (160 x 90) loses 43 % of its width at 64 x 64 pixels: fit=pad keeps the whole picture"
        for name in (f"'{tmp_path / 'wide.png'}'", "the first picture".replace("first", "last"))
    ]
    tall = Pair(drawing(192, 108), drawing(192, 108))
    with collected() as notes:
        prepare(tall, OPTIONS, config)
    # 108 x 192 becomes 64 x 113 in a frame of 128 x 64: half of the frame stays black.
    assert "loses 43 % of its height and leaves 50 % of the frame black at 128 x 64 pixels" in notes[0]
    for options, pair in ((replace(square, fit="pad"), wide), (OPTIONS, Pair(drawing(), drawing()))):
        with collected() as notes:
            prepare(pair, options, config)
        assert notes == []


# --- numbers of numpy, and names of others ---


@pytest.mark.usefixtures("unchecked_types")
def test_numbers_of_numpy_are_numbers_everywhere(config: ModelConfig):
    values = {
        "steps": np.int64(1),
        "eta": np.float32(0.5),
        "guidance_scale": np.int32(3),
        "frames": np.asarray(16),
        "height": jnp.int32(64),
        "width": np.uint16(128),
        "second_pass": np.bool_(False),
        "decode_frames_per_chunk": np.int8(2),
        "image_guidance_scale": np.float64(2),
    }
    made = make_options(values)
    assert made == SamplingOptions(**values)
    for name in values:
        assert type(getattr(made, name)) in (int, float, bool) and made != SamplingOptions()
        assert type(getattr(SamplingOptions(**values), name)) in (int, float, bool)
    json.dumps(asdict(made))
    made.check(config)
    of_numpy: Any = ({np.int64(7): lines()}, np.array([1, 2]), np.asarray(7))
    pairs = make_pairs([drawing()] * 2, drawing(), "", *of_numpy)
    with collected():
        prepared = [prepare(pair, made, config) for pair in pairs]
    assert [pair.seed for pair in prepared] == [1, 2] and prepared[0].fps == 7
    assert prepared[0].hints is not None and prepared[0].hints[7].any()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("num_inference_steps", "it is 'steps' here"),
        ("generator", "it is 'seed' here"),
        ("num_frames", "it is 'frames' here"),
        ("image", "it is 'first' here"),
        ("num_videos_per_prompt", "it is 'samples_per_pair' here"),
        ("video", "it is 'draft' here"),
        ("ddim_steps", "it is 'steps' here"),
        ("ddim_eta", "it is 'eta' here"),
        ("unconditional_guidance_scale", "it is 'guidance_scale' here"),
        ("frame_stride", "it is 'fps' here"),
        ("video_length", "it is 'frames' here"),
        ("device", "it belongs to ToonCrafter.load"),
        ("sketch", "did you mean 'sketches'"),
        ("prompts", "did you mean 'prompt'"),
        (
            "temperature_of_the_sun",
            "the keys are spacing, steps, eta, exact_last_step, strength, timesteps, solver, guidance_scale",
        ),
    ],
)
def test_names_of_other_programs_lead_to_ours(name: str, advice: str):
    with pytest.raises(UserError, match=re.escape(f"has no key '{name}'")) as caught:
        make_options({name: 5}, ARGUMENTS)
    assert advice in str(caught.value)


def test_every_foreign_name_leads_to_a_name_of_ours():
    ours = {field.name for field in fields(SamplingOptions)} | set(ARGUMENTS)
    others = {**foreign_names.OUR_NAMES, **published_names(SamplingOptions, Pair)}
    assert set(others.values()) <= ours
    assert not ours & (set(others) | set(foreign_names.ADVICE))


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ({"steps": "5"}, "steps must be of type int, not '5'"),
        ({"steps": 5.5}, "steps must be of type int, not 5.5"),
        ({"eta": None}, "eta must be of type float, not None"),
        ({"second_pass": "no"}, "second_pass must be of type bool"),
        ({"height": True}, "height must be of type int"),
    ],
)
def test_options_of_a_wrong_type_are_refused_however_they_are_made(
    values: dict[str, Any], phrase: str, config: ModelConfig
):
    with pytest.raises(UserError, match=phrase):
        make_options(values)
    unchecked = object.__new__(SamplingOptions)  # as without the type checks of tests
    for field in fields(SamplingOptions):
        object.__setattr__(unchecked, field.name, values.get(field.name, field.default))
    with pytest.raises(UserError, match=phrase):
        unchecked.check(config)


@pytest.mark.parametrize("side", [102_400, 2**40, 4160])
def test_sizes_that_fit_nowhere_are_refused_before_anything_is_allocated(side: int, config: ModelConfig):
    for options in (SamplingOptions(height=side), SamplingOptions(width=side)):
        with pytest.raises(UserError, match=f"must be at most {MAX_SIDE} pixels, not {side}"):
            options.check(config)
    SamplingOptions(height=MAX_SIDE, width=MAX_SIDE).check(config)
    with pytest.raises(UserError, match="1024 frames of 4096 x 4096 pixels are too many for one clip: .* at most 42"):
        SamplingOptions(height=MAX_SIDE, width=MAX_SIDE, frames=1024).check(config)


# --- prompts, seeds, rates ---


def test_the_end_of_a_long_prompt_is_said_to_be_cut_off(config: ModelConfig):
    words = [f"word{index}" for index in range(40)]  # two or three tokens each
    with collected() as notes:
        prepare(Pair(drawing(), drawing(), " ".join(words)), OPTIONS, config)
    (sentence,) = notes
    lost = sentence.split("its end is cut off, '")[1].rstrip("'")
    assert lost and " ".join(words).endswith(lost)
    kept = " ".join(words)[: -len(lost)]
    ids = tokenizer()([kept])[0]
    np.testing.assert_array_equal(ids, tokenizer()([" ".join(words)])[0])
    with collected() as notes:
        prepare(Pair(drawing(), drawing(), kept), OPTIONS, config)
    assert notes == []


def test_a_word_may_be_cut_in_its_middle():
    word = "\u3042" * 60  # three bytes each
    lost = tokenizer().lost(word)
    assert 0 < len(lost) < 60 and word.endswith(lost.lstrip("\ufffd"))
    assert tokenizer().lost("a short prompt") == ""


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


@pytest.mark.filterwarnings("ignore::tooncrafter_jax.notes.Note")
def test_the_largest_seed_prompt_and_rate_are_accepted(config: ModelConfig):
    pair = Pair(drawing(), drawing(), "a" * MAX_PROMPT, None, 2**32 - 1, 1000)
    prepared = prepare(pair, OPTIONS, config)
    assert (prepared.prompt, prepared.seed, prepared.fps) == (pair.prompt, pair.seed, pair.fps)
    assert prepared.hints is None


@pytest.mark.usefixtures("unchecked_types")
def test_seeds_of_variations_count_up_as_whole_numbers():
    pair = Pair(drawing(), drawing())
    assert [one.seed for one in with_variations(pair._replace(seed=np.uint8(255)), 3)] == [255, 256, 257]
    wrong: Any
    for wrong in (None, "7"):
        with pytest.raises(UserError, match="the seed must be a whole number"):
            with_variations(pair._replace(seed=wrong), 2)


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
        ([lines()], "there are 1 sketches for the 16 frames of the clip: give one for each"),
        (lines(), "sketches must be a mapping of frame numbers to drawings, such as {7: drawing}, or a list"),
        ({"seven": lines()}, "the frame of a sketch must be a whole number, not 'seven'"),
    ],
)
def test_a_sketch_that_does_not_fit_is_refused(sketches: Any, phrase: str, config: ModelConfig):
    assert phrase in refusal(config, Pair(drawing(), drawing(), sketches=sketches))


def test_the_polarity_of_a_sketch_is_recognised_and_said(config: ModelConfig, tmp_path: Path):
    Image.fromarray(lines(dark=False)).save(tmp_path / "bright.png")
    for picture, sentence in (
        (lines(), "the sketch for frame 7 has dark lines on bright paper: 6.2 % of it is ink"),
        (
            tmp_path / "bright.png",
            f"the sketch for frame 7, '{tmp_path / 'bright.png'}', is read as bright lines on dark paper: 6.2 % of it "
            "is ink",
        ),
    ):
        with collected() as notes:
            hints = prepare(Pair(drawing(), drawing(), sketches={7: picture}), OPTIONS, config).hints
        assert notes == [sentence] and hints is not None
        assert (hints[7, :, 62:66] == 1).all() and (hints[7, :, :40] == 0).all()
    with pytest.warns(Note, match="bright lines"):
        prepare(Pair(drawing(), drawing(), sketches={7: tmp_path / "bright.png"}), OPTIONS, config)


def test_a_polarity_that_is_said_counts_and_a_doubt_is_reported(config: ModelConfig):
    with collected() as notes:
        pair = Pair(drawing(), drawing(), sketches={7: Sketch(lines(dark=False), dark_lines=True)})
        hints = prepare(pair, OPTIONS, config).hints
    assert notes == [
        "the sketch for frame 7 was said to have dark lines, but looks like bright lines on dark paper: 94 % of it is "
        "ink"
    ]
    assert hints is not None and (hints[7, :, 62:66] == 0).all() and (hints[7, :, :40] == 1).all()


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_blank_sketch_is_refused(shade: int, config: ModelConfig):
    blank = np.full((96, 192, 3), shade, np.uint8)
    assert "the sketch for frame 7 is blank" in refusal(config, Pair(drawing(), drawing(), sketches={7: blank}))


def test_a_sketch_that_may_be_either_is_refused(config: ModelConfig):
    assert "could have dark or bright lines" in refusal(config, Pair(drawing(), drawing(), sketches={7: drawing()}))
    with collected():
        prepare(Pair(drawing(), drawing(), sketches={7: Sketch(drawing(), dark_lines=True)}), OPTIONS, config)


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
