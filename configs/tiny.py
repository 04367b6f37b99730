"""Every stage on the tiny model, in seconds: for trying the trainer on a laptop. One row of `RUNS` is one run.

    tooncrafter curate bodies --out=data/bodies --count=16
    tooncrafter train --config=configs/tiny.py:autoencoder --workdir=runs/tiny --config.data.directory=data/bodies

Weights are random unless `--config.start` names a checkpoint. The stage `motion` has no row: it is had by
`--config=configs/tiny.py:base --config.stage=motion --config.motion.extractor=hed`.
"""

from tooncrafter_jax.training.configuration import default_config

RUNS = {
    "base": {"stage": "base"},
    "rectify": {"stage": "rectify"},
    "lora": {"stage": "rectify", "rectify.lora.rank": 4},
    "sketch": {"stage": "sketch", "sketch.extractor": "hed"},
    "decoder": {"stage": "decoder", "decoder.discriminator.start_step": 10},
    "joint": {
        "stage": "joint",
        "groups": ("decoder", "spatial", "sketch"),
        "joint.extractor": "hed",
        "joint.discriminator.start_step": 10,
    },
    "distill": {"stage": "distill", "distill.lora.rank": 4, "distill.guidance_rescale": 0.0},
    "autoencoder": {"stage": "autoencoder", "autoencoder.discriminator.start_step": 10},
}


def get_config(run="rectify"):
    if run not in RUNS:
        raise ValueError(f"there is no variant '{run}': choose one of {', '.join(RUNS)}")
    config = default_config()
    config.model = "tiny"
    config.steps = 20
    config.dtype = config.frozen_dtype = "float32"
    config.remat = "none"
    config.optimizer.learning_rate = 1e-4
    config.data.batch = 2
    config.data.height, config.data.width = 64, 64
    config.log_every, config.save_every, config.sample_every = 1, 10, 0
    config.update_from_flattened_dict(RUNS[run])
    return config
