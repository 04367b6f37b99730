r"""Every stage on a narrow model and on animated emoji, in minutes on two CPU cores.

    tooncrafter curate bodies --out=data/bodies64 --height=64 --width=64 --count=400 --validation=32
    tooncrafter curate fluent-emoji --out=data/emoji --test=300 --validation=64
    for stage in autoencoder base rectify lora decoder decoder_without_p3d plain_decoder sketch; do
        tooncrafter train --config=configs/emoji_tiny.py:$stage --workdir=runs/emoji_tiny/$stage || break
    done

As in the paper, a base model learns motion from other clips than cartoons (here simulated bodies), and `rectify` adapts it to
emoji. The autoencoder starts from nothing, `base` on its latents, `rectify` and `lora` on `base`, `sketch` on `rectify`, and
`decoder` on the autoencoder. `decoder_without_p3d` and `plain_decoder` train as long without temporal layers, and without
references too: the variants of the paper's Table 4.
"""

from tooncrafter_jax.training.configuration import default_config

_FIRST_STAGE = {
    "width": 16,
    "multipliers": [1, 2, 4, 4],
    "blocks_per_level": 1,
    "z_channels": 8,
    "latent_channels": 8,
    "norm_groups": 1,
}
_UNET = {
    "width": 32,
    "multipliers": [1, 2, 4],
    "blocks_per_level": 1,
    "attention_levels": [0, 1, 2],
    "norm_groups": 8,
}
MODEL_CHANGES = {
    "name": "emoji_tiny",
    "height": 64,
    "width": 64,
    "autoencoder": _FIRST_STAGE,
    "decoder": _FIRST_STAGE,
    "unet": _UNET | {"in_channels": 16, "out_channels": 8},
    "sketch_encoder": _UNET | {"in_channels": 8},
}
START = {
    "autoencoder": "",
    "base": "runs/emoji_tiny/autoencoder/export",
    "rectify": "runs/emoji_tiny/base/export",
    "lora": "runs/emoji_tiny/base/export",
    "sketch": "runs/emoji_tiny/rectify/export",
    "decoder": "runs/emoji_tiny/autoencoder/export",
    "decoder_without_p3d": "runs/emoji_tiny/autoencoder/export",
    "plain_decoder": "runs/emoji_tiny/autoencoder/export",
}
DECODERS = {  # of the paper's Table 4
    "decoder": {"temporal": True, "references": True},
    "decoder_without_p3d": {"temporal": False, "references": True},
    "plain_decoder": {"temporal": False, "references": False},
}
STAGES = {"lora": "rectify"} | dict.fromkeys(DECODERS, "decoder")
"""Of variants that are not called like their stage."""
STEPS = {
    "autoencoder": 1500,
    "base": 400,
    "rectify": 200,
    "lora": 300,
    "sketch": 200,
    "decoder": 150,
    "decoder_without_p3d": 150,
    "plain_decoder": 150,
}
LEARNING_RATE = {
    "autoencoder": 2e-3,
    "base": 1e-3,
    "rectify": 1e-3,
    "lora": 5e-3,
    "sketch": 2e-3,
    "decoder": 2e-4,
    "decoder_without_p3d": 2e-4,
    "plain_decoder": 2e-4,
}


def get_config(variant="base"):
    if variant not in START:
        raise ValueError(f"there is no variant '{variant}': choose one of {', '.join(START)}")
    config = default_config()
    config.stage = STAGES.get(variant, variant)
    config.model = "tiny"
    config.model_changes = MODEL_CHANGES if variant == "autoencoder" else {}
    config.start = START[variant]
    config.steps = STEPS[variant]
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = LEARNING_RATE[variant]
    config.optimizer.warmup_steps = 10
    config.optimizer.schedule = "cosine"
    config.data.directory = "data/bodies64" if variant == "base" else "data/emoji"
    config.data.batch = 8 if variant == "autoencoder" else 4
    config.data.height, config.data.width = 64, 64
    config.data.strides = (1, 2) if variant == "base" else (2, 4)
    config.validation, config.validate_every, config.validation_batches = "validation", 50, 4
    config.log_every, config.save_every, config.sample_every = 1, 100, 0
    config.ema_decay = 0.95
    if variant == "lora":
        config.lora.rank, config.lora.alpha = 16, 32.0
        config.lora.targets = ("attention.", "feed_forward.", "proj_", "conv_", "sample", "embedding")
    if variant == "sketch":
        config.sketch.extractor, config.sketch.hint_start = "hed", "scaled"
        config.optimizer.name = "muon"
        # Sketches tell most where noise hides everything else.
        config.last_time_share = 0.7
    if variant in ("autoencoder", *DECODERS):
        config.adversarial.width = 16
    if variant == "autoencoder":
        config.data.frames = 1
        config.validate_every, config.validation_batches = 250, 8
        config.ema_decay = 0.99
        config.adversarial.start_step = config.steps  # none: it would take most of the time
        config.adversarial.perceptual_weight = 0.0
    if variant in DECODERS:
        config.data.batch, config.data.frames = 2, 6
        config.model_changes = {"decoder": DECODERS[variant]}
        # What is new starts from zeros and has a long way to go; what is old must not lose what it knows meanwhile.
        config.optimizer.group_rates = "decoder.har.residual:50, decoder.har.attention:2, decoder.p3d:2"
        config.optimizer.beta2 = 0.99
        config.adversarial.start_step = 90
        config.adversarial.optimizer.learning_rate = 1e-4
        config.validate_every, config.validation_batches = 30, 8
    return config
