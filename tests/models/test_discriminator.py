"""The patch discriminator is the published one, and stays pure under JAX's transformations."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tooncrafter_jax.models.discriminator import STATISTICS, Discriminator, DiscriminatorConfig
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import Device
from tooncrafter_jax.weights.rule import unit_noise

SMALL = Network(Discriminator, DiscriminatorConfig(width=4))
TOLERANCE = 1e-5
"""Relative to the standard deviation; both sides are float32, the rest is the order of summation."""


@cache
def params() -> dict[str, jax.Array]:
    """Of a usual size: new kernels are so small that the logits would hardly depend on the picture."""

    def value(path: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = unit_noise(path, shape)
        if path.endswith("kernel"):
            return noise * np.float32(np.prod(shape[:-1]) ** -0.5)
        return np.float32(path.endswith(("scale", "variance"))) + np.float32(0.1) * noise

    return {path: jnp.asarray(value(path, leaf.shape)) for path, leaf in SMALL.abstract_params.items()}


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.clip(unit_noise("discriminator.images", (*shape, 3)), -1, 1))


def split_statistics(params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    statistics = {path: value for path, value in params.items() if path.rpartition(".")[2] in STATISTICS}
    return {path: value for path, value in params.items() if path not in statistics}, statistics


@jax.jit
def judged(params: Any, images: Any) -> Any:
    """Logits and new statistics while training, logits with the running statistics, and two gradients."""
    module = SMALL.bind(params)

    def mean(trained: Any, images: Any) -> Any:
        return jnp.square(SMALL.bind(params | trained)(images)).mean()

    trained, _ = split_statistics(params)
    gradients = jax.grad(mean, argnums=(0, 1))(trained, images)
    return *module.logits_and_statistics(images), module(images, training=False), gradients


def torch_twin(params: dict[str, jax.Array], widths: tuple[int, ...]) -> Any:
    """The layers of spec section 8.6 in PyTorch, with these parameters."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    nn = torch.nn
    layers, strides = [], (2, 2, 2, 1, 1)
    for i, (features, out) in enumerate(zip((3, *widths), (*widths, 1), strict=True)):
        layers.append(nn.Conv2d(features, out, 4, strides[i], 1, bias=i in (0, 4)))
        if 0 < i < 4:
            layers.append(nn.BatchNorm2d(out))
        if i < 4:
            layers.append(nn.LeakyReLU(0.2))
    net = nn.Sequential(*layers)
    tensors = {path: torch.from_numpy(np.array(value)) for path, value in params.items()}
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for i, conv in enumerate(convs):
            conv.weight.copy_(tensors[f"convs.{i}.kernel"].permute(3, 2, 0, 1))
            if conv.bias is not None:
                conv.bias.copy_(tensors[f"convs.{i}.bias"])
        for i, norm in enumerate(norms):
            norm.weight.copy_(tensors[f"norms.{i}.scale"])
            norm.bias.copy_(tensors[f"norms.{i}.bias"])
            norm.running_mean.copy_(tensors[f"norms.{i}.mean"])
            norm.running_var.copy_(tensors[f"norms.{i}.variance"])
    return net, convs, norms


def close(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs)
    assert np.shape(ours) == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() < TOLERANCE * theirs.std()


def test_equals_the_published_layers() -> None:
    """Logits in both modes, running statistics and gradients, against PyTorch's own layers."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    pictures = images(3, 48, 40)
    logits, statistics, running, (of_params, of_images) = judged(params(), pictures)
    net, convs, norms = torch_twin(params(), (4, 8, 16, 32))

    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
    with torch.no_grad():
        close(running, net.eval()(x).permute(0, 2, 3, 1))
    x.requires_grad_()
    theirs = net.train()(x)
    close(logits, theirs.detach().permute(0, 2, 3, 1))
    theirs.square().mean().backward()
    close(of_images, x.grad.permute(0, 2, 3, 1))
    for i, conv in enumerate(convs):
        close(of_params[f"convs.{i}.kernel"], conv.weight.grad.permute(2, 3, 1, 0))
    for i, norm in enumerate(norms):
        close(of_params[f"norms.{i}.scale"], norm.weight.grad)
        close(statistics[f"norms.{i}.mean"], norm.running_mean)
        close(statistics[f"norms.{i}.variance"], norm.running_var)


def test_statistics_are_apart_from_parameters() -> None:
    trained, statistics = split_statistics(SMALL.abstract_params)
    assert set(statistics) == {f"norms.{i}.{name}" for i in range(3) for name in ("mean", "variance")}
    assert set(trained) | set(statistics) == set(SMALL.abstract_params) and not set(trained) & set(statistics)
    _, of_nnx, running = nnx.split(SMALL.bind(params()), nnx.Param, nnx.BatchStat)
    assert {".".join(map(str, path)) for path, _ in nnx.to_flat_state(of_nnx)} == set(trained)
    assert {".".join(map(str, path)) for path, _ in nnx.to_flat_state(running)} == set(statistics)
    assert set(judged(params(), images(3, 48, 40))[1]) == set(statistics)


def test_a_module_bound_once_is_differentiated_without_being_changed() -> None:
    """As the adaptive weight needs it: bound outside the gradient, called twice inside, statistics handed out on the
    side.
    """

    @jax.jit
    def step(params: Any, real: Any) -> Any:
        module = SMALL.bind(params)

        def loss(fake: Any) -> Any:
            logits, statistics = module.logits_and_statistics(fake)
            return module(real).mean() - logits.mean() + sum(jnp.sum(s) for s in statistics.values()), statistics

        gradient, statistics = jax.grad(loss, has_aux=True)(real[::-1] * 0.5)
        alone = jax.grad(lambda fake: -module(fake).mean())(real[::-1] * 0.5)
        after = {path: value[...] for path, value in _flat(module).items()}
        return gradient, alone, statistics, after

    gradient, alone, statistics, after = step(params(), images(3, 48, 40))
    np.testing.assert_allclose(
        gradient, alone, atol=1e-6 * float(np.abs(alone).max())
    )  # no gradient through statistics
    assert float(np.abs(alone).max()) > 0
    for path, value in after.items():
        np.testing.assert_array_equal(value, params()[path])
    assert not np.allclose(statistics["norms.0.variance"], params()["norms.0.variance"])


def _flat(module: Any) -> dict[str, Any]:
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(module))}


def test_clips_are_judged_frame_by_frame() -> None:
    """Leading axes are batch axes, and with running statistics a frame does not feel the others."""
    frames = images(4, 32, 32)
    run = jax.jit(lambda params, x: SMALL.bind(params)(x, training=False))
    together = run(params(), frames.reshape(2, 2, 32, 32, 3))
    assert together.shape == (2, 2, 2, 2, 1)
    np.testing.assert_allclose(together[1, 0], run(params(), frames[2]), atol=1e-6)


def test_a_patch_is_70_pixels_wide() -> None:
    """The size for which this discriminator is named (Isola et al. 2017, appendix 6.1.2)."""
    pixels = images(1, 112, 112)

    def centre(x: jax.Array) -> jax.Array:
        return SMALL.bind(params())(x, training=False)[0, 6, 6, 0]

    seen = np.abs(np.asarray(jax.jit(jax.grad(centre))(pixels))).sum((0, 3)) > 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == (70, 70)


def test_statistics_are_of_all_devices(devices: list[Device]) -> None:
    """A batch over eight devices is normalised like the same batch on one."""
    frames = images(8, 32, 32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    run = jax.jit(lambda params, x: SMALL.bind(params).logits_and_statistics(x))
    logits, statistics = run(params(), jax.device_put(frames, NamedSharding(mesh, PartitionSpec("data"))))
    expected, expected_statistics = run(params(), frames)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for name, value in expected_statistics.items():
        np.testing.assert_allclose(statistics[name], value, rtol=1e-5, atol=1e-6)


def test_bfloat16_keeps_statistics_in_float32() -> None:
    network = Network(Discriminator, SMALL.config, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    half = {path: params()[path].astype(leaf.dtype) for path, leaf in network.abstract_params.items()}
    logits, statistics = jax.jit(lambda p, x: network.bind(p).logits_and_statistics(x))(half, images(3, 48, 40))
    expected = np.asarray(judged(params(), images(3, 48, 40))[0])
    assert {one.dtype for one in (logits, *statistics.values())} == {jnp.dtype("float32")}
    deviation = np.abs(np.asarray(logits, np.float32) - expected).max() / expected.std()
    assert 1e-4 < deviation < 0.1  # 8 bits in each of five layers


def test_the_published_architecture_and_its_initialisation() -> None:
    network = Network(Discriminator, DiscriminatorConfig())
    shapes = {path: leaf.shape for path, leaf in network.abstract_params.items()}
    kernels = [shapes[f"convs.{i}.kernel"] for i in range(5)]
    assert kernels == [(4, 4, 3, 64), (4, 4, 64, 128), (4, 4, 128, 256), (4, 4, 256, 512), (4, 4, 512, 1)]
    assert sorted(path for path in shapes if path.startswith("convs") and path.endswith("bias")) == [
        "convs.0.bias",
        "convs.4.bias",
    ]
    new = dict(network.drawn(0))
    for i in range(1, 4):
        assert abs(float(new[f"convs.{i}.kernel"].std()) / 0.02 - 1) < 0.02
        assert abs(float(new[f"norms.{i - 1}.scale"].mean()) - 1) < 0.006
        assert 0.015 < float(new[f"norms.{i - 1}.scale"].std()) < 0.025
        assert not new[f"norms.{i - 1}.bias"].any() and not new[f"norms.{i - 1}.mean"].any()
        assert (new[f"norms.{i - 1}.variance"] == 1).all()
    assert not np.array_equal(new["norms.1.scale"][:128], new["norms.0.scale"])
    assert jax.eval_shape(
        lambda p, x: network.bind(p)(x), network.abstract_params, jax.ShapeDtypeStruct((2, 320, 512, 3), jnp.float32)
    ).shape == (2, 38, 62, 1)


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 16, 64, 3), "16x64 are too small"), ((1, 64, 64, 4), "takes 3 channels, not 4")]
)
def test_pictures_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.bind(params())(jnp.zeros(shape))


def test_in_16_bits_logits_and_gradients_are_float32s() -> None:
    """What several devices sum is not rounded before."""
    network = Network(Discriminator, DiscriminatorConfig(width=4, layers=1), dtype=jnp.bfloat16)
    shapes = network.abstract_params
    drawn = {path: jnp.asarray(unit_noise(path, leaf.shape)) for path, leaf in shapes.items()}

    @jax.jit
    def judge(params: Any, x: Any) -> Any:
        def mean(params: Any) -> Any:
            logits = network.bind(params)(x)
            return logits.mean(), logits

        return jax.grad(mean, has_aux=True)(params)

    gradients, logits = judge(drawn, images(2, 24, 24))
    assert logits.dtype == jnp.float32
    kernel = gradients["convs.0.kernel"]
    assert kernel.dtype == jnp.float32 and (kernel != kernel.astype(jnp.bfloat16).astype(jnp.float32)).any()
