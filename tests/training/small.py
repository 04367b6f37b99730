"""A narrow model and a handful of clips, so that every stage trains within seconds."""

import functools

import ml_dtypes
import numpy as np

from tooncrafter_jax.data.clip_sets import ClipReference, write_clips
from tooncrafter_jax.data.records import clip_of_pictures
from tooncrafter_jax.training.configuration import train_config
from tooncrafter_jax.training.start import Start
from tooncrafter_jax.training.state import abstract_state
from tooncrafter_jax.weights.store import CheckpointWriter

FRAMES, SIZE = 4, 32

_UNET = {
    "width": 32,
    "multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_levels": [1],
    "head_dim": 16,
    "context_dim": 32,
    "temporal_length": FRAMES,
}
_FIRST_STAGE = {"width": 32, "multipliers": [1, 1, 1, 1], "blocks_per_level": 1}
MODEL_CHANGES = {
    "name": "small test model",
    "height": SIZE,
    "width": SIZE,
    "unet": _UNET,
    "sketch_encoder": {name: value for name, value in _UNET.items() if name != "temporal_length"},
    "image_projector": {
        "dim": 32,
        "depth": 1,
        "head_dim": 16,
        "heads": 2,
        "frames": FRAMES,
        "input_dim": 32,
        "output_dim": 32,
    },
    "clip_text": {"width": 32, "heads": 2, "layers": 2},
    "clip_image": {"width": 32, "heads": 2, "layers": 1, "image_size": 28},
    "autoencoder": _FIRST_STAGE,
    "decoder": _FIRST_STAGE,
}

ONE_LEVEL = {"multipliers": [1], "attention_levels": [0]}
NARROW_CHANGES = MODEL_CHANGES | {
    "name": "narrow test model",
    "height": SIZE // 2,
    "width": SIZE // 2,
    "unet": MODEL_CHANGES["unet"] | ONE_LEVEL,
    "sketch_encoder": MODEL_CHANGES["sketch_encoder"] | ONE_LEVEL,
    "autoencoder": _FIRST_STAGE | {"multipliers": [1, 1]},
    "decoder": _FIRST_STAGE | {"multipliers": [1, 1]},
}
"""One level, one block, 16 x 16 pixels: compiles in seconds."""


RECONSTRUCTS = {"perceptual_weight": 0.0, "discriminator": {"start_step": 1, "weight": 0.5}}
OPTIONS = {
    "sketch": {"extractor": "hed"},
    "decoder": RECONSTRUCTS,
    "autoencoder": RECONSTRUCTS,
    "joint": RECONSTRUCTS | {"extractor": "hed"},
    "motion": RECONSTRUCTS | {"extractor": "hed"},
}
"""Of the stages, for runs of a few steps."""


def config(directory, stage="rectify", options=(), **changes):
    """A run's config; nested changes are merged, `options` into those of the stage."""
    values = {
        stage: _merged(OPTIONS.get(stage, {}), dict(options)),
        "stage": stage,
        "model": "tiny",
        "model_changes": MODEL_CHANGES,
        "steps": 4,
        "dtype": "float32",
        "frozen_dtype": "float32",
        "remat": "none",
        "mesh": "auto",
        "optimizer": {"learning_rate": 1e-3},
        "data": {
            "directory": str(directory),
            "batch": 8,
            "frames": FRAMES,
            "height": SIZE,
            "width": SIZE,
            "strides": [1, 1],
            "prefetch": 0,
        },
        "log_every": 1,
        "save_every": 0,
        "sample_every": 0,
    }
    return train_config(_merged(values, changes))


def _merged(values, changes):
    result = dict(values)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict) and name != "model_changes"
        result[name] = _merged(result[name], value) if both else value
    return result


def fresh_params(stage, seed, names=None):
    """Freshly drawn parameters of some of a stage's networks, or of all, on the host."""
    networks = stage.components.networks
    drawn = {name: networks[name].drawn(seed) for name in (networks if names is None else names)}
    return {f"{name}.{path}": value for name, params in drawn.items() for path, value in params}


def start_params(stage):
    """All parameters that a stage starts from, on the host, in float32."""
    state = abstract_state(stage)
    loaded = Start(stage).load_on_host({*state.trained, *state.frozen})
    return {path: np.asarray(value, np.float32) for path, value in loaded.items()}


def write_begin(directory, model, seed=0):
    """A checkpoint of all components: numbers that bfloat16 cannot hold, but for the text tower, which is stored so."""
    with CheckpointWriter(directory, model, {"made": "by a test"}) as writer:
        for number, (name, network) in enumerate(model.networks().items()):
            draw, dtype = np.random.default_rng((seed, number)), np.float32
            if name == "clip_text":
                dtype = ml_dtypes.bfloat16
            params = {
                path: (0.05 * draw.standard_normal(leaf.shape, np.float32)).astype(dtype)
                for path, leaf in network.abstract_params.items()
            }
            writer.write(name, params)
    return directory


def make_clips(directory, count=12, frames=10):
    """A set of moving squares, with a split "test"."""

    def make(number):
        draw = np.random.default_rng(number)
        background, colour = draw.integers(0, 255, (2, 3))
        pictures = np.empty((frames, SIZE, SIZE, 3), np.uint8)
        pictures[:] = background
        top, speed = int(draw.integers(0, SIZE - 10)), int(draw.integers(1, 3))
        for frame in range(frames):
            left = (frame * speed + number) % (SIZE - 8)
            pictures[frame, top : top + 8, left : left + 8] = colour
        return clip_of_pictures(pictures, id=f"{number}", source=f"{number}", fps=8.0, caption=f"square {number}")

    references = [ClipReference(f"{n}", 10_000, functools.partial(make, n)) for n in range(count + 3)]
    write_clips(directory, {"train": references[:count], "test": references[count:]})
    return directory
