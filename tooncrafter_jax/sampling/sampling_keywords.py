"""The keyword arguments of `ToonCrafter.interpolate`, as editors and type checkers want them.

Made from `SamplingOptions` by scripts/write_options.py: change them there.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class SamplingKeywords(TypedDict, total=False):
    """Options of `SamplingOptions`; those that are left out are the model's own or the published ones."""

    spacing: Literal["uniform_trailing", "uniform", "karras"]
    """Of the steps: uniform_trailing; uniform, which never visits the last time and suits no model of zero terminal SNR; karras, which lie close where little noise is left."""
    steps: int
    """Sampling steps: more are slower and cleaner; uniform spacing may round them up; 1 to 1000."""
    eta: float
    """Noise added while sampling, by ddim and dpmpp_2m_sde alone: 0 is deterministic, 1 as noisy as the diffusion itself; 0 to 1."""
    exact_last_step: bool
    """Remove the last bit of noise, which the published sampler leaves, and lcm never."""
    strength: float
    """With a draft, how much of it is drawn anew: this share of the steps is run, from the draft with as much noise as they begin with; 0.001 to 1."""
    timesteps: str | None
    """The diffusion times that are visited, from noise on, e.g. 999,600,300, instead of --spacing and --steps; those that suit a model best are found by scripts/find_timesteps.py."""
    solver: str
    """How predictions become a clip: ddim, the published one; dpmpp_2m or unipc, for fewer steps; dpmpp_2m_sde, which adds noise as ddim does; heun, with two predictions a step; euler, which is ddim with eta 0; lcm, for models of the training stage distill."""
    guidance_scale: float
    """How closely to follow prompt and pictures; 1 is off; 0 to 100."""
    guidance_rescale: float
    """Against the contrast that guidance adds: share of the prediction that gets its own back; 0 to 1."""
    image_guidance_scale: float | None
    """Guide by the pictures apart from the prompt, which takes a third pass of the network; 0 to 100."""
    guidance_interval: str | None
    """Guide at noise levels between these two alone, e.g. 0.3:5, which takes a pass of the network less at all others; a level is the deviation of the noise over the signal, inf of pure noise."""
    reuse: str | None
    """Compute the deep layers of the denoiser in one of so many predictions alone, e.g. 3, or 3:2 with the two outermost blocks in all of them: much quicker, and another clip."""
    sequential_guidance: bool
    """Make the passes of guidance one after another, not together: less memory, more time where the device is not full, and the same clip up to rounding."""
    frames: int
    """Length of a clip; the model was trained on 16; 3 to 1024 frames."""
    height: int | None
    """Pixels of a clip, a multiple of 64 with the published model, up to 4096."""
    width: int | None
    """Pixels of a clip, a multiple of 64 with the published model, up to 4096."""
    fit: Literal["crop", "pad"] | None
    """Pictures of another shape than the clip: crop cuts them as published, pad keeps them whole."""
    alpha: bool
    """Keep the pictures' transparency: the frames between are drawn over a colour that is far from the drawing's, and taken off it again; for png, apng, webp, webm and mov."""
    background: str | None
    """What transparent pixels lie on while the clip is drawn: a colour such as green or #00ff00, or auto, which is one far from the drawing's."""
    two_backgrounds: bool
    """With alpha, draw each clip again over a second background with the same noise, which takes twice as long, and tell opacity from both where they agree."""
    control_scale: float
    """Strength of the sketches, usually up to 1; 0 to 10."""
    motion_guidance: bool
    """Estimate the motion between the pictures, where there are two, and guide the frames between by it (not in the published code); models without a motion network need `tooncrafter fetch-metric-weights`."""
    lock_colours: bool
    """Take the slow drift of colours out of a clip: a smooth correction towards the way from the first picture to the last, told by what does not move, that leaves lines and motion alone."""
    palette: bool
    """Give flat areas exactly the colours that the pictures have, where one is clearly the nearest; for painted cels."""
    lines: bool
    """The pictures are line drawings: coloured or grey paper becomes white, lines become grey, and so is what is drawn between them."""
    second_pass: bool
    """Decode the two middle frames a second time, among other neighbours."""
    decode_frames_per_chunk: int | None
    """Frames decoded at a time: fewer need less memory and a little more time, with the same result; 1 or more."""
    decode_tile_size: int | None
    """Decode large pictures in tiles with sides of up to so many pixels, e.g. 256: less memory, about twice the time of decoding, and nearly the same clip; 32 or more pixels."""
    steps_per_chunk: int | None
    """Steps between two calls of on_progress; 1 or more."""
