"""CLIP as it scores pictures and captions: both towers, and the projections into the space that they share.

The denoiser reads the tokens of the towers before those projections, so a converted checkpoint directory has none. They
are in the published ToonCrafter checkpoint, which holds OpenCLIP ViT-H-14, and in any file of OpenCLIP's or OpenAI's
with OpenCLIP's names.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8
from PIL import Image

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.clip_blocks import ClipMlp
from tooncrafter_jax.models.clip_image import ClipImage, ClipImageConfig
from tooncrafter_jax.models.clip_preprocess import MEAN, STD
from tooncrafter_jax.models.clip_text import ClipText, ClipTextConfig
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.models.tokenizer import END_ID, tokenizer
from tooncrafter_jax.nn.layers import LayerOptions
from tooncrafter_jax.typing import AnyArray, DeviceParams, Images, JsonObject, Params, TokenIds, Tokens, Uint8Video
from tooncrafter_jax.weights.official import LevelLayout, leaf_path, paths_of_components, to_our_layout
from tooncrafter_jax.weights.sources import TensorSource, open_source

IMAGE_PREFIXES, TEXT_PREFIXES = ("embedder.model.visual.", "visual."), ("cond_stage_model.model.", "")
"""What stands before the names of a tower's tensors: in a ToonCrafter checkpoint, and in OpenCLIP's own files."""
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Features of an image tower -> those of a head in OpenCLIP's H, g and bigG models; 64 in all others."""
_NORM_EPSILON = 1e-5
_WHOLE_BYTES, _SAMPLES, _SAMPLE_BYTES = 64 * 2**20, 64, 2**14


@dataclass(frozen=True)
class ClipWeights:
    """A file of CLIP weights, and what its tensors do not tell.

    Attributes:
      path: .safetensors, or a PyTorch checkpoint.
      quick_gelu: whether the MLPs have x sigmoid(1.702 x) instead of the exact GELU, as all of OpenAI's own models have
        and none of LAION's. Nothing in a file says so, and wrong, it gives worse scores without an error.
      image_head_width: features of an attention head of the image tower; by default `HEAD_WIDTHS`.
      text_head_width: the same of the text tower.
    """

    path: Path
    quick_gelu: bool = False
    image_head_width: int | None = None
    text_head_width: int = 64

    def settings(self) -> JsonObject:
        """What tells these weights from others, as JSON values.

        Raises:
          UserError: the file cannot be read.
        """
        return {"weights": file_digest(self.path), "quick_gelu": self.quick_gelu}


def file_digest(path: Path) -> str:
    """A checksum that tells weight files apart: of one beyond 64 MiB, its size and 1 MiB of it in pieces from
    everywhere.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        status = os.stat(path)
        return _file_digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): check the path of the weights") from error


@functools.lru_cache(maxsize=16)
def _file_digest(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for sample in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


Tower = TypeVar("Tower", ClipImage, ClipText)


class _QuickGeluMlp(ClipMlp):
    """The MLP of OpenAI's models; its parameters are those of `ClipMlp`."""

    def __call__(self, x: Tokens) -> Tokens:
        hidden = self.hidden(x)
        return self.out(hidden * jax.nn.sigmoid(1.702 * hidden))


def _module(tower: Callable[..., Tower], quick_gelu: bool) -> Callable[..., Tower]:
    """What builds a tower, with the other nonlinearity if asked for."""

    def build(config: ClipImageConfig | ClipTextConfig, **settings: Unpack[LayerOptions]) -> Tower:
        built = tower(config, **settings)
        if quick_gelu:
            ratio = getattr(config, "mlp_ratio", 4.0)
            for block in built.blocks:
                block.mlp = _QuickGeluMlp(config.width, int(config.width * ratio), **settings)
        return built

    return build


@dataclass(frozen=True)
class _Tower:
    """A tower with the norm and the projection that follow it."""

    network: AnyNetwork
    params: Mapping[str, jax.Array]
    projection: jax.Array
    norm: tuple[jax.Array, jax.Array] | None = None  # scale and bias; the text tower has its own


class ClipModel:
    """Pictures and texts as unit vectors: the cosine of two is their product.

    Args:
      weights: the file; either tower may be missing in it until it is asked for.

    Raises:
      UserError: the file is missing or damaged.
    """

    def __init__(self, weights: ClipWeights) -> None:
        self._weights = weights
        self._source = open_source(weights.path)

    def of_pictures(self, pictures: Uint8Video) -> Float32[np.ndarray, "B D"]:
        """Unit vectors of pictures (B, H, W, 3).

        Raises:
          UserError: the file has no image tower with its projection.
        """
        tower = self._image
        pixels = np.stack([clip_pixels(picture, tower.network.config.image_size) for picture in pictures])
        assert tower.norm is not None
        return np.asarray(self._image_step(tower.params, tower.norm, tower.projection, pixels))

    def of_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        """Unit vectors of texts; what goes beyond 75 tokens is cut.

        Raises:
          UserError: the file has no text tower with its last block and its projection.
        """
        tower = self._text
        return np.asarray(self._text_step(tower.params, tower.projection, tokenizer()(texts)))

    @property
    def width(self) -> int:
        """Length of the vectors.

        Raises:
          UserError: the file has no image tower with its projection.
        """
        return int(self._image.projection.shape[1])

    @functools.cached_property
    def _image(self) -> _Tower:
        source, prefix = self._source, self._prefix("image", IMAGE_PREFIXES, "conv1.weight")
        config = image_config(source.shapes, prefix, self._weights.image_head_width)
        network = Network(_module(ClipImage, self._weights.quick_gelu), config)
        self._require(prefix + "proj", prefix + "ln_post.weight", prefix + "ln_post.bias")
        return _Tower(
            network,
            _parameters(source, prefix, "clip_image", network),
            _array(source.read(prefix + "proj")),
            (_array(source.read(prefix + "ln_post.weight")), _array(source.read(prefix + "ln_post.bias"))),
        )

    @functools.cached_property
    def _text(self) -> _Tower:
        source, prefix = self._source, self._prefix("text", TEXT_PREFIXES, "token_embedding.weight")
        config = text_config(source.shapes, prefix, self._weights.text_head_width)
        network = Network(_module(ClipText, self._weights.quick_gelu), config)
        self._require(prefix + "text_projection")
        params = _parameters(source, prefix, "clip_text", network)
        return _Tower(network, params, _array(source.read(prefix + "text_projection")))

    @functools.cached_property
    def _image_step(self) -> Callable[..., jax.Array]:
        network = self._image.network

        @jax.jit
        def step(
            params: Params, norm: tuple[AnyArray, AnyArray], projection: AnyArray, pixels: Images
        ) -> Float[Array, "B D"]:
            x = network.bind(params)(pixels)[:, 0]  # the class token
            x = x - x.mean(-1, keepdims=True)
            x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _NORM_EPSILON) * norm[0] + norm[1]
            return _unit(x @ projection)

        return step

    @functools.cached_property
    def _text_step(self) -> Callable[..., jax.Array]:
        network = self._text.network

        @jax.jit
        def step(params: Params, projection: AnyArray, ids: TokenIds) -> Float[Array, "B D"]:
            tokens = network.bind(params)(ids)
            ends = (ids == END_ID).argmax(-1)  # the first: it has seen the whole text
            return _unit(jnp.take_along_axis(tokens, ends[:, None, None], 1)[:, 0] @ projection)

        return step

    def _prefix(self, tower: str, prefixes: Sequence[str], name: str) -> str:
        for prefix in prefixes:
            if prefix + name in self._source.shapes:
                return prefix
        raise UserError(
            f"{self._source.where} holds no CLIP {tower} tower: name a published ToonCrafter checkpoint, or a file of "
            "OpenCLIP's"
        )

    def _require(self, *names: str) -> None:
        missing = [name for name in names if name not in self._source.shapes]
        if missing:
            raise UserError(
                f"{self._source.where} lacks {', '.join(missing)}, without which pictures and texts cannot be "
                "compared: name a file with all of CLIP"
            )


def image_config(shapes: Mapping[str, tuple[int, ...]], prefix: str, head_width: int | None) -> ClipImageConfig:
    """The sizes of an image tower from its tensors' shapes in PyTorch layout."""
    width, _, patch, _ = shapes[prefix + "conv1.weight"]
    tokens = shapes[prefix + "positional_embedding"][0]
    hidden = shapes[prefix + "transformer.resblocks.0.mlp.c_fc.weight"][0]
    return ClipImageConfig(
        image_size=patch * math.isqrt(tokens - 1),
        patch_size=patch,
        width=width,
        heads=width // (head_width or HEAD_WIDTHS.get(width, 64)),
        layers=_layers(shapes, prefix),
        mlp_ratio=hidden / width,
    )


def text_config(shapes: Mapping[str, tuple[int, ...]], prefix: str, head_width: int) -> ClipTextConfig:
    """The sizes of a text tower, all its blocks included, from its tensors' shapes in PyTorch layout."""
    vocabulary, width = shapes[prefix + "token_embedding.weight"]
    return ClipTextConfig(
        vocabulary_size=vocabulary,
        context_length=shapes[prefix + "positional_embedding"][0],
        width=width,
        heads=width // head_width,
        layers=_layers(shapes, prefix),
        penultimate=False,
    )


def clip_pixels(picture: UInt8[np.ndarray, "H W 3"], size: int) -> Float32[np.ndarray, "{size} {size} 3"]:
    """What CLIP was trained on: the short side resized (bicubic, antialiased), the middle cut out, and colours
    normalised.
    """
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    resized = (size, int(height * scale)) if width <= height else (int(width * scale), size)
    image = Image.fromarray(picture).resize(resized, Image.Resampling.BICUBIC)
    left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    cut = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255
    return (cut - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)


@functools.lru_cache(maxsize=2)
def load_clip(weights: ClipWeights) -> ClipModel:
    """The model of a file, read once in a process.

    Raises:
      UserError: the file is missing or damaged.
    """
    return ClipModel(weights)


def _parameters(source: TensorSource, prefix: str, component: str, network: AnyNetwork) -> DeviceParams:
    layout = LevelLayout()
    path_of = paths_of_components(layout, layout)[component]
    wanted = {path: leaf.shape for path, leaf in network.abstract_params.items()}
    params: DeviceParams = {}
    for name, shape in source.shapes.items():
        if name.startswith(prefix):
            path = leaf_path(path_of(name.removeprefix(prefix)), len(shape))
            if path in wanted:
                params[path] = _array(to_our_layout(path, source.read(name)))
    misfits = [path for path, shape in wanted.items() if path not in params or params[path].shape != shape]
    if misfits:
        raise UserError(f"{source.where} does not hold a whole CLIP: {', '.join(misfits)} are missing or misshaped")
    return params


def _layers(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    blocks = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
    return 1 + max((int(found[1]) for name in shapes if (found := blocks.match(name))), default=-1)


def _array(value: np.ndarray) -> jax.Array:
    return jnp.asarray(np.ascontiguousarray(value, np.float32))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
