"""The published checkpoint's tensor names and layouts, as a table to our components, paths and layouts.

Official names are PyTorch state-dict names. The table is a list of rewriting rules per component; applying it to a list
of tensors (`assign`) must consume every tensor and fill every parameter, or it fails with all that does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tooncrafter_jax.typing import HostArray
from tooncrafter_jax.weights.misfit import by, check_fit
from tooncrafter_jax.weights.rule import SKETCH_PREFIX

FIRST_STAGE_PREFIX = "first_stage_model."
PREFIXES: dict[str, tuple[str, ...]] = {
    "unet": ("model.diffusion_model.",),
    "image_projector": ("image_proj_model.",),
    "clip_text": ("cond_stage_model.model.",),
    "clip_image": ("embedder.model.visual.",),
    "autoencoder": (f"{FIRST_STAGE_PREFIX}encoder.", f"{FIRST_STAGE_PREFIX}quant_conv."),
    "decoder": (f"{FIRST_STAGE_PREFIX}decoder.", f"{FIRST_STAGE_PREFIX}post_quant_conv."),
    "sketch_encoder": (SKETCH_PREFIX,),
}
"""Component -> prefixes of its official names (spec section 1); the sketch encoder's own file has none."""

SCHEDULE_BUFFERS = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "scale_arr",
    }
)
"""Persistent buffers of the diffusion wrapper; not parameters (spec section 1)."""

Rules = list[tuple[str, str]]
"""Regular expression and replacement, tried in order; each is applied once, and all are applied."""

_RES_BLOCK: Rules = [
    (r"in_layers\.0\.", "spatial_res.norm_in."),
    (r"in_layers\.2\.", "spatial_res.conv_in."),
    (r"emb_layers\.1\.", "spatial_res.embedding."),
    (r"out_layers\.0\.", "spatial_res.norm_out."),
    (r"out_layers\.3\.", "spatial_res.conv_out."),
    (r"skip_connection\.", "spatial_res.skip."),
]
_TEMPORAL_CONV = re.compile(r"temopral_conv\.conv(\d+)\.(\d)\.")  # the checkpoint's own spelling
_TRANSFORMER: Rules = [
    (r"transformer_blocks\.(\d+)\.", r"blocks.\1."),
    (r"norm([123])\.", r"norm_\1."),
    (r"to_k_ip\.", "image_key."),
    (r"to_v_ip\.", "image_value."),
    (r"to_q\.", "query."),
    (r"to_k\.", "key."),
    (r"to_v\.", "value."),
    (r"to_out\.0\.", "out."),
    (r"ff\.net\.0\.proj\.", "feed_forward.gate_in."),
    (r"ff\.net\.2\.", "feed_forward.out."),
]
_SPATIAL_ATTENTION: Rules = [(r"attn1\.", "self_attention."), (r"attn2\.", "cross_attention.")]
_TEMPORAL_ATTENTION: Rules = [(r"attn1\.", "self_attention_1."), (r"attn2\.", "self_attention_2.")]


def rewrite(name: str, rules: Rules) -> str:
    """A name to which every rule has been applied once."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name, count=1)
    return name


@dataclass(frozen=True)
class LevelLayout:
    """What official block numbers depend on.

    Attributes:
      levels: resolutions of the network.
      blocks: residual blocks of a level on the way down.
    """

    levels: int = 4
    blocks: int = 2


def _transformer(part: str, rest: str) -> str:
    attention = _SPATIAL_ATTENTION if part == "spatial_transformer" else _TEMPORAL_ATTENTION
    return f"{part}." + rewrite(rest, [*_TRANSFORMER, *attention])


def _unet_part(rest: str) -> str:
    """Translates "<k>.<name>" inside a block: 0 residual block, 1 spatial transformer, 2 temporal transformer."""
    part, name = rest.split(".", 1)
    if part == "1":
        return _transformer("spatial_transformer", name)
    if part == "2":
        return _transformer("temporal_transformer", name)
    temporal = _TEMPORAL_CONV.match(name)
    if temporal:
        stage = int(temporal[1]) - 1
        leaf = "norm" if temporal[2] == "0" else "conv"
        return f"temporal_conv.stages.{stage}.{leaf}." + name[temporal.end() :]
    return rewrite(name, _RES_BLOCK)


def unet_path(name: str, layout: LevelLayout, *, is_sketch_encoder: bool = False) -> str:
    """Our path for a tensor of the denoiser or the sketch encoder, given its name without prefix (and before the leaf
    rule).
    """
    head, _, rest = name.partition(".")
    per_level = layout.blocks + 1
    if head == "time_embed" or head in ("fps_embedding", "framestride_embed"):
        root = "time_embedding" if head == "time_embed" else "fps_embedding"
        return f"{root}." + rewrite(rest, [(r"^0\.", "hidden."), (r"^2\.", "out.")])
    if head == "init_attn":
        return "stem_temporal_" + _transformer("transformer", rest.split(".", 1)[1])
    if head == "input_blocks":
        index, rest = rest.split(".", 1)
        i = int(index)
        if i == 0:
            return "conv_in." + rest.split(".", 1)[1]
        level, block = divmod(i - 1, per_level)
        if block == layout.blocks:
            return f"down.{level}.downsample." + rest.removeprefix("0.op.")
        return f"down.{level}.blocks.{block}." + _unet_part(rest)
    if head == "middle_block":
        part, rest = rest.split(".", 1)
        last = "2" if is_sketch_encoder else "3"
        block, part = (1, "0") if part == last else (0, part)
        return f"mid.blocks.{block}." + _unet_part(f"{part}.{rest}")
    if head == "output_blocks":
        index, rest = rest.split(".", 1)
        level, block = divmod(int(index), per_level)
        level = layout.levels - 1 - level
        upsample = re.match(r"\d+\.conv\.(?=weight|bias)", rest)
        if upsample:
            return f"up.{level}.upsample." + rest[upsample.end() :]
        return f"up.{level}.blocks.{block}." + _unet_part(rest)
    if head == "out":
        return rewrite(rest, [(r"^0\.", "norm_out."), (r"^2\.", "conv_out.")])
    return _sketch_encoder_path(head, rest) or name


def _sketch_encoder_path(head: str, rest: str) -> str | None:
    """Our path for what the sketch encoder has alone."""
    if head == "input_hint_block":
        index, rest = rest.split(".", 1)
        return f"hint.convs.{int(index) // 2}.{rest}"
    if head == "zero_convs":
        return "skip_taps." + re.sub(r"^(\d+)\.0\.", r"\1.", rest)
    if head == "middle_block_out":
        return "mid_tap." + rest.removeprefix("0.")
    return None


_PROJECTOR: Rules = [
    (r"^latents$", "queries"),
    (r"^(layers\.\d+)\.0\.", r"\1.attention."),
    (r"attention\.norm1\.", "attention.norm_tokens."),
    (r"attention\.norm2\.", "attention.norm_queries."),
    (r"to_q\.", "query."),
    (r"to_kv\.", "key_value."),
    (r"to_out\.", "out."),
    (r"^(layers\.\d+)\.1\.0\.", r"\1.feed_forward.norm."),
    (r"^(layers\.\d+)\.1\.1\.", r"\1.feed_forward.hidden."),
    (r"^(layers\.\d+)\.1\.3\.", r"\1.feed_forward.out."),
]
_CLIP: Rules = [
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm_\1."),
    (r"attn\.in_proj_", "attention.qkv."),
    (r"attn\.out_proj\.", "attention.out."),
    (r"mlp\.c_fc\.", "mlp.hidden."),
    (r"mlp\.c_proj\.", "mlp.out."),
    (r"^conv1\.", "patch_embedding."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_final\.", "norm_final."),
]
_AUTOENCODER: Rules = [
    (r"^quant_conv\.", "moments."),
    (r"^decoder\.", ""),
    (r"^post_quant_conv\.", "post_quantization."),
    (r"conv_out\.time_mix_conv\.", "conv_out_temporal."),
    (r"(down|up)\.(\d+)\.block\.(\d+)\.", r"\1.\2.blocks.\3."),
    (r"mid\.block_1\.", "mid.blocks.0."),
    (r"mid\.block_2\.", "mid.blocks.1."),
    (r"(down|up)sample\.conv\.", r"\1sample."),
    (r"blocks\.(\d+)\.norm1\.", r"blocks.\1.res.norm_in."),
    (r"blocks\.(\d+)\.conv1\.", r"blocks.\1.res.conv_in."),
    (r"blocks\.(\d+)\.norm2\.", r"blocks.\1.res.norm_out."),
    (r"blocks\.(\d+)\.conv2\.", r"blocks.\1.res.conv_out."),
    (r"nin_shortcut\.", "res.skip."),
    (r"time_stack\.in_layers\.0\.", "temporal.norm_in."),
    (r"time_stack\.in_layers\.2\.", "temporal.conv_in."),
    (r"time_stack\.out_layers\.0\.", "temporal.norm_out."),
    (r"time_stack\.out_layers\.3\.", "temporal.conv_out."),
    (r"mix_factor$", "temporal.mix_logit"),
    (r"mid\.attn_1\.", "mid.attention."),
    (r"attention\.q\.", "attention.query."),
    (r"attention\.k\.", "attention.key."),
    (r"attention\.v\.", "attention.value."),
    (r"attention\.proj_out\.", "attention.out."),
]
_REFERENCE_ATTENTION: Rules = [
    (r"to_q\.", "query."),
    (r"to_k\.", "key."),
    (r"to_v\.", "value."),
    (r"to_out\.0\.", "out."),
]


def autoencoder_path(name: str, layout: LevelLayout) -> str:
    """Our path for a tensor of the first stage, given its name without prefix (and before the leaf rule)."""
    refinement = re.match(r"decoder\.attn_refinement\.(\d+)\.", name)
    if refinement:
        level, rest = int(refinement[1]), name[refinement.end() :]
        if level == layout.levels:
            return f"final_reference_residual.{rest}"
        kind = "reference_residual" if rest.startswith("conv.") else "reference_attention"
        return f"up.{level}.{kind}." + rewrite(rest, _REFERENCE_ATTENTION)
    return rewrite(name, _AUTOENCODER)


def leaf_path(path: str, ndim: int) -> str:
    """Gives the leaf its name: `scale` for one axis, `embedding` for a token table, else `kernel`."""
    if not path.endswith("weight"):
        return path
    stem = path.removesuffix("weight")
    if stem.endswith("token_embedding."):
        return stem + "embedding"
    return stem + ("scale" if ndim == 1 else "kernel")


def to_our_layout(path: str, value: HostArray) -> HostArray:
    """Axes of a PyTorch tensor in our order, as a view; `path` is our path of it."""
    if not path.endswith(".kernel"):
        return value
    if value.ndim == 3:  # Conv1d with kernel 1, run as a linear layer
        value = value[..., 0]
    elif value.ndim == 4 and ".mid.attention." in f".{path}":  # 1x1 convolution, run as a linear layer
        value = value[..., 0, 0]
    return np.moveaxis(value, (0, 1), (-1, -2))


def paths_of_components(
    unet: LevelLayout, autoencoder: LevelLayout, sketch_encoder: LevelLayout | None = None
) -> dict[str, Callable[[str], str]]:
    """Component -> what makes our path (before the leaf rule) of an official name; see `component_of` for the names.

    Args:
      unet: what the denoiser's official block numbers depend on.
      autoencoder: the same of the first stage.
      sketch_encoder: the same of the sketch encoder; the denoiser's without.
    """

    def of_first_stage(name: str) -> str:
        return autoencoder_path(name, autoencoder)

    return {
        "unet": lambda name: unet_path(name, unet),
        "image_projector": lambda name: rewrite(name, _PROJECTOR),
        "clip_text": lambda name: rewrite(name, _CLIP),
        "clip_image": lambda name: rewrite(name, _CLIP),
        "autoencoder": of_first_stage,
        "decoder": of_first_stage,
        "sketch_encoder": lambda name: unet_path(name, sketch_encoder or unet, is_sketch_encoder=True),
    }


def component_of(name: str) -> tuple[str, str] | None:
    """The component of an official name, and the name without what stands before that component's own names."""
    for component, prefixes in PREFIXES.items():
        for prefix in prefixes:
            if name.startswith(prefix):
                return component, name.removeprefix(
                    FIRST_STAGE_PREFIX if prefix.startswith(FIRST_STAGE_PREFIX) else prefix
                )
    return None


UNUSED: list[tuple[str, str]] = [
    (r"first_stage_model\.post_quant_conv\.", "skipped by the published decoder"),
    (r"cond_stage_model\.model\.(text_projection|logit_scale)$", "projection to the joint space"),
    (
        r"embedder\.model\.(positional_embedding|text_projection|logit_scale|token_embedding\.|ln_final\.|transformer\.)",
        "second text tower",
    ),
    (r"embedder\.model\.visual\.(ln_post\.|proj$)", "projection to the joint space"),
]
"""Tensors of the published checkpoint that never influence a result (spec sections 3.3 and 13)."""


@dataclass
class Assignment:
    """What becomes of every tensor of a checkpoint.

    Attributes:
      entries: official name -> (component, our path).
      buffers: schedule buffers, to be checked and dropped.
      unused: official name -> why it is not needed.
    """

    entries: dict[str, tuple[str, str]] = field(default_factory=dict)
    buffers: list[str] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)


def our_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a PyTorch tensor has in our layout."""
    return to_our_layout(path, np.broadcast_to(np.zeros((), np.int8), shape)).shape


def assign(
    tensors: Mapping[str, tuple[int, ...]],
    components: Mapping[str, Mapping[str, tuple[int, ...]]],
    *,
    unet: LevelLayout,
    autoencoder: LevelLayout,
    sketch_encoder: LevelLayout | None = None,
    where: str,
) -> Assignment:
    """Maps a checkpoint's tensors to parameters.

    Args:
      tensors: official name -> PyTorch shape.
      components: component -> our path -> shape, of all components that the checkpoint must fill.
      unet: what the denoiser's official block numbers depend on.
      autoencoder: the same of the first stage.
      sketch_encoder: the same of the sketch encoder; the denoiser's without.
      where: the file, for messages.

    Raises:
      UserError: if a tensor is left over, a parameter has no tensor, or a shape differs; see `check_fit`.
    """
    paths = paths_of_components(unet, autoencoder, sketch_encoder)
    result, leftover, misshaped = Assignment(), [], []
    open_paths = {(component, path) for component, paths in components.items() for path in paths}
    for name, shape in tensors.items():
        if name in SCHEDULE_BUFFERS:
            result.buffers.append(name)
            continue
        key = _key_of(name, shape, paths)
        if key is not None and key in open_paths:
            open_paths.discard(key)
            result.entries[name] = key
            ours, wanted = our_shape(key[1], shape), tuple(components[key[0]][key[1]])
            if ours != wanted:
                misshaped.append(f"{name} is {by(ours)} instead of {by(wanted)} (our layout)")
            continue
        reason = _reason_unused(name, components)
        if reason is None:
            leftover.append(name)
        else:
            result.unused[name] = reason
    missing = [f"{component}.{path}" for component, path in sorted(open_paths)]
    check_fit(where, missing, leftover, misshaped)
    return result


def _key_of(name: str, shape: tuple[int, ...], paths: Mapping[str, Callable[[str], str]]) -> tuple[str, str] | None:
    """The component of a tensor and our path of it; None if its name or shape is none that a rule is for."""
    found = component_of(name)
    if found is None:
        return None
    component, own_name = found
    try:
        path = leaf_path(paths[component](own_name), len(shape))
        our_shape(path, shape)
    except (ValueError, IndexError):  # a number is missing in the name, or an axis in the shape
        return None
    return component, path


def reason_never_used(name: str) -> str | None:
    """Why a tensor of this official name influences no result, whatever the architecture; None if it may."""
    return next((reason for pattern, reason in UNUSED if re.match(pattern, name)), None)


def _reason_unused(name: str, components: Mapping[str, Mapping[str, tuple[int, ...]]]) -> str | None:
    reason = reason_never_used(name)
    if reason is not None:
        return reason
    text_block = re.match(r"cond_stage_model\.model\.transformer\.resblocks\.(\d+)\.", name)
    if text_block and "clip_text" in components:
        run = {path.split(".")[1] for path in components["clip_text"] if path.startswith("blocks.")}
        if int(text_block[1]) == len(run):
            return "last text block, which the penultimate layer's features never reach"
    return None
