"""The dual-reference decoder of the model `small` on animated emoji; the paper's Table 4 as variants.

    python train.py --config=configs/small/decoder.py:full --workdir=runs/small/decoder_full
    python train.py --config=configs/small/decoder.py:full_128 --workdir=runs/small/decoder

It starts as the autoencoder's plain decoder, whose pictures it draws at step 0. `without_p3d` learns without layers over time,
`plain` without references too: these three with the same steps of 64x64 pixels. `full_128` goes on from `full` with 128x128 pixels:
the decoder that is kept. L1 alone: LPIPS and the discriminator would take most of a step's time.
"""

from tooncrafter_jax.training.configuration import default_config

VARIANTS = {
    "full": {"temporal": True, "references": True},
    "full_128": {"temporal": True, "references": True},
    "without_p3d": {"temporal": False, "references": True},
    "plain": {"temporal": False, "references": False},
}


def get_config(variant="full"):
    if variant not in VARIANTS:
        raise ValueError(f"there is no variant '{variant}': choose one of {', '.join(VARIANTS)}")
    large = variant == "full_128"
    config = default_config()
    config.stage, config.model = "decoder", "small"
    config.model_changes = {"decoder": VARIANTS[variant]}
    config.start = "runs/small/decoder_full/export" if large else "runs/small/autoencoder/export"
    config.steps = 150 if large else 700
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    # What is new starts from zeros and has a long way to go.
    config.optimizer.learning_rate = 5e-4
    config.optimizer.group_rates = "" if large else "decoder.har.residual:10"
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 30
    config.optimizer.schedule = "cosine"
    config.adversarial.width = 16
    config.adversarial.start_step = config.steps  # never
    config.adversarial.perceptual_weight = 0.0
    config.data.directory = "data/emoji"
    # Of four frames two are the references themselves, which the decoder must learn to hand through.
    config.data.batch, config.data.frames = 2 if large else 4, 4
    config.data.height = config.data.width = 128 if large else 64
    config.data.strides = (3, 12)
    config.validation, config.validate_every, config.validation_batches = "validation", 50 if large else 100, 8
    config.log_every, config.save_every, config.sample_every = 5, 50, 0
    config.ema_decay = 0.98
    return config
