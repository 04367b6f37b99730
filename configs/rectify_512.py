"""Toon rectification of the published 512 model (paper section 3.1, spec sections 8.1 to 8.3).

Reproduces the paper's variant IV: projector and spatial layers learn, temporal layers stay as they are. 50,000 steps
with batch 32, AdamW at 1e-5, starting from the interpolation weights of the live-action model:

    tooncrafter train --config=configs/rectify_512.py --workdir=runs/rectify \\
        --config.start=Doubiiu/DynamiCrafter_512_Interp --config.data.directory=data/cartoons \\
        --config.mesh=data:4,fsdp:8
"""

from tooncrafter_jax.training.configuration import default_config


def get_config():
    config = default_config()
    config.stage = "rectify"
    config.model = "tooncrafter_512"
    config.steps = 50_000  # paper, section 4.1
    config.data.batch = 32  # paper, section 4.1
    config.optimizer.learning_rate = 1e-5  # paper, section 4.1
    config.optimizer.clip_norm = 0.5  # published training config (spec section 8.2)
    return config
