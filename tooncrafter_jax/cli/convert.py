"""`tooncrafter convert SRC... DST`."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

from tooncrafter_jax.cli.common import EXIT_OK, Parser, interruption_note
from tooncrafter_jax.cli.vocabulary import add_architecture, add_overwrite, add_stored_dtype
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.io.json_files import read_json
from tooncrafter_jax.models.configuration import PRESETS, ModelConfig, from_official, preset
from tooncrafter_jax.weights.convert import convert
from tooncrafter_jax.weights.relatives import VARIANTS
from tooncrafter_jax.zoo.anime2sketch.weights import convert_anime2sketch, is_anime2sketch
from tooncrafter_jax.zoo.craft.weights import convert_craft, is_craft
from tooncrafter_jax.zoo.saved_modules import open_saved_module

DESCRIPTION = """\
Converts published weights into a checkpoint directory: the full model, the sketch encoder, a DeepSpeed file, a bare
U-Net, CLIP's towers in OpenCLIP's or transformers' names; in float32, float16 or bfloat16. Files that together make a
model are named together, or added to the directory one after another:

  tooncrafter convert model.ckpt checkpoints/tooncrafter_512
  tooncrafter convert sketch_encoder.ckpt checkpoints/tooncrafter_512
  tooncrafter convert tooncrafter_512_interp-pruned-fp16.safetensors open_clip_model.safetensors \\
      sketch_encoder-fp16.safetensors checkpoints/tooncrafter_512

The published sketch extractor Anime2Sketch and the text detector CRAFT are recognised too, and become one file each:

  tooncrafter convert netG.pth anime2sketch.safetensors
  tooncrafter convert craft_mlt_25k.pth craft.safetensors
"""
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SMALL_NETWORKS = (
    ("Anime2Sketch", is_anime2sketch, convert_anime2sketch),
    ("CRAFT", is_craft, convert_craft),
)
"""Those that become one file: name, what recognises a file, and what converts it."""


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser("tooncrafter convert", description=DESCRIPTION)
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="source",
        help="model.ckpt, sketch_encoder.ckpt, netG.pth, craft_mlt_25k.pth or the same as .safetensors; of a component "
        "that several hold, the first one's is taken",
    )
    parser.add_argument("destination", type=Path, help="the checkpoint directory (or .safetensors file) to write")
    add_architecture(parser.add_argument)
    parser.add_argument(
        "--variant",
        choices=tuple(VARIANTS),
        metavar="NAME",
        help=f"{' or '.join(VARIANTS)}: what the weights are of, where their tensors do not tell; the sampling options "
        "that it is published with are stored (default: by the name of the file)",
    )
    add_stored_dtype(parser.add_argument, DTYPES, "float32")
    add_overwrite(parser.add_argument, "what the destination holds")
    parser.add_argument("--list-unused", action="store_true", help="print every tensor that is not needed, and why")
    return parser


def main(argv: list[str]) -> int:
    """Converts and reports; see `--help`."""
    arguments = build_parser().parse_args(argv)
    source = open_saved_module(arguments.sources[0]) if len(arguments.sources) == 1 else None
    for name, is_it, convert_it in SMALL_NETWORKS:
        if source is not None and is_it(source):
            of_models = {
                "--architecture": arguments.architecture,
                "--variant": arguments.variant,
                "--list-unused": arguments.list_unused,
            }
            for flag in (flag for flag, value in of_models.items() if value):
                raise UserError(f"{flag} is of a model's files, and '{arguments.sources[0]}' is {name}: leave it out")
            tensors = convert_it(
                arguments.sources[0],
                arguments.destination,
                dtype=DTYPES[arguments.stored_dtype],
                overwrite=arguments.overwrite,
            )
            print(f"{printable(arguments.destination)}: {tensors} tensors consumed, {name}")
            return EXIT_OK

    architecture = architecture_of(arguments.architecture)
    with interruption_note(f"{arguments.destination} is as it was before"):
        result = convert(
            arguments.sources,
            arguments.destination,
            architecture,
            dtype=DTYPES[arguments.stored_dtype],
            overwrite=arguments.overwrite,
            on_component=lambda name, tensors: print(f"  {name:16} {tensors:5} tensors", flush=True),
            variant=arguments.variant,
        )
    print(
        f"{printable(arguments.destination)}: {result.consumed} tensors consumed, {len(result.unused)} unused by "
        f"design, {result.buffers} schedule buffers checked"
    )
    if result.kept:
        print(f"kept from before: {', '.join(result.kept)}")
    if result.missing:
        print(f"still missing: {', '.join(result.missing)}; convert a file that holds them into the same directory")
    if arguments.list_unused:
        for name, reason in result.unused.items():
            print(f"  unused: {printable(name)} ({reason})")
    return EXIT_OK


def architecture_of(name: str | None) -> ModelConfig | None:
    """The architecture of this name, or of the JSON file of this path, as --architecture takes it; None for none.

    Raises:
      UserError: there is none, or the file cannot be read.
    """
    if name is None:
        return None
    if name in PRESETS or not (name.endswith(".json") or Path(name).exists()):
        return preset(name)
    config = Path(name)
    try:
        values = read_json(config)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the architecture {config}: {error}") from error
    try:
        return from_official(values, config.stem, str(config))
    except (AttributeError, TypeError, ValueError, ArithmeticError) as error:  # a number or list of the wrong kind
        raise UserError(f"{config} is not an architecture in the published code's keys: {error}") from error
