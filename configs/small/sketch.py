"""The frame-independent sketch encoder of the model `small` on animated emoji, at first with everything else frozen.

    tooncrafter train --config=configs/small/sketch.py --workdir=runs/small/sketch
    tooncrafter train --config=configs/small/sketch.py:pictures --workdir=runs/small/sketch_pictures
    tooncrafter train --config=configs/small/sketch.py:sparse --workdir=runs/small/sketch_sparse
    tooncrafter train --config=configs/small/sketch.py:together --workdir=runs/small/together
    tooncrafter train --config=configs/small/sketch.py:long --workdir=runs/small/together_long

First it lowers the denoiser's loss, as in the paper, at the last diffusion time in most clips: that is where the model samples, in
one step, and where a sketch tells most. `pictures` goes on by L1 and LPIPS of decoded predictions, and `sparse` with one or three
sketches in most clips. In `together` the denoiser and the decoder learn beside it what to do with a sketch, and without one in a
quarter of the clips; `long` goes on with that at twice the rate. Sketches are drawn by HED, whose weights are fetched by the first
run.
"""

from tooncrafter_jax.training.configuration import default_config

PHASES = {  # how a variant goes on: from which run, for how many steps, at which rate
    "pictures": ("sketch", 700, 1e-3),
    "sparse": ("sketch_pictures", 480, 1.5e-3),
    "together": ("sketch_sparse", 1200, 4e-4),
    "long": ("together", 2000, 8e-4),
}
DENOISER = ("projector", "spatial", "temporal", "image_kv", "fps")


def get_config(variant=""):
    if variant and variant not in PHASES:
        raise ValueError(f"there is no variant '{variant}': choose pictures, sparse, together or long, or none")
    trains_everything = variant in ("together", "long")
    config = default_config()
    config.model = "small"
    if variant:
        config.stage, config.denoised_latents, config.groups = "decoder", True, ("sketch",)
        run, config.steps, config.optimizer.learning_rate = PHASES[variant]
        config.start = f"runs/small/{run}/export"
        config.adversarial.width = 16
        config.adversarial.start_step = config.steps  # never
        config.adversarial.perceptual_weight = 0.5 if variant == "pictures" else 1.0
        config.adversarial.perceptual_frames = 4
        config.data.batch = 1
    if variant == "sparse":
        config.optimizer.group_rates = "sketch.added:2"
        config.data.bisection_depths, config.data.bisection_share = (1, 2), 0.9
    if trains_everything:
        config.groups = ("sketch", "decoder", *DENOISER)
        config.optimizer.group_rates = "sketch:2.5,decoder:0.5"
        config.data.bisection_share, config.data.most_random_sketches = 0.0, 3
        config.data.sketched_share = 0.75
    if not variant:
        config.stage = "sketch"
        config.start = "runs/small/joint/export"
        config.steps = 860
        config.data.batch = 4
        config.optimizer.learning_rate = 2e-3
    config.last_time_share = 0.8
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.sketch.extractor, config.sketch.hint_start = "hed", "scaled"
    config.optimizer.name = "muon"
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.data.directory = "data/emoji"
    config.data.height = config.data.width = 64
    # Windows out of larger frames: lines are as wide as they will be at 128x128 pixels.
    config.data.crop_from = (128, 128)
    config.data.strides = (3, 5) if trains_everything else (2, 4)
    config.validation, config.validate_every = "validation", 350 if variant else 100
    config.validation_batches = 16 if variant else 4
    config.log_every, config.save_every, config.sample_every = 5, 50, 0
    config.ema_decay = 0.98
    return config
