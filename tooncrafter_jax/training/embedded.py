"""Whether embeddings that are trained on were made with the encoders of the run."""

from __future__ import annotations

from collections.abc import Mapping

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tooncrafter_jax.data.embeddings import ENCODERS, read_settings, weights_digest
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import local_path
from tooncrafter_jax.notes import note
from tooncrafter_jax.runtime.distributed import as_all_processes_say
from tooncrafter_jax.training.components import of_component
from tooncrafter_jax.typing import AnyArray


def check_encoders(directory: str, params: Mapping[str, AnyArray], mesh: Mesh) -> None:
    """Compares what embeddings were made with to the frozen encoders of a run; every process must ask.

    A stage without text and image tower has the autoencoder compared alone, which embeddings of earlier versions do
    not tell apart: a note says so.

    Args:
      directory: of the embeddings.
      params: of the run, by path, on the mesh.
      mesh: of the devices.

    Raises:
      UserError: they were made with other weights, on any of the hosts.
    """
    settings = read_settings(local_path(directory))
    own = {name: of_component(params, name) for name in ENCODERS}
    held = [name for name in ENCODERS if own[name]]
    if len(held) == len(ENCODERS):
        made_with = settings.get("weights")
    else:
        by_encoder = settings.get("weights_of", {})
        made_with = {name: by_encoder.get(name) for name in held}
    everywhere = NamedSharding(mesh, PartitionSpec())
    if isinstance(made_with, dict):
        if None in made_with.values():
            note(
                f"the embeddings in '{directory}' do not tell which {' and '.join(held)} they were made with: they are "
                "taken for those of config.start"
            )
        found = {name: weights_digest(own, (name,), everywhere) for name in held}
        same = all(made_with[name] in (None, found[name]) for name in held)
    else:
        same = made_with == weights_digest(own, place=everywhere)
    (same,) = as_all_processes_say([same])
    if not same:
        raise UserError(
            f"the embeddings in '{directory}' were made with another {' or '.join(held)} than config.start gives: make "
            "them again with `tooncrafter curate embed --model=DIR` and the model of config.start, or start from the "
            "model that they were made with"
        )
