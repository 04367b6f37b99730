"""The frame-independent sketch encoder (paper section 3.3, spec sections 8.1 and 8.7): 50,000 steps, batch 32, 5e-5.

The denoiser is frozen; the encoder starts as its spatial encoder half. Sketches are drawn from the frames by
Anime2Sketch:

    tooncrafter convert netG.pth weights/anime2sketch.safetensors
    tooncrafter train --config=configs/sketch_512.py --workdir=runs/sketch --config.start=runs/rectify/export \\
        --config.data.directory=data/cartoons --config.sketch.weights=weights/anime2sketch.safetensors

`--config=configs/sketch_512.py:zero_gate` trains the paper's ablation, with a sketch for every frame.
"""

from tooncrafter_jax.training.configuration import default_config


def get_config(variant=""):
    if variant not in ("", "zero_gate"):
        raise ValueError(f"there is no variant '{variant}': choose zero_gate or none")
    config = default_config()
    config.stage = "sketch"
    config.steps = 50_000  # paper, section 4.1
    config.data.batch = 32  # paper, section 4.1
    config.optimizer.learning_rate = 5e-5  # paper, section 4.1
    config.sketch.every_frame = variant == "zero_gate"
    return config
