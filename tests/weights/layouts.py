"""The layouts that published weights have, written tensor by tensor: of the tiny model in tests, of the real size in
scripts/measure_conversion.py.

The names of transformers and of OpenCLIP are written here once more, the other way round than the package reads them.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.reference import key_list
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.weights.rule import SKETCH_PREFIX, make

DTYPES: dict[str, tuple[Any, str, str]] = {
    "float32": (np.float32, "F32", "FloatStorage"),
    "float16": (np.float16, "F16", "HalfStorage"),
    "bfloat16": (ml_dtypes.bfloat16, "BF16", "BFloat16Storage"),
    "int64": (np.int64, "I64", "LongStorage"),
}
"""Name -> numpy's dtype, safetensors' name, PyTorch's storage."""
TEXT, IMAGE, UNET = "cond_stage_model.model.", "embedder.model.visual.", "model.diffusion_model."
VIDEO_PARTS = ("time_stack", "mix_factor", "attn_refinement", "time_mix_conv")
"""What a name of the dual-reference decoder holds that the plain one has not."""


@dataclass(frozen=True)
class Tensors:
    """Tensors that are made when they are asked for.

    Attributes:
      shapes: name -> shape.
      read: makes the tensor of a name.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]

    def renamed(self, old: Mapping[str, str]) -> Tensors:
        """Those whose new names are the keys, made as the old ones."""
        return Tensors({new: self.shapes[own] for new, own in old.items()}, lambda name: self.read(old[name]))

    def kept(self, keep: Callable[[str], bool]) -> Tensors:
        return self.renamed({name: name for name in self.shapes if keep(name)})

    def prefixed(self, prefix: str) -> Tensors:
        return self.renamed({prefix + name: name for name in self.shapes})

    def with_(self, more: Mapping[str, np.ndarray]) -> Tensors:
        """These too, or in place of those of the same names."""
        shapes = {**self.shapes, **{name: value.shape for name, value in more.items()}}
        return Tensors(shapes, lambda name: more[name] if name in more else self.read(name))


class Listed:
    """Tensors as a file would give them.

    Attributes:
      shapes: name -> shape.
    """

    where = "weights.safetensors"

    def __init__(self, tensors: Tensors) -> None:
        self.shapes, self._tensors = tensors.shapes, tensors

    def read(self, name: str) -> np.ndarray:
        return self._tensors.read(name)


def joined(*parts: Tensors) -> Tensors:
    """Several as one."""
    owner = {name: part for part in parts for name in part.shapes}
    return Tensors({name: part.shapes[name] for name, part in owner.items()}, lambda name: owner[name].read(name))


def model(keys: str = "tiny/keys.tsv", schedule: NoiseSchedule | None = None) -> Tensors:
    """The full model by the weight rule, with its buffers."""
    shapes, buffers = key_list(keys), (schedule or NoiseSchedule()).buffers()
    return Tensors(shapes, lambda name: buffers[name] if name in buffers else make(name, shapes[name]))


def sketch_encoder(keys: str = "tiny/sketch_keys.tsv") -> Tensors:
    """The sketch encoder, whose own file has no prefix."""
    shapes = key_list(keys)
    return Tensors(shapes, lambda name: make(SKETCH_PREFIX + name, shapes[name]))


def without_clip(whole: Tensors) -> Tensors:
    return whole.kept(lambda name: not name.startswith(("cond_stage_model.", "embedder.")))


def with_plain_decoder(whole: Tensors) -> Tensors:
    """As DynamiCrafter's models are."""
    return whole.kept(lambda name: not any(part in name for part in VIDEO_PARTS))


def u_net(whole: Tensors) -> Tensors:
    return _stripped(whole, UNET)


def open_clip(whole: Tensors) -> Tensors:
    """Both towers in one file, as OpenCLIP has them."""
    text = _stripped(whole, TEXT)
    return joined(_stripped(whole, IMAGE).prefixed("visual."), text)


def _stripped(whole: Tensors, prefix: str) -> Tensors:
    return whole.renamed({name.removeprefix(prefix): name for name in whole.shapes if name.startswith(prefix)})


def transformers_text(whole: Tensors, prefix: str = "text_model.", layers: int | None = None) -> Tensors:
    """The text tower as transformers' CLIPTextModel has it; of its blocks the first `layers`."""
    tower = _stripped(whole, TEXT)
    renamed = _transformers(tower, {"token_embedding.weight": "embeddings.token_embedding.weight"}, layers)
    return renamed.kept(lambda name: name not in ("text_projection", "logit_scale")).prefixed(prefix)


def transformers_vision(whole: Tensors, prefix: str = "vision_model.") -> Tensors:
    """The image tower as CLIPVisionModelWithProjection has it."""
    tower = _stripped(whole, IMAGE)
    first = {"conv1.weight": "embeddings.patch_embedding.weight", "class_embedding": "embeddings.class_embedding"}
    inner = _transformers(tower.kept(lambda name: name != "proj"), first, None).prefixed(prefix)
    projection = tower.shapes["proj"]
    outer = Tensors({"visual_projection.weight": projection[::-1]}, lambda _: tower.read("proj").T)
    return joined(inner, outer)


_OF_BLOCKS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OF_TOWERS = {"ln_final": "final_layer_norm", "ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}


def _transformers(tower: Tensors, first: Mapping[str, str], layers: int | None) -> Tensors:
    first = {**first, "positional_embedding": "embeddings.position_embedding.weight"}
    old: dict[str, tuple[str, int | None]] = {}
    for name in tower.shapes:
        parts = name.split(".")
        if parts[:2] == ["transformer", "resblocks"]:
            if layers is not None and int(parts[2]) >= layers:
                continue
            block, rest = f"encoder.layers.{parts[2]}", ".".join(parts[3:])
            if rest.startswith("attn.in_proj_"):
                leaf = rest.removeprefix("attn.in_proj_")
                for row, letter in reversed(list(enumerate("qkv"))):
                    old[f"{block}.self_attn.{letter}_proj.{leaf}"] = (name, row)
                continue
            module, leaf = rest.rsplit(".", 1)
            old[f"{block}.{_OF_BLOCKS[module]}.{leaf}"] = (name, None)
        else:
            module, _, leaf = name.partition(".")
            old[first.get(name) or (f"{_OF_TOWERS[module]}.{leaf}" if module in _OF_TOWERS else name)] = (name, None)

    def shape(name: str, row: int | None) -> tuple[int, ...]:
        whole = tower.shapes[name]
        return whole if row is None else (whole[0] // 3, *whole[1:])

    def read(new: str) -> np.ndarray:
        name, row = old[new]
        return tower.read(name) if row is None else np.split(tower.read(name), 3)[row]

    return Tensors({new: shape(*of) for new, of in old.items()}, read)


# ---------------------------------------------------------------------------------------------------------------- files


def write_safetensors(path: Path, tensors: Tensors, dtype: str = "float32") -> Path:
    """One after another, so that a model of any size can be written; integers stay what they are."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.shapes.items():
        own = "int64" if name.endswith("position_ids") else dtype
        start, end = end, end + prod(shape) * np.dtype(DTYPES[own][0]).itemsize
        entries[name] = {"dtype": DTYPES[own][1], "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in tensors.shapes:
            own = "int64" if name.endswith("position_ids") else dtype
            file.write(np.ascontiguousarray(tensors.read(name), DTYPES[own][0]).view(np.uint8).data)
    return path


def write_checkpoint(path: Path, tensors: Tensors, dtype: str = "float32", wrappers: tuple[str, ...] = ()) -> Path:
    """As PyTorch writes it, without PyTorch: one storage a tensor, in a dict within dicts of these keys."""
    kind, _, storage = DTYPES[dtype]
    listing = bytearray(b"\x80\x02")
    for wrapper in wrappers:
        listing += b"}" + _text(wrapper)
    listing += b"}"
    for number, (name, shape) in enumerate(tensors.shapes.items()):
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        place = b"(" + _text("storage") + b"ctorch\n%s\n" % storage.encode() + _text(str(number)) + _text("cpu")
        place += _number(prod(shape)) + b"tQ"
        listing += _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + _number(0)
        listing += _numbers(shape) + _numbers(strides) + b"\x89" + b"ccollections\nOrderedDict\n)R" + b"tR" + b"s"
    listing += b"s" * len(wrappers) + b"."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", bytes(listing))
        archive.writestr("archive/byteorder", "little")
        for number, name in enumerate(tensors.shapes):
            with archive.open(f"archive/data/{number}", "w") as file:
                file.write(np.ascontiguousarray(tensors.read(name), kind).view(np.uint8).data)
        archive.writestr("archive/version", "3\n")
    return path


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number) if number < 2**31 else b"\x8a\x08" + struct.pack("<q", number)


def _numbers(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"
