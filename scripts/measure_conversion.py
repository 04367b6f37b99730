"""Converts weight files of the published size, made by the weight rule, in the layouts that users hold.

    python scripts/measure_conversion.py --out=/tmp/conversion                   # every layout; 21 GB of disk
    python scripts/measure_conversion.py --out=/tmp/conversion --layouts=ckpt    # the float32 .ckpt alone
    python scripts/measure_conversion.py --out=/tmp/conversion --config=tiny     # the narrow model, in two minutes

A layout after the other is written, converted in a process of its own, compared with what the first one became, and
deleted again. The table that is printed at the end has the bytes of the files, seconds, the peak memory of the process
beside the size of the model, what became of the tensors, and how far embeddings and one call of the U-Net are from
those of the first layout. Memory is counted as Linux does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from tests.weights import layouts  # noqa: E402
from tooncrafter_jax.models.configuration import ModelConfig, preset  # noqa: E402
from tooncrafter_jax.models.tokenizer import tokenizer  # noqa: E402
from tooncrafter_jax.weights.convert import convert  # noqa: E402
from tooncrafter_jax.weights.rule import unit_noise  # noqa: E402
from tooncrafter_jax.weights.sources import open_source  # noqa: E402
from tooncrafter_jax.weights.store import Checkpoint  # noqa: E402

KEYS = {
    "tooncrafter_512": ("keys/tooncrafter_512.tsv", "keys/sketch_encoder.tsv"),
    "tiny": ("tiny/keys.tsv", "tiny/sketch_keys.tsv"),
}
OUTPUTS = "outputs.safetensors"
HALF = 2.0**-11
"""Relative error of a number that was rounded to float16."""


def write_layout(layout: str, config: ModelConfig, folder: Path) -> list[Path]:
    """The files of a layout."""
    keys, sketch_keys = KEYS[config.name]
    whole = layouts.model(keys)
    match layout:
        case "ckpt":
            return [layouts.write_checkpoint(folder / "model.ckpt", whole, wrappers=("state_dict",))]
        case "deepspeed":
            prefixed = whole.prefixed("_forward_module.")
            return [layouts.write_checkpoint(folder / "model.ckpt", prefixed, wrappers=("module",))]
        case "fp16":
            return [layouts.write_safetensors(folder / "model-fp16.safetensors", whole, "float16")]
        case "parts":
            text = layouts.transformers_text(whole, layers=config.clip_text.blocks)
            image = layouts.open_clip(whole).kept(lambda name: name.startswith("visual."))
            pruned = layouts.without_clip(whole)
            return [
                layouts.write_safetensors(folder / "pruned-fp16.safetensors", pruned, "float16"),
                layouts.write_safetensors(folder / "text_encoder.safetensors", text, "float16"),
                layouts.write_safetensors(folder / "open_clip.safetensors", image, "float32"),
            ]
        case "dynamicrafter":
            plain = layouts.with_plain_decoder(whole)
            return [layouts.write_safetensors(folder / "dynamicrafter-fp16.safetensors", plain, "float16")]
        case "sketch":
            return [layouts.write_checkpoint(folder / "sketch_encoder.ckpt", layouts.sketch_encoder(sketch_keys))]
    raise ValueError(layout)


LAYOUTS = ("ckpt", "deepspeed", "fp16", "parts", "dynamicrafter", "sketch")


# --- in processes of their own ---


def convert_files(config: ModelConfig, files: list[Path], destination: Path, dtype: str) -> dict[str, Any]:
    """Converts, and says what it took."""
    before = peak()
    begin = time.monotonic()
    report = convert(files, destination, config, dtype=np.dtype(dtype), overwrite=True)
    return {
        "seconds": time.monotonic() - begin,
        "peak_before": before,
        "peak": peak(),
        "consumed": report.consumed,
        "unused": len(report.unused),
        "buffers": report.buffers,
        "missing": sum(len(config.networks()[name].abstract_params) for name in report.missing),
        "components": report.components,
    }


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def outputs(directory: Path) -> dict[str, np.ndarray]:
    """What a converted model computes of fixed inputs, one component in memory at a time."""
    checkpoint = Checkpoint(directory)
    config, found = checkpoint.config, {}
    frames, cells = 3, tuple(side // config.autoencoder.downscaling for side in (64, 64))
    context = jnp.asarray(unit_noise("context", (1, 77 + 16 * frames, config.unet.context_dim)))
    size, tokens = config.clip_image.image_size, (config.clip_image.image_size // config.clip_image.patch_size) ** 2 + 1
    channels = config.unet.in_channels
    calls: Mapping[str, tuple[Callable[..., Any], list[Any]]] = {
        "clip_text": (lambda m, ids: m(ids), [tokenizer()(["walking man"])]),
        "clip_image": (lambda m, x: m(x), [unit_noise("pixels", (1, size, size, 3))]),
        "image_projector": (lambda m, x: m(x), [unit_noise("tokens", (1, tokens, config.clip_image.width))]),
        "unet": (
            lambda m, x, t, fps, c: m(x, t, m.context_keys(c, frames), fps),
            [unit_noise("latents", (1, frames, *cells, channels)), np.asarray([500]), np.asarray([10]), context],
        ),
    }
    for name, (call, arguments) in calls.items():
        if name in checkpoint.components:
            network = config.networks()[name]
            params = checkpoint.restore(name, network)
            found[name] = np.asarray(jax.jit(lambda p, *a, n=network, c=call: c(n.bind(p), *a))(params, *arguments))
            del params
    return found


def in_process(*arguments: str, **variables: str) -> dict[str, Any]:
    """Runs the script again with these arguments and variables of the environment; what it prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | variables,
    )
    return json.loads(done.stdout.splitlines()[-1])


# --- the whole ---


@dataclass
class Row:
    """What was measured of a layout.

    Attributes:
      layout: its name.
      files, bytes, tensors: of the weight files, together.
      told: what the process that converted them says.
      written: bytes of the checkpoint directory.
      differences: output -> largest difference from the first layout's, as a part of that one's standard deviation.
    """

    layout: str
    files: int
    bytes: int
    tensors: int
    told: dict[str, Any]
    written: int
    differences: dict[str, float] = field(default_factory=dict)


def measure(layout: str, arguments: argparse.Namespace, reference: Path) -> Row:
    """Writes, converts, compares and deletes one layout."""
    folder = arguments.out / layout
    folder.mkdir()
    begin = time.monotonic()
    files = write_layout(layout, preset(arguments.config), folder)
    size, tensors = sum(file.stat().st_size for file in files), sum(len(open_source(file).shapes) for file in files)
    print(f"{layout}: {size:,} bytes written in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    shared = [f"--config={arguments.config}", f"--stored-dtype={arguments.stored_dtype}", f"--out={folder / 'model'}"]
    told = in_process("--convert", *map(str, files), *shared)
    assert told["consumed"] + told["unused"] + told["buffers"] == tensors, told
    print(f"{layout}: converted in {told['seconds']:.1f} s", file=sys.stderr, flush=True)
    written = sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file())
    row = Row(layout, len(files), size, tensors, told, written)
    for file in files:
        file.unlink()
    if layout != "sketch" and not arguments.no_outputs:
        begin = time.monotonic()
        # The programs are those of the first layout.
        in_process("--compute", *shared, JAX_COMPILATION_CACHE_DIR=str(arguments.out / "compiled"))
        print(f"{layout}: computed in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        row.differences = differences(folder / OUTPUTS, reference)
    shutil.rmtree(folder)
    return row


def differences(file: Path, reference: Path) -> dict[str, float]:
    """How far outputs are from the first layout's, which becomes the reference."""
    if not reference.exists():
        shutil.copy(file, reference)
    expected, found = load_file(reference), load_file(file)
    return {name: float(np.abs(found[name] - value).max() / value.std()) for name, value in expected.items()}


def table(rows: list[Row], sizes: Mapping[str, int]) -> str:
    """The rows in Markdown; `sizes` are the bytes of the components, as they are stored."""
    outputs = list(dict.fromkeys(name for row in rows for name in row.differences))
    head = [
        "layout",
        "files",
        "bytes",
        "seconds",
        "peak GiB",
        "model GiB",
        "bytes written",
        "tensors",
        "consumed",
        "buffers",
        "unused",
        "missing",
        *outputs,
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        model = sum(sizes[name] for name in row.told["components"])
        lines.append(
            [
                row.layout,
                str(row.files),
                f"{row.bytes:,}",
                f"{row.told['seconds']:.1f}",
                f"{row.told['peak'] / 2**30:.2f} ({row.told['peak_before'] / 2**30:.2f} before)",
                f"{model / 2**30:.2f}",
                f"{row.written:,}",
                *(
                    str(count)
                    for count in (row.tensors, *map(row.told.get, ("consumed", "buffers", "unused", "missing")))
                ),
                *(f"{row.differences[name]:.1e}" if name in row.differences else "" for name in outputs),
            ]
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{text}\n\nMissing: parameters that sampling needs beside. Outputs: largest difference from those of "
        f"{rows[0].layout}, as a part of their standard deviation; float16 rounds numbers by {HALF:.1g}."
    )


def check_room(arguments: argparse.Namespace, sizes: Mapping[str, int]) -> None:
    """Ends where the disk has no room for a float32 file of the model beside what it is converted into."""
    numbers = sum(sizes.values()) // np.dtype(arguments.stored_dtype).itemsize
    need, free = numbers * 4 + sum(sizes.values()), shutil.disk_usage(arguments.out).free
    if need > free:
        sys.exit(f"{need / 1e9:.0f} GB are needed at {arguments.out}, and {free / 1e9:.0f} GB are free")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder, where files are written, and deleted")
    parser.add_argument("--config", choices=tuple(KEYS), default="tooncrafter_512")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="of " + ",".join(LAYOUTS))
    parser.add_argument("--stored-dtype", choices=tuple(layouts.DTYPES)[:3], default="float32", help="of the result")
    parser.add_argument("--no-outputs", action="store_true", help="convert alone")
    parser.add_argument("--convert", nargs="+", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compute", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config = preset(arguments.config)
    if arguments.convert:
        print(json.dumps(convert_files(config, arguments.convert, arguments.out, arguments.stored_dtype)))
        return
    if arguments.compute:
        save_file(outputs(arguments.out), arguments.out.parent / OUTPUTS)
        print("{}")
        return
    chosen = arguments.layouts.split(",")
    if unknown := sorted(set(chosen) - set(LAYOUTS)):
        parser.error(f"there is no layout {unknown[0]}: choose of {', '.join(LAYOUTS)}")
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there already: name a new folder")
    arguments.out.mkdir(parents=True)
    try:
        sizes = {
            name: sum(leaf.size for leaf in network.abstract_params.values())
            * np.dtype(arguments.stored_dtype).itemsize
            for name, network in config.networks().items()
            if name != "motion"  # which no published file has
        }
        check_room(arguments, sizes)
        print(table([measure(layout, arguments, arguments.out / OUTPUTS) for layout in chosen], sizes))
    finally:
        shutil.rmtree(arguments.out)


if __name__ == "__main__":
    main()
