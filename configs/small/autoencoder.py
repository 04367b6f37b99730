"""The autoencoder of the model `small`, from nothing, on frames of animated emoji.

    tooncrafter train --config=configs/small/autoencoder.py --workdir=runs/small/autoencoder
    tooncrafter train --config=configs/small/autoencoder.py:lpips --workdir=runs/small/autoencoder_lpips

It begins with L1 alone, which is quick: neither a perceptual nor an adversarial loss. A picture of 64x64 pixels costs a quarter of
one of 128x128, and what the encoder learns on it carries over. `lpips` goes on from that with LPIPS, on windows of 64x64 pixels out
of frames of 128x128, where details have the size that the model will draw.
"""

from tooncrafter_jax.training.configuration import default_config

VARIANTS = ("", "lpips")


def get_config(variant=""):
    if variant not in VARIANTS:
        raise ValueError(f"there is no variant '{variant}': choose lpips or none")
    config = default_config()
    config.stage, config.model = "autoencoder", "small"
    config.steps = 2000 if variant == "lpips" else 2400
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 50
    config.optimizer.schedule = "cosine"
    config.adversarial.width = 16
    config.adversarial.perceptual_weight = 0.0
    config.data.directory = "data/emoji"
    config.data.batch = 8
    config.data.frames = 1
    config.data.height = config.data.width = 64
    config.validation, config.validate_every, config.validation_batches = "validation", 200, 4
    config.log_every, config.save_every, config.sample_every = 10, 200, 0
    config.ema_decay = 0.995
    if variant == "lpips":
        config.start = "runs/small/autoencoder/export"
        config.optimizer.name = "muon"
        config.optimizer.learning_rate = 1e-3
        config.adversarial.perceptual_weight = 0.1
        # Two frames of each clip, far apart, one of which LPIPS judges.
        config.adversarial.perceptual_frames = 1
        config.data.batch, config.data.frames, config.data.strides = 4, 2, (3, 12)
        config.data.crop_from = (128, 128)
        config.validation_batches = 8
    config.adversarial.start_step = config.steps  # never
    return config
