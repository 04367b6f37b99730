"""The parameters of RIFE from the names of the published checkpoint."""

from __future__ import annotations

from tooncrafter_jax.models.rife import RifeConfig
from tooncrafter_jax.typing import HostParams, Tensors
from tooncrafter_jax.zoo.network_file import CONV_AXES, UP_CONV_AXES, Target


def name_table(config: RifeConfig) -> dict[str, Target]:
    """Name in the checkpoint, without its prefix "module." -> our path.

    What the checkpoint holds besides belongs to training (the teacher) or to the refinement that version 4 does not
    use.
    """
    table: dict[str, Target] = {}
    for block in range(len(config.widths)):
        convs = [(f"conv0.{i}", f"stem.{i}") for i in range(2)]
        convs += [(f"convblock.{i}", f"body.{i}") for i in range(config.depth)]
        for theirs, ours in convs:
            table[f"block{block}.{theirs}.0.weight"] = Target(f"blocks.{block}.{ours}.conv.kernel", CONV_AXES)
            table[f"block{block}.{theirs}.0.bias"] = Target(f"blocks.{block}.{ours}.conv.bias")
            table[f"block{block}.{theirs}.1.weight"] = Target(f"blocks.{block}.{ours}.slope")
        table[f"block{block}.lastconv.weight"] = Target(f"blocks.{block}.head.kernel", UP_CONV_AXES, flipped=True)
        table[f"block{block}.lastconv.bias"] = Target(f"blocks.{block}.head.bias")
    return table


def rife_params(tensors: Tensors, config: RifeConfig | None = None) -> HostParams:
    """The parameters of `models.rife.Rife` from the tensors of the published checkpoint.

    Raises:
      KeyError: if a tensor is missing.
    """
    return {
        target.path: target.ours(tensors["module", *name.split(".")])
        for name, target in name_table(config or RifeConfig()).items()
    }
