"""Models such as `small`, every part of ToonCrafter but narrow: from nothing, and the bundled one from that of before.
One row of `RUNS` is one run.

    tooncrafter curate fluent-emoji --out=data/emoji --test=300 --validation=64
    tooncrafter curate bodies --out=data/bodies128 --height=128 --width=128 --frames=48 --count=1200 --validation=32
    tooncrafter fetch-metric-weights
    tooncrafter train --config=configs/small.py:autoencoder --workdir=runs/small/autoencoder

So for every run: its working directory has its name, where those that start from it look for it.
`scripts/train_small.sh` does those from nothing in order, and the rows of the tables; docs/small-model.md says how good
the bundled model is, and docs/experiments/small-model.md how it came about.
"""

from tooncrafter_jax.training.configuration import default_config

NEVER = 2**31 - 1
"""The last step that can be counted."""
SPATIAL = ("projector", "spatial", "image_kv", "fps")
DENOISER = ("projector", "spatial", "temporal", "image_kv", "fps")
FULL = {"model_changes.decoder": {"temporal": True, "references": True}}
BUNDLED = "tooncrafter_jax/bundled/small"
# RIFE knows larger pictures than these: its flows from lines to sketches are better between enlarged ones.
THROUGH_SKETCHES = {
    "model_changes.motion": {
        "enlargement": 2,
        "both_ways": True,
        "through_sketches": True,
        "guides_denoiser": False,
    }
}
CARRIED = {"model_changes.decoder": dict.fromkeys(("temporal", "references", "carried", "corrects_motion"), True)}
WITHOUT_P3D = {"model_changes.decoder": {"temporal": False, "references": True}}
PLAIN = {"model_changes.decoder": {"temporal": False, "references": False}}

SHARED = {
    "model": "small",
    "dtype": "float32",
    "frozen_dtype": "float32",
    "remat": "none",
    "optimizer.name": "muon",
    "optimizer.beta2": 0.99,
    "optimizer.schedule": "cosine",
    "data.directory": "data/emoji",
    "data.height": 64,
    "data.width": 64,
    "validation": "validation",
    "sample_every": 0,
}
# Windows out of larger frames: details and lines are as large as they will be at 128x128 pixels.
WINDOWS = {"data.crop_from": (128, 128)}
# 64x64 pixels cost a quarter of 128x128, and what an encoder learns on them carries over. L1 alone is quick.
AUTOENCODER = {
    "stage": "autoencoder",
    "optimizer.warmup_steps": 50,
    "autoencoder.discriminator.width": 16,
    "validate_every": 200,
    "log_every": 10,
    "save_every": 200,
    "ema_decay": 0.995,
}
# All variants of the paper's Table 3 take the same steps at the same rate.
RECTIFY = {
    "stage": "rectify",
    "start": "base",
    "steps": 70,
    "optimizer.learning_rate": 3e-3,
    "optimizer.warmup_steps": 30,
    "optimizer.schedule": "constant",
    "data.batch": 8,
    "data.strides": (2, 4),
    "validate_every": 70,
    "validation_batches": 4,
    "log_every": 5,
    "save_every": 100,
    "ema_decay": 0.95,
}
# A decoder first learns to hand its references through: two of its four frames are these.
DECODER = WINDOWS | {
    "stage": "decoder",
    "start": "autoencoder_lpips",
    "steps": 300,
    "optimizer.learning_rate": 5e-4,
    "optimizer.warmup_steps": 30,
    # What is new starts from zeros and has a long way to go.
    "optimizer.group_rates": "decoder.har.residual:10",
    "decoder.discriminator.width": 16,
    "decoder.perceptual_weight": 0.0,
    "decoder.perceptual_network": "alexnet",
    "data.batch": 4,
    "data.frames": 4,
    "data.strides": (3, 12),
    "validate_every": 100,
    "validation_batches": 8,
    "log_every": 5,
    "save_every": 50,
    "ema_decay": 0.98,
}
# Then whole clips, or its layers over time would only know frames beside a reference.
CLIPS = DECODER | {
    "steps": 400,
    "optimizer.learning_rate": 4e-4,
    "optimizer.group_rates": "",
    "optimizer.warmup_steps": 10,
    "data.batch": 1,
    "data.frames": 16,
    "data.strides": (2, 4),
}
# Most clips are guided by motion, not all, so that the model works without. It is estimated on whole pictures: windows
# would lose what moves out of them.
WHOLE = {"data.crop_from": (), "data.height": 128, "data.width": 128}
MOVED = WHOLE | {"motion_share": 0.85}
# At the last time nothing but the ends and the sketch tells what is there, and the model samples there, in one step.
SKETCH = MOVED | {
    "stage": "sketch",
    "start": "joint",
    "steps": 300,
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 20,
    "sketch.extractor": "hed",
    "sketch.hint_start": "scaled",
    "sketch.last_time_share": 0.8,
    "data.batch": 4,
    "data.strides": (2, 4),
    "validate_every": 100,
    "validation_batches": 4,
    "log_every": 5,
    "save_every": 50,
    "ema_decay": 0.98,
}
# By L1 and LPIPS of decoded predictions, of every frame: AlexNet's features cost a twentieth of VGG's.
JOINT = MOVED | {
    "stage": "joint",
    "joint.discriminator.width": 16,
    "joint.perceptual_network": "alexnet",
    "data.batch": 1,
    "data.strides": (2, 4),
    "log_every": 5,
    "save_every": 50,
    "ema_decay": 0.98,
}
# Denoiser and decoder learn beside the sketch encoder what to do with one to three sketches, and without one in a
# quarter of the clips.
TOGETHER = JOINT | {
    "groups": ("sketch", "decoder", *DENOISER),
    "optimizer.group_rates": "sketch:2.5,decoder:0.5",
    "optimizer.warmup_steps": 20,
    "joint.extractor": "hed",
    "joint.last_time_share": 0.8,
    "joint.perceptual_weight": 0.5,
    "data.bisection_share": 0.0,
    "data.most_random_sketches": 3,
    "data.sketched_share": 0.75,
    "data.strides": (3, 5),
    "validate_every": 200,
    "validation_batches": 16,
}

RUNS = {
    "autoencoder": AUTOENCODER
    | {
        "steps": 1600,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 2e-3,
        "autoencoder.perceptual_weight": 0.0,
        "data.batch": 8,
        "data.frames": 1,
        "validation_batches": 4,
    },
    # Two frames of each clip, far apart.
    "autoencoder_lpips": AUTOENCODER
    | WINDOWS
    | {
        "start": "autoencoder",
        "steps": 1200,
        "optimizer.learning_rate": 1e-3,
        "autoencoder.perceptual_network": "alexnet",
        "autoencoder.perceptual_weight": 0.2,
        "data.batch": 4,
        "data.frames": 2,
        "data.strides": (3, 12),
        "validation_batches": 8,
    },
    # What moves how, on simulated bodies, before the model sees any cartoon. All later stages keep its light text and
    # image towers.
    "base": {
        "stage": "base",
        "start": "autoencoder_lpips",
        "groups": (*DENOISER, "clip_text", "clip_image"),
        "steps": 400,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1.5e-3,
        "optimizer.warmup_steps": 50,
        "data.directory": "data/bodies128",
        "data.batch": 8,
        "data.strides": (1, 3),
        "validate_every": 100,
        "validation_batches": 4,
        "log_every": 5,
        "save_every": 100,
        "ema_decay": 0.99,
    },
    # Layers over time learn, too: `base` has not seen enough to leave them as they are.
    "rectify": RECTIFY
    | MOVED
    | {
        "start": "base",
        "groups": (*SPATIAL, "temporal"),
        "steps": 500,
        "optimizer.schedule": "cosine",
        "data.batch": 4,
        "validate_every": 100,
        "ema_decay": 0.99,
    },
    # What can be fetched from the two pictures is fetched along the motion, which the latents correct: on true latents,
    # then on noisy ones, as a denoiser's are never quite true.
    "decoder_carried": CLIPS
    | CARRIED
    | MOVED
    | {
        "start": "autoencoder_lpips",
        "steps": 500,
        "optimizer.group_rates": "decoder.har.residual:10",
        "data.frames": 8,
        "data.strides": (3, 8),
    },
    "decoder_carried_lpips": CLIPS
    | CARRIED
    | MOVED
    | {"start": "decoder_carried", "steps": 500, "decoder.latent_noise": 0.5, "decoder.perceptual_weight": 0.5},
    # The denoiser bears more than the decoder.
    "joint": JOINT
    | CARRIED
    | {
        "start": "decoder_carried_lpips,rectify",
        "groups": ("decoder", *DENOISER),
        "steps": 400,
        "optimizer.learning_rate": 2e-4,
        "optimizer.group_rates": "spatial:2,temporal:2",
        "optimizer.warmup_steps": 10,
        "joint.perceptual_weight": 0.5,
        "validate_every": 100,
        "validation_batches": 8,
    },
    "sketch": SKETCH,
    "together": TOGETHER | {"start": "sketch", "steps": 700, "optimizer.learning_rate": 6e-4},
    # What the package bundles: its denoiser of before, which sees no motion, and a decoder that carries. It learns on
    # what that denoiser predicts of subjects that it was not trained on: of its own, predictions are too good.
    "carried": JOINT
    | CARRIED
    | THROUGH_SKETCHES
    | {
        "start": BUNDLED,
        "groups": ("decoder",),
        "steps": 150,
        "optimizer.learning_rate": 5e-4,
        "optimizer.warmup_steps": 10,
        "motion_share": 0.95,
        "joint.last_time_share": 0.9,
        "joint.perceptual_weight": 0.5,
        "data.split": "validation",
        "data.strides": (2, 5),
        "validation": "",
        "save_every": 25,
    },
    # Then with sketches in half of the clips, and by LPIPS above all.
    "carried_sketched": JOINT
    | CARRIED
    | THROUGH_SKETCHES
    | {
        "start": "carried",
        "groups": ("decoder",),
        "steps": 150,
        "optimizer.learning_rate": 4e-4,
        "optimizer.warmup_steps": 10,
        "motion_share": 0.95,
        "joint.last_time_share": 0.95,
        "joint.perceptual_weight": 1.0,
        "joint.sketched": True,
        "joint.extractor": "hed",
        "data.bisection_share": 0.0,
        "data.most_random_sketches": 3,
        "data.sketched_share": 0.5,
        "data.split": "validation",
        "data.strides": (2, 5),
        "validation": "",
        "save_every": 25,
        "ema_decay": 0.99,
    },
    # Its denoiser once more, with motion, to compare what motion guides: `scripts/motion_variants.py`.
    "guided": RECTIFY
    | MOVED
    | {
        "start": "carried_sketched",
        "model_changes.motion": THROUGH_SKETCHES["model_changes.motion"] | {"guides_denoiser": True},
        "groups": (*SPATIAL, "temporal"),
        "steps": 100,
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup_steps": 10,
        "optimizer.schedule": "cosine",
        "data.batch": 4,
        "validate_every": 50,
        "ema_decay": 0.97,
    },
    # And to sample in 1 to 8 steps what that one does in 50. The teacher is frozen; its guidance is learned with it.
    "distilled": WHOLE
    | {
        "stage": "distill",
        "start": "guided",
        "motion_share": 1.0,
        "steps": 240,
        "optimizer.learning_rate": 1.5e-4,
        "optimizer.warmup_steps": 10,
        "distill.times": 8,  # of 40 only every fortieth clip would be held to what is clean, and so short a run drifts
        "distill.guidance_scale": 1.5,
        "distill.last_time_share": 0.2,
        "data.batch": 2,
        "data.dropout": 0.0,
        "data.strides": (2, 4),
        "validate_every": 100,
        "validation_batches": 8,
        "log_every": 5,
        "save_every": 25,
        "ema_decay": 0.98,
    },
    # The paper's Table 3. Variant iv is its choice, i is the start itself.
    "rectify_ii": RECTIFY | {"groups": (*SPATIAL, "temporal")},
    "rectify_iii": RECTIFY | {"groups": SPATIAL, "rectify.bypass_temporal": True},
    "rectify_iv": RECTIFY | {"groups": SPATIAL},
    "rectify_v": RECTIFY | {"groups": ("projector",)},
    "rectify_lora": RECTIFY
    | {
        "rectify.lora.rank": 16,
        "rectify.lora.alpha": 32.0,
        "rectify.lora.targets": ("attention.", "feed_forward.", "proj_", "conv_", "sample", "embedding"),
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 5e-3,
    },
    # Its Table 4, on true latents.
    "decoder_full": DECODER | FULL,
    "decoder_without_p3d": DECODER | WITHOUT_P3D,
    "decoder_plain": DECODER | PLAIN,
    "decoder_full_true": CLIPS | FULL | {"start": "decoder_full"},
    "decoder_without_p3d_true": CLIPS | WITHOUT_P3D | {"start": "decoder_without_p3d"},
    "decoder_plain_true": CLIPS | PLAIN | {"start": "decoder_plain"},
}
"""Those up to `together` make a model from nothing, `carried` and `carried_sketched` the bundled one from that of
before, but for what scripts/motion_variants.py changes of it; `guided` goes on from that, `distilled` from `guided`.
The others, the rows of two tables, are for comparison alone.
"""


def get_config(run=""):
    if run not in RUNS:
        raise ValueError(f"there is no run '{run}': choose one of {', '.join(RUNS)}")
    row = SHARED | RUNS[run]
    config = default_config()
    changes = {key: row.pop(key) for key in list(row) if key.startswith("model_changes.")}
    config.model_changes = {key.removeprefix("model_changes."): value for key, value in changes.items()}
    config.update_from_flattened_dict(row)
    starts = filter(None, row.get("start", "").split(","))
    config.start = ",".join(name if "/" in name else f"runs/small/{name}/export" for name in starts)
    if config.stage in ("autoencoder", "decoder", "joint", "motion"):
        config[config.stage].discriminator.start_step = NEVER  # it would take most of the time
    return config
