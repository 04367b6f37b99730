"""The decoder gives the reference's frames, in one piece and in chunks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import (
    NETWORK_TOLERANCE,
    channels_first,
    deviation,
    golden,
    key_list,
    noise,
    noise_params,
    tiny_params,
)
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.models.decoder_parts import ReferenceResidual, TemporalRes
from tooncrafter_jax.models.dual_reference_decoder import Decoder, DecoderConfig, References
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.nn.chunks import map_chunks
from tooncrafter_jax.weights.official import LevelLayout, autoencoder_path, leaf_path, to_our_layout
from tooncrafter_jax.weights.rule import make, unit_noise

pytestmark = pytest.mark.heavy

MICRO = DecoderConfig(width=32, multipliers=(1, 1, 1), blocks_per_level=1)
"""Both kinds of reference injection in a network that compiles in seconds."""


@cache
def _compiled(network: AnyNetwork) -> Any:
    @partial(jax.jit, static_argnames="chunk")
    def run(params: Any, latents: Any, hidden: Any, chunk: int | None = None) -> Any:
        decoder = network.bind(params)
        references = None if hidden is None else decoder.prepare_references(hidden)
        return decoder(latents, references, frames_per_chunk=chunk)

    return run


def clip(frames: int, name: str) -> jax.Array:
    """(1, T, 4, 6, 4), the reference's latents."""
    return jnp.asarray(noise(name, (frames, 4, 4, 6)))[None]


def hidden() -> list[jax.Array]:
    """The reference's hidden states of the two input frames, (1, 2, H, W, C)."""
    sizes = [(32, 32, 48), (64, 16, 24), (128, 8, 12), (128, 4, 6), (32, 32, 48)]
    return [
        jnp.asarray(np.moveaxis(unit_noise(f"fixture.decoder.ref_context.{i}", (1, c, 2, h, w)), 1, -1))
        for i, (c, h, w) in enumerate(sizes)
    ]


@cache
def tiny_decoder() -> AnyNetwork:
    return tiny().networks()["decoder"]


class TestReference:
    def decode(self, latents: jax.Array, references: list[jax.Array] | None) -> np.ndarray:
        out = _compiled(tiny_decoder())(tiny_params("decoder"), latents, references)
        return channels_first(out[0])

    @pytest.mark.gate
    def test_sixteen_frames(self) -> None:
        frames = self.decode(clip(16, "fixture.decoder.z.16"), hidden())
        assert (
            deviation(frames[[0, 1, 2, 7, 8, 14, 15]], golden("dual_reference_decoder")["T16/out"]) < NETWORK_TOLERANCE
        )

    @pytest.mark.gate
    def test_fourteen_frames(self) -> None:
        frames = self.decode(clip(14, "fixture.decoder.z.14"), hidden())
        assert deviation(frames[[0, 6, 13]], golden("dual_reference_decoder")["T14/out"]) < NETWORK_TOLERANCE

    @pytest.mark.gate
    def test_one_frame_gets_both_references(self) -> None:
        frames = self.decode(clip(16, "fixture.decoder.z.16")[:, :1], hidden())
        assert deviation(frames, golden("dual_reference_decoder")["out_1_frame"]) < NETWORK_TOLERANCE

    @pytest.mark.gate
    def test_without_references(self) -> None:
        frames = self.decode(clip(16, "fixture.decoder.z.16")[:, :5], None)
        reference = golden("dual_reference_decoder")["out_without_references_5_frames"]
        assert deviation(frames[[0, 2, 4]], reference) < NETWORK_TOLERANCE


class TestChunks:
    FRAMES = 7

    def decode(self, chunk: int | None) -> np.ndarray:
        network = micro()
        latents = jnp.asarray(unit_noise("latents", (2, self.FRAMES, 3, 2, 4)))
        sizes = [(12, 8), (6, 4), (3, 2), (12, 8)]
        references = [jnp.asarray(unit_noise(f"hidden.{i}", (2, 2, *size, 32))) for i, size in enumerate(sizes)]
        return np.asarray(_compiled(network)(noise_params(network), latents, references, chunk))

    @pytest.mark.parametrize("chunk", [1, 3])
    @pytest.mark.gate
    def test_chunks_equal_the_whole(self, chunk: int) -> None:
        """Statistics are of the whole clip; what differs is the order of summation."""
        whole = self.decode(None)
        assert whole.std() > 0.1
        np.testing.assert_allclose(self.decode(chunk), whole, atol=3e-6 * np.abs(whole).max())

    @pytest.mark.parametrize("chunk", [7, 16])
    def test_a_chunk_of_all_frames_is_the_same_program(self, chunk: int) -> None:
        network = micro()

        def program(chunk: int | None) -> str:
            latents = jax.ShapeDtypeStruct((1, self.FRAMES, 3, 2, 4), jnp.float32)
            run = _compiled(network)
            return run.lower(network.abstract_params, latents, None, chunk).as_text()

        assert program(chunk) == program(None)

    @pytest.mark.parametrize("chunk", [None, 1, 2, 3, 5, 6, 9])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_mapping_over_chunks(self, axis: int, chunk: int | None) -> None:
        """A function of single slices; the padding of the last chunk leaves nothing behind."""
        x = unit_noise("x", (5, 6, 4))
        out = map_chunks(lambda part: jnp.exp(part)[..., None], jnp.asarray(x), axis, chunk)
        np.testing.assert_allclose(out, np.exp(x)[..., None], rtol=1e-6)

    @pytest.mark.parametrize("chunk", [None, 1, 2, 3, 4, 5])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_a_result_may_be_written_over_what_it_is_made_of(self, axis: int, chunk: int | None) -> None:
        """Where the last chunk begins within the one before it, it is given what was there at first."""
        x, other = unit_noise("x", (5, 5)), unit_noise("other", (5, 5))

        @jax.jit
        def run(x: Any, other: Any) -> Any:
            parts = lambda pair: (pair[0] ** 2 + pair[1], pair[0] - pair[1])  # noqa: E731
            return map_chunks(parts, (jnp.sin(x), other), axis, chunk, in_place=True)

        first, second = run(x, other)
        np.testing.assert_allclose(first, np.sin(x) ** 2 + other, rtol=1e-5)
        np.testing.assert_allclose(second, np.sin(x) - other, rtol=1e-5)


@cache
def micro() -> AnyNetwork:
    return Network(Decoder, MICRO)


class TestParts:
    def test_the_residual_reaches_the_end_frames_alone(self) -> None:
        network = Network(lambda config, **kw: ReferenceResidual(32, **kw), None)
        params = noise_params(network)
        x, references = unit_noise("x", (1, 4, 3, 2, 32)), unit_noise("references", (1, 2, 3, 2, 32))

        def run(params: Any, x: Any, references: Any) -> Any:
            residual = network.bind(params)
            return residual(x, residual.prepare(references))

        out = np.asarray(jax.jit(run)(params, jnp.asarray(x), jnp.asarray(references)))
        kernel, bias = np.asarray(params["conv.kernel"], np.float64)[0, 0], np.asarray(params["conv.bias"])
        np.testing.assert_array_equal(out[:, 1:3], x[:, 1:3])
        np.testing.assert_allclose(out[:, 0], x[:, 0] + references[:, 0] @ kernel + bias, atol=1e-5)
        np.testing.assert_allclose(out[:, 3], x[:, 3] + references[:, 1] @ kernel + bias, atol=1e-5)

    @pytest.mark.parametrize(("logit", "share"), [(-40.0, 0.0), (0.0, 0.5), (40.0, 1.0)])
    def test_the_logit_weighs_the_temporal_path(self, logit: float, share: float) -> None:
        """sigmoid(logit) is the weight of the temporal path, which contains the input itself (spec section 5.2)."""
        network = Network(lambda config, **kw: TemporalRes(32, 32, **kw), None)
        params = noise_params(network)
        x = jnp.asarray(unit_noise("x", (1, 4, 3, 2, 32)))
        run = jax.jit(lambda params: network.bind(params)(x))
        all_temporal = run({**params, "mix_logit": jnp.asarray([40.0])})
        assert np.abs(all_temporal - x).max() > 0.1
        mixed = run({**params, "mix_logit": jnp.asarray([logit])})
        np.testing.assert_allclose(mixed, share * all_temporal + (1 - share) * x, atol=1e-5)

    def test_references_need_their_parts(self) -> None:
        network = Network(Decoder, DecoderConfig(width=32, multipliers=(1, 1), blocks_per_level=1, references=False))
        assert not any("reference" in path for path in network.abstract_params)
        with pytest.raises(ValueError, match="built without reference parts"):
            network.bind(network.abstract_params).prepare_references([])

    def test_an_image_decoder_has_the_rest(self) -> None:
        """Without its temporal and reference parts it is the plain decoder; the parts are those of the paper's Table
        4.
        """
        full, plain = (
            Network(Decoder, config).abstract_params
            for config in (DecoderConfig(), DecoderConfig(temporal=False, references=False))
        )
        assert plain.keys() < full.keys()
        extra = full.keys() - plain.keys()
        assert all("temporal" in path or "reference" in path for path in extra)
        assert sum(int(np.prod(leaf.shape)) for leaf in plain.values()) == 49_490_179  # spec section 5.4


@pytest.mark.gate
def test_the_plain_decoder_equals_the_reference() -> None:
    """With the 1x1 convolution that the published pipeline skips, and every frame by itself."""
    config = replace(tiny().decoder, temporal=False, references=False, post_quantization=True)
    network = Network(Decoder, config)
    params = {}
    prefix = "first_stage_model."
    for name, shape in key_list("tiny/keys.tsv").items():
        if name.startswith((prefix + "decoder.", prefix + "post_quant_conv.")):
            path = leaf_path(autoencoder_path(name.removeprefix(prefix), LevelLayout()), len(shape))
            if path in network.abstract_params:
                params[path] = jnp.asarray(to_our_layout(path, make(name, shape)))
    z = noise("fixture.plain_decoder.z", (2, 4, 4, 6))[None]
    out = jax.jit(lambda params, z: network.bind(params)(z))(params, jnp.asarray(z))
    assert deviation(channels_first(out[0]), golden("plain_decoder")["out"]) < NETWORK_TOLERANCE


def test_what_is_added_to_an_open_end_alone_is_left_out() -> None:
    """Keys and values of attention stay: both references are the same picture there."""
    residual, keys = jnp.ones((3, 2, 4, 4, 8)), (jnp.ones((3, 32, 2, 8)), jnp.ones((3, 32, 2, 8)))
    given = References([residual, 2 * residual, None, keys], 3 * residual)
    found = given.with_open_ends(jnp.asarray([True, False, True]))
    for part, value in ((found.levels[0], 1), (found.levels[1], 2), (found.head, 3)):
        np.testing.assert_array_equal(part[:, 0], np.full((3, 4, 4, 8), value))
        np.testing.assert_array_equal(part[:, 1], value * np.array([0, 1, 0])[:, None, None, None] * np.ones((4, 4, 8)))
        assert part.dtype == residual.dtype
    assert found.levels[2] is None and found.levels[3] is keys
