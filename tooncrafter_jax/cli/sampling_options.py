"""The options of every command that samples a model (spec section 11.1)."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from typing import Any, get_args

from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.diffusion.schedule import Spacing
from tooncrafter_jax.diffusion.solvers import SOLVERS
from tooncrafter_jax.nn.attention import BACKENDS
from tooncrafter_jax.sampling.request import SamplingOptions, make_options

_FLAGS = (
    "solver",
    "steps",
    "eta",
    "guidance_scale",
    "guidance_rescale",
    "image_guidance_scale",
    "spacing",
    "exact_last_step",
)


def add_sampling(parser: Parser, title: str = "how to sample") -> Any:
    """Adds the options that say how the denoiser and the decoder run; returns the group's `add_argument` for more.

    Names in [brackets] are those of the published script's options; defaults are those of its `run.sh`.
    """
    defaults = SamplingOptions()
    add = parser.add_argument_group(title).add_argument
    add(
        "--solver",
        default=defaults.solver,
        choices=SOLVERS,
        metavar="NAME",
        help=f"how predictions become a clip: {', '.join(SOLVERS)} (default: %(default)s)",
    )
    add(
        "--steps",
        type=int,
        default=defaults.steps,
        metavar="N",
        help="sampling steps: more are slower and cleaner [--ddim_steps] (default: %(default)s)",
    )
    add(
        "--eta",
        type=float,
        default=defaults.eta,
        metavar="X",
        help="noise added while sampling, 0 to 1 [--ddim_eta] (default: %(default)s)",
    )
    add(
        "--guidance-scale",
        type=float,
        default=defaults.guidance_scale,
        metavar="X",
        help="how closely to follow prompt and pictures; 1 is off [--unconditional_guidance_scale] (default: %(default)s)",
    )
    add(
        "--guidance-rescale",
        type=float,
        default=defaults.guidance_rescale,
        metavar="X",
        help="against the contrast that guidance adds, 0 to 1 [--guidance_rescale] (default: %(default)s)",
    )
    add(
        "--image-guidance-scale",
        type=float,
        metavar="X",
        help="guide by the pictures apart from the prompt [--multiple_cond_cfg --cfg_img] (default: off)",
    )
    add(
        "--spacing",
        default=defaults.spacing,
        choices=get_args(Spacing),
        metavar="NAME",
        help="of the steps: uniform_trailing or uniform [--timestep_spacing] (default: %(default)s)",
    )
    add(
        "--exact-last-step",
        action="store_true",
        help="remove the last bit of noise, which the published sampler leaves",
    )
    add("--no-second-pass", action="store_true", help="do not decode the two middle frames a second time")
    add(
        "--decode-frames-per-chunk",
        type=int,
        default=defaults.decode_frames_per_chunk,
        metavar="N",
        help="frames decoded at a time: fewer need less memory, with the same result [--perframe_ae] (default: %(default)s)",
    )
    add(
        "--attention",
        default="auto",
        choices=BACKENDS,
        metavar="NAME",
        help=f"what computes attention, where it can: {', '.join(BACKENDS)}; the result is the same up to rounding "
        "(default: %(default)s, by device and size)",
    )
    return add


def sampling_options(
    arguments: argparse.Namespace, own: Mapping[str, Any], given: Collection[str], **others: Any
) -> SamplingOptions:
    """What the options of `add_sampling` ask for.

    Args:
      arguments: all options.
      own: what suits the model, for options that are not given.
      given: names of the options that were given, as of `Parser.given`.
      **others: options that a command has flags of its own for.

    Raises:
      UserError: the model's own options are none.
    """
    values = {name: getattr(arguments, name) for name in _FLAGS}
    values |= {"second_pass": not arguments.no_second_pass}
    values |= {"decode_frames_per_chunk": arguments.decode_frames_per_chunk, **others}
    flags = {"second_pass": "no_second_pass"}
    return make_options(values | {name: value for name, value in own.items() if flags.get(name, name) not in given})
