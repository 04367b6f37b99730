"""Toon rectification of the model `small` on animated emoji; the paper's Table 3 as variants, and LoRA.

    tooncrafter train --config=configs/small/rectify.py:iv --workdir=runs/small/rectify_iv
    tooncrafter train --config=configs/small/rectify.py:long --workdir=runs/small/rectify_long
    tooncrafter train --config=configs/small/rectify.py:128 --workdir=runs/small/rectify

Variant iv is the paper's choice: projector and spatial layers learn, temporal layers stay as `base` left them. Variant i is the
start itself, so there is nothing to run. All variants have the same steps of 64x64 pixels. At this scale ii wins, whose temporal
layers learn too: `base` has not seen enough to leave them alone. `long` goes on from it, and `128` from that with 128x128 pixels:
what decoder and sketch encoder start from. See `configs/rectify_512_variants.py` for the full-size model's variants.
"""

from tooncrafter_jax.training.configuration import default_config

SPATIAL = ("projector", "spatial", "image_kv", "fps")
GROUPS = {
    "ii": (*SPATIAL, "temporal"),
    "iii": SPATIAL,
    "iv": SPATIAL,
    "v": ("projector",),
    "lora": (),
    "long": (*SPATIAL, "temporal"),
    "128": (*SPATIAL, "temporal"),
}
START = {"long": "runs/small/rectify_ii/export", "128": "runs/small/rectify_long/export"}
STEPS = {"long": 1500, "128": 110}


def get_config(variant="iv"):
    if variant not in GROUPS:
        raise ValueError(f"there is no variant '{variant}' to train: choose one of {', '.join(GROUPS)}")
    config = default_config()
    config.stage, config.model = "rectify", "small"
    config.start = START.get(variant, "runs/small/base/export")
    config.groups = GROUPS[variant]
    config.bypass_temporal = variant == "iii"
    config.steps = STEPS.get(variant, 70)
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1.5e-3 if variant == "128" else 3e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 30
    config.optimizer.schedule = "cosine" if variant in STEPS else "constant"
    if variant == "lora":
        config.lora.rank, config.lora.alpha = 16, 32.0
        config.lora.targets = ("attention.", "feed_forward.", "proj_", "conv_", "sample", "embedding")
        config.optimizer.name, config.optimizer.learning_rate = "adamw", 5e-3
    config.data.directory = "data/emoji"
    config.data.batch = 4 if variant == "128" else 8
    config.data.height = config.data.width = 128 if variant == "128" else 64
    config.data.strides = (2, 4)
    config.validation, config.validate_every, config.validation_batches = "validation", min(100, config.steps), 4
    config.log_every, config.save_every, config.sample_every = 5, 100, 0
    config.ema_decay = 0.99 if variant in STEPS else 0.95
    return config
