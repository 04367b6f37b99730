"""`Model`: loading, saving, and drawing what is prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import ModelConfig, preset
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.nn.attention import Backend, check_backend
from tooncrafter_jax.nn.platform import tracing_on
from tooncrafter_jax.runtime.distributed import is_main_process
from tooncrafter_jax.runtime.processes import check_not_forked
from tooncrafter_jax.sampling.model_loading import (
    DEFAULT_MODEL,
    compute_dtype,
    find_checkpoint,
    load_components,
    random_components,
    sampling_of,
)
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.pair_sampler import PairSampler
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.sampling.residence import Memory, Residence, checked_memory
from tooncrafter_jax.sampling.sampler import Sampler
from tooncrafter_jax.typing import AllParams, Device, Dtype, HostVideos, JsonObject
from tooncrafter_jax.weights.eight_bits import checked_weight_dtype, in_eight_bits
from tooncrafter_jax.weights.hub_download import Access
from tooncrafter_jax.weights.hub_names import with_revision
from tooncrafter_jax.weights.lora import load_lora, merged
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

Own = TypeVar("Own", bound="Model")
"""The class that a model is loaded as."""


class Model:
    """A model with its parameters on devices, which draws what is prepared.

    JAX does not survive a fork: a process that was forked after a model was made can neither use it nor make another,
    and is told so. Start processes with `multiprocessing.get_context("spawn")`, and load the model in each.

    Attributes:
      config: the architecture.
      dtype: of the computation.
      weight_dtype: of its large weights, if that is one of 8 bits; None: that of the computation.
      devices: what it runs on.
      sampling: options of `SamplingOptions` that suit this model.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: AllParams,
        *,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        networks: Mapping[str, AnyNetwork] | None = None,
        sampling: JsonObject | None = None,
        attention: Backend = "auto",
        memory: Memory = "high",
        weight_dtype: Dtype | None = None,
    ) -> None:
        check_not_forked()
        self.config, self.sampling = config, dict(sampling or {})
        self.devices = list(devices or jax.devices())
        self.dtype = compute_dtype(dtype, self.devices)
        with tracing_on(self.devices[0]):
            check_backend(attention, self.dtype, "attention")
        if networks is None:
            networks = config.networks(self.dtype, attention=attention)
        self.weight_dtype = checked_weight_dtype(weight_dtype)
        if self.weight_dtype is not None:
            params = in_eight_bits(params, self.weight_dtype)
        self._pairs = PairSampler(
            config, Residence(params, self.devices, checked_memory(memory)), networks, self.devices
        )

    @property
    def params(self) -> AllParams:
        """Component -> flat parameters: on all devices, or on the host where those take little memory."""
        return self._pairs.residence.params

    @classmethod
    def load(
        cls: type[Own],
        source: str | Path = DEFAULT_MODEL,
        *,
        lora: str | Path | None = None,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        attention: Backend = "auto",
        memory: Memory = "high",
        weight_dtype: Dtype | None = None,
    ) -> Own:
        """Loads a model.

        Args:
          source: a checkpoint directory that `tooncrafter convert` or `tooncrafter train` wrote, the name of a bundled
            model (see `DEFAULT_MODEL`), or that of a published one, "Doubiiu/ToonCrafter" or any
            `OWNER/NAME[@REVISION][/FILE]` of the Hugging Face hub (see `weights.hub_names`), which is downloaded and
            converted the first time.
          lora: file of low-rank factors that training with `lora` wrote; they are merged into the weights, and their
            options of sampling win over the model's.
          dtype: of computation and matrices ("float32", "bfloat16"); by default float32 on the CPU, bfloat16 elsewhere.
            Norms and biases are kept in float32.
          devices: what to run on; all by default.
          attention: the back end that attention is computed with where it can be, "auto" elsewhere; see `nn.attention`.
          memory: "high" keeps all parameters on the devices, "low" those alone that are at work; see `Residence`.
          weight_dtype: "int8" or "float8_e4m3fn" holds the large weights in 8 bits, and makes of them what `dtype` says
            where they are used; see `weights.eight_bits`.

        Raises:
          UserError: if there is no such model, it is damaged or incomplete or cannot be fetched, or it does not compute
            in this dtype, with such weights or with this back end.
        """
        check_not_forked()
        return cls._loaded(find_checkpoint(source), lora, dtype, devices, attention, memory, weight_dtype)

    @classmethod
    def from_pretrained(
        cls: type[Own],
        source: str | Path = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        lora: str | Path | None = None,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        attention: Backend = "auto",
        memory: Memory = "high",
        weight_dtype: Dtype | None = None,
    ) -> Own:
        """`load`, with the arguments that diffusers and transformers have for models of the hub.

        Args:
          source: as in `load`.
          revision: branch, tag or commit of the repository.
          cache_dir: where downloads and what is converted of them are kept; as `HF_HUB_CACHE` and `XDG_CACHE_HOME` say
            without.
          token: of an account that may read the repository; as `HF_TOKEN` says without, or with True; False: none.
          local_files_only: whether nothing may be asked for over the network.
          lora: as in `load`.
          dtype: as in `load`.
          devices: as in `load`.
          attention: as in `load`.
          memory: as in `load`.
          weight_dtype: as in `load`.

        Raises:
          UserError: as in `load`, or a revision is asked for of what is no repository.
        """
        check_not_forked()
        access = Access(None if cache_dir is None else Path(cache_dir), token, local_files_only)
        named = source if revision is None else with_revision(source, revision)
        checkpoint = find_checkpoint(named, access=access)
        return cls._loaded(checkpoint, lora, dtype, devices, attention, memory, weight_dtype)

    @classmethod
    def _loaded(
        cls: type[Own],
        checkpoint: Checkpoint,
        lora: str | Path | None,
        dtype: Dtype | None,
        devices: Sequence[Device] | None,
        attention: Backend,
        memory: Memory,
        weight_dtype: Dtype | None,
    ) -> Own:
        chosen = list(devices or jax.devices())
        factors = None if lora is None else load_lora(lora)
        sampling = sampling_of(checkpoint, factors)  # what means nothing is refused before anything is loaded
        compute = compute_dtype(dtype, chosen)
        with tracing_on(chosen[0]):
            check_backend(attention, compute, "attention")
        networks = checkpoint.config.networks(compute, attention=attention)
        held_in = checked_weight_dtype(weight_dtype)
        where = None if checked_memory(memory) == "low" or held_in is not None else chosen
        params: AllParams = load_components(checkpoint, checkpoint.components, networks, devices=where)
        if factors is not None:
            params = merged(params, factors)
        return cls(
            checkpoint.config,
            params,
            dtype=compute,
            devices=chosen,
            networks=networks,
            sampling=sampling,
            attention=attention,
            memory=memory,
            weight_dtype=held_in,
        )

    @classmethod
    def random(
        cls: type[Own],
        preset_name: str = "tiny",
        *,
        seed: int = 0,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        attention: Backend = "auto",
        memory: Memory = "high",
        weight_dtype: Dtype | None = None,
    ) -> Own:
        """A model of this preset with random weights: it draws noise, but exercises everything.

        Args:
          preset_name: "tiny", "small" or "tooncrafter_512".
          seed: of the weights.
          dtype: as in `load`.
          devices: as in `load`.
          attention: as in `load`.
          memory: as in `load`.
          weight_dtype: as in `load`.

        Raises:
          UserError: if there is no such preset, or it does not compute in this dtype or with such weights.
        """
        check_not_forked()
        config, chosen = preset(preset_name), list(devices or jax.devices())
        compute, held_in = compute_dtype(dtype, chosen), checked_weight_dtype(weight_dtype)
        params = random_components(config.networks(), compute, seed, devices=chosen)
        return cls(
            config,
            params,
            dtype=compute,
            devices=chosen,
            attention=attention,
            memory=memory,
            weight_dtype=held_in,
        )

    def save_pretrained(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Writes the model as a checkpoint directory, for `load` and --model.

        Merged low-rank factors are part of it, and parameters are stored in the dtype that they have here. Of several
        processes, all of which may call this, the first one writes.

        Args:
          directory: the result.
          overwrite: whether a checkpoint directory that is there already is replaced.

        Raises:
          UserError: if the directory exists or cannot be written, or weights are held in 8 bits.
        """
        if self.weight_dtype is not None:
            raise UserError(
                f"weights that are held in {self.weight_dtype.name} are not saved: load the model without weight_dtype"
            )
        if not is_main_process():
            return
        origin = {"saved_from": "ToonCrafter.save_pretrained"}
        with CheckpointWriter(directory, self.config, origin, overwrite=overwrite, sampling=self.sampling) as writer:
            for component, params in self.params.items():
                writer.write(component, {path: np.asarray(value) for path, value in params.items()})

    def sample_prepared(
        self,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> HostVideos:
        """Draws clips, behind all checks.

        Args:
          pairs: B clips to make, of one size.
          options: how; must have been checked.
          on_progress: called after every chunk of steps.

        Returns:
          The frames (B, T, H, W, 3), float32 in about [-1, 1].

        Raises:
          UserError: motion guidance needs weights that were not fetched.
        """
        check_not_forked()
        return self._pairs.sample(pairs, options, on_progress)

    def sampler(self, rows: int, frames: int) -> Sampler:
        """See `PairSampler.sampler`."""
        return self._pairs.sampler(rows, frames)

    def add_missing_motion(self, cache: Path | None = None) -> None:
        """See `PairSampler.add_missing_motion`."""
        self._pairs.add_missing_motion(cache)
