"""The dual-reference decoder of the model `small` on animated emoji; the paper's Table 4 as variants.

    python train.py --config=configs/small/decoder.py:full --workdir=runs/small/decoder

It starts as the autoencoder's plain decoder, whose pictures it draws at step 0. `without_p3d` learns without layers over time,
`plain` without references too.
"""

from tooncrafter_jax.training.configuration import default_config

VARIANTS = {
    "full": {"temporal": True, "references": True},
    "without_p3d": {"temporal": False, "references": True},
    "plain": {"temporal": False, "references": False},
}


def get_config(variant="full"):
    if variant not in VARIANTS:
        raise ValueError(f"there is no variant '{variant}': choose one of {', '.join(VARIANTS)}")
    config = default_config()
    config.stage, config.model = "decoder", "small"
    config.model_changes = {"decoder": VARIANTS[variant]}
    config.start = "runs/small/autoencoder/export"
    config.steps = 240
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.adversarial.width = 16
    config.adversarial.start_step = 120
    config.adversarial.optimizer.learning_rate = 1e-4
    config.data.directory = "data/emoji"
    config.data.batch, config.data.frames = 1, 8
    config.data.height = config.data.width = 64
    config.data.strides = (2, 4)
    config.validation, config.validate_every, config.validation_batches = "validation", 40, 16
    config.log_every, config.save_every, config.sample_every = 5, 80, 0
    config.ema_decay = 0.95
    return config
