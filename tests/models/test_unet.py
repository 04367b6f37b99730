"""The denoiser gives the reference's predictions, and its switches do what they say."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import NETWORK_TOLERANCE, channels_first, deviation, golden, noise, noise_params, tiny_params
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.unet import UNet, UNetConfig
from tooncrafter_jax.models.unet_blocks import BlockOptions, CrossAttention, TemporalConvBlock, TemporalTransformer
from tooncrafter_jax.weights.rule import unit_noise

MICRO = UNetConfig(
    width=32,
    multipliers=(1, 1),
    blocks_per_level=1,
    attention_levels=(0,),
    head_dim=8,
    context_dim=8,
    default_fps=24,
)
"""Every kind of block in a network that compiles in seconds."""
OPTIONS = BlockOptions(
    embedding_dim=16, context_dim=8, head_dim=8, transformer_depth=1, dropout=0.1, temporal=True, image_stream=True
)


def ints(*values: int) -> jax.Array:
    return jnp.asarray(values, jnp.int32)


def values(name: str, *shape: int) -> jax.Array:
    return jnp.asarray(unit_noise(name, shape))


class Part:
    """One block with weights of a usual size, as a compiled function."""

    def __init__(self, make: Any) -> None:
        self.network = Network(lambda config, **kw: make(**kw), None)
        self.params = noise_params(self.network)
        self._run = jax.jit(lambda params, *args: self.network.bind(params)(*args))

    def __call__(self, *args: Any) -> np.ndarray:
        return np.asarray(self._run(self.params, *args))


@cache
def micro() -> tuple[Network[Any], dict[str, jax.Array]]:
    network = Network(UNet, MICRO)
    return network, noise_params(network)


@cache
def run_micro(bypass_temporal: bool = False, dropout: bool = False) -> Any:
    """A compiled micro network: (x, timesteps, context, fps, dropout key) -> prediction."""
    network, params = micro()

    @jax.jit
    def run(params: Any, x: Any, timesteps: Any, context: Any, fps: Any, key: Any) -> Any:
        unet = network.bind(params)
        keys = unet.context_keys(context, x.shape[1])
        return unet(x, timesteps, keys, fps, bypass_temporal=bypass_temporal, dropout_key=key if dropout else None)

    def call(x: Any, timesteps: Any, context: Any, fps: Any = None, seed: int = 0) -> np.ndarray:
        return np.asarray(run(params, x, timesteps, context, fps, jax.random.key(seed)))

    return call


@cache
def run_tiny() -> Any:
    """The tiny network, (x, timesteps, context, fps) -> prediction and mean, std and first values of every block."""
    network = tiny().networks()["unet"]

    @jax.jit
    def run(params: Any, x: Any, timesteps: Any, context: Any, fps: Any) -> Any:
        statistics = []

        def observe(name: str, value: jax.Array) -> None:
            first = value if value.ndim == 2 else jnp.moveaxis(value[0, 0], -1, 0)
            statistics.append(jnp.stack([value.mean(), value.std(ddof=1), *first.reshape(-1)[:6]]))

        unet = network.bind(params)
        keys = unet.context_keys(context, x.shape[1])
        return unet(x, timesteps, keys, fps, observe=observe), jnp.stack(statistics)

    return lambda *args: run(tiny_params("unet"), *args)


def tiny_inputs() -> tuple[jax.Array, jax.Array]:
    """The clip (2, 16, 8, 16, 8) and the context (2, 333, 64) of the reference."""
    return jnp.asarray(noise("fixture.unet.x", (2, 8, 16, 8, 16))), values("fixture.unet.context", 2, 333, 64)


class TestReference:
    def test_a_batch_of_two_and_all_its_blocks(self) -> None:
        arrays = golden("unet")
        x, context = tiny_inputs()
        out, statistics = run_tiny()(x, ints(*arrays["timesteps_a"]), context, ints(*arrays["fs"]))
        assert deviation(channels_first(out), arrays["out_a"]) < NETWORK_TOLERANCE
        # Means are of values of about unit size; the reference lists its blocks in the order in which they run.
        assert statistics.shape == arrays["stats"].shape
        for name, ours, reference in zip(arrays["stat_names"], statistics, arrays["stats"], strict=True):
            np.testing.assert_allclose(ours, reference, atol=2e-5 * max(1.0, reference[1]), err_msg=str(name))
        out, _ = run_tiny()(x, ints(*arrays["timesteps_b"]), context, ints(*arrays["fs"]))
        assert deviation(channels_first(out)[:, :, ::4], arrays["out_b"]) < NETWORK_TOLERANCE

    @pytest.mark.parametrize(("tokens", "name"), [(205, "out_8_frames"), (333, "out_8_frames_shared_tokens")])
    def test_eight_frames_by_either_routing(self, tokens: int, name: str) -> None:
        """77 + 16·8 tokens are routed frame by frame; with all 333 every frame sees every image token."""
        x, context = tiny_inputs()
        out, _ = run_tiny()(x[:1, :8], ints(500), context[:1, :tokens], ints(10))
        assert deviation(channels_first(out)[:, :, ::2], golden("unet")[name]) < NETWORK_TOLERANCE


class TestSwitches:
    def test_no_frame_rate_means_the_default(self) -> None:
        x, context = values("x", 1, 4, 4, 4, 8), values("context", 1, 77 + 64, 8)
        without = run_micro()(x, ints(5), context)
        np.testing.assert_allclose(without, run_micro()(x, ints(5), context, ints(24)), atol=1e-6)
        assert np.abs(without - run_micro()(x, ints(5), context, ints(10))).max() > 1e-2

    def test_bypassing_leaves_frames_alone(self) -> None:
        """Variant III of Table 3: without temporal parts no frame reaches another."""
        x, context = values("x", 1, 4, 4, 4, 8), values("context", 1, 77 + 64, 8)
        other = x.at[:, 2].multiply(-1)

        def changed(run: Any) -> list[bool]:
            difference = run(x, ints(5), context) - run(other, ints(5), context)
            return (np.abs(difference).max((0, 2, 3, 4)) > 1e-5).tolist()

        assert changed(run_micro(bypass_temporal=True)) == [False, False, True, False]
        assert changed(run_micro()) == [True] * 4

    def test_dropout_needs_a_key_and_follows_it(self) -> None:
        x, context = values("x", 1, 4, 4, 4, 8), values("context", 1, 77 + 64, 8)
        run = run_micro(dropout=True)
        first = run(x, ints(5), context, None, 0)
        np.testing.assert_array_equal(first, run(x, ints(5), context, None, 0))
        assert np.abs(first - run(x, ints(5), context, None, 1)).max() > 1e-2
        assert np.abs(first - run_micro()(x, ints(5), context)).max() > 1e-2

    def test_clips_of_a_batch_do_not_mix(self) -> None:
        x, context = values("x", 2, 4, 4, 4, 8), values("context", 2, 77 + 64, 8)
        both = run_micro()(x, ints(5, 700), context, ints(10, 20))
        alone = run_micro()(x[1:], ints(700), context[1:], ints(20))
        np.testing.assert_allclose(both[1:], alone, atol=1e-5)

    def test_controls_are_added_to_skips_and_middle(self) -> None:
        """Zeros change nothing; a control at any one place does."""
        network, params = micro()
        x, context = values("x", 1, 4, 4, 4, 8), values("context", 1, 77 + 64, 8)
        sizes = [4, 4, 2, 2, 2]  # stem, block, downsampling, block; middle

        @jax.jit
        def run(params: Any, controls: Any) -> Any:
            unet = network.bind(params)
            return unet(x, ints(5), unet.context_keys(context, 4), ints(24), controls=controls)

        zeros = [jnp.zeros((1, 4, n, n, 32)) for n in sizes]
        plain = run(params, zeros)
        np.testing.assert_allclose(plain, run_micro()(x, ints(5), context), atol=1e-6)
        for place in range(len(sizes)):
            controls = [values("control", *z.shape) if i == place else z for i, z in enumerate(zeros)]
            assert np.abs(run(params, controls) - plain).max() > 1e-2, place

    def test_sizes_that_do_not_fit_are_named(self) -> None:
        network, params = micro()
        unet = network.bind(params)
        keys = unet.context_keys(jnp.zeros((1, 78, 8)), 2)
        with pytest.raises(ValueError, match="latents must be multiples of 2 high and wide, not 4x5"):
            unet(jnp.zeros((1, 2, 4, 5, 8)), ints(5), keys)
        with pytest.raises(ValueError, match="needs 77 text tokens and image tokens, not 77"):
            unet.context_keys(jnp.zeros((1, 77, 8)), 2)
        assert UNetConfig().latent_multiple == 8  # pixels in multiples of 64: spec section 1


class TestParts:
    def test_temporal_attention_knows_no_order(self) -> None:
        """Without positions, permuted frames give permuted results; the temporal convolution does know the order."""
        transformer = Part(lambda **kw: TemporalTransformer(32, 4, OPTIONS, **kw))
        x, order = values("x", 2, 5, 3, 2, 32), np.asarray([3, 0, 4, 1, 2])
        out = transformer(x)
        np.testing.assert_allclose(transformer(x[:, order]), out[:, order], atol=1e-5)
        assert np.abs(out - x).max() > 0.1
        conv = Part(lambda **kw: _Conv(**kw))
        assert np.abs(conv(x[:, order]) - conv(x)[:, order]).max() > 0.1

    def test_the_stem_has_eight_heads_at_any_width(self) -> None:
        """Inner width 8·head_dim, here 64 against 32 features, as 512 against 320 in the published model."""
        _, params = micro()
        assert params["stem_temporal_transformer.proj_in.kernel"].shape == (32, 64)
        assert params["down.0.blocks.0.temporal_transformer.proj_in.kernel"].shape == (32, 32)

    @pytest.mark.parametrize("frames", [2, 3])
    def test_both_streams_of_cross_attention(self, frames: int) -> None:
        """Two separate softmaxes, text and image, one output projection; 32 image tokens are 16 a frame for two frames."""
        part = Network(lambda config, **kw: CrossAttention(16, 2, OPTIONS, **kw), None)
        params = noise_params(part, gain=2.0)
        x, context = values("x", 1, frames, 3, 16), values("context", 1, 77 + 32, 8)

        def run(params: Any, x: Any, context: Any) -> Any:
            attention = part.bind(params)
            return attention(x, attention.context_keys(context, frames))

        weights = {path: np.asarray(value, np.float64) for path, value in params.items()}
        expected = np.zeros((1, frames, 3, 16))
        tokens = np.asarray(context[0], np.float64)
        for t in range(frames):
            image = tokens[77 + 16 * t : 77 + 16 * (t + 1)] if frames == 2 else tokens[77:]
            query = np.asarray(x[0, t], np.float64) @ weights["query.kernel"]
            heads = []
            for head in (slice(0, 8), slice(8, 16)):
                total = np.zeros((3, 8))
                for some, key, value in ((tokens[:77], "key", "value"), (image, "image_key", "image_value")):
                    k, v = some @ weights[f"{key}.kernel"], some @ weights[f"{value}.kernel"]
                    scores = np.exp(query[:, head] @ k[:, head].T / np.sqrt(8))
                    total += scores / scores.sum(-1, keepdims=True) @ v[:, head]
                heads.append(total)
            expected[0, t] = np.concatenate(heads, -1) @ weights["out.kernel"] + weights["out.bias"]
        np.testing.assert_allclose(jax.jit(run)(params, x, context), expected, atol=2e-5)

    def test_zero_initialised_parts_begin_as_identities(self) -> None:
        """Spec section 2.7: temporal and spatial parts add nothing at first, so that training starts from Stable Diffusion."""
        network, _ = micro()
        params = jax.jit(network.init)(jax.random.key(0))
        zero = {path for path, value in params.items() if not np.asarray(value).any()}
        kernels = {path.removesuffix(".kernel") for path in zero if path.endswith(".kernel")}
        endings = (".spatial_res.conv_out", "_transformer.proj_out", "temporal_conv.stages.3.conv")
        expected = {path.removesuffix(".kernel") for path in params if path.removesuffix(".kernel").endswith(endings)}
        assert kernels == expected | {"conv_out", "fps_embedding.out"}
        assert all(f"{path}.bias" in zero for path in kernels)
        norms = {path.removesuffix(".bias") for path in zero if path.endswith(".bias")} - kernels
        assert all("norm" in path.rsplit(".", 1)[-1] for path in norms)


class _Conv(TemporalConvBlock):
    """A temporal convolution without dropout as a function of its input alone."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(32, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore
        return super().__call__(x, iter([None] * 3))
