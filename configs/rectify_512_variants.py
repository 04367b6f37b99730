"""The five variants of the paper's Table 3 (spec section 8.5), which differ in what is trained.

    tooncrafter train --config=configs/rectify_512_variants.py:iv --workdir=runs/iv \\
        --config.start=Doubiiu/DynamiCrafter_512_Interp --config.data.directory=data/cartoons

Expected, by FVD on the paper's test set: iv 52.73 < ii 70.73 < v 81.45 < i 86.62 < iii 291.45. Variant i is the start
itself: it trains nothing, so there is nothing to run; evaluate the start checkpoint.
"""

from tooncrafter_jax.training.configuration import default_config

GROUPS = {
    "ii": ("projector", "spatial", "temporal", "image_kv", "fps"),
    "iii": ("projector", "spatial", "image_kv", "fps"),
    "iv": ("projector", "spatial", "image_kv", "fps"),
    "v": ("projector",),
}


def get_config(variant="iv"):
    if variant not in GROUPS:
        raise ValueError(f"there is no variant '{variant}' to train: choose one of {', '.join(GROUPS)}")
    config = default_config()
    config.stage = "rectify"
    config.steps = 50_000
    config.data.batch = 32
    config.optimizer.learning_rate = 1e-5
    config.groups = GROUPS[variant]
    config.rectify.bypass_temporal = variant == "iii"
    return config
