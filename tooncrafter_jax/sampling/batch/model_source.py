"""Where the model of a run comes from, and what is known of it before it is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.owned_files import Stamps
from tooncrafter_jax.io.paths import url_of
from tooncrafter_jax.models.configuration import COMPONENTS, ModelConfig, preset
from tooncrafter_jax.nn.attention import Backend
from tooncrafter_jax.notes import note
from tooncrafter_jax.sampling.model_loading import DEFAULT_MODEL, find_checkpoint, sampling_of
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.records import file_record
from tooncrafter_jax.sampling.residence import Memory
from tooncrafter_jax.typing import JsonObject
from tooncrafter_jax.weights.lora import load_lora


@dataclass(frozen=True)
class DescribedModel:
    """What is known of a model before it is loaded.

    Attributes:
      record: what the records of clips say of it.
      config: its architecture.
      components: that it has.
      sampling: options that suit it.
    """

    record: Mapping[str, str]
    config: ModelConfig
    components: Sequence[str]
    sampling: JsonObject


@dataclass(frozen=True)
class ModelSource:
    """Where the model of a run comes from.

    Attributes:
      model: a checkpoint directory, or the name of a bundled or of a published model.
      random_weights: an architecture that gets random weights instead.
      lora: a file of low-rank factors, merged into the model.
      quiet: whether a download of the model shows no progress.
      weight_dtype: of its large weights, if that is one of 8 bits.
    """

    model: str | Path = DEFAULT_MODEL
    random_weights: str | None = None
    lora: str | Path | None = None
    quiet: bool = False
    weight_dtype: str | None = None

    def described(self) -> DescribedModel:
        """Describes it; loads no tensors but those of `lora`.

        Raises:
          UserError: there is no such model or file, or they do not go together.
        """
        if self.random_weights and self.lora:
            raise UserError("--lora changes a --model: it means nothing to --random-weights")
        if self.random_weights:
            record = {"random_weights": self.random_weights} | self._held()
            return DescribedModel(record, preset(self.random_weights), COMPONENTS, {})
        checkpoint = find_checkpoint(self.model, quiet=self.quiet)
        # A path is no identity: other weights may be converted into the same directory.
        path = url_of(checkpoint.directory) or os.path.abspath(checkpoint.directory)
        record = {"path": path, "weights": checkpoint.fingerprint or f"those of {path}"} | self._held()
        if self.lora:
            record["lora"] = file_record(self.lora, Stamps())["sha256"]
        # A mistake is reported before the model is loaded.
        sampling = sampling_of(checkpoint, load_lora(self.lora) if self.lora else None)
        return DescribedModel(record, checkpoint.config, checkpoint.components, sampling)

    def _held(self) -> dict[str, str]:
        return {} if self.weight_dtype is None else {"weight_dtype": self.weight_dtype}

    def load(self, dtype: str, attention: Backend, memory: Memory = "high") -> ToonCrafter:
        """Loads it.

        Args:
          dtype: of the computation.
          attention: the back end that attention is computed with where it can be.
          memory: how much of a device's memory it takes.

        Raises:
          UserError: it is damaged, or does not compute in this dtype or with this back end.
        """
        how: dict[str, Any] = {"attention": attention, "memory": memory, "weight_dtype": self.weight_dtype}
        if self.random_weights:
            note(f"'{self.random_weights}' has random weights: what it draws is noise")
            return ToonCrafter.random(self.random_weights, dtype=dtype, **how)
        return ToonCrafter.load(self.model, lora=self.lora, dtype=jnp.dtype(dtype), **how)
