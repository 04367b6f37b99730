"""Runs the text detector CRAFT as the package easyocr 1.7.2 (Apache-2.0; its CRAFT is the authors', MIT) has it.

Writes craft.npz and keys.tsv beside this file. Needs torch, torchvision, OpenCV and the package's files, which the
tests do not:

  pip download --no-deps easyocr==1.7.2 && unzip easyocr-1.7.2-*.whl -d EASYOCR
  python -m tests.golden.craft.make EASYOCR
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tests.zoo.craft_inputs import CANVASES, PICTURES, picture, pixels, score_maps, tensor

DIRECTORY = Path(__file__).parent


def modules_of(directory: Path) -> Any:
    """The package's files alone, without what the whole package imports."""
    for name, place in {"easyocr": directory / "easyocr", "easyocr.model": directory / "easyocr" / "model"}.items():
        package = types.ModuleType(name)
        package.__path__ = [str(place)]
        sys.modules[name] = package
    sys.modules["skimage"] = types.ModuleType("skimage")
    sys.modules["skimage"].io = None  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["torchvision._meta_registrations"] = types.ModuleType(
        "unused"
    )  # wants the kernels of torch's own build
    return (importlib.import_module(f"easyocr.{name}") for name in ("craft", "imgproc", "craft_utils"))


def main(directory: Path) -> None:
    """Writes the files."""
    craft, imgproc, craft_utils = modules_of(directory)
    network = craft.CRAFT().eval()
    tensors = network.state_dict()
    rows = [
        f"{name}\t{','.join(map(str, value.shape))}\t{str(value.dtype).removeprefix('torch.')}\n"
        for name, value in tensors.items()
    ]
    (DIRECTORY / "keys.tsv").write_text("".join(rows))
    network.load_state_dict({k: torch.from_numpy(tensor(k, tuple(v.shape))) for k, v in tensors.items()})
    found: dict[str, Any] = {}
    for name in PICTURES:
        x = torch.from_numpy(pixels(name).transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            found[f"scores_{name}"] = network(x)[0].numpy()
            exact = network.double()(x.double())[0].numpy()
        network.float()
        single = found[f"scores_{name}"]
        print(
            name, single.shape, "std", single.std(), "float32 from float64", np.abs(single - exact).max() / exact.std()
        )
    for name, (_, _, size, magnification) in CANVASES.items():
        canvas, ratio, _ = imgproc.resize_aspect_ratio(picture(name), size, cv2.INTER_LINEAR, magnification)
        found[f"canvas_{name}"] = imgproc.normalizeMeanVariance(canvas)[::3, ::3]
        found[f"ratio_{name}"] = np.asarray(ratio)
    for seed in range(3):
        boxes, _, _ = craft_utils.getDetBoxes(*score_maps(seed), 0.7, 0.4, 0.4)
        found[f"boxes_{seed}"] = np.asarray(boxes, np.float32)
        print("boxes", found[f"boxes_{seed}"].shape)
    np.savez_compressed(DIRECTORY / "craft.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
