"""A small checkpoint directory to write and to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.reference import noise_params
from tooncrafter_jax.models.autoencoder import Autoencoder, AutoencoderConfig
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.weights.store import CheckpointWriter

NETWORK = Network(Autoencoder, AutoencoderConfig(width=32, multipliers=(1,), blocks_per_level=1))
PARAMS = noise_params(NETWORK)


def write(
    directory: Path,
    config: ModelConfig,
    params: Any = PARAMS,
    *,
    then: type[BaseException] | None = None,
    **kwargs: Any,
) -> Path:
    """Writes a checkpoint; an exception may come before it is whole."""
    with CheckpointWriter(directory, config, {"made": "by a test"}, **kwargs) as writer:
        writer.write("autoencoder", params)
        if then:
            raise then
    return directory


def equal(found: dict[str, jax.Array], expected: dict[str, jax.Array] = PARAMS) -> None:
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[path]), np.asarray(value), err_msg=path)
