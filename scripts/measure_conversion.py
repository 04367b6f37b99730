"""Converts weight files of the published size, made by the weight rule, in the layouts that users hold.

    python scripts/measure_conversion.py --out=/tmp/conversion                   # every layout; 30 GB of disk
    python scripts/measure_conversion.py --out=/tmp/conversion --layouts=ckpt    # the float32 .ckpt alone
    python scripts/measure_conversion.py --out=/tmp/conversion --config=tiny     # the narrow model, in a minute

A layout after the other is written, converted in a process of its own, compared with what the first one became, and
deleted again. Printed are the bytes of the files, seconds, the peak memory of the process beside the size of the model,
and how far embeddings and one call of the U-Net are from those of the first layout.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
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
        case "sketch":
            return [layouts.write_checkpoint(folder / "sketch_encoder.ckpt", layouts.sketch_encoder(sketch_keys))]
    raise ValueError(layout)


LAYOUTS = ("ckpt", "deepspeed", "fp16", "parts", "sketch")


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


def in_process(*arguments: str) -> dict[str, Any]:
    """Runs the script again with these arguments; what it prints last, as JSON."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# --- the whole ---


def measure(layout: str, arguments: argparse.Namespace, model_bytes: int, reference: Path) -> None:
    """Writes, converts, compares and deletes one layout."""
    folder = arguments.out / layout
    folder.mkdir(parents=True)
    config = preset(arguments.config)
    begin = time.monotonic()
    files = write_layout(layout, config, folder)
    size = sum(file.stat().st_size for file in files)
    tensors = tensors_in(files)
    print(
        f"{layout}: {len(files)} files, {size:,} bytes, {tensors} tensors, made in {time.monotonic() - begin:.0f} s",
        flush=True,
    )
    shared = [f"--config={arguments.config}", f"--stored-dtype={arguments.stored_dtype}", f"--out={folder / 'model'}"]
    told = in_process("--convert", *map(str, files), *shared)
    written = sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file())
    assert told["consumed"] + told["unused"] + told["buffers"] == tensors, told
    print(
        f"{layout}: converted in {told['seconds']:.1f} s; {told['consumed']} tensors consumed, {told['unused']} "
        f"unused, {told['buffers']} buffers; {', '.join(told['components'])}; {written:,} bytes written"
    )
    print(
        f"{layout}: peak memory {told['peak'] / 2**30:.2f} GiB, of which {told['peak_before'] / 2**30:.2f} before; the "
        f"model has {model_bytes / 2**30:.2f} GiB",
        flush=True,
    )
    for file in files:
        file.unlink()
    if layout != "sketch" and not arguments.no_outputs:
        in_process("--compute", *shared)
        compare(layout, folder / OUTPUTS, reference)
    shutil.rmtree(folder)


def compare(layout: str, file: Path, reference: Path) -> None:
    """Prints how far outputs are from the first layout's, which becomes the reference."""
    if not reference.exists():
        shutil.copy(file, reference)
        return
    expected, found = load_file(reference), load_file(file)
    for name in expected:
        error = np.abs(found[name] - expected[name]).max() / expected[name].std()
        print(
            f"{layout}: {name} differs by {error:.2g} of its deviation (float16 rounds numbers by {HALF:.1g})",
            flush=True,
        )


def tensors_in(files: list[Path]) -> int:
    """How many tensors the files hold."""
    from tooncrafter_jax.weights.sources import open_source

    return sum(len(open_source(file).shapes) for file in files)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where files are written, and deleted")
    parser.add_argument("--config", choices=tuple(KEYS), default="tooncrafter_512")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="of " + ",".join(LAYOUTS))
    parser.add_argument("--stored-dtype", default="float32", help="of the converted model")
    parser.add_argument("--no-outputs", action="store_true", help="convert alone")
    parser.add_argument("--convert", nargs="+", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compute", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        print(
            json.dumps(
                convert_files(preset(arguments.config), arguments.convert, arguments.out, arguments.stored_dtype)
            )
        )
        return
    if arguments.compute:
        save_file(outputs(arguments.out), arguments.out.parent / OUTPUTS)
        print("{}")
        return
    arguments.out.mkdir(parents=True)
    config = preset(arguments.config)
    networks = config.networks()
    sizes = {name: sum(leaf.size for leaf in network.abstract_params.values()) for name, network in networks.items()}
    del sizes["motion"]
    for layout in arguments.layouts.split(","):
        own = sizes["sketch_encoder"] if layout == "sketch" else sum(sizes.values()) - sizes["sketch_encoder"]
        measure(layout, arguments, own * np.dtype(arguments.stored_dtype).itemsize, arguments.out / OUTPUTS)
    shutil.rmtree(arguments.out)


if __name__ == "__main__":
    main()
