"""The image tower gives the reference's tokens."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.clip_weights import (
    TOLERANCE,
    Keys,
    apply,
    error,
    golden,
    parameters,
    tiny_image_tower,
    with_noise,
)
from tooncrafter_jax.models.clip_blocks import ClipBlock
from tooncrafter_jax.models.clip_image import ClipImage, ClipImageConfig
from tooncrafter_jax.models.clip_preprocess import preprocess
from tooncrafter_jax.nn.layers import count_parameters

SMALL = ClipImageConfig(image_size=28, patch_size=14, width=16, heads=2, layers=1)


def picture() -> jnp.ndarray:
    """The reference's picture, (1, 320, 512, 3) in [-1, 1]."""
    image = golden("image_encoder")["image_uint8"][None].astype(np.float32)
    return jnp.asarray((image / np.float32(255) - np.float32(0.5)) * np.float32(2))


def test_a_picture_equals_the_reference() -> None:
    tokens = apply(tiny_image_tower(), preprocess(picture()))
    assert error(tokens, golden("image_encoder")["tokens"]) <= TOLERANCE


def test_the_zero_image_equals_the_reference() -> None:
    tokens = apply(tiny_image_tower(), preprocess(jnp.zeros((1, 320, 512, 3))))
    assert error(tokens[:, ::16], golden("image_encoder")["tokens_zero_image"]) <= TOLERANCE


def test_class_token_then_patches_row_by_row() -> None:
    """A block that adds nothing leaves class token and patches in place."""
    tower = with_noise(lambda: ClipImage(SMALL, rngs=Keys()))
    for path, leaf in parameters(tower).items():
        if path == "positional_embedding" or ".out." in path:
            leaf.set_value(leaf[...] * 0)
    pixels = np.zeros((1, 28, 28, 3), np.float32)
    before = apply(tower, pixels)
    pixels[:, :14, 14:] = 1.0  # the patch at the top right
    changed = np.abs(apply(tower, pixels) - before).max(-1)[0] > 1e-3
    assert changed.tolist() == [False, False, True, False, False]


def test_blocks_see_both_ways() -> None:
    block = with_noise(lambda: ClipBlock(16, 2, rngs=Keys()))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 16)), jnp.float32)
    changed = (
        np.abs(apply(block, x) - apply(block, x.at[0, 4, 3].add(1.0))).max(-1)[0] > 0
    )  # not the mean, which norms remove
    assert changed.all()
    causal = with_noise(lambda: ClipBlock(16, 2, causal=True, rngs=Keys()))
    changed = np.abs(apply(causal, x) - apply(causal, x.at[0, 4, 3].add(1.0))).max(-1)[0] > 0
    assert changed.tolist() == [False] * 4 + [True]


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        ClipBlock(16, 3, rngs=Keys())


def test_the_published_size() -> None:
    tower = nnx.eval_shape(lambda: ClipImage(ClipImageConfig(), rngs=Keys()))
    unused = 2 * 1280 + 1280 * 1024  # ln_post and proj
    assert count_parameters(nnx.state(tower, nnx.Param)) == 632_076_800 - unused  # spec section 1
    shapes = {name: leaf.shape for name, leaf in parameters(tower).items()}
    assert shapes["patch_embedding.kernel"] == (14, 14, 3, 1280)
    assert "patch_embedding.bias" not in shapes
    assert shapes["positional_embedding"] == (257, 1280)
    assert shapes["class_embedding"] == (1280,)
    assert shapes["blocks.31.mlp.hidden.kernel"] == (1280, 5120)


def test_a_picture_of_another_size_is_refused() -> None:
    tower = nnx.eval_shape(lambda: ClipImage(SMALL, rngs=Keys()))
    with pytest.raises(ValueError, match=r"\(28, 28, 3\), not \(28, 30, 3\)"):
        tower(jnp.zeros((1, 28, 30, 3)))
