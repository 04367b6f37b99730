"""Where `tooncrafter sample` draws: in its own process, or with a server."""

from __future__ import annotations

import argparse
import os
from typing import NamedTuple

import jax

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn.attention import check_backend
from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
from tooncrafter_jax.sampling.batch.artists import Artist, LocalArtist
from tooncrafter_jax.sampling.batch.model_source import DescribedModel, ModelSource
from tooncrafter_jax.sampling.model_loading import DEFAULT_MODEL, default_dtype
from tooncrafter_jax.sampling.pipeline import ToonCrafter


class Place(NamedTuple):
    """Where a run draws.

    Attributes:
      artist: draws.
      model: what is known of its model.
      dtype: of its computation.
    """

    artist: Artist
    model: DescribedModel
    dtype: str


def local_place(arguments: argparse.Namespace) -> Place:
    """The own process; its model is loaded when something is drawn.

    Raises:
      UserError: there is no such model, or it does not compute so.
    """
    dtype = arguments.dtype or default_dtype()
    check_backend(arguments.attention, dtype, "--attention")
    source = ModelSource(
        arguments.model or DEFAULT_MODEL,
        arguments.random_weights,
        arguments.lora,
        arguments.quiet,
        arguments.weight_dtype,
    )
    model = source.described()

    def load() -> ToonCrafter:
        enable_compilation_cache(arguments.compilation_cache)
        return source.load(dtype, arguments.attention, arguments.memory)

    return Place(LocalArtist(load), model, dtype)


def served_place(arguments: argparse.Namespace) -> Place:
    """A server, as --server says.

    Raises:
      UserError: it cannot be reached, or has no such model.
    """
    from tooncrafter_jax.serving.client import Client
    from tooncrafter_jax.serving.remote import RemoteArtist, served_model

    client = Client(arguments.server, token=os.environ.get("TOONCRAFTER_TOKEN", ""))
    model = served_model(client, arguments.model or "")
    return Place(RemoteArtist(client, model), model.described, model.dtype)


def check_of_server(arguments: argparse.Namespace) -> None:
    """Raises UserError for what a server does as it was started, and for nobody else."""
    given = {
        "--random-weights": arguments.random_weights,
        "--lora": arguments.lora,
        "--dtype": arguments.dtype,
        "--attention": None if arguments.attention == "auto" else arguments.attention,
        "--weight-dtype": arguments.weight_dtype,
        "--memory": None if arguments.memory == "high" else arguments.memory,
        "--batch-size": arguments.batch_size,
        "--compilation-cache": arguments.compilation_cache,
        "--coordinator": arguments.coordinator,
        "--num-processes": arguments.num_processes,
        "--process-id": arguments.process_id,
    }
    for flag in (flag for flag, value in given.items() if value is not None):
        raise UserError(f"{flag} cannot be had of a --server, which was started with its own: leave one of them out")


def leave_devices() -> None:
    """Has this process take no accelerator, which a server on the same machine may need whole."""
    jax.config.update("jax_platforms", "cpu")
