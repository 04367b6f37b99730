"""The autoencoder of the model `small`, from nothing, on frames of animated emoji: first small pictures, then whole ones.

    python train.py --config=configs/small/autoencoder.py:64 --workdir=runs/small/autoencoder_64
    python train.py --config=configs/small/autoencoder.py:128 --workdir=runs/small/autoencoder

L1 alone: neither a perceptual nor an adversarial loss, which would take most of the time; the decoder stage has them. A picture of
64x64 pixels costs a quarter of one of 128x128, and what is learnt on it carries over.
"""

from tooncrafter_jax.training.configuration import default_config

STEPS = {"64": 3600, "128": 800}
START = {"64": "", "128": "runs/small/autoencoder_64/export"}


def get_config(size="128"):
    if size not in STEPS:
        raise ValueError(f"there is no size '{size}': choose one of {', '.join(STEPS)}")
    config = default_config()
    config.stage, config.model, config.start = "autoencoder", "small", START[size]
    config.steps = STEPS[size]
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = 2e-3 if size == "64" else 1e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 50
    config.optimizer.schedule = "cosine"
    config.adversarial.width = 16
    config.adversarial.start_step = config.steps  # never
    config.adversarial.perceptual_weight = 0.0
    config.data.directory = "data/emoji"
    config.data.batch = 8
    config.data.frames = 1
    config.data.height = config.data.width = int(size)
    config.validation, config.validate_every, config.validation_batches = "validation", 200, 4
    config.log_every, config.save_every, config.sample_every = 10, 200, 0
    config.ema_decay = 0.995
    return config
