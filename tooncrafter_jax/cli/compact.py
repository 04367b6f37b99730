"""`python -m tooncrafter_jax compact SRC DST`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tooncrafter_jax.cli.common import EXIT_OK, Parser, told_if_interrupted
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

DTYPES = ("float16", "float32")
DESCRIPTION = """\
Writes a model directory again as model.json and one safetensors file for each component, in 16 bits: for small models that are
handed on as files. `sample.py --model` and `train.py --config.start` read it like any other.

  python -m tooncrafter_jax compact runs/small/sketch/export small --provenance=about.json
"""


def main(argv: list[str]) -> int:
    """Writes and reports; see `--help`."""
    parser = Parser("python -m tooncrafter_jax compact", description=DESCRIPTION)
    parser.add_argument("source", type=Path, help="a directory that convert or train.py wrote")
    parser.add_argument("destination", type=Path, help="the directory to write")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of all parameters (default: %(default)s)")
    parser.add_argument(
        "--provenance", type=Path, metavar="FILE", help="JSON to be added to what model.json tells of the weights"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what the destination holds")
    arguments = parser.parse_args(argv)

    checkpoint = Checkpoint(arguments.source)
    told = {**checkpoint.provenance, **_read_json(arguments.provenance), "dtype": arguments.dtype}
    size = 0
    with (
        told_if_interrupted(f"{arguments.destination} is as it was before"),
        CheckpointWriter(
            arguments.destination, checkpoint.config, told, overwrite=arguments.overwrite, safetensors=True
        ) as writer,
    ):
        networks = checkpoint.config.networks()
        for name in checkpoint.components:
            params = checkpoint.restore(name, networks[name])
            with np.errstate(over="ignore"):
                rounded = {path: np.asarray(value).astype(arguments.dtype) for path, value in params.items()}
            broken = [path for path, value in rounded.items() if not np.isfinite(value).all()]
            if broken:
                raise UserError(
                    f"{name}.{broken[0]} has values that {arguments.dtype} does not hold: use --dtype=float32"
                )
            writer.write(name, rounded)
            size += sum(value.nbytes for value in rounded.values())
    print(f"{arguments.destination}: {', '.join(checkpoint.components)}; {size / 1e6:.1f} MB")
    return EXIT_OK


def _read_json(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f'{file} must hold an object, such as {{"data": "..."}}')
    return found
