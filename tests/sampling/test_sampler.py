"""What the compiled parts of sampling know of their devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tooncrafter_jax.diffusion.loop import chunks
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import SOLVERS, SolverOptions
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import COMPONENTS, tiny
from tooncrafter_jax.models.tooncrafter import Conditions
from tooncrafter_jax.nn.platform import current_platform, tracing_for
from tooncrafter_jax.sampling.denoise import Guidance
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.sampler import Sampler
from tooncrafter_jax.sampling.sampling_mesh import sampling_mesh
from tooncrafter_jax.typing import Device


def sampler(dtype: str, **settings: Any) -> Sampler:
    return Sampler(tiny(), tiny().networks(dtype), **settings)


@pytest.mark.parametrize(
    ("platform", "dtype", "is_exact"),
    [("gpu", "float32", True), ("tpu", "float32", True), ("gpu", "bfloat16", False), ("cpu", "float32", False)],
)
def test_float32_is_float32_on_accelerators(platform: Any, dtype: str, is_exact: bool) -> None:
    """Their default products of float32 matrices have 10 (GPU) or 7 (TPU) bits; a CPU's are exact by default."""
    product = sampler(dtype)._jit(lambda x: x @ x)
    with tracing_for(platform):
        text = product.lower(jax.ShapeDtypeStruct((2, 2), dtype)).as_text()
    assert "stablehlo.dot_general" in text
    assert ("HIGHEST" in text) == is_exact


def test_everything_lies_on_the_device_that_was_chosen(devices: list[Device]) -> None:
    toon = ToonCrafter(tiny(), {name: {} for name in COMPONENTS}, devices=[devices[1]])
    assert toon.sampler(1, 16).place(np.zeros(3)).devices() == {devices[1]}


def test_the_platform_is_that_of_the_chosen_device() -> None:
    class Gpu:
        platform = "gpu"

    assert jax.eval_shape(
        sampler("float32", device=Gpu())._jit(lambda x: x if current_platform() == "gpu" else x[0]), jnp.ones(3)
    ).shape == (3,)
    assert ToonCrafter(tiny(), {}, devices=[Gpu()]).dtype == jnp.bfloat16
    assert ToonCrafter(tiny(), {}).dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["fp16", "int8", "float64"])
def test_a_dtype_that_no_model_computes_in_is_named(dtype: str) -> None:
    with pytest.raises(UserError, match=f"does not compute in '{dtype}': choose one of float32, bfloat16, float16"):
        ToonCrafter.random("tiny", dtype=dtype)


def test_random_matrices_have_the_dtype_of_the_computation(
    monkeypatch: pytest.MonkeyPatch, devices: list[Device]
) -> None:
    monkeypatch.setattr("tooncrafter_jax.models.configuration.COMPONENTS", ("image_projector",))
    toon = ToonCrafter.random("tiny", dtype="bfloat16", devices=[devices[1]])
    params = toon.params["image_projector"]
    assert {value.dtype for value in params.values() if value.ndim > 1} == {np.dtype(jnp.bfloat16)}
    assert {value.dtype for value in params.values() if value.ndim == 1} == {np.dtype(np.float32)}
    assert all(value.devices() == {devices[1]} for value in params.values())


@pytest.mark.gate
def test_half_precision_lowers_for_gpus_that_share_a_clip(
    devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pair on four GPUs: two guidance branches, and the frames of each in two parts. cuDNN's own partitioner is not
    asked.
    """
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    config = tiny()
    mesh = sampling_mesh(devices[:4], rows=2, frames=16)
    on_gpus = sampler("bfloat16", mesh=mesh)
    params = {"unet": on_gpus.networks["unet"].abstract_params}

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    ddim = SOLVERS["ddim"]
    chunk = next(chunks(ddim.rows(NoiseSchedule(config.schedule), SolverOptions(steps=2)), 2))
    guidance = Guidance(array(), array(), array())
    with tracing_for("gpu"):
        context = jax.eval_shape(
            lambda p, c: on_gpus.context_keys(p, c, frames=16), params, array(2, 333, 64, dtype=jnp.bfloat16)
        )
        conditions = Conditions(array(1, 16, 8, 8, 4), context, array(1, dtype=jnp.int32))
        traced = on_gpus.denoise.trace(
            params,
            array(1, 16, 8, 8, 4),
            chunk,
            array(1, dtype=jnp.uint32),
            conditions,
            guidance,
            solver=ddim,
            branches=2,
        )
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    kernels = [line for line in text.splitlines() if "__cudnn$fmha" in line]
    assert kernels
    assert "CustomSPMDPartitioning" not in text
    assert any("tensor<1x512x4x16xbf16>" in line for line in kernels), "cross-attention: 8 of 16 frames of 64 cells"
