"""`tooncrafter fetch MODEL [DIR]`."""

from __future__ import annotations

from pathlib import Path

from tooncrafter_jax.cli.common import EXIT_OK, Parser, interruption_note
from tooncrafter_jax.cli.vocabulary import add_architecture, add_overwrite, add_quiet, add_stored_dtype
from tooncrafter_jax.errors import UserError, printable

DESCRIPTION = """\
Downloads a published model from the Hugging Face hub and converts it, once and ahead of time; `tooncrafter sample` does
the same where --model names one. A download that was cut off goes on from where it ended, and nothing is asked for that
is here already.

  tooncrafter fetch --list
  tooncrafter fetch Doubiiu/ToonCrafter
  tooncrafter sample --model=Doubiiu/ToonCrafter --first=a.png --last=b.png --out=ab.mp4

MODEL is OWNER/NAME[@REVISION][/FILE]: a name of the list, or any repository with a file of a known layout. A revision
is a branch, a tag or a commit (one part, a slash in it as %2F), or refs/pr/N. With DIR the model goes there, to be
named by its path; a sketch encoder is added to the model that DIR holds.

  tooncrafter fetch Doubiiu/ToonCrafter@refs/pr/4/model.safetensors
  tooncrafter fetch Doubiiu/ToonCrafter/sketch_encoder.ckpt weights/tooncrafter

Downloads are kept in the hub's own cache (HF_HUB_CACHE, HF_HOME), models below $XDG_CACHE_HOME or ~/.cache in
tooncrafter_jax/models. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean elsewhere.
"""


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser("tooncrafter fetch", description=DESCRIPTION)
    parser.add_argument("model", nargs="?", help="OWNER/NAME[@REVISION][/FILE]")
    parser.add_argument(
        "destination",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="the checkpoint directory to write (default: one of the cache)",
    )
    parser.add_argument("--list", action="store_true", help="print the models that are known, and fetch nothing")
    add_architecture(parser.add_argument)
    add_stored_dtype(parser.add_argument, ("float32", "float16", "bfloat16"), None, "as in the file")
    add_overwrite(parser.add_argument, "what DIR holds")
    add_quiet(parser.add_argument)
    return parser


def main(argv: list[str]) -> int:
    """Fetches and reports; see `--help`."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.list:
        if arguments.model is not None:
            parser.error("--list prints all models that are known: leave MODEL out")
        print(table())
        return EXIT_OK
    if arguments.model is None:
        parser.error("name a MODEL, or give --list")
    from tooncrafter_jax.cli.convert import architecture_of
    from tooncrafter_jax.weights.hub import Fetch
    from tooncrafter_jax.weights.hub_download import KEPT
    from tooncrafter_jax.weights.hub_names import FORM, parse_name
    from tooncrafter_jax.weights.store import REQUIRED_COMPONENTS, Checkpoint

    name = parse_name(arguments.model)
    if name is None:
        raise UserError(f"'{arguments.model}' is no name of a published model, which are {FORM}: see --list")

    def report(component: str, tensors: int) -> None:
        if not arguments.quiet:
            print(f"  {component:16} {tensors:5} tensors", flush=True)

    fetch = Fetch(
        name,
        arguments.destination,
        arguments.stored_dtype,
        architecture_of(arguments.architecture),
        arguments.overwrite,
        arguments.quiet,
        report,
    )
    with interruption_note(KEPT):
        directory, made = fetch.run()
    components = Checkpoint(directory).components
    print(f"{printable(directory)}: {'fetched' if made else 'already there'}: {', '.join(components)}")
    if missing := [component for component in REQUIRED_COMPONENTS if component not in components]:
        print(f"still missing: {', '.join(missing)}; fetch or convert a file that holds them into the same directory")
    return EXIT_OK


def table() -> str:
    """The known models: size, name, what it is, licence and files."""
    from tooncrafter_jax.weights.hub import Fetch
    from tooncrafter_jax.weights.hub_names import HubName, parse_name
    from tooncrafter_jax.weights.known_models import KNOWN_MODELS

    blocks = []
    for model in KNOWN_MODELS.values():
        name = parse_name(model.name)
        here = "   (fetched)" if isinstance(name, HubName) and Fetch(name).found() else ""
        files = [f"{file} ({file.gigabytes:.2f} GB)" for file in model.files]
        blocks.append(
            f"{model.name}   about {model.gigabytes:.1f} GB{here}\n    {model.purpose}\n    licence: {model.licence}\n"
            + "\n".join(f"    {file}" for file in files)
        )
    return "\n\n".join(blocks)
