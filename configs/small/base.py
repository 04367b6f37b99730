"""The denoiser of the model `small`, from nothing, on simulated bodies: what moves how, before it sees any cartoon.

    tooncrafter curate bodies --out=data/bodies128 --height=128 --width=128 --frames=48 --count=1200 --validation=32
    tooncrafter train --config=configs/small/base.py --workdir=runs/small/base

Clips of 64x64 pixels cost a quarter of those of 128x128, and nothing in the denoiser knows a size. The text and image towers are
light ones, trained here too; all later stages keep them.
"""

from tooncrafter_jax.training.configuration import default_config


def get_config():
    config = default_config()
    config.stage, config.model = "base", "small"
    config.start = "runs/small/autoencoder_lpips/export"
    config.groups = ("projector", "spatial", "temporal", "image_kv", "fps", "clip_text", "clip_image")
    config.steps = 1200
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 50
    config.optimizer.schedule = "cosine"
    config.data.directory = "data/bodies128"
    config.data.batch, config.data.height, config.data.width = 8, 64, 64
    config.data.strides = (1, 3)
    config.validation, config.validate_every, config.validation_batches = "validation", 100, 4
    config.log_every, config.save_every, config.sample_every = 5, 100, 0
    config.ema_decay = 0.99
    return config
