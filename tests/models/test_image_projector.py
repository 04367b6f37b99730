"""The image projector gives the reference's image tokens."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.models.clip_weights import (
    TOLERANCE,
    Keys,
    apply,
    error,
    golden,
    parameters,
    tiny_image_tower,
    tiny_projector,
    with_noise,
)
from tooncrafter_jax.models.clip_preprocess import preprocess
from tooncrafter_jax.models.image_projector import ImageProjector, ImageProjectorConfig
from tooncrafter_jax.nn.layers import count_parameters
from tooncrafter_jax.weights.rule import unit_noise

SMALL = ImageProjectorConfig(
    dim=16, depth=1, head_dim=4, heads=3, queries_per_frame=2, frames=3, input_dim=8, output_dim=12, ff_mult=2
)


def small() -> ImageProjector:
    """A projector of few numbers."""
    return with_noise(lambda: ImageProjector(SMALL, rngs=Keys()))


def test_noise_equals_the_reference() -> None:
    out = apply(tiny_projector(), unit_noise("fixture.projector.tokens", (2, 257, 96)))
    assert out.shape == (2, 256, 64)
    assert error(out[:, ::2], golden("image_projector")["out"]) <= TOLERANCE


def test_a_picture_equals_the_reference() -> None:
    out = apply(tiny_projector(), golden("image_encoder")["tokens"])
    assert error(out[:, ::2], golden("image_projector")["out_image"]) <= TOLERANCE


def test_the_zero_image_equals_the_reference() -> None:
    tokens = apply(tiny_image_tower(), preprocess(jnp.zeros((1, 320, 512, 3))))
    assert error(apply(tiny_projector(), tokens)[:, ::8], golden("image_projector")["out_zero_image"]) <= TOLERANCE


def test_examples_of_a_batch_do_not_mix() -> None:
    projector = small()
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    both = apply(projector, tokens)
    assert both.shape == (2, 6, 12)
    np.testing.assert_allclose(both[1:], apply(projector, tokens[1:]), atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 1e-2


def test_the_order_of_the_tokens_does_not_matter_and_that_of_the_queries_does() -> None:
    projector = small()
    tokens = np.random.default_rng(0).normal(size=(1, 5, 8)).astype(np.float32)
    out = apply(projector, tokens)
    np.testing.assert_allclose(apply(projector, tokens[:, ::-1]), out, atol=1e-5)
    projector.queries[...] = projector.queries[...][:, ::-1]
    np.testing.assert_allclose(apply(projector, tokens)[:, ::-1], out, atol=1e-5)


def test_every_parameter_has_a_gradient() -> None:
    graph, state = nnx.split(small())
    random = np.random.default_rng(0)
    tokens = jnp.asarray(random.normal(size=(2, 5, 8)), jnp.float32)
    direction = jnp.asarray(random.normal(size=(2, 6, 12)), jnp.float32)
    gradients = jax.jit(jax.grad(lambda state: jnp.sum(direction * nnx.merge(graph, state)(tokens))))(state)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradients))


def test_the_published_size() -> None:
    projector = nnx.eval_shape(lambda: ImageProjector(ImageProjectorConfig(), rngs=Keys()))
    shapes = {name: leaf.shape for name, leaf in parameters(projector).items()}
    assert len(shapes) == 51
    assert count_parameters(nnx.state(projector, nnx.Param)) == 48_787_456  # spec section 1
    assert shapes["queries"] == (1, 256, 1024)
    assert shapes["layers.3.attention.key_value.kernel"] == (1024, 1536)
    assert shapes["layers.0.feed_forward.hidden.kernel"] == (1024, 4096)


def test_queries_begin_with_norm_one() -> None:
    queries = ImageProjector(replace(SMALL, depth=0), rngs=nnx.Rngs(0)).queries[...]
    assert 0.5 < float(jnp.linalg.norm(queries, axis=-1).mean()) < 1.5
