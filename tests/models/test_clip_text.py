"""The text tower gives the reference's tokens, and every position counts."""

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
    tiny_text_tower,
    with_noise,
)
from tooncrafter_jax.models.clip_text import ClipText, ClipTextConfig
from tooncrafter_jax.models.tokenizer import END_ID, tokenizer
from tooncrafter_jax.nn.layers import count_parameters

SMALL = ClipTextConfig(vocabulary_size=50, context_length=77, width=16, heads=2, layers=2)


def test_equals_the_reference() -> None:
    arrays = golden("text_encoder")
    assert error(apply(tiny_text_tower(), arrays["tokens_selected"]), arrays["penultimate"]) <= TOLERANCE


def test_prompts_to_context() -> None:
    arrays = golden("text_encoder")
    prompts = [bytes.fromhex(prompt).decode() for prompt in arrays["prompts"][arrays["selected"]]]
    assert error(apply(tiny_text_tower(), tokenizer()(prompts)), arrays["penultimate"]) <= TOLERANCE


def test_a_token_changes_itself_and_what_follows_padding_included() -> None:
    tokens = tokenizer()(["walking man", "walking man"])
    tokens[1, 2] = 1000
    first, second = apply(tiny_text_tower(), np.resize(tokens, (6, 77)))[:2]  # the batch size that is compiled already
    changed = np.abs(first - second).max(-1) > 1e-4
    assert not changed[:2].any()
    assert changed[2:].all()


def test_padding_is_part_of_the_context() -> None:
    tokens = tokenizer()(["", ""])
    tokens[1, 2:] = END_ID  # the padding of other CLIP models
    first, second = apply(tiny_text_tower(), np.resize(tokens, (6, 77)))[:2]
    np.testing.assert_allclose(first[:2], second[:2], atol=1e-5)
    assert (np.abs(first[2:] - second[2:]).max(-1) > 0.1).all()
    assert np.abs(first[2:] - first[2]).max(-1)[1:].min() > 0.1  # and every padding token has its own features


def test_the_last_block_has_no_parameters_when_it_does_not_run() -> None:
    names = parameters(nnx.eval_shape(lambda: ClipText(SMALL, rngs=Keys())))
    assert {name.split(".")[1] for name in names if name.startswith("blocks.")} == {"0"}
    assert ClipTextConfig().blocks == 23
    assert ClipTextConfig(penultimate=False).blocks == 24


def test_the_published_size() -> None:
    tower = nnx.eval_shape(lambda: ClipText(ClipTextConfig(), rngs=Keys()))
    width = 1024
    last_block = 12 * width**2 + 13 * width
    unused = width**2 + 1 + last_block  # text_projection, logit_scale and the block that never runs
    assert count_parameters(nnx.state(tower, nnx.Param)) == 354_032_641 - unused  # spec section 1
    shapes = {name: leaf.shape for name, leaf in parameters(tower).items()}
    assert shapes["token_embedding.embedding"] == (49408, 1024)
    assert shapes["blocks.22.attention.qkv.kernel"] == (1024, 3072)
    assert "blocks.23.attention.qkv.kernel" not in shapes


def test_bfloat16_stays_close() -> None:
    tokens = np.arange(77, dtype=np.int32)[None] % 50
    full = apply(with_noise(lambda: ClipText(SMALL, rngs=Keys())), tokens)
    half = apply(with_noise(lambda: ClipText(SMALL, rngs=Keys(), dtype=jnp.bfloat16)), tokens)
    assert half.dtype == jnp.bfloat16
    assert 1e-4 < error(half.astype(np.float32), full) < 0.1


def test_parameters_in_half_precision() -> None:
    tower = nnx.eval_shape(lambda: ClipText(SMALL, rngs=Keys(), param_dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in parameters(tower).values()} == {jnp.dtype(jnp.bfloat16)}


def test_a_wrong_number_of_tokens_is_refused() -> None:
    tower = nnx.eval_shape(lambda: ClipText(SMALL, rngs=Keys()))
    with pytest.raises(ValueError, match="77 tokens, not 78"):
        tower(jnp.zeros((1, 78), jnp.int32))


@pytest.mark.gate
def test_a_small_vocabulary_folds_the_tokenizers_ids() -> None:
    tower = ClipText(SMALL, rngs=nnx.Rngs(0))
    ids = np.asarray(tokenizer()(["a cat"]))
    folded = tower(jnp.asarray(ids))
    assert ids.max() == END_ID > 50 and np.isfinite(folded).all()
    np.testing.assert_array_equal(folded, tower(jnp.asarray(ids % 50)))
    other = ids.copy()
    other[0, 1] += 1
    assert not np.array_equal(folded, tower(jnp.asarray(other)))
