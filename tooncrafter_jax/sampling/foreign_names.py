"""Names by which other programs know our options: those of diffusers' pipelines, and what the published script has
alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

OUR_NAMES = {
    "num_inference_steps": "steps",
    "num_steps": "steps",
    "cfg_scale": "guidance_scale",
    "max_guidance_scale": "guidance_scale",
    "min_guidance_scale": "guidance_scale",
    "num_frames": "frames",
    "decode_chunk_size": "decode_frames_per_chunk",
    "tile_sample_min_size": "decode_tile_size",
    "tile_sample_min_height": "decode_tile_size",
    "tile_sample_min_width": "decode_tile_size",
    "vae_tiling": "decode_tile_size",
    "controlnet_conditioning_scale": "control_scale",
    "conditioning_scale": "control_scale",
    "image": "first",
    "last_image": "last",
    "control_image": "sketches",
    "conditioning_frames": "sketches",
    "generator": "seed",
    "video": "draft",
    "num_videos_per_prompt": "samples_per_pair",
    "num_videos_per_pair": "samples_per_pair",
    "n_samples": "samples_per_pair",
    "callback": "on_progress",
    "callback_on_step_end": "on_progress",
}
"""A name of diffusers -> the option or argument of `ToonCrafter.interpolate` that is meant. The published script's
names stand where our options are declared.
"""

_NOTHING = "has no counterpart here: leave it out"
ADVICE = {
    "bs": "is said by lists here: give a list of first pictures",
    "interp": "is always on here: leave it out",
    "loop": "is said by pictures here: give the same picture as first and last",
    "ckpt_path": "belongs to ToonCrafter.load",
    "dtype": "belongs to ToonCrafter.load",
    "torch_dtype": "belongs to ToonCrafter.load, as dtype",
    "device": "belongs to ToonCrafter.load, as devices",
    "devices": "belongs to ToonCrafter.load",
    "lora": "belongs to ToonCrafter.load",
    "output_type": "does not exist here, the result is always a uint8 array: leave it out",
    "return_dict": "does not exist here, the result is always a uint8 array: leave it out",
    **dict.fromkeys(("sigmas", "motion_bucket_id", "noise_aug_strength"), _NOTHING),
    **dict.fromkeys(
        ("prompt_embeds", "negative_prompt_embeds", "image_embeds", "clip_skip", "eta_noise_seed"), _NOTHING
    ),
}
"""A foreign name that is no option of ours -> how the sentence about it goes on."""

OUR_FLAGS = {
    "sketches": "sketch",
    "control_image": "sketch",
    "conditioning_frames": "sketch",
    "torch_dtype": "dtype",
}
"""A name of diffusers -> the command line's option, where that has another name than in Python."""

FLAG_ADVICE = {
    "interp": "is always on here: leave it out",
    "config": "is part of the model directory here: leave it out",
    "prompt_file": "is said by --folder or --manifest here",
}
"""A foreign option of the command line that has no counterpart -> how the sentence about it goes on."""


def advice(name: str, also: Collection[str], published: Mapping[str, str]) -> str | None:
    """What to say of a name that is no option of ours, if others have it.

    Args:
      name: as it was given.
      also: names of arguments that are taken beside the options; a counterpart must be one of them or an option.
      published: the published script's names -> ours.
    """
    ours = {**OUR_NAMES, **published}.get(name)
    if ours is not None and ours in also:
        return f"is '{ours}' here"
    return ADVICE.get(name)


def flag_advice(flag: str, known: Collection[str], published: Mapping[str, str]) -> str | None:
    """What to say of an unknown option of the command line, if others have it.

    Args:
      flag: as it was given, e.g. "--ddim_steps".
      known: the command's own options.
      published: the published script's options -> the command's, e.g. "--ddim_steps" -> "--steps".
    """
    name = flag.lstrip("-").replace("-", "_")
    if name in FLAG_ADVICE:
        return f"it {FLAG_ADVICE[name]}"
    ours = OUR_FLAGS.get(name, OUR_NAMES.get(name, name))
    own = published.get(f"--{name}", f"--{ours.replace('_', '-')}")
    return f"did you mean {own}?" if flag.startswith("-") and own in known and own != flag else None
