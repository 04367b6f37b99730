"""`tooncrafter app`: the service that draws for others."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path

from tooncrafter_jax.cli.common import EXIT_OK, Parser
from tooncrafter_jax.cli.declared_options import add_declared, given_options
from tooncrafter_jax.cli.vocabulary import (
    MEANINGS,
    add_attention,
    add_compilation_cache,
    add_dtype,
    add_memory,
    add_quiet,
    add_shared,
    add_weight_dtype,
)
from tooncrafter_jax.errors import UserError, missing_extra
from tooncrafter_jax.nn.attention import check_backend
from tooncrafter_jax.options import check_ranges
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.sampling.batch.model_source import ModelSource
from tooncrafter_jax.sampling.model_loading import DEFAULT_MODEL, default_dtype
from tooncrafter_jax.serving.comfyui import write_node
from tooncrafter_jax.serving.limits import Limits

DESCRIPTION = """\
Serves an HTTP API that draws: jobs wait in a queue, are drawn in batches, and outlive the server's process.

  tooncrafter app
  tooncrafter app --model=film=DIR --model=small --keep=30
  tooncrafter app --host=0.0.0.0 --host-name=draw.studio.example

On 127.0.0.1, which is listened on without --host, no token is needed. With another --host, and with a --host-name,
as behind a proxy on the same machine, one is made and shown once.
docs/serving.md has a session with curl; `tooncrafter sample --server=URL` draws with it, too.
"""


def build_parser() -> Parser:
    """All options."""
    parser = Parser("tooncrafter app", description=DESCRIPTION)
    what = parser.add_argument_group("what is served").add_argument
    what(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]DIR|NAME",
        help=f"{MEANINGS['--model']}, or the name of a bundled or a published one, and what clients call it; may be "
        f"given several times (default: {DEFAULT_MODEL})",
    )
    add_dtype(what)
    add_attention(what)
    add_weight_dtype(what)
    add_memory(what)
    more = ": clips that are drawn together (default: 8 for each accelerator, 1 on CPUs)"
    add_shared(what, "--batch-size", more, type=int, default=None, metavar="N")
    what(
        "--no-warm-up",
        dest="warm_up",
        action="store_false",
        help="do not compile the first model for its usual clip at the start: the first client waits for that",
    )
    add_compilation_cache(what)
    where = parser.add_argument_group("where").add_argument
    where("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: %(default)s)")
    where("--port", type=int, default=8512, metavar="N", help="TCP port; 0 takes any (default: %(default)s)")
    where(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that the server is reached by, as that of a proxy; may be given several times",
    )
    where("--open", action="store_true", help="show the server's page in this machine's browser")
    where("--new-token", action="store_true", help="make another token, which ends what the former one opened")
    where(
        "--data",
        type=Path,
        metavar="DIR",
        help="where jobs and pictures are kept (default: tooncrafter_jax/app below $XDG_DATA_HOME or ~/.local/share)",
    )
    where(
        "--write-comfyui-node",
        type=Path,
        metavar="DIR",
        help="write a node that draws with a server into ComfyUI's custom_nodes, and serve nothing",
    )
    add_quiet(where)
    add_declared(parser.add_argument_group("what is taken of clients").add_argument, Limits)
    return parser


def main(argv: list[str]) -> int:
    """Serves until it is told to end."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.write_comfyui_node is not None:
        return _write_node(parser, arguments)
    try:
        from tooncrafter_jax.serving.models import LoadedModel, parse_models
        from tooncrafter_jax.serving.server import batch_size_for, default_data, serve
        from tooncrafter_jax.serving.storage import Storage
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "fastapi", "app", "the server") from error
    if not 0 <= arguments.port <= 65535:
        raise UserError(f"--port must be from 0 to 65535, not {arguments.port}")
    limits = Limits(**given_options(arguments, Limits))
    check_ranges(limits)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    dtype = arguments.dtype or default_dtype()
    check_backend(arguments.attention, dtype, "--attention")
    sources = parse_models(arguments.model or [DEFAULT_MODEL])
    models = {}
    for name, model in sources.items():
        source = ModelSource(model, quiet=arguments.quiet, weight_dtype=arguments.weight_dtype)
        models[name] = LoadedModel(name, source, dtype, arguments.attention, arguments.memory)
    import jax

    enable_compilation_cache(arguments.compilation_cache)
    devices = jax.devices()
    size = batch_size_for(len(devices), devices[0].platform, arguments.batch_size)
    with Storage(arguments.data or default_data(), reserve=limits.free_megabytes * 10**6) as storage:
        serve(
            storage,
            models,
            limits,
            host=arguments.host,
            port=arguments.port,
            names=arguments.host_name,
            batch_size=size,
            new_token=arguments.new_token,
            warm_up=arguments.warm_up,
            opens_page=arguments.open,
            say=partial(print, flush=True),
        )
    return EXIT_OK


def _write_node(parser: Parser, arguments: argparse.Namespace) -> int:
    also = {"write_comfyui_node", "quiet"}
    if any(value != parser.get_default(name) for name, value in vars(arguments).items() if name not in also):
        raise UserError("--write-comfyui-node writes a file and serves nothing: leave the other options out")
    path = write_node(arguments.write_comfyui_node)
    if not arguments.quiet:
        print(f"{path}: start ComfyUI again, and add the node 'ToonCrafter In-Between'")
    return EXIT_OK
