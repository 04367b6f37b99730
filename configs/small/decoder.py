"""The dual-reference decoder of the model `small` on animated emoji; the paper's Table 4 as variants.

    tooncrafter train --config=configs/small/decoder.py:full --workdir=runs/small/decoder_full
    tooncrafter train --config=configs/small/decoder.py:full_true --workdir=runs/small/decoder_full_true
    tooncrafter train --config=configs/small/decoder.py:full_16 --workdir=runs/small/decoder_full_16
    tooncrafter train --config=configs/small/decoder.py:full_lpips --workdir=runs/small/decoder_full_lpips
    tooncrafter train --config=configs/small/decoder.py:full_joint --workdir=runs/small/joint

It starts as the autoencoder's plain decoder, whose pictures it draws at step 0. `without_p3d` learns without layers over time,
`plain` without references too. Each learns on windows of 64x64 pixels out of frames of 128x128, first to hand its references
through: two of its four frames are these. It goes on with whole clips, or its layers over time would only know frames beside a
reference: with `_true` on the true latents, as the paper's table measures decoders; `full_16` on noisy ones, to be followed by a
denoiser, and `full_lpips` goes on from that with LPIPS. `full_joint` goes on from that and from the rectified denoiser: the decoder
learns on latents as the denoiser draws them, and the denoiser from these pictures. `sketch.py` goes on from there.
"""

from tooncrafter_jax.training.configuration import default_config

PARTS = {
    "full": {"temporal": True, "references": True},
    "without_p3d": {"temporal": False, "references": True},
    "plain": {"temporal": False, "references": False},
}
VARIANTS = (*PARTS, *(f"{name}_true" for name in PARTS), "full_16", "full_lpips", "full_joint")
DENOISER = ("projector", "spatial", "temporal", "image_kv", "fps")


def get_config(variant="full"):
    if variant not in VARIANTS:
        raise ValueError(f"there is no variant '{variant}': choose one of {', '.join(VARIANTS)}")
    name, phase = (variant, "") if variant in PARTS else variant.rsplit("_", 1)
    config = default_config()
    config.stage, config.model = "decoder", "small"
    config.model_changes = {"decoder": PARTS[name]}
    config.start = {
        "": "runs/small/autoencoder_lpips/export",
        "true": f"runs/small/decoder_{name}/export",
        "16": f"runs/small/decoder_{name}/export",
        "lpips": f"runs/small/decoder_{name}_16/export",
        "joint": f"runs/small/decoder_{name}_lpips/export,runs/small/rectify/export",
    }[phase]
    config.groups = ("decoder", *DENOISER) if phase == "joint" else ()
    config.steps = {"": 300, "true": 400, "16": 200, "lpips": 900, "joint": 800}[phase]
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = {"": 5e-4, "joint": 2e-4}.get(phase, 4e-4)
    # What is new starts from zeros and has a long way to go; the denoiser bears more than the decoder.
    config.optimizer.group_rates = {"": "decoder.har.residual:10", "joint": "spatial:2,temporal:2"}.get(phase, "")
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 10 if phase else 30
    config.optimizer.schedule = "cosine"
    # The denoiser's latents are never quite the true ones.
    config.latent_noise = 0.5 if phase in ("16", "lpips") else 0.0
    config.denoised_latents = phase == "joint"
    config.adversarial.width = 16
    config.adversarial.start_step = config.steps  # never
    config.adversarial.perceptual_weight = 0.1 if phase in ("lpips", "joint") else 0.0
    config.adversarial.perceptual_frames = 4
    config.data.directory = "data/emoji"
    config.data.batch, config.data.frames = (1, 16) if phase else (4, 4)
    config.data.height = config.data.width = 64
    config.data.crop_from = (128, 128)
    config.data.strides = (2, 4) if phase else (3, 12)
    config.validation, config.validate_every, config.validation_batches = "validation", 100, 8
    config.log_every, config.save_every, config.sample_every = 5, 50, 0
    config.ema_decay = 0.98
    return config
