"""The highest levels of a decoder in tiles, so that their activations are never whole.

Two things tie a pixel to all others. Convolutions are exact: a tile is cut together with all that its pixels depend on.
Group normalisations take their statistics over whole frames or clips: in a first walk every tile is normalised by
its own, and what is found is pooled; in the walk that draws, all tiles are normalised by the pooled ones. So tiles meet
without a seam. The pooled statistics of the first normalisation are those of the whole; each further walk makes those
of one more exact, and the others closer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from tooncrafter_jax.nn.layers import GroupNorm, Statistics
from tooncrafter_jax.typing import AnyArray, Video

WALKS = 1
"""Over all tiles for their statistics, before the one that draws; as many as there are normalisations are exact."""
Moments = list[tuple[AnyArray, AnyArray]]
"""Mean and variance of each normalisation, in the order in which they are taken."""


class Tiles(NamedTuple):
    """How a frame is cut into equal tiles, in cells of the level before those that are drawn in tiles.

    Attributes:
      whole: height and width of the frame.
      size: of a tile.
      halo: cells around it that its pixels depend on.
    """

    whole: tuple[int, int]
    size: tuple[int, int]
    halo: int

    @classmethod
    def of(cls, height: int, width: int, longest: int, halo: int) -> Tiles | None:
        """The largest tiles with sides up to `longest` that divide the frame; None if that is the frame itself."""
        size = tuple(max(n for n in range(1, min(longest, side) + 1) if side % n == 0) for side in (height, width))
        return None if size == (height, width) else cls((height, width), (size[0], size[1]), halo)

    @property
    def cut(self) -> tuple[int, int]:
        """Height and width of what is cut: a tile with what lies around it, as far as the frame goes."""
        height, width = (min(whole, size + 2 * self.halo) for whole, size in zip(self.whole, self.size, strict=True))
        return height, width

    @property
    def corners(self) -> Int[np.ndarray, "N 2"]:
        """Where the tiles begin, row by row."""
        rows, columns = (np.arange(0, whole, size) for whole, size in zip(self.whole, self.size, strict=True))
        return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int32)


class Cut:
    """One tile.

    Args:
      tiles: how the frame is cut.
      corner: where this tile begins.
    """

    def __init__(self, tiles: Tiles, corner: Int[Array, "2"]) -> None:
        self._tiles = tiles
        room = np.asarray(tiles.whole) - np.asarray(tiles.cut)
        self._start = jnp.clip(corner - tiles.halo, 0, room)
        self._inner = corner - self._start

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T h w C"]:
        """The tile and what lies around it, of whole frames of any resolution that is a multiple of the cells'."""
        return _window(x, self._start, self._tiles.cut, x.shape[2] // self._tiles.whole[0])

    def inner(self, x: Float[Array, "B T h w C"]) -> Float[Array, "B T y x C"]:
        """The tile alone, of what was made of the same with its surroundings."""
        return _window(x, self._inner, self._tiles.size, x.shape[2] // self._tiles.cut[0])


def _window(
    x: Float[Array, "B T H W C"], start: Int[Array, "2"], size: tuple[int, int], scale: int
) -> Float[Array, "B T h w C"]:
    sizes = (*x.shape[:2], scale * size[0], scale * size[1], x.shape[-1])
    return jax.lax.dynamic_slice(x, (0, 0, scale * start[0], scale * start[1], 0), sizes)


class _Pool:
    """Stands between normalisations and their statistics while a tile is traced.

    Attributes:
      cut: the tile.
      given: what all tiles are normalised by; None: each by its own.
      own: of the tile, in the order in which they are asked for.
    """

    def __init__(self) -> None:
        self.cut: Cut | None = None
        self.given: Moments | None = None
        self.own: Moments = []

    def __call__(self, norm: GroupNorm, x: Float[Array, "B T H W C"], batch_axes: int) -> tuple[Statistics, Statistics]:
        assert self.cut is not None
        self.own.append(norm.moments(self.cut.inner(x), batch_axes=batch_axes))
        return self.own[-1] if self.given is None else self.given[len(self.own) - 1]


def drawn_in_tiles(draw: Callable[[Cut], Video], modules: Sequence[nnx.Module], tiles: Tiles) -> Video:
    """Frames (B, T, H, W, 3) of all tiles.

    Args:
      draw: a tile with its surroundings.
      modules: those whose group normalisations take part in that.
      tiles: how frames are cut.
    """
    pool = _Pool()
    norms = [layer for module in modules for _, layer in nnx.iter_modules(module) if isinstance(layer, GroupNorm)]
    corners = jnp.asarray(tiles.corners)

    def walked(corner: Int[Array, "2"], given: Moments | None) -> tuple[Video, Moments]:
        pool.cut, pool.given, pool.own = Cut(tiles, corner), given, []
        drawn = pool.cut.inner(draw(pool.cut))
        return drawn, pool.own

    def pooled(given: Moments | None) -> Moments:
        found = jax.lax.map(lambda corner: walked(corner, given)[1], corners)
        return [_of_all(mean, variance) for mean, variance in found]

    for norm in norms:
        norm.elsewhere = pool
    given = pooled(None) if WALKS else None
    if WALKS > 1:
        given = jax.lax.fori_loop(1, WALKS, lambda _, given: pooled(given), given)
    drawn = jax.lax.map(lambda corner: walked(corner, given)[0], corners)
    for norm in norms:
        norm.elsewhere = None
    rows = tiles.whole[0] // tiles.size[0]
    return rearrange(drawn, "(r c) b t h w i -> b t (r h) (c w) i", r=rows)


def _of_all(means: Float[Array, "N *R C"], variances: Float[Array, "N *R C"]) -> tuple[Statistics, Statistics]:
    """Mean and variance of tiles of equal size together."""
    mean = means.mean(0)
    return mean, (variances + jnp.square(means - mean)).mean(0)
