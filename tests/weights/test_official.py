"""Every tensor of the published files has its place."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np
import pytest

from tests.reference import key_list
from tooncrafter_jax.models.configuration import OPTIONAL_COMPONENTS, ModelConfig, tooncrafter_512
from tooncrafter_jax.weights.official import (
    Assignment,
    LevelLayout,
    assign,
    leaf_path,
    our_shape,
    to_our_layout,
    unet_path,
)


@cache
def config() -> ModelConfig:
    return tooncrafter_512()


@cache
def targets() -> dict[str, dict[str, tuple[int, ...]]]:
    networks = config().networks()
    return {
        name: {path: tuple(leaf.shape) for path, leaf in network.abstract_params.items()}
        for name, network in networks.items()
    }


def planned(names: dict[str, tuple[int, ...]], *components: str) -> Assignment:
    chosen = {name: targets()[name] for name in components}
    return assign(names, chosen, unet=LevelLayout(), autoencoder=LevelLayout(), where="the list")


@cache
def published() -> Assignment:
    components = [name for name in targets() if name not in OPTIONAL_COMPONENTS]
    return planned(key_list("keys/tooncrafter_512.tsv"), *components)


@cache
def sketch() -> Assignment:
    names = {f"control_model.{name}": shape for name, shape in key_list("keys/sketch_encoder.tsv").items()}
    return planned(names, "sketch_encoder")


def test_the_published_file() -> None:
    """All 2668 names map, and nothing of the components is left open (else `assign` raises)."""
    result = published()
    assert len(key_list("keys/tooncrafter_512.tsv")) == 2668
    assert (len(result.entries), len(result.unused), len(result.buffers)) == (2630, 25, 13)
    assert len(set(result.entries.values())) == 2630  # no parameter twice


def test_the_published_sketch_encoder() -> None:
    result = sketch()
    assert (len(result.entries), len(result.unused), len(result.buffers)) == (340, 0, 0)
    assert len(set(result.entries.values())) == 340


def test_what_is_not_used_and_why() -> None:
    """Quirks of the checkpoint, section 1: these never influence a result."""
    names = published().unused
    block = {name for name in names if "transformer.resblocks.23." in name}
    assert len(block) == 12 and all("last text block" in names[name] for name in block)
    rest = sorted(set(names) - block)
    embedder, text = "embedder.model.", "cond_stage_model.model."
    assert rest == sorted(
        [
            embedder + part
            for part in ("positional_embedding", "text_projection", "logit_scale", "token_embedding.weight")
        ]
        + [embedder + part for part in ("ln_final.weight", "ln_final.bias", "visual.proj")]
        + [embedder + part for part in ("visual.ln_post.weight", "visual.ln_post.bias")]
        + [text + part for part in ("text_projection", "logit_scale")]
        + ["first_stage_model.post_quant_conv.weight", "first_stage_model.post_quant_conv.bias"]
    )


@pytest.mark.parametrize(
    ("component", "tensors", "values", "unused"),
    [
        # The table of spec section 1, less what is never used.
        ("unet", 1516, 1_438_854_980, 0),
        ("image_projector", 51, 48_787_456, 0),
        ("clip_image", None, 632_076_800, 1280 * 1024 + 2 * 1280),
        ("clip_text", None, 354_032_641, 1024 * 1024 + 1 + 12_596_224),
        ("autoencoder", 108, 34_163_592 + 72, 0),
        ("decoder", 286, 65_778_223, 0),
        ("sketch_encoder", 340, 364_227_952, 0),
    ],
)
def test_parameter_counts(component: str, tensors: int | None, values: int, unused: int) -> None:
    """`unused` of the text tower: the projection, the logit scale, and block 23 with 12·1024² + 13·1024 values."""
    assert 12 * 1024**2 + 13 * 1024 == 12_596_224
    shapes = targets()[component].values()
    assert sum(prod(shape) for shape in shapes) == values - unused
    assert tensors is None or len(shapes) == tensors
    names = sketch() if component == "sketch_encoder" else published()
    assert sum(owner == component for owner, _ in names.entries.values()) == len(shapes)


def test_the_temporal_group_by_the_components_of_paths() -> None:
    paths = [
        path
        for path in targets()["unet"]
        if any(part.startswith(("temporal_", "stem_temporal")) for part in path.split("."))
    ]
    assert len(paths) == 794
    assert sum(prod(targets()["unet"][path]) for path in paths) == 545_323_136


@pytest.mark.parametrize(
    ("official", "component", "path"),
    [
        # One of each rule, by hand.
        ("model.diffusion_model.time_embed.0.weight", "unet", "time_embedding.hidden.kernel"),
        ("model.diffusion_model.fps_embedding.2.bias", "unet", "fps_embedding.out.bias"),
        ("model.diffusion_model.input_blocks.0.0.weight", "unet", "conv_in.kernel"),
        ("model.diffusion_model.init_attn.0.proj_in.weight", "unet", "stem_temporal_transformer.proj_in.kernel"),
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight",
            "unet",
            "down.0.blocks.0.spatial_transformer.blocks.0.cross_attention.image_key.kernel",
        ),
        (
            "model.diffusion_model.input_blocks.8.2.transformer_blocks.0.attn2.to_out.0.bias",
            "unet",
            "down.2.blocks.1.temporal_transformer.blocks.0.self_attention_2.out.bias",
        ),
        ("model.diffusion_model.input_blocks.6.0.op.weight", "unet", "down.1.downsample.kernel"),
        (
            "model.diffusion_model.middle_block.3.emb_layers.1.weight",
            "unet",
            "mid.blocks.1.spatial_res.embedding.kernel",
        ),
        (
            "model.diffusion_model.output_blocks.11.0.temopral_conv.conv1.2.weight",
            "unet",
            "up.0.blocks.2.temporal_conv.stages.0.conv.kernel",
        ),
        (
            "model.diffusion_model.output_blocks.0.0.temopral_conv.conv4.0.weight",
            "unet",
            "up.3.blocks.0.temporal_conv.stages.3.norm.scale",
        ),
        ("model.diffusion_model.output_blocks.2.1.conv.weight", "unet", "up.3.upsample.kernel"),
        ("model.diffusion_model.output_blocks.5.3.conv.bias", "unet", "up.2.upsample.bias"),
        ("model.diffusion_model.out.0.weight", "unet", "norm_out.scale"),
        ("image_proj_model.latents", "image_projector", "queries"),
        ("image_proj_model.layers.3.0.to_kv.weight", "image_projector", "layers.3.attention.key_value.kernel"),
        ("image_proj_model.layers.3.1.3.weight", "image_projector", "layers.3.feed_forward.out.kernel"),
        (
            "embedder.model.visual.transformer.resblocks.31.attn.in_proj_bias",
            "clip_image",
            "blocks.31.attention.qkv.bias",
        ),
        ("cond_stage_model.model.token_embedding.weight", "clip_text", "token_embedding.embedding"),
        ("first_stage_model.encoder.down.2.downsample.conv.weight", "autoencoder", "encoder.down.2.downsample.kernel"),
        ("first_stage_model.encoder.mid.attn_1.q.weight", "autoencoder", "encoder.mid.attention.query.kernel"),
        ("first_stage_model.quant_conv.bias", "autoencoder", "moments.bias"),
        ("first_stage_model.decoder.up.1.block.0.nin_shortcut.weight", "decoder", "up.1.blocks.0.res.skip.kernel"),
        ("first_stage_model.decoder.up.1.block.0.mix_factor", "decoder", "up.1.blocks.0.temporal.mix_logit"),
        (
            "first_stage_model.decoder.mid.block_2.time_stack.out_layers.3.weight",
            "decoder",
            "mid.blocks.1.temporal.conv_out.kernel",
        ),
        ("first_stage_model.decoder.attn_refinement.3.to_out.0.bias", "decoder", "up.3.reference_attention.out.bias"),
        ("first_stage_model.decoder.attn_refinement.0.conv.weight", "decoder", "up.0.reference_residual.conv.kernel"),
        ("first_stage_model.decoder.attn_refinement.4.conv.bias", "decoder", "final_reference_residual.conv.bias"),
        ("first_stage_model.decoder.conv_out.time_mix_conv.weight", "decoder", "conv_out_temporal.kernel"),
    ],
)
def test_names_of_the_published_file(official: str, component: str, path: str) -> None:
    assert published().entries[official] == (component, path)


@pytest.mark.parametrize(
    ("official", "path"),
    [
        ("middle_block.2.in_layers.2.weight", "mid.blocks.1.spatial_res.conv_in.kernel"),
        ("input_hint_block.14.bias", "hint.convs.7.bias"),
        ("zero_convs.11.0.weight", "skip_taps.11.kernel"),
        ("middle_block_out.0.bias", "mid_tap.bias"),
    ],
)
def test_names_of_the_sketch_encoder(official: str, path: str) -> None:
    assert sketch().entries[f"control_model.{official}"] == ("sketch_encoder", path)


def test_the_frame_rate_embedding_of_older_files() -> None:
    assert unet_path("framestride_embed.0.weight", LevelLayout()) == "fps_embedding.hidden.weight"


def test_other_numbers_of_blocks_shift_the_official_indices() -> None:
    """With one block a level, input block 2 is the first downsampling and output block 1 ends the lowest level."""
    layout = LevelLayout(levels=3, blocks=1)
    assert unet_path("input_blocks.2.0.op.weight", layout) == "down.0.downsample.weight"
    assert unet_path("output_blocks.1.1.conv.weight", layout) == "up.2.upsample.weight"


class TestLayout:
    """A linear, a convolution and their kin give the same numbers by PyTorch's formula and by ours."""

    def test_linear(self) -> None:
        weight, x = _normal(3, 5), _normal(5)
        np.testing.assert_allclose(x @ to_our_layout("a.kernel", weight), weight @ x, rtol=1e-12)

    def test_convolution(self) -> None:
        weight = _normal(3, 5, 2, 4)  # out, in, height, width
        ours = to_our_layout("a.kernel", weight)
        assert ours.shape == (2, 4, 5, 3) and ours[1, 2, 4, 0] == weight[0, 4, 1, 2]

    def test_convolution_over_time(self) -> None:
        weight = _normal(3, 5, 3, 1, 1)
        ours = to_our_layout("a.kernel", weight)
        assert ours.shape == (3, 1, 1, 5, 3) and ours[2, 0, 0, 4, 1] == weight[1, 4, 2, 0, 0]

    def test_pointwise_convolution_that_becomes_linear(self) -> None:
        stem, attention = _normal(3, 5, 1), _normal(3, 5, 1, 1)
        np.testing.assert_array_equal(to_our_layout("stem.proj_in.kernel", stem), stem[..., 0].T)
        ours = to_our_layout("encoder.mid.attention.query.kernel", attention)
        np.testing.assert_array_equal(ours, attention[..., 0, 0].T)
        assert to_our_layout("decoder.moments.kernel", attention).shape == (1, 1, 5, 3)

    @pytest.mark.parametrize("path", ["norm.scale", "conv.bias", "token_embedding.embedding", "queries"])
    def test_everything_else_is_as_it_was(self, path: str) -> None:
        value = _normal(3, 5)
        np.testing.assert_array_equal(to_our_layout(path, value), value)

    def test_shapes_without_values(self) -> None:
        for path, shape in (("a.kernel", (3, 5, 2, 4)), ("a.kernel", (3, 5)), ("a.bias", (3,))):
            assert our_shape(path, shape) == to_our_layout(path, np.zeros(shape)).shape

    def test_leaves(self) -> None:
        assert leaf_path("norm.weight", 1) == "norm.scale"
        assert leaf_path("conv.weight", 4) == "conv.kernel"
        assert leaf_path("token_embedding.weight", 2) == "token_embedding.embedding"
        assert leaf_path("norm.bias", 1) == "norm.bias"


def _normal(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape)
