"""The dual-reference decoder of the model `small` on animated emoji; the paper's Table 4 as variants.

    python train.py --config=configs/small/decoder.py:full --workdir=runs/small/decoder_full
    python train.py --config=configs/small/decoder.py:full_sharp --workdir=runs/small/decoder

It starts as the autoencoder's plain decoder, whose pictures it draws at step 0. `without_p3d` learns without layers over time,
`plain` without references too. These learn by L1 alone; `full_sharp` goes on from `full` with LPIPS and the discriminator, which
take most of a step's time.
"""

from tooncrafter_jax.training.configuration import default_config

VARIANTS = {
    "full": {"temporal": True, "references": True},
    "full_sharp": {"temporal": True, "references": True},
    "without_p3d": {"temporal": False, "references": True},
    "plain": {"temporal": False, "references": False},
}


def get_config(variant="full"):
    if variant not in VARIANTS:
        raise ValueError(f"there is no variant '{variant}': choose one of {', '.join(VARIANTS)}")
    sharp = variant == "full_sharp"
    config = default_config()
    config.stage, config.model = "decoder", "small"
    config.model_changes = {"decoder": VARIANTS[variant]}
    config.start = "runs/small/decoder_full/export" if sharp else "runs/small/autoencoder/export"
    config.steps = 150 if sharp else 500
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    # What is new starts from zeros and has a long way to go; what is old must not lose what it knows meanwhile.
    config.optimizer.learning_rate = 1e-4 if sharp else 3e-4
    config.optimizer.group_rates = "" if sharp else "decoder.har.residual:30, decoder.har.attention:3, decoder.p3d:2"
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.adversarial.width = 16
    config.adversarial.start_step = 50 if sharp else config.steps  # never
    config.adversarial.optimizer.learning_rate = 1e-4
    config.adversarial.perceptual_weight = 0.1 if sharp else 0.0
    config.data.directory = "data/emoji"
    config.data.batch, config.data.frames = 1 if sharp else 2, 6
    config.data.height = config.data.width = 128
    config.data.strides = (2, 8)
    config.validation, config.validate_every, config.validation_batches = "validation", 50, 16
    config.log_every, config.save_every, config.sample_every = 5, 50, 0
    config.ema_decay = 0.98
    return config
