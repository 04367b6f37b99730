"""Every attention back end equals the formula, and `auto` picks the one that fits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn import attention as module
from tooncrafter_jax.nn import cpu_attention
from tooncrafter_jax.nn.attention import BACKENDS, attention, check_backend, choose_backend
from tooncrafter_jax.nn.logical_axes import axis_rules
from tooncrafter_jax.nn.platform import Platform, tracing_for, tracing_on, without_cpu_forms
from tooncrafter_jax.typing import Device

TOLERANCE = 2e-6
"""Values are averages of about unit size; float32 scores of about 4 err by 5e-7, which the softmax passes on."""


def formula(query: np.ndarray, key: np.ndarray, value: np.ndarray, causal: bool) -> np.ndarray:
    """softmax(q·k / sqrt(d))·v in float64, one query at a time."""
    query, key, value = (x.astype(np.float64) for x in (query, key, value))
    out = np.zeros(query.shape)
    for b, n, h in np.ndindex(query.shape[:3]):
        keys = slice(0, n + 1 if causal else None)
        of_key = min(b, key.shape[0] - 1)
        scores = key[of_key, keys, h] @ query[b, n, h] / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max())
        out[b, n, h] = (weights / weights.sum()) @ value[of_key, keys, h]
    return out


def inputs(
    queries: int, keys: int, *, batch: int = 3, shared: bool = False, heads: int = 2, head_dim: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values; scores are of about 4, so that the softmax is far from uniform."""
    random = np.random.default_rng(queries + 7 * keys)
    q, k, v = (
        random.normal(size=(b, n, heads, head_dim)).astype(np.float32)
        for b, n in ((batch, queries), (1 if shared else batch, keys), (1 if shared else batch, keys))
    )
    return 2 * q, 2 * k, v


@pytest.mark.parametrize("shared", [False, True], ids=["own_keys", "shared_keys"])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("backend", ["auto", "xla", "chunked", "broadcast"])
def test_back_ends_equal_the_formula(backend: Any, causal: bool, shared: bool) -> None:
    q, k, v = inputs(5, 5 if causal else 7, shared=shared)
    out = attention(*map(jnp.asarray, (q, k, v)), causal=causal, backend=backend)
    np.testing.assert_allclose(out, formula(q, k, v, causal), atol=TOLERANCE)


@pytest.mark.parametrize("shared", [False, True], ids=["own_keys", "shared_keys"])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_splash_equals_the_formula(causal: bool, shared: bool) -> None:
    """The TPU's kernel, interpreted; one block of queries, two of keys unless they are masked."""
    q, k, v = inputs(128, 128 if causal else 1152, batch=2, shared=shared)
    out = jax.jit(lambda *x: attention(*x, causal=causal, backend="splash"))(*map(jnp.asarray, (q, k, v)))
    # The kernel rescales its running sum by each block's maximum.
    np.testing.assert_allclose(out, formula(q, k, v, causal), atol=5 * TOLERANCE)


@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_chunks_of_any_size_equal_the_formula(monkeypatch: pytest.MonkeyPatch, causal: bool, chunk: int) -> None:
    """Ten queries: two and four do not divide into equal chunks of four; five does."""
    q, k, v = inputs(10, 10)
    monkeypatch.setattr(module, "CHUNK_SCORES", chunk * 10 * 3 * 2)

    def run() -> jax.Array:
        return attention(*map(jnp.asarray, (q, k, v)), causal=causal, backend="chunked")

    with without_cpu_forms():
        out, jaxpr = run(), str(jax.make_jaxpr(run)())
    np.testing.assert_allclose(out, formula(q, k, v, causal), atol=TOLERANCE)
    assert f"length={-(-10 // chunk)}" in jaxpr  # the loop over chunks is there, of this length


@pytest.mark.parametrize(
    ("queries", "keys", "batch", "shared", "heads"),
    [
        pytest.param(10, 10, 3, False, 2, id="own_keys"),
        pytest.param(11, 7, 3, True, 2, id="shared_keys"),
        pytest.param(4, 3, 2, False, 6, id="one_block_of_grouped_heads"),
        pytest.param(3, 12, 1, False, 3, id="whole_blocks_of_keys"),
    ],
)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_blocks_of_the_cpu_equal_the_formula(
    monkeypatch: pytest.MonkeyPatch, causal: bool, queries: int, keys: int, batch: int, shared: bool, heads: int
) -> None:
    """Blocks of four queries and keys, the last ones smaller; later keys have larger scores, which rescale the sums."""
    monkeypatch.setattr(cpu_attention, "QUERIES", 4)
    monkeypatch.setattr(cpu_attention, "KEYS", 4)
    if causal:
        keys = queries
    q, k, v = inputs(queries, keys, batch=batch, shared=shared, heads=heads)
    k = k * np.linspace(0.2, 3, keys, dtype=np.float32)[:, None, None]

    def run() -> jax.Array:
        return attention(*map(jnp.asarray, (q, k, v)), causal=causal, backend="chunked")

    np.testing.assert_allclose(run(), formula(q, k, v, causal), atol=5 * TOLERANCE)  # scores of up to 12, sums rescaled
    if max(queries, keys) > 4:
        assert f"{queries},{keys}]" not in str(jax.make_jaxpr(run)()), "all scores of a head were held at once"


def test_scores_that_grow_by_hundreds_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the first block's maximum alone, the weights of later blocks would overflow."""
    monkeypatch.setattr(cpu_attention, "KEYS", 2)
    q, k, v = inputs(3, 6)
    k = k * np.asarray([1, 1, 30, 60, 1, 300], np.float32)[:, None, None]
    out = attention(*map(jnp.asarray, (q, k, v)), backend="chunked")
    np.testing.assert_allclose(out, formula(q, k, v, False), atol=1e-3)  # float32 scores of 2000 err by 1e-4


def test_half_precision_keeps_its_softmax_in_float32() -> None:
    """With one dominant score, bfloat16 weights would lose the 256 small ones, whose sum counts."""
    q = np.ones((1, 1, 1, 64), np.float32)
    k = np.zeros((1, 513, 1, 64), np.float32)
    k[0, 0] = 8 * np.log(256) / 64  # weight 256 against 512 of weight 1
    v = np.concatenate([np.ones((1, 1, 1, 64)), np.zeros((1, 512, 1, 64))], axis=1).astype(np.float32)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    exact = [np.asarray(x.astype(jnp.float32)) for x in half]
    expected = formula(exact[0], exact[1], exact[2], False)
    assert 0.3 < expected[0, 0, 0, 0] < 0.36
    for backend in ("xla", "chunked", "broadcast"):
        out = attention(*half, backend=backend)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=2**-8)  # one rounding to bfloat16


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.gate
def test_gradients_of_chunks_equal_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, causal: bool) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_SCORES", 3 * 10)
    q, k, v = map(jnp.asarray, inputs(10, 10))
    direction = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.float32)

    def gradients(backend: Any) -> tuple[jax.Array, ...]:
        return jax.grad(lambda *x: jnp.sum(direction * attention(*x, causal=causal, backend=backend)), (0, 1, 2))(
            q, k, v
        )

    for chunked, whole in zip(gradients("chunked"), gradients("xla"), strict=True):
        assert np.abs(whole).max() > 0.1
        np.testing.assert_allclose(chunked, whole, atol=10 * TOLERANCE)  # key gradients sum over ten queries


RULES = {"batch": "data", "frames": "frames", "heads": "tensor"}
CLIPS_BY_TOKENS: dict[str, Any] = {"rows": "batch", "tokens": "frames"}
"""How the queries of whole clips are laid out: (b, t n)."""


def mesh_of(devices: list[Device], data: int, frames: int, tensor: int = 1) -> Mesh:
    names = ("data", "frames", "tensor")
    grid = np.asarray(devices[: data * frames * tensor]).reshape(data, frames, tensor)
    return Mesh(grid, names, axis_types=(AxisType.Auto,) * 3)


def spread(mesh: Mesh, **settings: Any) -> Any:
    """`attention` on this mesh, jitted."""

    def run(*x: jax.Array) -> jax.Array:
        with axis_rules(mesh, RULES):
            return attention(*x, **settings)

    return jax.jit(run)


@pytest.mark.parametrize(
    ("sizes", "batch", "shared", "settings"),
    [
        pytest.param((2, 2), 4, False, {}, id="frames_in_batch"),
        pytest.param((1, 2, 2), 1, False, CLIPS_BY_TOKENS, id="queries_of_spread_frames_and_heads"),
        pytest.param((2, 2), 3, True, CLIPS_BY_TOKENS, id="three_clips_on_two"),
        pytest.param((2, 2), 2, True, {"causal": True, **CLIPS_BY_TOKENS}, id="causal"),
    ],
)
def test_splash_on_several_devices_equals_the_formula(
    devices: list[Device], sizes: tuple[int, ...], batch: int, shared: bool, settings: dict[str, Any]
) -> None:
    causal = settings.get("causal", False)
    q, k, v = inputs(256, 256 if causal else 128, batch=batch, shared=shared)
    out = spread(mesh_of(devices, *sizes), backend="splash", **settings)(*map(jnp.asarray, (q, k, v)))
    assert len(out.sharding.device_set) == 4
    np.testing.assert_allclose(out, formula(q, k, v, causal), atol=5 * TOLERANCE)


@pytest.mark.parametrize(
    ("queries", "settings", "local"),
    [
        pytest.param((1, 4096, 2, 64), CLIPS_BY_TOKENS, (2, 1024, 64), id="decoder_of_one_clip"),
        pytest.param((1, 4096, 2, 64), {}, (2, 4096, 64), id="nothing_to_divide"),
        pytest.param((16, 1024, 2, 64), {}, (4, 2, 1024, 64), id="spread_frames"),
    ],
)
def test_splash_compiles_for_several_tpu_chips(
    devices: list[Device], queries: tuple[int, ...], settings: dict[str, Any], local: tuple[int, ...]
) -> None:
    """The bare kernel cannot be partitioned by the compiler; each chip runs it on its own queries."""
    keys = (queries[0], 1024, *queries[2:])
    shapes = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (queries, keys, keys)]
    with tracing_for("tpu"):
        text = spread(mesh_of(devices, 1, 4), **settings).trace(*shapes).lower(lowering_platforms=("tpu",)).as_text()
    kernels = [line for line in text.splitlines() if "@tpu_custom_call" in line]
    assert kernels
    assert all(f"tensor<{'x'.join(map(str, local))}xbf16>" in line for line in kernels)


@pytest.mark.parametrize(
    ("sizes", "queries", "keys", "settings", "local"),
    [
        pytest.param((1, 4), (1, 4096, 5, 64), (1, 77, 5, 64), CLIPS_BY_TOKENS, (1, 1024, 5, 64), id="spread_frames"),
        pytest.param((2, 1), (2, 640, 5, 64), (2, 77, 5, 64), CLIPS_BY_TOKENS, (1, 640, 5, 64), id="branches"),
        pytest.param((2, 2), (2, 640, 5, 64), (2, 77, 5, 64), CLIPS_BY_TOKENS, (1, 320, 5, 64), id="both"),
        pytest.param((2, 2), (32, 640, 5, 64), (32, 16, 5, 64), {"backend": "cudnn"}, (8, 640, 5, 64), id="image"),
    ],
)
def test_cudnn_runs_on_each_devices_part(
    devices: list[Device],
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    queries: tuple[int, ...],
    keys: tuple[int, ...],
    settings: dict[str, Any],
    local: tuple[int, ...],
) -> None:
    """Its own partitioner refuses queries whose tokens are shared out, and keys that lie otherwise than the queries."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (queries, keys, keys)]
    with tracing_for("gpu"):
        lowered = spread(mesh_of(devices, *sizes), **settings).trace(*shapes).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    kernels = [line for line in text.splitlines() if "__cudnn$fmha" in line]
    assert kernels
    assert "CustomSPMDPartitioning" not in text
    assert all(f"tensor<{'x'.join(map(str, local))}xbf16>" in line for line in kernels)


def test_what_a_back_end_cannot_do_is_said_in_words() -> None:
    q, k, v = map(jnp.asarray, inputs(5, 7))
    with pytest.raises(UserError, match="'cudnn' needs an NVIDIA GPU of .*, not a CPU"):
        attention(q, k, v, backend="cudnn")
    with tracing_for("gpu"), pytest.raises(UserError, match="needs bfloat16 or float16"):
        attention(q, k, v, backend="cudnn")
    with pytest.raises(UserError, match="multiples of 128, not 5 and 7"):
        attention(q, k, v, backend="splash")


OLD_NVIDIA = SimpleNamespace(platform="gpu", compute_capability="7.0")
AMD = SimpleNamespace(platform="gpu", compute_capability="gfx942")
RECENT_NVIDIA = SimpleNamespace(platform="gpu", compute_capability="9.0")


def chosen(
    machine: Any,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
    dtype: Any,
    causal: bool = False,
    prefer: Any = "auto",
) -> str:
    """What `auto` stands for on a platform or device; shapes are (batch, tokens, heads, head_dim)."""
    found: list[str] = []
    with tracing_for(cast(Platform, machine)) if isinstance(machine, str) else tracing_on(machine):
        jax.eval_shape(
            lambda q, k: found.append(choose_backend(q, k, causal, prefer=prefer)),
            jax.ShapeDtypeStruct(queries, dtype),
            jax.ShapeDtypeStruct(keys, dtype),
        )
    return found[0]


BF16, F32 = jnp.bfloat16, jnp.float32


@pytest.mark.parametrize(
    ("platform", "queries", "keys", "dtype", "expected"),
    [
        # CPU: the temporal attention of the published model, its spatial attention, and something small.
        ("cpu", (2560, 16, 5, 64), (2560, 16, 5, 64), F32, "broadcast"),
        ("cpu", (16, 2560, 5, 64), (16, 2560, 5, 64), F32, "chunked"),
        ("cpu", (2, 40, 5, 64), (2, 77, 5, 64), F32, "xla"),
        # GPU: flash for half precision, but not for the autoencoder's wide head, float32 or shared keys.
        ("gpu", (16, 2560, 5, 64), (16, 2560, 5, 64), BF16, "cudnn"),
        ("gpu", (16, 2560, 5, 64), (16, 2560, 5, 64), F32, "chunked"),
        ("gpu", (16, 2560, 1, 512), (16, 2560, 1, 512), BF16, "chunked"),
        ("gpu", (16, 2560, 5, 64), (1, 77, 5, 64), BF16, "xla"),
        ("gpu", (2560, 16, 5, 64), (2560, 16, 5, 64), BF16, "xla"),
        ("gpu", (16, 2560, 5, 20), (16, 2560, 5, 20), BF16, "chunked"),  # a head that 8 does not divide
        (RECENT_NVIDIA, (16, 2560, 5, 64), (16, 2560, 5, 64), BF16, "cudnn"),
        # GPUs that are none of NVIDIA's, or older than bfloat16: cuDNN's attention is not there.
        (OLD_NVIDIA, (16, 2560, 5, 64), (16, 2560, 5, 64), BF16, "chunked"),
        (AMD, (16, 2560, 5, 64), (16, 2560, 5, 64), BF16, "chunked"),
        (AMD, (16, 640, 10, 64), (16, 640, 10, 64), BF16, "xla"),
        # TPU: splash for long sequences that its blocks divide.
        ("tpu", (16, 2560, 5, 64), (16, 2560, 5, 64), BF16, "splash"),
        ("tpu", (16, 640, 10, 64), (16, 640, 10, 64), BF16, "xla"),
        ("tpu", (16, 2561, 5, 64), (16, 2561, 5, 64), BF16, "chunked"),
        ("tpu", (16, 2560, 1, 512), (16, 2560, 1, 512), F32, "chunked"),
        ("tpu", (2560, 16, 5, 64), (2560, 16, 5, 64), BF16, "xla"),
    ],
)
def test_the_choice_of_auto(
    platform: Any, queries: tuple[int, ...], keys: tuple[int, ...], dtype: Any, expected: str
) -> None:
    assert chosen(platform, queries, keys, dtype) == expected


@pytest.mark.parametrize(
    ("machine", "queries", "keys", "dtype", "prefer", "expected"),
    [
        ("gpu", (16, 2560, 5, 64), (16, 2560, 5, 64), BF16, "xla", "xla"),
        ("tpu", (16, 2560, 5, 64), (16, 2560, 5, 64), BF16, "chunked", "chunked"),
        ("cpu", (16, 2560, 5, 64), (16, 2560, 5, 64), F32, "xla", "xla"),
        ("gpu", (16, 16, 5, 64), (1, 16, 5, 64), BF16, "cudnn", "cudnn"),
        ("tpu", (16, 640, 10, 64), (16, 640, 10, 64), BF16, "splash", "splash"),
        # What the preferred one cannot run is chosen as by `auto`: the autoencoder's wide head, the text's 77 tokens.
        ("gpu", (16, 2560, 1, 512), (16, 2560, 1, 512), BF16, "cudnn", "chunked"),
        ("tpu", (2, 77, 16, 64), (2, 77, 16, 64), BF16, "splash", "xla"),
    ],
)
def test_a_preferred_back_end_computes_what_it_can(
    machine: Any, queries: tuple[int, ...], keys: tuple[int, ...], dtype: Any, prefer: Any, expected: str
) -> None:
    assert chosen(machine, queries, keys, dtype, prefer=prefer) == expected


@pytest.mark.parametrize("prefer", BACKENDS)
def test_every_back_end_may_be_preferred_anywhere(prefer: Any) -> None:
    """The two that the CPU lacks leave the choice to `auto`; the result is the same."""
    x = [jnp.asarray(part) for part in inputs(8, 8)]
    np.testing.assert_allclose(attention(*x, prefer=prefer), attention(*x), atol=1e-5)  # another order of sums


@pytest.mark.parametrize(
    ("machine", "backend", "dtype", "sentence"),
    [
        ("cpu", "flash", F32, "--attention is 'flash', which is no back end of attention: choose one of auto, xla"),
        ("cpu", "cudnn", BF16, "needs an NVIDIA GPU of compute capability 8.0 .* but this is a CPU: use 'auto'"),
        (AMD, "cudnn", BF16, "but this is another GPU"),
        (OLD_NVIDIA, "cudnn", BF16, "but this is another GPU"),
        ("gpu", "cudnn", F32, "computes in bfloat16 or float16, not float32"),
        ("gpu", "splash", BF16, "needs a TPU, but this is a GPU"),
        ("gpu", "cudnn", BF16, None),
        ("tpu", "splash", F32, None),
        ("cpu", "broadcast", F32, None),
    ],
)
def test_what_a_machine_lacks_is_said_before_anything_starts(
    machine: Any, backend: str, dtype: Any, sentence: str | None
) -> None:
    with tracing_for(cast(Platform, machine)) if isinstance(machine, str) else tracing_on(machine):
        if sentence is None:
            check_backend(backend, dtype, "--attention")
            return
        with pytest.raises(UserError, match=sentence):
            check_backend(backend, dtype, "--attention")


def test_auto_has_no_causal_splash() -> None:
    shape = (1, 2560, 5, 64)
    assert chosen("tpu", shape, shape, BF16, causal=True) == "chunked" or 5 * 2560**2 <= module.MAX_SCORES
    assert chosen("tpu", shape, shape, BF16, causal=True) != "splash"
