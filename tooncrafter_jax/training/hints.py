"""The sketches of a batch, drawn on the devices that hold its frames."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, UInt8

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.nn.logical_axes import dividing_axes
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.sketches import NetworkExtractor
from tooncrafter_jax.training.sharding import ACTIVATION_RULES, put_everywhere
from tooncrafter_jax.training.stages.stage import Batch
from tooncrafter_jax.typing import Hints, Params
from tooncrafter_jax.weights.store import fingerprint


def hints_spec(mesh: Mesh, clips: int, frames: int) -> PartitionSpec:
    """Where the hints (B, T, H, W, 1) of a batch lie: clips over the axes that share a batch, frames over `frames`."""
    sizes = {"batch": clips, "frames": frames}
    return PartitionSpec(*(dividing_axes(mesh, ACTIVATION_RULES[name], size) for name, size in sizes.items()))


class HintDrawing:
    """Draws hints: bright lines on black, for the frames that the loader chose; the others stay empty.

    Every device draws the chosen frames of its own clips, a group at a time and as often as it has some, so one program
    serves every batch of a size, no more is drawn in vain than the rest of a group, and nothing goes back to the host.

    Args:
      extractor: draws dark lines on light paper.
      mesh: of the devices.
      every_frame: guides every frame instead (the paper's ZeroGate ablation).

    Attributes:
      fingerprint: stands for the values of the extractor's weights.
    """

    def __init__(self, extractor: NetworkExtractor, mesh: Mesh, *, every_frame: bool) -> None:
        self._mesh = mesh
        weights = {path: np.asarray(value) for path, value in extractor.params.items()}
        self.fingerprint = fingerprint(weights)
        self._params = put_everywhere(weights, mesh)

        def draw(params: Params, video: jax.Array, sketched: jax.Array) -> jax.Array:
            spec = hints_spec(mesh, *video.shape[:2])
            chosen = jnp.ones_like(sketched) if every_frame else sketched

            def of_device(params: Params, video: jax.Array, chosen: jax.Array) -> jax.Array:
                return draw_chosen(extractor, params, video, chosen)

            own = jax.shard_map(
                of_device, mesh=mesh, in_specs=(PartitionSpec(), spec, spec), out_specs=spec, check_vma=False
            )
            return own(params, video, chosen)

        self._compiled = jax.jit(draw)

    def __call__(self, batch: Batch) -> Hints:
        """Hints (B, T, H, W, 1) in [0, 1] of a batch on the mesh, with `video` (B, T, H, W, 3) uint8 and `sketched` (B,
        T).

        Raises:
          UserError: the batch has no pictures.
        """
        if "video" not in batch:
            raise UserError(
                "sketches are drawn from pictures, which embeddings do not have: set config.data.video to True, and "
                "config.data.directory to the set that the embeddings were made of"
            )
        return self._compiled(self._params, batch["video"], batch["sketched"])


def draw_chosen(
    extractor: NetworkExtractor, params: Params, video: UInt8[Array, "B T H W 3"], chosen: Bool[Array, "B T"]
) -> Hints:
    """Hints of the chosen frames, and zeros: as many pictures at a time as the extractor takes, in a loop as long as it
    must be.
    """
    frames, wanted = video.reshape(-1, *video.shape[2:]), chosen.reshape(-1)
    size = min(extractor.batch_size, len(frames))
    first = jnp.argsort(~wanted, stable=True)

    def some(i: jax.Array, hints: jax.Array) -> jax.Array:
        places = first[jnp.minimum(i * size + jnp.arange(size), len(frames) - 1)]
        lines = 1.0 - extractor.draw(params, to_pixels(frames[places]))
        return hints.at[places].set(jnp.where(wanted[places][:, None, None, None], lines, 0.0))

    groups = (jnp.sum(wanted) + size - 1) // size
    hints = jax.lax.fori_loop(0, groups, some, jnp.zeros((*frames.shape[:-1], 1), jnp.float32))
    return hints.reshape(*video.shape[:-1], 1)
