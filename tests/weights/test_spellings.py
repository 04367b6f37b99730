"""Every spelling of the published names gives the same parameters, bit by bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.reference import key_list, tiny_params
from tests.weights import layouts
from tests.weights.layouts import Listed, Tensors
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.weights.loading import components_in, map_source
from tooncrafter_jax.weights.official import PREFIXES
from tooncrafter_jax.weights.spellings import respelled


@cache
def whole() -> Tensors:
    return layouts.model()


def same_as_original(tensors: Tensors, *components: str) -> None:
    """The file fills these components with the rule's values, and every tensor of it is accounted for."""
    source = Listed(tensors)
    assert components_in(source) == components
    file = respelled(source)
    mapped = map_source(file, tiny())
    for component in components:
        params = mapped.params(component)
        for path, value in tiny_params(component).items():
            np.testing.assert_array_equal(params[path], np.asarray(value), err_msg=f"{component}.{path}")
    assignment = mapped.assignment
    accounted = [*assignment.entries, *assignment.unused, *assignment.buffers]
    assert sorted([*(own for name in accounted for own in file.names[name]), *file.unused]) == sorted(tensors.shapes)


@pytest.mark.gate
def test_a_bare_u_net() -> None:
    bare = layouts.u_net(whole())
    same_as_original(bare, "unet")
    same_as_original(bare.prefixed("diffusion_model."), "unet")


def test_a_sketch_encoder_with_and_without_its_prefix() -> None:
    same_as_original(layouts.sketch_encoder(), "sketch_encoder")
    same_as_original(layouts.sketch_encoder().prefixed("control_model."), "sketch_encoder")


def test_wrapped_models() -> None:
    for prefix in ("module.", "_forward_module."):
        same_as_original(layouts.sketch_encoder().prefixed(prefix), "sketch_encoder")


def test_a_file_without_clip() -> None:
    components = ("unet", "image_projector", "autoencoder", "decoder")
    same_as_original(layouts.without_clip(whole()), *components)


@pytest.mark.parametrize("prefix", ["text_model.", "", "text_encoder.text_model."])
@pytest.mark.parametrize("layers", [2, 3], ids=["without the last block", "all blocks"])
def test_a_text_tower_of_transformers(prefix: str, layers: int) -> None:
    """SD 2.1's has 23 blocks, laion's 24, of which the last never runs: the tiny one's 2 and 3."""
    tower = layouts.transformers_text(whole(), prefix, layers)
    same_as_original(tower, "clip_text")
    ids = np.arange(77)[None]
    same_as_original(tower.with_({f"{prefix}embeddings.position_ids": ids}), "clip_text")


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_an_image_tower_of_transformers(prefix: str) -> None:
    tower = layouts.transformers_vision(whole(), prefix)
    same_as_original(tower, "clip_image")
    same_as_original(tower.with_({f"{prefix}embeddings.position_ids": np.arange(257)[None]}), "clip_image")


def test_both_towers_of_transformers_in_one_file() -> None:
    text, image = layouts.transformers_text(whole()), layouts.transformers_vision(whole())
    more = {"text_projection.weight": np.zeros((64, 64), np.float32), "logit_scale": np.zeros((), np.float32)}
    both = layouts.joined(text, image).with_(more)
    same_as_original(both, "clip_text", "clip_image")


def test_both_towers_of_openclip_in_one_file() -> None:
    same_as_original(layouts.open_clip(whole()), "clip_text", "clip_image")
    same_as_original(layouts.open_clip(whole()).prefixed("module."), "clip_text", "clip_image")


def test_the_published_names_of_transformers() -> None:
    """The lists of what transformers builds give exactly the tensors of ours that its files can have."""
    ours = key_list("keys/tooncrafter_512.tsv")
    for file, prefix, tensors, absent in (
        ("transformers_text", PREFIXES["clip_text"][0], 280, 14),
        ("transformers_vision", PREFIXES["clip_image"][0], 392, 0),
    ):
        shapes = key_list(f"keys/{file}.tsv")
        found = respelled(Listed(Tensors(shapes, lambda name, shapes=shapes: np.zeros(shapes[name]))))
        assert len(found.shapes) == tensors and not found.unused
        for name, shape in found.shapes.items():
            expected = ours[name][::-1] if name.endswith(".proj") else ours[name]
            assert shape == expected, name
        assert len({name for name in ours if name.startswith(prefix)} - set(found.shapes)) == absent


def test_the_layouts_of_these_tests_are_the_published_ones() -> None:
    full = layouts.model("keys/tooncrafter_512.tsv")
    assert dict(layouts.transformers_text(full, layers=23).shapes) == key_list("keys/transformers_text.tsv")
    assert dict(layouts.transformers_vision(full).shapes) == key_list("keys/transformers_vision.tsv")
    assert len(layouts.without_clip(full).shapes) == 1976
    assert len(layouts.with_plain_decoder(full).shapes) == 2520
    assert len(layouts.with_plain_decoder(layouts.without_clip(full)).shapes) == 1828


def test_queries_keys_and_values_go_by_their_names() -> None:
    """Files do not list them in the order of the packed projection."""
    tower = layouts.transformers_text(whole())
    source = respelled(Listed(tower))
    packed = source.read("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias")
    for row, letter in enumerate("qkv"):
        own = tower.read(f"text_model.encoder.layers.0.self_attn.{letter}_proj.bias")
        np.testing.assert_array_equal(np.split(packed, 3)[row], own)


def without(tensors: Tensors, *ends: str) -> Tensors:
    return tensors.kept(lambda name: not name.endswith(ends))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: without(layouts.transformers_text(whole()), "layers.1.self_attn.k_proj.bias"),
            "has text_model.encoder.layers.1.self_attn.*bias, but not all of the 3 tensors that are one",
        ),
        (
            lambda: layouts.transformers_text(whole()).with_(
                {"text_model.encoder.layers.0.self_attn.q_proj.weight": np.zeros((64, 3), np.float32)}
            ),
            "are parts of one tensor, but do not fit each other",
        ),
        (
            lambda: whole().renamed({"model.diffusion_model.framestride_embed.0.weight": "betas"}),
            "is DynamiCrafter's model of 256x256 pixels, which predicts noise",
        ),
        (
            lambda: layouts.u_net(whole()).with_({"masked_layer_fusion_out_list.0.weight": np.zeros(1)}),
            "is a U-Net of LayerAnimate",
        ),
        (
            lambda: Tensors({"down_blocks.0.resnets.0.norm1.weight": (3,)}, lambda name: np.zeros(3)),
            "another model's U-Net in diffusers' names",
        ),
        (lambda: Tensors({"bert.embeddings": (3,)}, lambda name: np.zeros(3)), "holds no ToonCrafter tensors"),
        (lambda: Tensors({}, lambda name: np.zeros(0)), "holds no ToonCrafter tensors"),
    ],
    ids=["a part missing", "parts that do not fit", "256", "LayerAnimate", "diffusers", "BERT", "nothing"],
)
def test_what_is_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        respelled(Listed(make()))
