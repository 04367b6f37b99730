"""The dual-reference 3D decoder (paper section 3.2, spec sections 8.1 and 8.6): 60,000 steps, batch 16, 4.5e-6.

Starts from a plain image decoder, such as DynamiCrafter's; temporal and reference parts start so that they change
nothing. What the paper leaves open (start step and weight of the adversarial loss) is as in the configuration of the KL
autoencoder that it builds on.

    tooncrafter fetch-metric-weights
    tooncrafter train --config=configs/decoder_512.py --workdir=runs/decoder --config.start=runs/rectify/export \\
        --config.data.directory=data/cartoons
"""

from tooncrafter_jax.training.configuration import default_config


def get_config():
    config = default_config()
    config.stage = "decoder"
    config.steps = 60_000  # paper, section 4.1
    config.data.batch = 16  # paper, section 4.1
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 4.5e-6  # paper, section 4.1
    config.optimizer.beta1, config.optimizer.beta2 = 0.5, 0.9  # published autoencoder class (spec section 8.1)
    config.optimizer.clip_norm = 0.0
    config.decoder.perceptual_weight = 0.1  # paper, equation 6
    return config
