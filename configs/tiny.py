"""Every stage on the tiny model, in seconds: for trying the trainer on a laptop.

    tooncrafter curate bodies --out=data/bodies --count=16
    tooncrafter train --config=configs/tiny.py:autoencoder --workdir=runs/tiny --config.data.directory=data/bodies

Variants: base, rectify, sketch, decoder, autoencoder, lora. Weights are random unless `--config.start` names a checkpoint.
"""

from tooncrafter_jax.training.configuration import default_config

STAGES = ("base", "rectify", "sketch", "decoder", "autoencoder", "lora")


def get_config(variant="rectify"):
    if variant not in STAGES:
        raise ValueError(f"there is no variant '{variant}': choose one of {', '.join(STAGES)}")
    config = default_config()
    config.stage = "rectify" if variant == "lora" else variant
    config.model = "tiny"
    config.steps = 20
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = 1e-4
    config.data.batch = 2
    config.data.height, config.data.width = 64, 64
    config.sketch.extractor = "hed"
    config.adversarial.start_step = 10
    config.log_every, config.save_every, config.sample_every = 1, 10, 0
    if variant == "lora":
        config.lora.rank = 4
    return config
