"""What to do where a run needs more memory than its devices have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jax.sharding import Mesh

from tooncrafter_jax.errors import UserError, is_out_of_memory, out_of_memory
from tooncrafter_jax.training.run_config import TrainConfig


@contextlib.contextmanager
def told_if_memory_is_short(config: TrainConfig, mesh: Mesh) -> Iterator[None]:
    """Inside, a memory that is full ends in a sentence that says what would need less.

    Raises:
      UserError: a device's memory, or the host's, is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        purpose = f"to train with config.data.batch={config.data.batch} and config.accumulation={config.accumulation}"
        raise out_of_memory(purpose, remedy(config, mesh)) from error


def remedy(config: TrainConfig, mesh: Mesh) -> str:
    """What would make a run need less memory, the cheapest first."""
    found = []
    if config.data.batch > config.accumulation * mesh.shape["data"] * mesh.shape["fsdp"]:
        found.append("raise config.accumulation, or lower config.data.batch")
    if config.remat == "none":
        found.append("set config.remat='blocks'")
    if mesh.shape["fsdp"] < mesh.size:
        found.append(f"share the parameters by config.mesh='fsdp:{mesh.size}'")
    return "; ".join([*found, "try fewer config.data.frames or pixels"])
