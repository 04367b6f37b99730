"""Low-rank factors: merging, saving, loading, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.training.lora import LoraConfig, init, targets
from tooncrafter_jax.weights.lora import load_lora, merge, merged, save_lora

DRAW = np.random.default_rng(0)
FACTORS = {
    "lora.unet.x.kernel.a": DRAW.normal(size=(6, 2)).astype(np.float32),
    "lora.unet.x.kernel.b": DRAW.normal(size=(2, 5)).astype(np.float32),
}
KERNEL = jnp.asarray(DRAW.normal(size=(6, 5)), jnp.float32)


def test_a_kernel_is_moved_by_the_scaled_product():
    expected = KERNEL + 0.5 * FACTORS["lora.unet.x.kernel.a"] @ FACTORS["lora.unet.x.kernel.b"]
    np.testing.assert_allclose(merge("unet.x.kernel", KERNEL, FACTORS, 0.5), expected, rtol=1e-5, atol=1e-6)
    assert merge("unet.y.kernel", KERNEL, FACTORS, 0.5) is KERNEL


def test_a_convolution_is_adapted_as_the_matrix_of_its_patches():
    """Its result moves by the patch times A times B, whatever the picture."""
    kernel, picture = DRAW.normal(size=(3, 3, 4, 5)), DRAW.normal(size=(1, 6, 7, 4))
    factors = {"lora.c.kernel.a": DRAW.normal(size=(36, 2)), "lora.c.kernel.b": DRAW.normal(size=(2, 5))}
    kernel, picture = (jnp.asarray(array, jnp.float32) for array in (kernel, picture))
    factors = {path: jnp.asarray(factor, jnp.float32) for path, factor in factors.items()}

    def convolve(kernel):
        layout = jax.lax.conv_dimension_numbers(picture.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
        return jax.lax.conv_general_dilated(picture, kernel, (1, 1), "VALID", dimension_numbers=layout)

    patches = jnp.stack([picture[:, y : y + 4, x : x + 5] for y in range(3) for x in range(3)], axis=3)
    low_rank = patches.reshape(1, 4, 5, 36) @ factors["lora.c.kernel.a"] @ factors["lora.c.kernel.b"]
    adapted = convolve(merge("c.kernel", kernel, factors, 0.5))
    np.testing.assert_allclose(adapted, convolve(kernel) + 0.5 * low_rank, rtol=1e-4, atol=1e-4)
    settings = LoraConfig(rank=2, targets=("conv",))
    shapes = {"unet.conv_in.kernel": jax.ShapeDtypeStruct((3, 3, 4, 5), jnp.float32)}
    assert targets(settings, shapes, lambda path: True, "rectify") == ["unet.conv_in.kernel"]
    fresh = init(settings, shapes, ["unet.conv_in.kernel"], 0)
    assert [factor.shape for factor in fresh.values()] == [(36, 2), (2, 5)]


def test_saved_factors_merge_into_a_model(tmp_path):
    save_lora(tmp_path / "a.safetensors", {**FACTORS, "unet.x.kernel": KERNEL}, 0.5)
    lora = load_lora(tmp_path / "a.safetensors")
    assert set(lora.factors) == set(FACTORS) and lora.scale == 0.5
    model = {"unet": {"x.kernel": KERNEL, "x.bias": KERNEL[0]}, "decoder": {"x.kernel": KERNEL}}
    result = merged(model, lora)
    np.testing.assert_allclose(result["unet"]["x.kernel"], merge("unet.x.kernel", KERNEL, FACTORS, 0.5), rtol=1e-6)
    assert result["unet"]["x.bias"] is model["unet"]["x.bias"] and result["decoder"]["x.kernel"] is KERNEL


def test_factors_tell_how_to_sample_with_them(tmp_path):
    file = tmp_path / "a.safetensors"
    save_lora(file, FACTORS, 0.5, {"solver": "lcm", "steps": 4, "reuse": None})
    assert load_lora(file).sampling == {"solver": "lcm", "steps": 4, "reuse": None}
    save_lora(file, FACTORS, 0.5)
    assert load_lora(file).sampling == {}
    for text in ("[4]", "{", "[" * 100_000):
        file.write_bytes(save(FACTORS, {"scale": "0.5", "sampling": text}))
        with pytest.raises(UserError, match="damaged, or holds no low-rank factors"):
            load_lora(file)


def test_what_does_not_fit_is_reported(tmp_path):
    save_lora(tmp_path / "a.safetensors", FACTORS, 0.5)
    lora = load_lora(tmp_path / "a.safetensors")
    for model in ({}, {"unet": {"x.kernel": KERNEL[:3]}}):
        with pytest.raises(UserError, match="of another architecture"):
            merged(model, lora)
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    for file, message in (("b.safetensors", "damaged"), ("c.safetensors", "there is no file")):
        with pytest.raises(UserError, match=message):
            load_lora(tmp_path / file)
    save_lora(tmp_path / "d.safetensors", {**FACTORS, "lora.unet.x.kernel.b": np.ones((3, 5), np.float32)}, 0.5)
    with pytest.raises(UserError, match="of another architecture"):  # two ranks
        merged({"unet": {"x.kernel": KERNEL}}, load_lora(tmp_path / "d.safetensors"))
