"""The autoencoder of the model `small`, from nothing, on frames of animated emoji.

    python train.py --config=configs/small/autoencoder.py --workdir=runs/small/autoencoder

L1 alone: neither a perceptual nor an adversarial loss, which would take most of the time; the decoder stage has them, and whole
pictures. A picture of 64x64 pixels costs a quarter of one of 128x128, and what the encoder learns on it carries over.
"""

from tooncrafter_jax.training.configuration import default_config


def get_config():
    config = default_config()
    config.stage, config.model = "autoencoder", "small"
    config.steps = 2400
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 50
    config.optimizer.schedule = "cosine"
    config.adversarial.width = 16
    config.adversarial.start_step = config.steps  # never
    config.adversarial.perceptual_weight = 0.0
    config.data.directory = "data/emoji"
    config.data.batch = 8
    config.data.frames = 1
    config.data.height = config.data.width = 64
    config.validation, config.validate_every, config.validation_batches = "validation", 200, 4
    config.log_every, config.save_every, config.sample_every = 10, 200, 0
    config.ema_decay = 0.995
    return config
