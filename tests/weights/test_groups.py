"""Parameter groups select what the published model's list of tensors says."""

from __future__ import annotations

from functools import cache
from math import prod

import pytest

from tests.reference import RuleSource, key_list
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tooncrafter_512
from tooncrafter_jax.weights.groups import GROUPS, in_groups
from tooncrafter_jax.weights.loading import map_source


@cache
def official() -> dict[str, tuple[str, int]]:
    """Our path, with its component -> official name and number of values, of the published model and its sketch
    encoder.
    """
    found = {}
    for file in ("keys/tooncrafter_512.tsv", "keys/sketch_encoder.tsv"):
        shapes = {name: s for name, s in key_list(file).items() if not name.startswith(_BUFFERS)}
        mapped = map_source(RuleSource(shapes), tooncrafter_512())
        for name, (component, path) in mapped.assignment.entries.items():
            found[f"{component}.{path}"] = name, prod(mapped.source.shapes[name])
    return found


_BUFFERS = ("betas", "alphas_cumprod", "sqrt_", "log_", "posterior_", "scale_arr")


def selected(*groups: str) -> dict[str, tuple[str, int]]:
    belongs = in_groups(groups)
    return {path: entry for path, entry in official().items() if belongs(path)}


@pytest.mark.parametrize(
    ("group", "tensors", "values"),
    [
        # Spec section 2.8 and section 1, counted on the original modules.
        ("temporal", 794, 545_323_136),
        ("spatial", 686, 865_922_244),
        ("image_kv", 32, 25_559_040),
        ("fps", 4, 2_050_560),
        ("projector", 51, 48_787_456),
        ("sketch", 340, 364_227_952),
        ("decoder", 286, 65_778_223),
        ("decoder.p3d", None, 14_089_004),  # spec section 5.4
        ("decoder.har", None, 2_199_040),
    ],
)
def test_counts_of_the_published_model(group: str, tensors: int | None, values: int) -> None:
    found = selected(group)
    assert sum(count for _, count in found.values()) == values
    assert tensors is None or len(found) == tensors


def test_temporal_by_the_official_names() -> None:
    """The rule on official names of spec section 2.8, written independently."""

    def is_temporal(name: str) -> bool:
        if not name.startswith("model.diffusion_model."):
            return False
        block, *rest = name.removeprefix("model.diffusion_model.").split(".")
        if block == "init_attn" or "temopral_conv" in rest:
            return True
        if block in ("input_blocks", "output_blocks"):  # block number, then 2 for the temporal transformer
            return rest[1] == "2" and "conv" not in rest
        return block == "middle_block" and rest[0] == "2"

    ours = {name for name, _ in selected("temporal").values()}
    assert ours == {name for name, _ in official().values() if is_temporal(name)}


def test_the_u_net_is_divided_without_rest() -> None:
    parts = [selected(group).keys() for group in ("temporal", "spatial", "image_kv", "fps")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 1516
    assert set().union(*parts) == {path for path in official() if path.startswith("unet.")}


def test_the_spatial_group_is_stable_diffusion_with_more_input() -> None:
    """865,910,724 values, and 3·3·4·320 for the condition latents (spec section 2.8)."""
    assert sum(count for _, count in selected("spatial").values()) == 865_910_724 + 3 * 3 * 4 * 320


def test_parts_of_the_decoder() -> None:
    whole, p3d, har = (selected(group).keys() for group in ("decoder", "decoder.p3d", "decoder.har"))
    assert not p3d & har and p3d | har < whole
    attention, residual = (selected(f"decoder.har.{part}").keys() for part in ("attention", "residual"))
    assert attention and residual and not attention & residual and attention | residual == har
    base = sum(official()[path][1] for path in whole - p3d - har)
    assert base == 49_490_179  # the plain image decoder, spec section 5.4


def test_what_the_sketch_encoder_adds_to_the_denoisers_half() -> None:
    shared = selected("sketch").keys() - selected("sketch.added").keys()
    denoiser = {path.removeprefix("unet.") for path in selected("spatial")}
    assert shared and {path.removeprefix("sketch_encoder.") for path in shared} <= denoiser
    assert not {path.removeprefix("sketch_encoder.") for path in selected("sketch.added")} & denoiser


def test_several_groups_are_a_union() -> None:
    both = selected("projector", "spatial")
    assert both.keys() == selected("projector").keys() | selected("spatial").keys()
    assert not selected()


def test_every_component_is_in_a_group_of_its_own() -> None:
    components = ("clip_text", "clip_image", "autoencoder")
    for name in components:
        assert set(selected(name)) == {path for path in official() if path.startswith(f"{name}.")} != set()
    every = in_groups(GROUPS)
    assert not [path for path in official() if not every(path)]


def test_an_unknown_group_names_the_nearest() -> None:
    with pytest.raises(UserError, match="no parameter group 'temporall'; did you mean 'temporal'"):
        in_groups(["spatial", "temporall"])
