"""The vocabulary of arrays.

Axis names: B batch (clips), T frames, H W pixels, h w latent cells (pixels / 8), C channels, N M tokens, D features.
Channels come last everywhere. Pixel values are in [-1, 1] unless a name says uint8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped, UInt8

Video = Float[Array, "B T H W 3"]
"""Frames of clips in [-1, 1]."""
Images = Float[Array, "B H W 3"]
"""Single pictures in [-1, 1]."""
Picture = UInt8[np.ndarray, "H W 3"]
"""A picture as it is read, 0 to 255."""
Uint8Video = UInt8[np.ndarray, "T H W 3"]
"""What a user gets: frames of one clip, 0 to 255."""
Uint8Videos = UInt8[np.ndarray, "B T H W 3"]
"""The same of several clips."""
Uint8Clip = UInt8[np.ndarray, "T H W C"]
"""Frames of one clip, 0 to 255, with opacity as a fourth channel where that is asked for."""
Uint8Clips = UInt8[np.ndarray, "B T H W C"]
"""The same of several clips."""
HostVideos = Float[np.ndarray, "B T H W 3"]
"""Frames of clips in [-1, 1], in the memory of this process."""
Latents = Float[Array, "B T h w C"]
"""Autoencoder latents multiplied by the scale factor, or noise of that shape."""
Trajectory = Float[Array, "K B T h w C"]
"""Latents of K sampling steps."""
VideoFeatures = Float[Array, "B T _ _ _"]
"""Activations inside a video network, of any width and resolution."""
Tokens = Float[Array, "B N D"]
"""Token features, e.g. of a text or image tower."""
Context = Float[Array, "B N D"]
"""Cross-attention context: 77 text tokens, then the image tokens."""
TokenIds = Int[Array, "B 77"]
"""Tokenised prompts."""
Timesteps = Int[Array, "B"]
"""Diffusion time of each clip, 0 (clean) to 999 (noise)."""
FramesPerSecond = Int[Array, "B"]
"""The integer frame rate that the denoiser is conditioned on."""
Hints = Float[Array, "B T H W 1"]
"""Sketches as the sketch encoder receives them: [0, 1], bright lines on black; an all-zero frame is unguided."""

AnyArray = Shaped[Array, "..."]
"""An array of any type and shape on devices."""
HostArray = Shaped[np.ndarray, "..."]
"""The same in the memory of this process."""
FloatArray = Float[Array, "..."]
"""Numbers of any shape, whose last axis is the channels'."""
Scalar = Float[Array, ""]
"""One number."""
Key = PRNGKeyArray
"""Of `jax.random.key`."""
Leaf = TypeVar("Leaf")
"""Of a tree: an array, its shape and dtype, or its sharding."""


@runtime_checkable
class HasShape(Protocol):
    """An array, or what stands for one, such as `jax.ShapeDtypeStruct`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers."""
        ...


Params = Mapping[str, Any]
"""Parameters by dotted path: arrays, or what stands for them (shapes, shardings)."""
AllParams = Mapping[str, Params]
"""Component -> its parameters."""
DeviceParams = dict[str, AnyArray]
"""Parameters by dotted path, on devices."""
HostParams = dict[str, HostArray]
"""The same on the host."""
Tensors = Mapping[tuple[str, ...], HostArray]
"""Arrays of a foreign file by their place in it."""
JsonObject = Mapping[str, object]
"""Plain values by name, of which JSON can be made."""

Device = Any
"""A `jax.Device`; type checkers take that name for a variable."""
Dtype = Any
"""Anything that `jnp.dtype` accepts."""
PyTree = Any
"""A nested container of arrays."""
