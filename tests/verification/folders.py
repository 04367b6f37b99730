"""Makes folders of reference numbers with our own outputs, for architectures that no stored folder has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from tooncrafter_jax.models.configuration import from_official
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.verification.folder import Folder
from tooncrafter_jax.verification.model import VerifiedModel
from tooncrafter_jax.verification.run import Results
from tooncrafter_jax.weights.official import PREFIXES
from tooncrafter_jax.weights.rule import SKETCH_PREFIX

TINY = Path(__file__).parents[1] / "golden" / "tiny"


class OfficialNames:
    """Official names and shapes for any architecture, with the stored folder's names as patterns.

    Both sides of a name are split into the block's place, which depends on the architecture, and the rest, which does
    not.
    """

    def __init__(self) -> None:
        model = VerifiedModel(Folder(TINY))
        self._rests: dict[tuple[str, str], tuple[str, int]] = {}
        for component, prefixes in PREFIXES.items():
            mapped = model.mapped(component)
            for name, (_, path) in mapped.assignment.entries.items():
                ndim = len(mapped.source.shapes[name])
                prefix = prefixes[0] if component not in ("autoencoder", "decoder") else "first_stage_model."
                rest = name.removeprefix(prefix)
                self._rests[component, self._generic(path)] = (
                    prefix + self._without_place(component, rest, path),
                    ndim,
                )

    def table(self, config: Mapping[str, Any], *components: str) -> dict[str, tuple[int, ...]]:
        ours = from_official(config, "made", "made")
        result = {}
        for component, network in ours.networks().items():
            if component in components:
                for path, leaf in network.abstract_params.items():
                    name, shape = self._official(component, network, path, leaf.shape)
                    result[name] = shape
        return result

    @staticmethod
    def _generic(path: str) -> str:
        """Our path with every number of a level or a block replaced."""
        return re.sub(r"(?<=\.)\d+(?=\.)", "#", path) if not path.startswith("hint.") else path

    @staticmethod
    def _without_place(component: str, rest: str, path: str) -> str:
        if component in ("unet", "sketch_encoder"):
            place = r"^(input_blocks|output_blocks)\.\d+\." if not path.startswith("mid.") else r"^middle_block\.\d+\."
            rest = re.sub(place, "<place>.", rest)
            rest = re.sub(r"^<place>\.\d+\.conv\.", "<place>.<last>.conv.", rest) if ".upsample." in path else rest
            return re.sub(r"transformer_blocks\.\d+", "transformer_blocks.<depth>", rest)
        rest = re.sub(r"(^layers|resblocks)\.\d+", r"\1.<depth>", rest)
        rest = re.sub(r"(down|up)\.\d+\.", r"\1.<level>.", rest)
        rest = re.sub(r"block\.\d+\.", "block.<block>.", rest)
        return re.sub(r"attn_refinement\.\d+", "attn_refinement.<level>", rest)

    def _official(
        self, component: str, network: AnyNetwork, path: str, shape: tuple[int, ...]
    ) -> tuple[str, tuple[int, ...]]:
        pattern, ndim = self._rests[component, self._generic(path)]
        config, numbers = network.config, re.findall(r"(?<=\.)\d+(?=\.)", path)
        if component in ("unet", "sketch_encoder"):
            name = self._unet_name(component, config, pattern, path, numbers)
        else:
            name = pattern.replace("<depth>", numbers[0] if numbers else "")
            level = str(len(config.multipliers)) if path.startswith("final_") else (numbers[0] if numbers else "")
            name = name.replace("<level>", level).replace("<block>", numbers[1] if len(numbers) > 1 else "")
            if ".mid.blocks." in f".{path}":
                name = re.sub(r"block_\d", f"block_{int(numbers[0]) + 1}", name)
        if path.endswith(".kernel"):
            official = (shape[-1], shape[-2], *shape[:-2])
            shape = official + (1,) * (ndim - len(official))
        return name, shape

    @staticmethod
    def _unet_name(component: str, config: Any, pattern: str, path: str, numbers: list[str]) -> str:
        per_level, levels = config.blocks_per_level + 1, len(config.multipliers)
        if path.startswith("down."):
            level = int(numbers[0])
            index = (level + 1) * per_level if ".downsample." in path else 1 + level * per_level + int(numbers[1])
            pattern = pattern.replace("<place>", f"input_blocks.{index}")
        elif path.startswith("up."):
            level = int(numbers[0])
            block = config.blocks_per_level if ".upsample." in path else int(numbers[1])
            last = "3" if level in config.attention_levels else "1"
            pattern = pattern.replace("<place>", f"output_blocks.{(levels - 1 - level) * per_level + block}")
            pattern = pattern.replace("<last>", last)
        elif path.startswith("mid.blocks.1."):
            last = "2" if component == "sketch_encoder" else "3"
            pattern = re.sub(r"<place>", f"middle_block.{last}", pattern)
        elif path.startswith("mid."):
            part = {"spatial_t": "1", "temporal_": "2"}.get(path.split(".")[3][:9], "0")
            if path.split(".")[3] == "temporal_conv":
                part = "0"
            pattern = pattern.replace("<place>", f"middle_block.{part}")
        elif path.startswith("conv_in."):
            pattern = pattern.replace("<place>", "input_blocks.0")
        if "transformer.blocks." in path:
            pattern = pattern.replace("<depth>", re.findall(r"transformer\.blocks\.(\d+)", path)[0])
        elif path.startswith("skip_taps."):
            pattern = re.sub(r"zero_convs\.\d+", f"zero_convs.{numbers[0]}", pattern)
        elif "temporal_conv.stages." in path:
            stage = int(path.split("stages.")[1][0]) + 1
            leaf = "0" if ".norm." in path else "2" if stage == 1 else "3"
            pattern = re.sub(r"conv\d\.\d", f"conv{stage}.{leaf}", pattern)
        return pattern


def write_keys(folder: Path, config: Mapping[str, Any], names: OfficialNames) -> dict[str, str]:
    """Writes both key tables; returns the manifest's `keys`."""
    components = ("unet", "image_projector", "clip_text", "clip_image", "autoencoder", "decoder")
    table = names.table(config, *components)
    vae = config["vae"]
    table["first_stage_model.post_quant_conv.weight"] = (vae["ddconfig"]["z_channels"], vae["embed_dim"], 1, 1)
    table["first_stage_model.post_quant_conv.bias"] = (vae["ddconfig"]["z_channels"],)
    sketch = names.table(config, "sketch_encoder")
    tables = {
        "model": ("keys.tsv", table),
        "sketch_encoder": ("sketch_keys.tsv", {name.removeprefix(SKETCH_PREFIX): s for name, s in sketch.items()}),
    }
    for file, shapes in tables.values():
        lines = [f"{name}\t{','.join(map(str, shape))}\tfloat32\n" for name, shape in shapes.items()]
        (folder / file).write_text("".join(lines))
    return {which: file for which, (file, _) in tables.items()}


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    cases: Mapping[str, Mapping[str, Any]],
    inputs: Mapping[str, np.ndarray],
    keys: Mapping[str, str],
) -> None:
    """Writes a folder in which every result of every case is stored as our code computes it.

    Args:
      folder: an existing folder that may hold key tables already.
      config: `config.json`.
      cases: the manifest's cases.
      inputs: original data, stored in `inputs.npz`.
      keys: the manifest's key tables.
    """
    (folder / "config.json").write_text(json.dumps(config))
    np.savez(folder / "inputs.npz", **cast(Any, inputs))
    entries = {key: {"role": "input", "dtype": str(a.dtype), "shape": list(a.shape)} for key, a in inputs.items()}
    manifest = {"format": 1, "config": "config.json", "keys": dict(keys), "cases": dict(cases)}
    manifest["arrays"] = {"inputs.npz": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    unfinished = Folder(folder)
    results = Results(unfinished, VerifiedModel(unfinished))
    outputs: dict[str, np.ndarray] = {}
    described: dict[str, dict[str, Any]] = {}
    for id in cases:
        for name, value in results.all(id).items():
            array, key = np.asarray(value), f"{id}/{name}"
            outputs[key] = array
            entry = {"dtype": str(array.dtype), "shape": list(array.shape)}
            if array.dtype.kind == "U":
                described[key] = entry | {"role": "input", "equals": {"case": id, "result": name}}
            else:
                described[key] = entry | {"role": "output", "case": id, "result": name, "slice": [":"] * array.ndim}
    np.savez(folder / "outputs.npz", **cast(Any, outputs))
    manifest["arrays"]["outputs.npz"] = described
    (folder / "manifest.json").write_text(json.dumps(manifest))
