"""The denoiser of the model `small`, from nothing, on simulated bodies: what moves how, before it sees any cartoon.

    python -m tooncrafter_jax curate bodies --out=data/bodies128 --height=128 --width=128 --frames=48 --count=1200 --validation=32
    python train.py --config=configs/small/base.py:64 --workdir=runs/small/base_64
    python train.py --config=configs/small/base.py:128 --workdir=runs/small/base

Clips of 64x64 pixels come first: they cost a quarter, and nothing in the denoiser knows a size. The text and image towers are light
ones, trained here too; all later stages keep them.
"""

from tooncrafter_jax.training.configuration import default_config

STEPS = {"64": 2000, "128": 300}
START = {"64": "runs/small/autoencoder/export", "128": "runs/small/base_64/export"}
LEARNING_RATE = {"64": 1.5e-3, "128": 1e-3}


def get_config(size="128"):
    if size not in STEPS:
        raise ValueError(f"there is no size '{size}': choose one of {', '.join(STEPS)}")
    config = default_config()
    config.stage, config.model, config.start = "base", "small", START[size]
    config.groups = ("projector", "spatial", "temporal", "image_kv", "fps", "clip_text", "clip_image")
    config.steps = STEPS[size]
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = LEARNING_RATE[size]
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 50
    config.optimizer.schedule = "cosine"
    config.data.directory = "data/bodies128"
    config.data.batch = 8
    config.data.height = config.data.width = int(size)
    config.data.strides = (1, 3)
    config.validation, config.validate_every, config.validation_batches = "validation", 100, 4
    config.log_every, config.save_every, config.sample_every = 5, 100, 0
    config.ema_decay = 0.99
    return config
