"""A source is assigned to the components completely, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.reference import RuleSource, key_list
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.weights.loading import components_in, map_source
from tooncrafter_jax.weights.official import SCHEDULE_BUFFERS
from tooncrafter_jax.weights.rule import make

UNET = "model.diffusion_model."
FULL = ("unet", "image_projector", "clip_text", "clip_image", "autoencoder", "decoder")


class Source:
    """Tensors by the weight rule, but for some that are given."""

    where = "model.ckpt"

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray] | None = None) -> None:
        self.given = dict(given or {})
        self.shapes = {**shapes, **{name: value.shape for name, value in self.given.items()}}

    def read(self, name: str) -> np.ndarray:
        return self.given[name] if name in self.given else make(name, self.shapes[name])


def tensors(prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The tiny model's tensors, without buffers."""
    names = key_list("tiny/keys.tsv")
    return {n: shape for n, shape in names.items() if n not in SCHEDULE_BUFFERS and n.startswith(prefix)}


def buffers(config: ScheduleConfig | None = None) -> dict[str, np.ndarray]:
    return NoiseSchedule(config or ScheduleConfig()).buffers()


def test_a_full_model(tiny_config: ModelConfig) -> None:
    mapped = map_source(Source(tensors(), buffers()), tiny_config)
    assert mapped.components == FULL
    assert sorted(mapped.assignment.buffers) == sorted(SCHEDULE_BUFFERS)
    networks = tiny_config.networks()
    for component in ("image_projector", "autoencoder"):
        params = mapped.params(component)
        assert {n: v.shape for n, v in params.items()} == {
            n: v.shape for n, v in networks[component].abstract_params.items()
        }
        assert all(value.flags.c_contiguous and value.dtype == np.float32 for value in params.values())
    half = mapped.params("image_projector", np.float16)
    assert {value.dtype for value in half.values()} == {np.dtype(np.float16)}


def test_values_arrive_in_our_layout(tiny_config: ModelConfig) -> None:
    mapped = map_source(Source(tensors("first_stage_model.")), tiny_config)
    params = mapped.params("autoencoder")
    name = "first_stage_model.encoder.conv_in.weight"
    official = make(name, tensors()[name])
    assert params["encoder.conv_in.kernel"][2, 0, 1, 5] == official[5, 1, 2, 0]


def test_all_that_does_not_fit_is_listed_at_once(tiny_config: ModelConfig) -> None:
    shapes = tensors("image_proj_model.") | tensors("first_stage_model.")
    for name in ("image_proj_model.latents", "first_stage_model.quant_conv.bias"):
        del shapes[name]
    shapes["first_stage_model.decoder.up.7.block.0.norm1.weight"] = (64,)
    shapes["lpips.net.weight"] = (3,)
    shapes["image_proj_model.proj_in.weight"] = (48, 97)
    with pytest.raises(UserError) as error:
        map_source(Source(shapes), tiny_config)
    message = str(error.value)
    for part in (
        "model.ckpt does not fit this architecture",
        "2 missing: autoencoder.moments.bias, image_projector.queries",
        "2 unexpected: first_stage_model.decoder.up.7.block.0.norm1.weight, lpips.net.weight",
        "1 of another shape: image_proj_model.proj_in.weight is 97x48 instead of 96x48 (our layout)",
    ):
        assert part in message, part


def test_another_model_s_files_are_refused(tiny_config: ModelConfig) -> None:
    with pytest.raises(UserError, match="holds no ToonCrafter tensors .its first name is 'bert.embeddings'"):
        map_source(Source({"bert.embeddings": (3,)}), tiny_config)
    with pytest.raises(UserError, match="missing"):  # the published widths do not fit the tiny model
        map_source(Source(tensors(UNET)), tiny_config, ["unet", "decoder"])


def test_a_bare_u_net_file(tiny_config: ModelConfig) -> None:
    bare = {name.removeprefix(UNET): shape for name, shape in tensors(UNET).items()}
    mapped = map_source(Source(bare), tiny_config)
    assert mapped.components == ("unet",)
    assert len(mapped.assignment.entries) == len(bare) == 1516
    (path, value) = next(mapped.iterate("unet"))
    assert path == "time_embedding.hidden.kernel"
    np.testing.assert_array_equal(value, make("time_embed.0.weight", (256, 64)).T)  # read by its name in the file


def test_a_sketch_encoder_file(tiny_config: ModelConfig) -> None:
    source = RuleSource(key_list("tiny/sketch_keys.tsv"))
    assert components_in(source) == ("sketch_encoder",)
    mapped = map_source(source, tiny_config)
    assert mapped.components == ("sketch_encoder",) and len(mapped.assignment.entries) == 340


class TestBuffers:
    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_rounding_is_forgiven_and_no_more(self, tiny_config: ModelConfig, dtype: Any) -> None:
        """Half precision rounds a number below 1 by 2^-12 or 2^-9 at most; sampling does not use it."""
        given = {name: value.astype(dtype) for name, value in buffers().items()}
        mapped = map_source(Source(tensors("image_proj_model."), given), tiny_config)
        assert sorted(mapped.assignment.buffers) == sorted(SCHEDULE_BUFFERS)
        off = 3 * float(ml_dtypes.finfo(dtype).eps)
        given["scale_arr"] = (buffers()["scale_arr"] + np.float32(off)).astype(dtype)
        with pytest.raises(UserError, match="schedule buffer scale_arr of model.ckpt differs"):
            map_source(Source(tensors("image_proj_model."), given), tiny_config)

    def test_small_numbers_are_not_forgiven_what_large_ones_are(self, tiny_config: ModelConfig) -> None:
        """Betas are far below the rounding of a number near 1."""
        given = {"betas": buffers(ScheduleConfig(linear_start=0.001))["betas"].astype(np.float16)}
        with pytest.raises(UserError, match="schedule buffer betas of model.ckpt differs .* other diffusion constants"):
            map_source(Source(tensors("image_proj_model."), given), tiny_config)

    @pytest.mark.parametrize("name", ["alphas_cumprod", "scale_arr", "betas"])
    def test_other_diffusion_constants_are_refused(self, tiny_config: ModelConfig, name: str) -> None:
        """Ordinary schedule instead of zero terminal SNR; the 1024 model's scale of 0.3."""
        other = ScheduleConfig(zero_terminal_snr=False, base_scale=0.3)
        given = {**buffers(), name: buffers(other)[name]}
        with pytest.raises(
            UserError, match=f"schedule buffer {name} of model.ckpt differs .* other diffusion constants"
        ):
            map_source(Source(tensors("image_proj_model."), given), tiny_config)

    def test_a_schedule_of_another_length(self, tiny_config: ModelConfig) -> None:
        given = {"betas": buffers()["betas"][:500]}
        with pytest.raises(UserError, match="betas of model.ckpt has 500 entries instead of 1000"):
            map_source(Source(tensors("image_proj_model."), given), tiny_config)
