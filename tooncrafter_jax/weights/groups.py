"""Parameter groups: named predicates over parameter paths, for freezing, ablations and tables (spec section 2.8).

A path starts with its component: "unet.down.0.blocks.1.spatial_res.conv_in.kernel". Every parameter of the U-Net
belongs to exactly one of `spatial`, `temporal`, `image_kv` and `fps`. The projector, the decoder, the sketch encoder,
the motion network, the autoencoder and the CLIP towers are a group each; `decoder.p3d`, `decoder.har` and
`decoder.carried` are parts of the decoder, `decoder.har` has two parts, and `sketch.added` is what the sketch encoder
does not take over from the denoiser.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from tooncrafter_jax.errors import UserError

Predicate = Callable[[str], bool]


def _is_projector(path: str) -> bool:
    """The image-context projector."""
    return path.startswith("image_projector.")


def _is_temporal(path: str) -> bool:
    """Temporal transformers, temporal convolutions and the stem's temporal transformer of the U-Net."""
    component, *parts = path.split(".")
    return component == "unet" and any(part.startswith(("temporal_", "stem_temporal")) for part in parts)


def _is_image_kv(path: str) -> bool:
    """Keys and values of the image tokens in the U-Net's cross-attentions; Stable Diffusion 2.1 has none."""
    return path.startswith("unet.") and any(f".cross_attention.image_{part}." in path for part in ("key", "value"))


def _is_fps(path: str) -> bool:
    """The frame-rate embedding; Stable Diffusion 2.1 has none, and the paper assigns it to no group."""
    return path.startswith("unet.fps_embedding.")


def _is_spatial(path: str) -> bool:
    """The rest of the U-Net: Stable Diffusion 2.1's, but for four more input channels."""
    return path.startswith("unet.") and not (_is_temporal(path) or _is_image_kv(path) or _is_fps(path))


def _is_decoder(path: str) -> bool:
    """The dual-reference decoder."""
    return path.startswith("decoder.")


def _is_p3d(path: str) -> bool:
    """Temporal parts of the decoder (the paper's pseudo-3D convolutions)."""
    return _is_decoder(path) and (".temporal." in path or path.startswith("decoder.conv_out_temporal."))


def _is_har(path: str) -> bool:
    """Reference parts of the decoder (the paper's hybrid-attention-residual module)."""
    return _is_har_attention(path) or _is_har_residual(path)


def _is_har_attention(path: str) -> bool:
    """Attention to the two references, at low resolutions."""
    return _is_decoder(path) and ".reference_attention." in path


def _is_har_residual(path: str) -> bool:
    """Convolutions of the references, added to the first and the last frame at high resolutions."""
    return _is_decoder(path) and "reference_residual." in path


def _is_carried(path: str) -> bool:
    """What carries references along motion (beyond the paper)."""
    return _is_decoder(path) and (".carried." in path or path.startswith("decoder.carried_pictures."))


def _is_sketch(path: str) -> bool:
    """The sketch encoder."""
    return path.startswith("sketch_encoder.")


def _is_sketch_added(path: str) -> bool:
    """What the sketch encoder has beyond the denoiser's encoder half: convolutions of the sketch, and taps that hand
    results on.
    """
    return path.startswith(("sketch_encoder.hint.", "sketch_encoder.skip_taps.", "sketch_encoder.mid_tap."))


GROUPS: dict[str, Predicate] = {
    "projector": _is_projector,
    "spatial": _is_spatial,
    "temporal": _is_temporal,
    "image_kv": _is_image_kv,
    "fps": _is_fps,
    "decoder": _is_decoder,
    "decoder.p3d": _is_p3d,
    "decoder.har": _is_har,
    "decoder.har.attention": _is_har_attention,
    "decoder.har.residual": _is_har_residual,
    "decoder.carried": _is_carried,
    "sketch": _is_sketch,
    "sketch.added": _is_sketch_added,
    "motion": lambda path: path.startswith("motion."),
    "motion.flow": lambda path: path.startswith("motion.flow."),
    "motion.refinement": lambda path: path.startswith("motion.refinement."),
    "autoencoder": lambda path: path.startswith("autoencoder."),
    "clip_text": lambda path: path.startswith("clip_text."),
    "clip_image": lambda path: path.startswith("clip_image."),
}
"""Group name -> whether a path belongs to it."""


def in_groups(names: Iterable[str]) -> Predicate:
    """A predicate for the paths of any of these groups.

    Raises:
      UserError: for an unknown group, naming the nearest right one.
    """
    names = tuple(names)
    for name in names:
        if name not in GROUPS:
            near = difflib.get_close_matches(name, GROUPS, n=1, cutoff=0.0)[0]
            raise UserError(f"there is no parameter group '{name}'; did you mean '{near}'? Groups: {', '.join(GROUPS)}")
    predicates = [GROUPS[name] for name in names]
    return lambda path: any(predicate(path) for predicate in predicates)
