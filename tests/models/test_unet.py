"""The denoiser gives the reference's predictions, and its switches do what they say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_networks import ints, no_controls, run_unet, tiny_inputs, values
from tests.reference import NETWORK_TOLERANCE, channels_first, deviation, golden, noise_params
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.models.unet import Reused, UNet, UNetConfig
from tooncrafter_jax.models.unet_blocks import BlockOptions, CrossAttention, TemporalConvBlock, TemporalTransformer
from tooncrafter_jax.nn.platform import tracing_for

pytestmark = pytest.mark.heavy

MICRO = UNetConfig(
    width=64,  # two channels a group: with one, the norm after the time embedding would cancel it
    multipliers=(1, 1),
    blocks_per_level=1,
    attention_levels=(0,),
    head_dim=4,
    context_dim=8,
    default_fps=24,
)
"""Every kind of block in a network that compiles in seconds."""
OPTIONS = BlockOptions(
    embedding_dim=16,
    context_dim=8,
    head_dim=8,
    transformer_depth=1,
    dropout=0.1,
    temporal=True,
    image_stream=True,
    norm_groups=32,
)


class Part:
    """One block with weights of a usual size, as a compiled function."""

    def __init__(self, make: Any) -> None:
        self.network = Network(lambda config, **kw: make(**kw), None)
        self.params = noise_params(self.network)
        self._run = jax.jit(lambda params, *args: self.network.bind(params)(*args))

    def __call__(self, *args: Any) -> np.ndarray:
        return np.asarray(self._run(self.params, *args))


@cache
def micro() -> tuple[AnyNetwork, dict[str, jax.Array]]:
    network = Network(UNet, MICRO)
    return network, noise_params(network)


CLIPS, FRAMES = 2, 4
MICRO_CONTROLS = [(4, 4, 64), (4, 4, 64), (2, 2, 64), (2, 2, 64), (2, 2, 64)]
"""(h, w, C) of the skips of stem, block, downsampling and block, and of the middle."""


def micro_inputs() -> dict[str, Any]:
    """Two clips of four frames, whose contexts are routed frame by frame."""
    return {
        "x": values("x", CLIPS, FRAMES, 4, 4, 8),
        "timesteps": ints(5, 700),
        "context": values("context", CLIPS, 77 + 16 * FRAMES, 8),
        "fps": ints(10, 20),
        "controls": [jnp.zeros((CLIPS, FRAMES, *shape)) for shape in MICRO_CONTROLS],
    }


@cache
def run_micro(bypass_temporal: bool = False) -> Any:
    """The compiled micro network, as a function of changes to `micro_inputs`."""
    network, params = micro()

    @jax.jit
    def run(params: Any, x: Any, timesteps: Any, context: Any, fps: Any, controls: Any) -> Any:
        unet = network.bind(params)
        keys = unet.context_keys(context, x.shape[1])
        return unet(x, timesteps, keys, fps, controls=controls, bypass_temporal=bypass_temporal)

    return lambda **changes: np.asarray(run(params, **{**micro_inputs(), **changes}))


@cache
def _observe(name: str, dropout: bool = False) -> Any:
    network, params = micro()

    @jax.jit
    def run(params: Any, inputs: Any, fps: Any, key: Any) -> Any:
        found = {}
        unet = network.bind(params)
        keys = unet.context_keys(inputs["context"], FRAMES)
        dropout_key = key if dropout else None
        unet(inputs["x"], inputs["timesteps"], keys, fps, observe=found.__setitem__, dropout_key=dropout_key)
        return found[name]

    return lambda fps, key: np.asarray(run(params, micro_inputs(), fps, key))


def observed(name: str, fps: jax.Array | None = None, seed: int | None = None) -> np.ndarray:
    """One block's output in the micro network, with dropout given a seed; what comes after it is never compiled."""
    return _observe(name, seed is not None)(fps, jax.random.key(seed or 0))


class TestReference:
    @pytest.mark.gate
    def test_a_batch_of_two_and_all_its_blocks(self) -> None:
        arrays = golden("unet")
        x, context = tiny_inputs()
        controls = no_controls(2, 16)
        out, statistics = run_unet()(x, ints(*arrays["timesteps_a"]), context, ints(*arrays["fs"]), controls)
        assert deviation(channels_first(out), arrays["out_a"]) < NETWORK_TOLERANCE
        # The reference lists its blocks in the order in which they run.
        assert statistics.shape == arrays["stats"].shape
        for name, ours, reference in zip(arrays["stat_names"], statistics, arrays["stats"], strict=True):
            np.testing.assert_allclose(ours, reference, atol=2e-5 * max(1.0, reference[1]), err_msg=str(name))
        out, _ = run_unet()(x, ints(*arrays["timesteps_b"]), context, ints(*arrays["fs"]), controls)
        assert deviation(channels_first(out)[:, :, ::4], arrays["out_b"]) < NETWORK_TOLERANCE

    @pytest.mark.parametrize(
        ("tokens", "name"),
        [
            pytest.param(205, "out_8_frames", marks=pytest.mark.gate),
            pytest.param(333, "out_8_frames_shared_tokens", marks=pytest.mark.slow),
        ],
    )
    def test_eight_frames_by_either_routing(self, tokens: int, name: str) -> None:
        """77 + 16·8 tokens are routed frame by frame; with all 333 every frame sees every image token."""
        x, context = tiny_inputs()
        out, _ = run_unet()(x[:1, :8], ints(500), context[:1, :tokens], ints(10), no_controls(1, 8))
        assert deviation(channels_first(out)[:, :, ::2], golden("unet")[name]) < NETWORK_TOLERANCE


def test_a_bfloat16_network_ends_in_float32() -> None:
    """Of its convolutions the last alone, whose weights are stored as the others are; what it predicts is not
    rounded.
    """
    network = Network(UNet, MICRO, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    found: list[tuple[str, Any, tuple[int, ...]]] = []

    def predict(params: Any, inputs: Any) -> jax.Array:
        unet = network.bind(params)
        return unet(inputs["x"], inputs["timesteps"], unet.context_keys(inputs["context"], FRAMES), inputs["fps"])

    def walk(jaxpr: Any) -> None:
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "conv_general_dilated":
                lhs, rhs = (atom.aval for atom in eqn.invars)
                assert lhs.dtype == rhs.dtype
                found.append((lhs.dtype.name, eqn.params["precision"], rhs.shape))
            for value in eqn.params.values():
                if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                    walk(getattr(value, "jaxpr", value))

    with tracing_for("tpu"):
        traced = jax.make_jaxpr(predict)(network.abstract_params, micro_inputs())
    walk(traced.jaxpr)
    assert traced.out_avals[0].dtype == jnp.float32
    *others, (kind, precision, shape) = found
    assert len(others) > 10 and {one[:2] for one in others} == {("bfloat16", None)}
    assert (kind, shape) == ("float32", (3, 3, MICRO.width, MICRO.out_channels))
    assert set(precision) == {jax.lax.Precision.HIGH}, "or a TPU would round its operands to bfloat16 again"
    assert {leaf.dtype for leaf in network.abstract_params.values()} == {jnp.dtype(jnp.bfloat16)}


class TestSwitches:
    @pytest.mark.gate
    def test_no_frame_rate_means_the_default(self) -> None:
        default, same, other = (observed("fps_embedding", fps=fps) for fps in (None, ints(24, 24), ints(24, 10)))
        np.testing.assert_allclose(default, same, atol=1e-6)
        assert np.abs(same - other).max(-1)[1] > 1e-2

    @pytest.mark.gate
    def test_bypassing_leaves_frames_alone(self) -> None:
        """Variant III of Table 3: without temporal parts no frame reaches another."""
        other = micro_inputs()["x"].at[:, 2].multiply(-1)

        def changed(run: Any) -> list[bool]:
            return (np.abs(run() - run(x=other)).max((0, 2, 3, 4)) > 1e-5).tolist()

        assert changed(run_micro(bypass_temporal=True)) == [False, False, True, False]
        assert changed(run_micro()) == [True] * 4

    @pytest.mark.gate
    def test_dropout_needs_a_key_and_follows_it(self) -> None:
        without = observed("down.0.blocks.0")
        first, again, other = (observed("down.0.blocks.0", seed=seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 1e-2
        assert np.abs(first - without).max() > 1e-2

    def test_clips_of_a_batch_do_not_mix(self) -> None:
        """The second clip is the same whatever the first is, and wherever it stands."""
        before = run_micro()()
        inputs = micro_inputs()
        swapped = {name: inputs[name][::-1] for name in ("x", "timesteps", "context", "fps")}
        np.testing.assert_allclose(run_micro()(**swapped)[::-1], before, atol=1e-5)
        after = run_micro()(x=inputs["x"].at[0].multiply(-1))
        np.testing.assert_allclose(after[1], before[1], atol=1e-5)
        assert np.abs(after[0] - before[0]).max() > 0.1

    def test_time_context_and_frame_rate_matter(self) -> None:
        before, inputs = run_micro()(), micro_inputs()
        for name in ("timesteps", "context", "fps"):
            assert np.abs(run_micro()(**{name: inputs[name][::-1]}) - before).max() > 1e-2, name

    def test_a_control_at_any_place_matters(self) -> None:
        before, zeros = run_micro()(), micro_inputs()["controls"]
        for place in range(len(zeros)):
            controls = [values("control", *z.shape) if i == place else z for i, z in enumerate(zeros)]
            assert np.abs(run_micro()(controls=controls) - before).max() > 1e-2, place

    @pytest.mark.gate
    @pytest.mark.parametrize("blocks", [1, 2])
    def test_the_outermost_blocks_go_on_from_what_a_whole_call_kept(self, blocks: int) -> None:
        """Of the same call they give the same, and of another one something near."""
        network, params = micro()

        @jax.jit
        def both(params: Any, times: Any, before: Any) -> Any:
            unet, given = network.bind(params), micro_inputs()
            keys = unet.context_keys(given["context"], FRAMES)
            controls = [values(f"control {i}", CLIPS, FRAMES, *shape) for i, shape in enumerate(MICRO_CONTROLS)]
            outputs: dict[str, Any] = {}
            whole = partial(unet, given["x"], context=keys, fps=given["fps"], controls=controls)
            v = whole(times)
            whole(before, observe=outputs.__setitem__)
            features = outputs[unet.reused_output(blocks)]
            assert features.shape[-1] == MICRO.reused_channels(blocks)
            return v, whole(times, reused=Reused(blocks, features), controls=controls[:blocks])

        times, later = ints(5, 700), ints(45, 660)
        v, same = both(params, times, times)
        np.testing.assert_allclose(same, v, atol=1e-5)
        _, near = both(params, times, later)
        assert 1e-4 < np.abs(near - v).max() < 0.5 * np.abs(v).max()

    def test_sizes_that_do_not_fit_are_named(self) -> None:
        network, params = micro()
        unet = network.bind(params)
        keys = jax.eval_shape(lambda: unet.context_keys(jnp.zeros((1, 78, 8)), 2))
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
        """Inner width 8·head_dim, here 32 against 64 features, as 512 against 320 in the published model."""
        _, params = micro()
        assert params["stem_temporal_transformer.proj_in.kernel"].shape == (64, 32)
        assert params["down.0.blocks.0.temporal_transformer.proj_in.kernel"].shape == (64, 64)

    @pytest.mark.parametrize("frames", [2, 3])
    def test_both_streams_of_cross_attention(self, frames: int) -> None:
        """Two separate softmaxes, text and image, one output projection; 32 image tokens are 16 a frame for two
        frames.
        """
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

    @pytest.mark.gate
    def test_zero_initialised_parts_begin_as_identities(self) -> None:
        """Spec section 2.7: temporal and spatial parts add nothing at first, so that training starts from Stable
        Diffusion.
        """
        network = Network(UNet, replace(MICRO, multipliers=(1,)))
        params = dict(network.drawn(0))
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
        super().__init__(32, OPTIONS, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore
        return super().__call__(x, iter([None] * 3))
