"""What weight files tell of the architecture: ToonCrafter's relatives, and CLIP towers of another size.

DynamiCrafter's models of 512 and 1024 have ToonCrafter's U-Net, projector, encoder and CLIP, but Stable Diffusion's
plain image decoder; MoG's have ToonCrafter's or DynamiCrafter's tensors, and are sampled otherwise (spec section 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.notes import note
from tooncrafter_jax.typing import JsonObject
from tooncrafter_jax.weights.joining import JoinedSource
from tooncrafter_jax.weights.official import PREFIXES
from tooncrafter_jax.weights.sources import TensorSource

DECODER_PREFIX, PLAIN_PREFIX = PREFIXES["decoder"]
TEMPORAL_PARTS = ("time_stack.", "mix_factor", "time_mix_conv.")
REFERENCE_PARTS = ("attn_refinement.",)
SCALE_BUFFER, SCALE_OF_1024 = "scale_arr", 0.3
"""The dynamic rescale: ends at 0.7 in models of 512, at 0.3 in those of 1024."""
_HALF_ROUNDING = 2e-3


def adapted(config: ModelConfig, source: TensorSource) -> ModelConfig:
    """An architecture with what the files tell of their own, said on a line.

    Args:
      config: what is taken for what they do not tell.
      source: the files, under the official names.

    Raises:
      UserError: a CLIP tower is of another size.
    """
    _check_towers(config, source)
    decoder = [name.removeprefix(DECODER_PREFIX) for name in source.shapes if name.startswith(DECODER_PREFIX)]
    if not decoder or any(part in name for name in decoder for part in (*TEMPORAL_PARTS, *REFERENCE_PARTS)):
        return config
    if not (config.decoder.temporal or config.decoder.references):
        return config
    where = _giver(source, "decoder")
    note(
        f"{where} has DynamiCrafter's plain image decoder instead of ToonCrafter's: the model samples with it, "
        "and the stages rectify and decoder start from it"
    )
    of_512 = _dynamicrafter(config, any(name.startswith(PLAIN_PREFIX) for name in source.shapes))
    if not _is_of_1024(source):
        return of_512
    note(f"{where} is DynamiCrafter's model of 1024: its dynamic rescale ends at {SCALE_OF_1024}")
    return _of_1024(of_512)


def is_relative(other: ModelConfig, config: ModelConfig) -> bool:
    """Whether an architecture is one that `adapted` can make of another."""
    of_512 = [_dynamicrafter(config, post_quantization) for post_quantization in (True, False)]
    return other in of_512 or other in map(_of_1024, of_512)


def _dynamicrafter(config: ModelConfig, post_quantization: bool) -> ModelConfig:
    plain = replace(
        config.decoder,
        temporal=False,
        references=False,
        carried=False,
        corrects_motion=False,
        post_quantization=post_quantization,
    )
    return replace(config, name="dynamicrafter_512" if config == ModelConfig() else config.name, decoder=plain)


def _of_1024(of_512: ModelConfig) -> ModelConfig:
    config = replace(of_512, schedule=replace(of_512.schedule, base_scale=SCALE_OF_1024))
    if of_512.name != "dynamicrafter_512":
        return config
    return replace(config, name="dynamicrafter_1024", height=576, width=1024, unet=replace(config.unet, default_fps=10))


def _giver(source: TensorSource, component: str) -> str:
    """The file that a component is taken from, for messages."""
    return source.givers.get(component, source.where) if isinstance(source, JoinedSource) else source.where


def _is_of_1024(source: TensorSource) -> bool:
    shape = source.shapes.get(SCALE_BUFFER)
    if shape is None or len(shape) != 1 or not shape[0]:
        return False
    return abs(float(source.read(SCALE_BUFFER)[-1]) - SCALE_OF_1024) < _HALF_ROUNDING


# ----------------------------------------------------------------------------------------------------------------- CLIP


def _check_towers(config: ModelConfig, source: TensorSource) -> None:
    text, image = (PREFIXES[name][0] for name in ("clip_text", "clip_image"))
    tower = _size(source, text, "token_embedding.weight", 1)
    layers = {config.clip_text.blocks, config.clip_text.layers}
    wanted = f"{config.clip_text.width} features and {' or '.join(map(str, sorted(layers)))} blocks"
    if tower is not None and (tower[0] != config.clip_text.width or tower[1] not in layers):
        raise UserError(_another("text", source, tower, wanted))
    tower = _size(source, image, "conv1.weight", 0)
    wanted = f"{config.clip_image.width} features and {config.clip_image.layers} blocks"
    if tower is not None and tower != (config.clip_image.width, config.clip_image.layers):
        raise UserError(_another("image", source, tower, wanted))


def _size(source: TensorSource, prefix: str, first: str, axis: int) -> tuple[int, int] | None:
    """Features and blocks of a tower that a file holds; None if it cannot be told."""
    shape = source.shapes.get(prefix + first)
    if shape is None or len(shape) <= axis:
        return None
    block = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d{1,6})\.")
    return shape[axis], len({int(found[1]) for found in map(block.match, source.shapes) if found})


def _another(kind: str, source: TensorSource, found: tuple[int, int], wanted: str) -> str:
    where = _giver(source, f"clip_{kind}")
    return (
        f"{where} holds a CLIP {kind} tower of {found[0]} features and {found[1]} blocks, but this model needs one of "
        f"{wanted}: name that of {CLIP_MODEL}"
    )


CLIP_MODEL = "OpenCLIP ViT-H-14 (laion2b_s32b_b79k)"
"""Whose towers the published model has (spec section 1)."""
CLIP_FILES: Mapping[str, str] = {
    "clip_text": "text_encoder/model.safetensors of Stable Diffusion 2.1",
    "clip_image": "models/image_encoder/model.safetensors of h94/IP-Adapter",
}
"""Component -> a file that holds it alone."""
BOTH_TOWERS = "open_clip_model.safetensors of laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def missing_towers(files: Sequence[Path], missing: Sequence[str], destination: Path) -> str:
    """The sentence about a model without CLIP's towers."""
    alone = " and ".join(CLIP_FILES[name] for name in missing)
    given = " ".join(map(str, files))
    these = f"{' and '.join(map(str, files))} lack{'s' if len(files) == 1 else ''}"
    return (
        f"{these} CLIP ({', '.join(missing)}), which a model needs: name a file with it too, such as "
        f"{BOTH_TOWERS}, or {alone}: tooncrafter convert {given} open_clip_model.safetensors {destination}"
    )


# ------------------------------------------------------------------------------------------------------------- variants


@dataclass(frozen=True)
class Variant:
    """A model that cannot be told from ToonCrafter by its tensors.

    Attributes:
      sampling: options that it is published with, by their names in `sampling.sampling_options.SamplingOptions`.
      remark: what is said of it; empty for nothing.
      files: names under which it is published.
    """

    sampling: JsonObject
    remark: str = ""
    files: tuple[str, ...] = ()


VARIANTS = {
    "tooncrafter": Variant({}),
    "mog": Variant(
        {"motion_guidance": True, "steps": 50, "spacing": "uniform_trailing", "guidance_rescale": 0.7},
        "MoG is published with flows of EMA-VFI, and here its flows are RIFE's (`tooncrafter fetch-metric-weights`), "
        "which err otherwise; it is published with a frame rate of 24, which is to be given: --fps=24",
        ("ani.ckpt", "real.ckpt"),
    ),
}
"""By name (spec section 14)."""


def variant_of(files: Sequence[Path], chosen: str | None) -> Variant:
    """The variant of this name, or without one what the names of the files tell, said on a line.

    Raises:
      UserError: there is no such variant.
    """
    if chosen is not None and chosen not in VARIANTS:
        raise UserError(f"there is no variant '{chosen}': choose one of {', '.join(VARIANTS)}")
    name = chosen or "tooncrafter"
    for other, variant in VARIANTS.items():
        by_name = [file for file in files if file.name in variant.files]
        if chosen is None and by_name:
            name = other
            note(f"{by_name[0]} is taken for a model of {other} by its name: --variant=tooncrafter if it is not")
    if VARIANTS[name].remark:
        note(VARIANTS[name].remark)
    return VARIANTS[name]
