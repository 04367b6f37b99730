"""The frame-independent sketch encoder of the model `small` on animated emoji, everything else frozen.

    python train.py --config=configs/small/sketch.py:64 --workdir=runs/small/sketch_64
    python train.py --config=configs/small/sketch.py:128 --workdir=runs/small/sketch_128

Sketches are drawn by HED, whose weights are fetched by the first run. As in all stages, most steps are of 64x64 pixels.
"""

from tooncrafter_jax.training.configuration import default_config

STEPS = {"64": 200, "128": 40}
START = {"64": "runs/small/rectify/export", "128": "runs/small/sketch_64/export"}


def get_config(size="128"):
    if size not in STEPS:
        raise ValueError(f"there is no size '{size}': choose one of {', '.join(STEPS)}")
    large = size == "128"
    config = default_config()
    config.stage, config.model = "sketch", "small"
    config.start = START[size]
    config.steps = STEPS[size]
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.sketch.extractor, config.sketch.hint_start = "hed", "scaled"
    config.optimizer.learning_rate = 5e-4 if large else 2e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.data.directory = "data/emoji"
    config.data.batch = 4 if large else 8
    config.data.height = config.data.width = int(size)
    config.data.strides = (2, 4)
    config.validation, config.validate_every, config.validation_batches = "validation", 50, 4
    config.log_every, config.save_every, config.sample_every = 5, 50, 0
    config.ema_decay = 0.98
    return config
