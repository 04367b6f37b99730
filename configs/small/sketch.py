"""The frame-independent sketch encoder of the model `small` on animated emoji, everything else frozen.

    python train.py --config=configs/small/sketch.py --workdir=runs/small/sketch

Sketches are drawn by HED, whose weights are fetched by the first run.
"""

from tooncrafter_jax.training.configuration import default_config


def get_config():
    config = default_config()
    config.stage, config.model = "sketch", "small"
    config.start = "runs/small/joint/export"
    config.steps = 600
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.sketch.extractor, config.sketch.hint_start = "hed", "scaled"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.data.directory = "data/emoji"
    config.data.batch, config.data.height, config.data.width = 8, 64, 64
    # Windows out of larger frames: lines are as wide as they will be at 128x128 pixels.
    config.data.crop_from = (128, 128)
    config.data.strides = (2, 4)
    config.validation, config.validate_every, config.validation_batches = "validation", 50, 4
    config.log_every, config.save_every, config.sample_every = 5, 50, 0
    config.ema_decay = 0.98
    return config
