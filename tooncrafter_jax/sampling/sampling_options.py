"""How to sample: every option, declared once."""

from __future__ import annotations

import typing
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import numpy as np

from tooncrafter_jax.config_codec import convert, plain
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import DEFAULT_SOLVER, SOLVERS, SolverOptions, solver_named
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.backgrounds import AUTO, colour_named
from tooncrafter_jax.io.sizes import WHITE, Colour
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.options import Option, check_ranges, declared, with_attributes
from tooncrafter_jax.sampling.feature_reuse import Reuse
from tooncrafter_jax.sampling.guidance_interval import guided_times

Fit = Literal["crop", "pad"]
MAX_SIDE = 4096
"""Pixels. At 4096 x 4096 one activation of the decoder, 128 channels of the 4 frames that it works on at a time, takes
16 GiB in bfloat16; at twice the side, 64 GiB, which no accelerator of today has room for several times over.
"""
MAX_VALUES = 2**31 - 1
"""Of a clip: frames x height x width x 3. XLA counts places in an array in 32 bits where it can, and the host holds
clips in float32, 8 GiB at this size.
"""


@dataclass(frozen=True)
class SamplingOptions(SolverOptions):
    """How to sample; the defaults are the published script's (spec section 11.1). Numbers may be numpy's.

    None as a height or width is the model's own, as a fit it is crop and refuses first and last pictures of different
    shapes, and as frames or steps at a time it is all of them.
    """

    solver: Annotated[
        str,
        Option(
            "how predictions become a clip: ddim, the published one; dpmpp_2m or unipc, for fewer steps; dpmpp_2m_sde, "
            "which adds noise as ddim does; heun, with two predictions a step; euler, which is ddim with eta 0; lcm, "
            "for models of the training stage distill",
            choices=tuple(SOLVERS),
        ),
    ] = DEFAULT_SOLVER
    guidance_scale: Annotated[
        float,
        Option(
            "how closely to follow prompt and pictures; 1 is off",
            least=0,
            most=100,
            published="--unconditional_guidance_scale",
        ),
    ] = 7.5
    guidance_rescale: Annotated[
        float,
        Option(
            "against the contrast that guidance adds: share of the prediction that gets its own back",
            least=0,
            most=1,
            published="--guidance_rescale",
        ),
    ] = 0.7
    image_guidance_scale: Annotated[
        float | None,
        Option(
            "guide by the pictures apart from the prompt, which takes a third pass of the network",
            least=0,
            most=100,
            published="--multiple_cond_cfg --cfg_img",
            unset="off",
        ),
    ] = None
    guidance_interval: Annotated[
        str | None,
        Option(
            "guide at noise levels between these two alone, e.g. 0.3:5, which takes a pass of the network less at all "
            "others; a level is the deviation of the noise over the signal, inf of pure noise",
            unset="all of them",
            metavar="FROM:TO",
        ),
    ] = None
    reuse: Annotated[
        str | None,
        Option(
            "compute the deep layers of the denoiser in one of so many predictions alone, e.g. 3, or 3:2 with the two "
            "outermost blocks in all of them: much quicker, and another clip",
            unset="off",
            metavar="EVERY[:BLOCKS]",
        ),
    ] = None
    sequential_guidance: Annotated[
        bool,
        Option(
            "make the passes of guidance one after another, not together: less memory, more time where the device is "
            "not full, and the same clip up to rounding",
            is_shown=False,
        ),
    ] = False
    frames: Annotated[
        int,
        Option(
            "length of a clip; the model was trained on 16",
            least=3,
            most=1024,
            unit="frames",
            published="--video_length",
            called="the number of frames",
        ),
    ] = 16
    height: Annotated[
        int | None,
        Option(
            f"pixels of a clip, a multiple of 64 with the published model, up to {MAX_SIDE}",
            published="--height",
            unset="the model's",
        ),
    ] = None
    width: Annotated[
        int | None,
        Option(
            f"pixels of a clip, a multiple of 64 with the published model, up to {MAX_SIDE}",
            published="--width",
            unset="the model's",
        ),
    ] = None
    fit: Annotated[
        Fit | None,
        Option(
            "pictures of another shape than the clip: crop cuts them as published, pad keeps them whole",
            unset="crop, where both pictures have one shape",
            like_none="crop",
        ),
    ] = None
    alpha: Annotated[
        bool,
        Option(
            "keep the pictures' transparency: the frames between are drawn over a colour that is far from the "
            "drawing's, and taken off it again; for png, apng, webp, webm and mov"
        ),
    ] = False
    background: Annotated[
        str | None,
        Option(
            "what transparent pixels lie on while the clip is drawn: a colour such as green or #00ff00, or auto, which "
            "is one far from the drawing's",
            unset="auto with alpha, else white",
            like_none=AUTO,
            metavar="COLOUR",
        ),
    ] = None
    two_backgrounds: Annotated[
        bool,
        Option(
            "with alpha, draw each clip again over a second background with the same noise, which takes twice as long, "
            "and tell opacity from both where they agree"
        ),
    ] = False
    control_scale: Annotated[float, Option("strength of the sketches, usually up to 1", least=0, most=10)] = 0.6
    motion_guidance: Annotated[
        bool,
        Option(
            "estimate the motion between the pictures, where there are two, and guide the frames between by it (not in "
            "the published code); models without a motion network need `tooncrafter fetch-metric-weights`"
        ),
    ] = False
    lock_colours: Annotated[
        bool,
        Option(
            "take the slow drift of colours out of a clip: a smooth correction towards the way from the first picture "
            "to the last, told by what does not move, that leaves lines and motion alone"
        ),
    ] = False
    palette: Annotated[
        bool,
        Option(
            "give flat areas exactly the colours that the pictures have, where one is clearly the nearest; for painted "
            "cels"
        ),
    ] = False
    lines: Annotated[
        bool,
        Option(
            "the pictures are line drawings: coloured or grey paper becomes white, lines become grey, and so is what "
            "is drawn between them"
        ),
    ] = False
    second_pass: Annotated[bool, Option("decode the two middle frames a second time, among other neighbours")] = True
    decode_frames_per_chunk: Annotated[
        int | None,
        Option(
            "frames decoded at a time: fewer need less memory and a little more time, with the same result",
            least=1,
            published="--perframe_ae",
            called="decode_frames_per_chunk",
            is_shown=False,
        ),
    ] = 4
    decode_tile_size: Annotated[
        int | None,
        Option(
            "decode large pictures in tiles with sides of up to so many pixels, e.g. 256: less memory, about "
            "twice the time of decoding, and nearly the same clip",
            least=32,
            unit="pixels",
            called="decode_tile_size",
            unset="whole frames",
        ),
    ] = None
    steps_per_chunk: Annotated[
        int | None,
        Option(
            "steps between two calls of on_progress",
            least=1,
            called="steps_per_chunk",
            is_shown=False,
            of_python=True,
        ),
    ] = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        if self.background == AUTO:  # which is what none at all means, and how records write it
            object.__setattr__(self, "background", None)

    def check(self, config: ModelConfig) -> None:
        """Raises UserError for the first setting that is of a wrong type, or out of range for this model."""
        hints = typing.get_type_hints(SamplingOptions)
        for name, one in declared(SamplingOptions).items():
            if not one.choices:
                convert(hints[name], getattr(self, name), f"the sampling options.{name}")
        check_ranges(self)
        self._check_background()
        schedule = NoiseSchedule(config.schedule)
        rows = solver_named(self.solver).rows(schedule, self.solver_options)
        self._check_interval(schedule, np.asarray(rows.timestep))
        if self.reuse is not None:
            Reuse.parse(self.reuse, config.unet)

        def need(condition: bool, sentence: str) -> None:
            if not condition:
                raise UserError(sentence)

        need(
            self.decode_tile_size is None or not (self.motion_guidance and config.decoder.carried),
            "decode_tile_size cannot be had with motion guidance here: this model's decoder carries the pictures along "
            "the motion, which needs them whole; leave out one of the two",
        )
        multiple = config.pixel_multiple
        for name, value in zip(("height", "width"), self.size(config), strict=True):
            need(
                value > 0 and value % multiple == 0,
                f"the {name} must be a multiple of {multiple} pixels, not {value}: "
                f"try {min(max(1, round(value / multiple)) * multiple, MAX_SIDE)}",
            )
            need(
                value <= MAX_SIDE,
                f"the {name} must be at most {MAX_SIDE} pixels, not {value}: more than that fits into no accelerator's "
                "memory",
            )
        height, width = self.size(config)
        need(
            self.frames * height * width * 3 <= MAX_VALUES,
            f"{self.frames} frames of {width} x {height} pixels are too many for one clip: choose fewer frames, at "
            f"most {MAX_VALUES // (height * width * 3)} of this size, or a smaller size",
        )

    def _check_background(self) -> None:
        if self.background is not None:
            colour_named(self.background)
            if self.lines and not self.alpha:
                raise UserError("line drawings lie on white paper: leave the background out, or lines")
        if self.two_backgrounds and not self.alpha:
            raise UserError(
                "two backgrounds tell the opacity of what is drawn: add the option alpha, or leave them out"
            )

    def _check_interval(self, schedule: NoiseSchedule, timesteps: np.ndarray) -> None:
        times = guided_times(self.guidance_interval, schedule)
        if times is None or ((timesteps >= times[0]) & (timesteps <= times[1])).any():
            return
        most, least = schedule.noise_levels[timesteps[[0, -1]]]
        raise UserError(
            f"no step has a noise level in the guidance interval {self.guidance_interval}: those of this run are from "
            f"{most:.3g} down to {least:.3g}, so choose one of these, or more steps"
        )

    @property
    def solver_options(self) -> SolverOptions:
        """What the solver is asked for."""
        return SolverOptions(**{field.name: getattr(self, field.name) for field in fields(SolverOptions)})

    @property
    def chosen_fit(self) -> Fit:
        """How pictures of another shape than the clip are fitted."""
        return self.fit or "crop"

    @property
    def paper(self) -> Colour:
        """What transparent pixels lie on where no opacity is kept."""
        return WHITE if self.background is None else colour_named(self.background)

    @property
    def is_guided(self) -> bool:
        """Whether the network runs without the prompt, too, to lead away from that."""
        return self.guidance_scale != 1.0 or self.image_guidance_scale is not None

    @property
    def branches(self) -> int:
        """Passes of the network for a guided prediction: 1 without guidance, 2 with, 3 by pictures apart."""
        return 3 if self.image_guidance_scale is not None else 2 if self.is_guided else 1

    def size(self, config: ModelConfig) -> tuple[int, int]:
        """Height and width of the result in pixels."""
        return (
            config.height if self.height is None else self.height,
            config.width if self.width is None else self.width,
        )


SamplingOptions.__doc__ = with_attributes(SamplingOptions.__doc__, SamplingOptions)
