"""CLIP's vectors are those of its definition and of transformers, from files under OpenCLIP's and ToonCrafter's
names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.curation import small_clip
from tests.curation.film_files import scene
from tooncrafter_jax.curation import clip_model
from tooncrafter_jax.curation.clip_model import (
    ClipModel,
    ClipWeights,
    clip_pixels,
    file_digest,
    image_config,
    load_clip,
    text_config,
)
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.clip_image import ClipImageConfig
from tooncrafter_jax.models.clip_preprocess import MEAN, STD
from tooncrafter_jax.models.clip_text import ClipTextConfig
from tooncrafter_jax.models.tokenizer import tokenizer

TOLERANCE = 5e-6
"""Of unit vectors, in float32 against float64 sums; a wrong activation shows at 1e-2."""
TEXTS = ["a fox", "a bird that flies over the sea " * 12]  # the second is cut
PICTURES = np.stack([scene(1), scene(2)])


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    return small_clip.tensors()


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_vectors_are_those_of_the_definition(tmp_path, values, quick_gelu):
    model = ClipModel(small_clip.saved(tmp_path, values, quick_gelu=quick_gelu))
    expected = [small_clip.picture_vector(values, clip_pixels(picture, 28), quick_gelu) for picture in PICTURES]
    np.testing.assert_allclose(model.of_pictures(PICTURES), expected, atol=TOLERANCE)
    expected = [small_clip.text_vector(values, ids, quick_gelu) for ids in tokenizer()(TEXTS)]
    np.testing.assert_allclose(model.of_texts(TEXTS), expected, atol=TOLERANCE)
    assert model.width == small_clip.SPACE
    other = small_clip.picture_vector(values, clip_pixels(PICTURES[0], 28), not quick_gelu)
    assert np.abs(model.of_pictures(PICTURES)[0] - other).max() > 100 * TOLERANCE


def test_the_names_of_a_tooncrafter_checkpoint(tmp_path, values):
    """As published: the image tower of one CLIP, the text tower of another, and all that belongs to the denoiser."""
    published = {"betas": np.zeros(3, np.float32), "model.diffusion_model.out.2.bias": np.zeros(4, np.float32)}
    for name, value in values.items():
        published["embedder.model." + name] = value if name.startswith("visual.") else np.zeros_like(value)
        if not name.startswith("visual."):
            published["cond_stage_model.model." + name] = value
    ours = ClipModel(small_clip.saved(tmp_path, published, "toon.safetensors"))
    plain = ClipModel(small_clip.saved(tmp_path, values))
    np.testing.assert_array_equal(ours.of_pictures(PICTURES), plain.of_pictures(PICTURES))
    np.testing.assert_array_equal(ours.of_texts(TEXTS[:1]), plain.of_texts(TEXTS[:1]))


def test_published_sizes_are_found_from_the_tensors():
    """ViT-H-14 in ToonCrafter's checkpoint."""
    rows = Path(__file__).parents[1].joinpath("golden", "keys", "tooncrafter_512.tsv").read_text().splitlines()
    shapes = {
        name: tuple(int(n) for n in sizes.split(",") if n) for name, sizes, *_ in (row.split("\t") for row in rows)
    }
    assert image_config(shapes, "embedder.model.visual.", None) == ClipImageConfig()
    assert text_config(shapes, "cond_stage_model.model.", 64) == ClipTextConfig(penultimate=False)


def test_pixels_are_cut_out_of_the_middle():
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[:, 40:60] = 255  # a fifth of the width; a third of the square in the middle
    for turned in (picture, picture.swapaxes(0, 1)):
        pixels = clip_pixels(turned, 30) * np.asarray(STD) + np.asarray(MEAN)
        assert pixels.shape == (30, 30, 3)
        assert pixels.mean() == pytest.approx(1 / 3, abs=0.01)
    centre = clip_pixels(picture, 30)[15, 15] * np.asarray(STD) + np.asarray(MEAN)
    np.testing.assert_allclose(centre, 1, atol=0.02)
    assert clip_pixels(scene(0, 36, 36), 30).shape == (30, 30, 3)


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (("visual.",), "holds no CLIP image tower"),
        (("visual.proj",), "lacks visual.proj"),
        (("visual.transformer.resblocks.0.ln_1",), "blocks.0.norm_1.scale"),
    ],
)
def test_incomplete_files_are_reported(tmp_path, values, remove, message):
    kept = {name: value for name, value in values.items() if not name.startswith(remove)}
    with pytest.raises(UserError, match=message):
        ClipModel(small_clip.saved(tmp_path, kept)).of_pictures(PICTURES)


def test_text_towers_without_what_is_needed_are_reported(tmp_path, values):
    images = {name: value for name, value in values.items() if name.startswith("visual.")}
    model = ClipModel(small_clip.saved(tmp_path, images))
    assert model.of_pictures(PICTURES).shape == (2, small_clip.SPACE)
    with pytest.raises(UserError, match="holds no CLIP text tower"):
        model.of_texts(TEXTS)
    with pytest.raises(UserError, match="no file"):
        ClipModel(ClipWeights(tmp_path / "missing.safetensors"))


def test_a_model_is_read_once_and_known_by_its_file(tmp_path, values):
    weights = small_clip.saved(tmp_path, values)
    assert load_clip(weights) is load_clip(weights)
    before = weights.settings()
    values = dict(values)
    values["visual.proj"] = values["visual.proj"] + 1
    save_file(values, weights.path)
    assert weights.settings()["weights"] != before["weights"]
    with pytest.raises(UserError, match="cannot be read"):
        file_digest(tmp_path / "missing")


def test_large_files_are_distinguished_by_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_model, "_WHOLE_BYTES", 0)
    content = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8)
    digests = []
    for place in (None, 0, len(content) - 1):
        changed = content.copy()
        if place is not None:
            changed[place] ^= 1
        (tmp_path / f"{place}").write_bytes(changed.tobytes())
        digests.append(file_digest(tmp_path / f"{place}"))
    (tmp_path / "shorter").write_bytes(content[:-1].tobytes())
    assert len({*digests, file_digest(tmp_path / "shorter")}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_vectors_are_those_of_transformers(tmp_path, values, quick_gelu):
    """An implementation that is not ours."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    transformers: Any = pytest.importorskip("transformers", reason="needs the extra 'torch-data'")
    sizes = {"num_hidden_layers": 2, "hidden_act": "quick_gelu" if quick_gelu else "gelu", "projection_dim": 16}
    config = transformers.CLIPConfig(
        text_config={
            **sizes,
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_attention_heads": 2,
            "eos_token_id": 49407,
        },
        vision_config={
            **sizes,
            "hidden_size": 24,
            "intermediate_size": 96,
            "num_attention_heads": 3,
            "image_size": 28,
            "patch_size": 14,
        },
        projection_dim=16,
    )
    theirs = transformers.CLIPModel(config).eval()
    theirs.load_state_dict({name: torch.from_numpy(v) for name, v in transformers_names(values).items()}, strict=False)
    missing = set(theirs.state_dict()) - set(transformers_names(values))
    assert all(name.endswith("position_ids") for name in missing)
    model = ClipModel(small_clip.saved(tmp_path, values, quick_gelu=quick_gelu))
    pixels = torch.from_numpy(np.stack([clip_pixels(picture, 28) for picture in PICTURES]).transpose(0, 3, 1, 2))
    ids = torch.from_numpy(tokenizer()(TEXTS)).long()
    with torch.inference_mode():
        output = theirs(input_ids=ids, pixel_values=pixels)
    np.testing.assert_allclose(model.of_pictures(PICTURES), output.image_embeds.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(model.of_texts(TEXTS), output.text_embeds.numpy(), atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(90, 130), (130, 90), (200, 200)])
def test_pixels_are_those_of_transformers(size):
    transformers: Any = pytest.importorskip("transformers", reason="needs the extra 'torch-data'")
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    picture = np.asarray(Image.fromarray(scene(0, 96, 96)).resize(size[::-1]))
    theirs = np.asarray(processor(picture)["pixel_values"][0]).transpose(1, 2, 0)
    np.testing.assert_allclose(clip_pixels(picture, 28), theirs, atol=1e-4)


def transformers_names(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights as transformers stores them."""
    renamed: dict[str, np.ndarray] = {"logit_scale": values["logit_scale"]}
    for tower, prefix in (("vision_model", "visual."), ("text_model", "")):
        for layer in range(small_clip.LAYERS):
            old, new = f"{prefix}transformer.resblocks.{layer}.", f"{tower}.encoder.layers.{layer}."
            for kind in ("weight", "bias"):
                parts = np.split(values[f"{old}attn.in_proj_{kind}"], 3)
                for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                    renamed[f"{new}self_attn.{name}.{kind}"] = part.copy()
                for theirs, ours in (
                    ("self_attn.out_proj", "attn.out_proj"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                ):
                    renamed[f"{new}{theirs}.{kind}"] = values[f"{old}{ours}.{kind}"]
    for theirs, ours in (
        ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
        ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
        ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
        ("vision_model.pre_layrnorm.weight", "visual.ln_pre.weight"),
        ("vision_model.pre_layrnorm.bias", "visual.ln_pre.bias"),
        ("vision_model.post_layernorm.weight", "visual.ln_post.weight"),
        ("vision_model.post_layernorm.bias", "visual.ln_post.bias"),
        ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("text_model.final_layer_norm.weight", "ln_final.weight"),
        ("text_model.final_layer_norm.bias", "ln_final.bias"),
    ):
        renamed[theirs] = values[ours]
    renamed["visual_projection.weight"] = values["visual.proj"].T.copy()
    renamed["text_projection.weight"] = values["text_projection"].T.copy()
    return renamed
