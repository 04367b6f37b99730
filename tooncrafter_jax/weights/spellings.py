"""How the names in a weight file are spelled, and the same tensors under their official names.

The official names are those of the published checkpoint (`weights.official`). Beside them files have names without a
prefix (a sketch encoder, a U-Net), or the CLIP towers alone, as OpenCLIP or as transformers name them. What decides is
the names, never the name of the file: users keep different files under the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.weights.official import PREFIXES, Rules, component_of, rewrite
from tooncrafter_jax.weights.rule import SKETCH_PREFIX
from tooncrafter_jax.weights.sources import TensorSource

UNET_PREFIX, TEXT_PREFIX, IMAGE_PREFIX = (PREFIXES[name][0] for name in ("unet", "clip_text", "clip_image"))
EMA_PREFIX = "model_ema."
"""Of running means that a training keeps of the U-Net, in files of older trainings."""
WRAPPERS = ("module.", "_forward_module.")
"""Before every name in a file that was saved from a wrapped model."""
UNET_PREFIXES = ("", "diffusion_model.", "unet.")
"""What stands before the names of a U-Net in a file of its own."""

OTHER_MODELS = (
    (
        re.compile(r"(^|\.)framestride_embed\."),
        "is DynamiCrafter's model of 256x256 pixels, which predicts noise on another schedule and has a learnable "
        "factor in its attention, so that ToonCrafter cannot start from it: use DynamiCrafter's 512 model",
    ),
    (
        re.compile(r"(^|\.)masked_layer_fusion_"),
        "is a U-Net of LayerAnimate, whose layers have no place in ToonCrafter: use ToonCrafter's own weights",
    ),
    (
        re.compile(r"^(unet\.)?down_blocks\.\d+\.(resnets|attentions)\."),
        "is another model's U-Net in diffusers' names: use ToonCrafter's or DynamiCrafter's model.ckpt",
    ),
)
"""A name that only a model of another kind has -> what is said of its file."""


@dataclass(frozen=True)
class Place:
    """What a tensor of a file is.

    Attributes:
      name: the official name.
      row, of: which part of that tensor, of how many that lie one after another on its first axis.
    """

    name: str
    row: int = 0
    of: int = 1


@dataclass(frozen=True)
class Unused:
    """A tensor without a place, and why it has none."""

    reason: str


Spelling = Callable[[str], Place | Unused]
"""What becomes of a name."""


@dataclass
class RespelledSource:
    """A file under the official names.

    Attributes:
      source: the file.
      names: official name -> the file's names of its rows, in order; one of most.
      unused: name in the file -> why it is not needed.
      where: the file, for messages.
      shapes: official name -> shape.
    """

    source: TensorSource
    names: dict[str, tuple[str, ...]]
    unused: dict[str, str]
    where: str = field(init=False)
    shapes: Mapping[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.where = self.source.where
        self.shapes = {name: self._shape(name) for name in self.names}

    def read(self, name: str) -> HostArray:
        """The tensor of this official name, in the file's dtype."""
        rows = [self.source.read(own) for own in self.names[name]]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _shape(self, name: str) -> tuple[int, ...]:
        shapes = [tuple(self.source.shapes[own]) for own in self.names[name]]
        if len(shapes) == 1:
            return shapes[0]
        if any(not shape or shape[1:] != shapes[0][1:] for shape in shapes):
            raise UserError(
                f"{self.where} is damaged: {', '.join(self.names[name])} are parts of one tensor, but do not fit "
                "each other"
            )
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def respelled(source: TensorSource) -> RespelledSource:
    """A file under the official names.

    Raises:
      UserError: it is of a model of another kind, belongs to no ToonCrafter file, or lacks a part of a tensor.
    """
    wrapper = next((w for w in WRAPPERS if source.shapes and all(name.startswith(w) for name in source.shapes)), "")
    spelling = _spelling_of([name.removeprefix(wrapper) for name in source.shapes], source.where)
    rows: dict[str, dict[Place, str]] = {}
    unused: dict[str, str] = {}
    for name in source.shapes:
        place = spelling(name.removeprefix(wrapper))
        if isinstance(place, Unused):
            unused[name] = place.reason
        elif place in rows.setdefault(place.name, {}):
            raise UserError(f"{source.where} holds one tensor under two names: {rows[place.name][place]} and {name}")
        else:
            rows[place.name][place] = name
    for parts in rows.values():
        some, name = next(iter(parts.items()))
        if {(place.row, place.of) for place in parts} != {(row, some.of) for row in range(some.of)}:
            raise UserError(
                f"{source.where} has {name}, but not all of the {some.of} tensors that are one in ToonCrafter: copy "
                "the file again"
            )
    ordered = {
        name: tuple(parts[place] for place in sorted(parts, key=lambda place: place.row))
        for name, parts in rows.items()
    }
    return RespelledSource(source, ordered, unused)


def _spelling_of(names: list[str], where: str) -> Spelling:
    """How the names of a file are spelled.

    Raises:
      UserError: if they are of no ToonCrafter file.
    """
    for pattern, sentence in OTHER_MODELS:
        if any(pattern.search(name) for name in names):
            raise UserError(f"{where} {sentence}")
    if any(component_of(name) is not None or name.startswith(EMA_PREFIX) for name in names):
        return _official
    if any(name.startswith("input_hint_block.") for name in names):
        return lambda name: Place(SKETCH_PREFIX + name)
    for prefix in UNET_PREFIXES:
        if any(name.startswith(f"{prefix}input_blocks.") for name in names):
            return partial(_of_u_net, prefix)
    towers = {
        official: [name.removesuffix(first) for name in names if name.endswith(first)]
        for first, official in _TRANSFORMERS_FIRST.items()
    }
    if any(towers.values()):
        return partial(_of_transformers, towers)
    if any(name in _OPENCLIP_FIRST for name in names):
        return _of_openclip
    raise UserError(
        f"{where} holds no ToonCrafter tensors (its first name is '{next(iter(names), '')}'); expected names like "
        "'model.diffusion_model.input_blocks.0.0.weight' or, for a sketch encoder, 'input_hint_block.0.weight'"
    )


def _official(name: str) -> Place | Unused:
    if name.startswith(EMA_PREFIX):
        return Unused("running mean of a training, which the published code does not read either")
    return Place(name)


def _of_u_net(prefix: str, name: str) -> Place:
    return Place(UNET_PREFIX + name.removeprefix(prefix))


# ----------------------------------------------------------------------------------------------------- the CLIP towers

_OPENCLIP_FIRST = ("visual.conv1.weight", "token_embedding.weight")


def _of_openclip(name: str) -> Place:
    if name.startswith("visual."):
        return Place(IMAGE_PREFIX + name.removeprefix("visual."))
    return Place(TEXT_PREFIX + name)


_TRANSFORMERS_FIRST = {
    "embeddings.token_embedding.weight": TEXT_PREFIX,
    "embeddings.patch_embedding.weight": IMAGE_PREFIX,
}
"""The first tensor of a tower -> the official prefix; before it stands `text_model.` or `vision_model.`, or nothing in
files of transformers 5 for a text tower alone.
"""
_TRANSFORMERS: Rules = [
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.patch_embedding\.", "conv1."),
    (r"^pre_layrnorm\.", "ln_pre."),  # transformers' own spelling
    (r"^post_layernorm\.", "ln_post."),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.self_attn\.[qkv]_proj\.(weight|bias)$", r".attn.in_proj_\1"),
]
_ROWS = "qkv"
"""The order of the packed projection."""
_ROW = re.compile(r"\.self_attn\.([qkv])_proj\.(weight|bias)$")
_ROOTS = {
    "text_projection.weight": f"{TEXT_PREFIX}text_projection",
    "logit_scale": f"{TEXT_PREFIX}logit_scale",
    "visual_projection.weight": f"{IMAGE_PREFIX}proj",
}
"""What stands beside the towers; the projections are transposed, but nothing uses them."""


def _of_transformers(towers: Mapping[str, list[str]], name: str) -> Place | Unused:
    """The place of a name; `towers` are, by official prefix, what stands before the names of each tower."""
    if name.endswith("position_ids"):
        return Unused("0, 1, 2, ...")
    for root, official in _ROOTS.items():
        if name == root or name.endswith(f".{root}"):
            return Place(official)
    known = [(prefix, official) for official, found in towers.items() for prefix in found]
    for prefix, official in sorted(known, key=lambda item: -len(item[0])):  # one of them may be empty
        if name.startswith(prefix):
            row, path = _ROW.search(name), official + rewrite(name.removeprefix(prefix), _TRANSFORMERS)
            return Place(path) if row is None else Place(path, _ROWS.index(row[1]), len(_ROWS))
    return Place(name)
