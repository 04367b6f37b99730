"""Architectures: presets, the published code's keys, and plain dicts."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.reference import GOLDEN
from tooncrafter_jax.config_codec import from_dict, to_dict
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import (
    COMPONENTS,
    OPTIONAL_COMPONENTS,
    PRESETS,
    ModelConfig,
    from_official,
    preset,
    tiny,
    tooncrafter_512,
)


def official() -> dict[str, Any]:
    """The tiny model in the published code's keys."""
    return json.loads((GOLDEN / "tiny" / "config.json").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    """`official` with one entry changed, or removed with `...`."""
    config = copy.deepcopy(official())
    *sections, key = path.split(".")
    section = config
    for part in sections:
        section = section[part]
    if value is ...:
        del section[key]
    else:
        section[key] = value
    return config


class TestOfficialKeys:
    def test_the_tiny_model(self) -> None:
        """The file says nothing of the pixels that the model was made for, nor of motion."""
        read = from_official(official(), "tiny", "config.json")
        for component in (*(set(COMPONENTS) - {"motion"}), "schedule", "name"):
            assert getattr(read, component) == getattr(tiny(), component), component

    @pytest.mark.parametrize(
        ("path", "value", "wanted"),
        [
            ("diffusion.parameterization", "eps", "v"),
            ("diffusion.conditioning_key", "crossattn", "hybrid"),
            ("unet.temporal_conv", False, True),
            ("unet.use_relative_position", True, False),
            ("unet.image_cross_attention", False, True),
            ("sketch_encoder.legacy", True, False),
            ("vae.ddconfig.attn_resolutions", [16], []),
        ],
    )
    def test_a_switch_in_another_position_is_named(self, path: str, value: Any, wanted: Any) -> None:
        with pytest.raises(UserError) as error:
            from_official(changed(path, value), "x", "config.json")
        assert str(error.value) == f"config.json sets {path} to {value!r}, but a ToonCrafter model has {wanted!r}"

    @pytest.mark.parametrize("section", ["unet", "vae.ddconfig", "open_clip.vision_cfg", "image_projector"])
    def test_a_missing_section_is_named(self, section: str) -> None:
        with pytest.raises(UserError, match=f"config.json has no section '{section}'"):
            from_official(changed(section, ...), "x", "config.json")

    @pytest.mark.parametrize("number", ["unet.model_channels", "vae.ddconfig.ch", "diffusion.timesteps"])
    def test_a_missing_number_is_named(self, number: str) -> None:
        with pytest.raises(UserError, match=f"config.json lacks the number '{number.rsplit('.', 1)[-1]}'"):
            from_official(changed(number, ...), "x", "config.json")

    def test_numbers_are_read(self) -> None:
        read = from_official(changed("unet.attention_resolutions", [8, 2]), "x", "config.json")
        assert read.unet.attention_levels == (1, 3)  # downsampling factors 2 and 8
        read = from_official(changed("diffusion.use_dynamic_rescale", False), "x", "config.json")
        assert not read.schedule.dynamic_rescale
        read = from_official(changed("open_clip.vision_cfg.head_width", 48), "x", "config.json")
        assert read.clip_image.heads == 2


class TestPresets:
    @pytest.mark.gate
    def test_the_published_model(self) -> None:
        config = tooncrafter_512()
        assert (config.height, config.width, config.pixel_multiple) == (320, 512, 64)
        counts = {name: network.parameter_count for name, network in config.networks().items()}
        # The table of spec section 1, less what is never used of the CLIP towers.
        assert counts == {
            "unet": 1_438_854_980,
            "image_projector": 48_787_456,
            "clip_text": 354_032_641 - 1_048_577 - 12_596_224,
            "clip_image": 632_076_800 - 1_313_280,
            "autoencoder": 34_163_592 + 72,
            "decoder": 65_778_223,
            "sketch_encoder": 364_227_952,
            "motion": 5_160_980,  # RIFE version 4
        }

    @pytest.mark.gate
    def test_small_fits_into_16_megabytes(self) -> None:
        """And its motion network, most of which is RIFE, into 12."""
        counts = {name: network.parameter_count for name, network in preset("small").networks().items()}
        motion = counts.pop("motion")
        assert 5e6 < sum(counts.values()) < 8e6
        assert 5.1e6 < motion < 6e6

    def test_names(self) -> None:
        assert preset("tiny") == tiny() and preset("tooncrafter_512") == ModelConfig()
        with pytest.raises(UserError, match="unknown preset 'large': choose one of tooncrafter_512, tiny"):
            preset("large")
        assert set(OPTIONAL_COMPONENTS) < set(COMPONENTS) == set(tiny().networks())


class TestSizes:
    @pytest.mark.parametrize("name", PRESETS)
    def test_presets_fit(self, name: str) -> None:
        preset(name).check("it")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"unet": {"width": 50}}, "unet has 50 channels at a level, which must be a multiple of 32"),
            ({"decoder": {"multipliers": []}}, "decoder.multipliers is empty: give a number for each level"),
            ({"unet": {"head_dim": 96}}, "unet has 64 channels at a level, not enough for a head"),
            ({"unet": {"blocks_per_level": 0}}, "unet.blocks_per_level is 0, which is too small"),
            ({"unet": {"multipliers": [1, -2]}}, "unet.multipliers is (1, -2), which is too small"),
            ({"unet": {"attention_levels": [-1]}}, "unet.attention_levels is (-1,), which is too small"),
            ({"schedule": {"scale_factor": 0.0}}, "schedule.scale_factor is 0.0, which is too small"),
            ({"height": 0}, "the size is 0 x 128 pixels, which is too small"),
            ({"clip_text": {"heads": 3}}, "clip_text.width is 64, which 3 heads do not divide"),
            ({"clip_image": {"patch_size": 15}}, "clip_image.image_size is 224, no multiple of the patches' 15"),
            (
                {"clip_text": {"width": 32}},
                "clip_text.width is 32 and unet.context_dim is 64, but they must be equal",
            ),
            (
                {"sketch_encoder": {"hint_downscaling": 4}},
                "sketch_encoder.hint_downscaling is 4, which must be a multiple of 8",
            ),
            ({"unet": {"in_channels": 4}}, "unet.in_channels is 4, which must be twice unet.out_channels, 4"),
        ],
    )
    def test_what_does_not_fit_is_named(self, values: dict[str, Any], message: str) -> None:
        tiny_values = to_dict(tiny())
        for name, value in values.items():
            tiny_values[name] = {**tiny_values[name], **value} if isinstance(value, dict) else value
        with pytest.raises(UserError) as error:
            from_dict(ModelConfig, tiny_values, "model.json").check("model.json")
        assert str(error.value) == f"model.json: {message}"

    def test_what_converts_is_checked(self) -> None:
        with pytest.raises(UserError, match="config.json: unet has 50 channels"):
            from_official(changed("unet.model_channels", 50), "x", "config.json")


class TestDicts:
    @pytest.mark.parametrize("config", [tiny(), tooncrafter_512()], ids=["tiny", "published"])
    def test_round_trip_through_json(self, config: ModelConfig) -> None:
        values = json.loads(json.dumps(to_dict(config)))
        assert from_dict(ModelConfig, values, "model.json") == config

    def test_absent_keys_keep_their_defaults(self) -> None:
        read = from_dict(ModelConfig, {"unet": {"width": 64}}, "model.json")
        assert read.unet.width == 64 and read.unet.head_dim == 64 and read.decoder == ModelConfig().decoder

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"unte": {}}, "model.json has no key 'unte'; did you mean 'unet'?"),
            ({"unet": {"multiplier": [1]}}, "model.json.unet has no key 'multiplier'; did you mean 'multipliers'?"),
            ({"unet": {"width": "64"}}, "model.json.unet.width must be of type int, not '64'"),
            ({"unet": {"width": True}}, "model.json.unet.width must be of type int, not True"),
            ({"unet": {"width": 64.0}}, "model.json.unet.width must be of type int, not 64.0"),
            ({"unet": {"multipliers": 3}}, "model.json.unet.multipliers must be a list, not 3"),
            ({"unet": {"multipliers": [1, "2"]}}, "model.json.unet.multipliers must be of type int, not '2'"),
            ({"unet": [1]}, "model.json.unet must be a mapping, not list"),
            ({"name": 3}, "model.json.name must be of type str, not 3"),
            ({"schedule": {"dynamic_rescale": 1}}, "model.json.schedule.dynamic_rescale must be of type bool, not 1"),
        ],
    )
    @pytest.mark.usefixtures("unchecked_types")
    def test_mistakes_are_named(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as error:
            from_dict(ModelConfig, values, "model.json")
        assert str(error.value) == message

    def test_whole_numbers_may_stand_for_fractions(self) -> None:
        read = from_dict(ModelConfig, {"unet": {"dropout": 0}}, "model.json")
        assert read.unet.dropout == 0.0 and isinstance(read.unet.dropout, float)
