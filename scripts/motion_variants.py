"""Writes variants of a model that differ in what motion guides, for one evaluation to compare.

  python scripts/motion_variants.py MODEL OUT [--denoiser=DIR] [--carried-logit=0]

Written are OUT/carried, whose decoder carries its references along the flows as they are; OUT/corrected, which corrects
them from the latents; and, with a denoiser that was trained with motion, OUT/latents, where that one alone is guided
and the decoder carries nothing; OUT/both and OUT/both_corrected. MODEL is of a decoder that carries and corrects.
A carried logit is added to that of the share that is carried, everywhere: what is drawn over it becomes fainter.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from held_out import end

from tooncrafter_jax import UserError
from tooncrafter_jax.sampling.model_loading import find_checkpoint
from tooncrafter_jax.typing import HostParams
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

GUIDED = ("unet", "image_projector")
"""Components of a denoiser that was trained with motion."""
CARRIED_BIAS = "carried_pictures.conv.bias"
"""Of a decoder: of the logit of the share that is carried."""
VARIANTS = {
    "carried": (False, True, False),
    "corrected": (False, True, True),
    "latents": (True, False, False),
    "both": (True, True, False),
    "both_corrected": (True, True, True),
}
"""Directory -> whether motion guides the denoiser, and whether the decoder carries, and corrects."""


def decoder_of(params: HostParams, *, carries: bool, corrects: bool, carried_logit: float = 0.0) -> HostParams:
    """A decoder's parameters without what carries, or with corrections that are nothing, and more that is carried."""
    kept = {
        path: value + np.asarray(carried_logit, value.dtype) if path == CARRIED_BIAS else value
        for path, value in params.items()
        if carries or not (".carried." in path or path.startswith("carried_pictures."))
    }
    if corrects:
        return kept
    return {path: np.zeros_like(value) if ".carried.correction." in path else value for path, value in kept.items()}


def write(
    directory: Path,
    model: Checkpoint,
    denoiser: Checkpoint | None,
    carried_logit: float,
    *,
    carries: bool,
    corrects: bool,
) -> None:
    """Writes one variant."""
    config = replace(
        model.config,
        decoder=replace(model.config.decoder, carried=carries, corrects_motion=carries),
        motion=replace(model.config.motion, guides_denoiser=denoiser is not None),
    )
    networks = model.config.networks()
    sources: Mapping[str, Checkpoint] = dict.fromkeys(GUIDED, denoiser) if denoiser is not None else {}
    with CheckpointWriter(directory, config, model.provenance, sampling=model.sampling, safetensors=True) as writer:
        for name in model.components:
            params = sources.get(name, model).restore_on_host(name, networks[name])
            if name == "decoder":
                params = decoder_of(params, carries=carries, corrects=corrects, carried_logit=carried_logit)
            writer.write(name, params)


def main() -> None:
    """Writes the directories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="checkpoint directory, or a name")
    parser.add_argument("out", type=Path, help="where the variants go; none of them may be there")
    parser.add_argument("--denoiser", help="checkpoint directory of a denoiser that was trained with motion")
    parser.add_argument("--carried-logit", type=float, default=0.0, help="more of what is carried (default: 0)")
    arguments = parser.parse_args()
    if not math.isfinite(arguments.carried_logit):
        raise UserError(f"--carried-logit is {arguments.carried_logit}, but must be finite")
    model = find_checkpoint(arguments.model)
    if not (model.config.decoder.carried and model.config.decoder.corrects_motion):
        raise UserError(f"the decoder of {model.directory} does not carry and correct: give a model whose decoder does")
    denoiser = None if arguments.denoiser is None else find_checkpoint(arguments.denoiser)
    for name, (guided, carries, corrects) in VARIANTS.items():
        if guided and denoiser is None:
            continue
        giver = denoiser if guided else None
        write(arguments.out / name, model, giver, arguments.carried_logit, carries=carries, corrects=corrects)


if __name__ == "__main__":
    end(main)
