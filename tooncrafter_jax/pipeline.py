"""`ToonCrafter`: load once, interpolate many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from tooncrafter_jax.diffusion.ddim import step_chunks
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ddim_tables
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.media import to_uint8
from tooncrafter_jax.models.configuration import ModelConfig, preset
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.requests import (
    MIN_FRAMES_FOR_SECOND_PASS,
    Pair,
    Picture,
    PreparedPair,
    SamplingOptions,
    Sketch,
    prepare,
)
from tooncrafter_jax.sampling import Conditions, Guidance, Sampler, condition_latents, sampling_mesh
from tooncrafter_jax.typing import Device, Dtype
from tooncrafter_jax.weights.rule import random_params
from tooncrafter_jax.weights.store import Checkpoint

BUNDLED = Path(__file__).parent / "bundled"
"""Models that come with the package, by name."""


class Progress(NamedTuple):
    """Where a run stands.

    Attributes:
      done, total: sampling steps.
      preview: decodes what the model expects the clips to become, uint8 (B, T, H, W, 3); costs one decoding.
    """

    done: int
    total: int
    preview: Callable[[], np.ndarray]


class ToonCrafter:
    """A model ready to sample.

    Make one with `load` or `random`.

    Attributes:
      config: the architecture.
      params: component -> flat parameters, on all devices.
      dtype: of the computation.
      devices: what it runs on.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Mapping[str, jax.Array]],
        *,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        networks: Mapping[str, Network[Any]] | None = None,
    ) -> None:
        self.config, self.params = config, params
        self.dtype = jnp.dtype(default_dtype() if dtype is None else dtype)
        self.devices = list(devices or jax.devices())
        self.schedule = NoiseSchedule(config.schedule)
        self._networks = networks or config.networks(self.dtype)
        self._samplers: dict[Any, Sampler] = {}
        self._placed: dict[int, Mapping[str, Mapping[str, jax.Array]]] = {}
        self._unconditional: dict[Any, tuple[jax.Array, jax.Array]] = {}

    # ----------------------------------------------------------------------------------------------------------- loading

    @classmethod
    def load(
        cls,
        source: str | Path = "small",
        *,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
    ) -> ToonCrafter:
        """Loads a model.

        Args:
          source: a checkpoint directory that `convert` or `train.py` wrote, or the name of a bundled model.
          dtype: of computation and matrices ("float32", "bfloat16"); by default float32 on the CPU, bfloat16 elsewhere. Norms and
            biases are kept in float32.
          devices: what to run on; all by default.

        Raises:
          UserError: if there is no such model, or it is damaged or incomplete.
        """
        checkpoint = find_checkpoint(source)
        compute = jnp.dtype(default_dtype() if dtype is None else dtype)
        chosen = list(devices or jax.devices())
        networks = checkpoint.config.networks(compute)
        params = {
            name: checkpoint.restore(
                name,
                networks[name],
                sharding=_replicated(chosen),
                dtype=lambda leaf: compute if len(leaf.shape) > 1 else jnp.float32,
            )
            for name in checkpoint.components
        }
        return cls(checkpoint.config, params, dtype=compute, devices=chosen, networks=networks)

    @classmethod
    def random(
        cls,
        preset_name: str = "tiny",
        *,
        seed: int = 0,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
    ) -> ToonCrafter:
        """A model of this preset with random weights: it draws noise, but exercises everything.

        Raises:
          UserError: if there is no such preset.
        """
        config, chosen = preset(preset_name), list(devices or jax.devices())
        params = {}
        for name, network in config.networks().items():
            made = random_params({path: leaf.shape for path, leaf in network.abstract_params.items()}, seed)
            params[name] = jax.device_put(made, _replicated(chosen))
        return cls(config, params, dtype=dtype, devices=chosen)

    # ---------------------------------------------------------------------------------------------------------- sampling

    def interpolate(
        self,
        first: Picture | Sequence[Picture],
        last: Picture | Sequence[Picture],
        prompt: str | Sequence[str] = "",
        sketches: Mapping[int, Sketch | Picture] | Sequence[Mapping[int, Sketch | Picture] | None] | None = None,
        *,
        seed: int | Sequence[int] = 123,
        fps: int | Sequence[int] = 10,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Draws the frames between two pictures.

        Args:
          first: a picture (path, uint8 (H, W, 3) or Pillow image), or a list of them for a batch.
          last: the same.
          prompt: what happens; one for all, or a list.
          sketches: frame number -> drawing (`Sketch` for another polarity), or a list of such mappings.
          seed: the same seed gives the same clip, alone or in a batch, on one device or many; one for all, or a list.
          fps: frame rate that the model is told; smaller means larger motion (spec section 6.5).
          on_progress: called after every chunk of steps.
          **options: see `SamplingOptions`.

        Returns:
          uint8 (T, H, W, 3); (B, T, H, W, 3) if lists were given.

        Raises:
          UserError: for an unknown option, a setting out of range, or a picture that cannot be used.
        """
        batched = isinstance(first, list | tuple)
        firsts = list(first) if isinstance(first, list | tuple) else [first]
        count = len(firsts)

        def each(value: Any, what: str) -> list[Any]:
            if not isinstance(value, list | tuple):
                return [value] * count
            if len(value) != count:
                raise UserError(f"there are {count} first pictures but {len(value)} {what}")
            return list(value)

        pairs = [
            Pair(*fields)
            for fields in zip(
                firsts,
                each(last, "last pictures"),
                each(prompt, "prompts"),
                each(sketches, "sets of sketches"),
                each(seed, "seeds"),
                each(fps, "frame rates"),
                strict=True,
            )
        ]
        videos = self.interpolate_pairs(pairs, make_options(options), on_progress=on_progress)
        return videos if batched else videos[0]

    def interpolate_pairs(
        self,
        pairs: Sequence[Pair],
        options: SamplingOptions,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> np.ndarray:
        """`interpolate` for a batch given as `Pair`s: uint8 (B, T, H, W, 3)."""
        if not pairs:
            raise UserError("there are no pairs to interpolate")
        options.check(self.config)
        prepared = [prepare(pair, options, self.config) for pair in pairs]
        if any(pair.hints is not None for pair in prepared) and "sketch_encoder" not in self.params:
            raise UserError("this model has no sketch encoder: convert its file into the checkpoint directory first")
        frames = self._sample(prepared, options, on_progress)
        return to_uint8(frames)

    def _sample(
        self,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None,
    ) -> np.ndarray:
        """The frames (B, T, H, W, 3), float32 in about [-1, 1]."""
        branches = 3 if options.image_guidance_scale is not None else 1 if options.guidance_scale == 1.0 else 2
        sampler = self.sampler(branches * len(pairs), options.frames)
        ends, references = self._encode(pairs, options)
        conditions = self._conditions(sampler, pairs, options, branches, ends)

        # Denoise.
        seeds = sampler.place(np.asarray([pair.seed for pair in pairs], np.uint32))
        frame_shape = ends.shape[2:]
        x = sampler.initial_noise(seeds, frames=options.frames, frame_shape=frame_shape)
        tables = ddim_tables(
            self.schedule,
            spacing=options.spacing,
            steps=options.steps,
            eta=options.eta,
            exact_last_step=options.exact_last_step,
        )
        done = 0
        for steps in step_chunks(tables, options.steps_per_chunk or tables.steps):
            x, predictions = sampler.denoise(
                self._params(sampler, "unet", "sketch_encoder"),
                x,
                steps,
                seeds,
                conditions,
                branches=branches,
                with_predictions=on_progress is not None,
            )
            done += int(np.sum(steps.active))
            if on_progress is not None:
                latest = predictions[int(np.sum(steps.active)) - 1]
                on_progress(
                    Progress(done, tables.steps, lambda p=latest: to_uint8(self._decode(p, references, options)))
                )
        return self._decode(x, references, options)

    # ------------------------------------------------------------------------------------------------------------- parts

    def sampler(self, rows: int, frames: int) -> Sampler:
        """The compiled functions for `rows` independent clips of `frames` frames on this model's devices."""
        mesh = sampling_mesh(self.devices, rows, frames)
        key = None if mesh is None else tuple(mesh.shape.values())
        if key not in self._samplers:
            self._samplers[key] = Sampler(self.config, self._networks, mesh)
            # The same buffers under this mesh's name: one function's arguments must all speak of one mesh.
            self._placed[id(self._samplers[key])] = (
                self.params if mesh is None else jax.device_put(self.params, NamedSharding(mesh, PartitionSpec()))
            )
        return self._samplers[key]

    def _params(self, sampler: Sampler, *components: str) -> dict[str, Mapping[str, jax.Array]]:
        params = self._placed[id(sampler)]
        return {name: params[name] for name in components if name in params}

    def _groups(self, count: int) -> tuple[int, list[slice]]:
        """Pairs that are encoded and decoded at a time: one a device, so that memory does not grow with the batch."""
        size = gcd(count, len(self.devices))
        return size, [slice(i, i + size) for i in range(0, count, size)]

    def _encode(self, pairs: Sequence[PreparedPair], options: SamplingOptions) -> tuple[np.ndarray, list[Any]]:
        """Latents (B, 2, h, w, C) of all end frames, and the decoder's references of each group."""
        size, groups = self._groups(len(pairs))
        sampler = self.sampler(size, options.frames)
        latents, references = [], []
        for group in groups:
            ends = sampler.place(np.stack([pair.ends for pair in pairs[group]]), "batch")
            seeds = sampler.place(np.asarray([pair.seed for pair in pairs[group]], np.uint32))
            encoded, reference = sampler.encode(
                self._params(sampler, "autoencoder", "decoder"), ends, seeds, last=np.int32(options.frames - 1)
            )
            latents.append(to_host(encoded))
            references.append(reference)
        return np.concatenate(latents), references

    def _decode(self, latents: jax.Array, references: list[Any], options: SamplingOptions) -> np.ndarray:
        size, groups = self._groups(latents.shape[0])
        sampler = self.sampler(size, options.frames)
        host = to_host(latents)
        videos = []
        for group, reference in zip(groups, references, strict=True):
            video = sampler.decode_twice(
                self._params(sampler, "decoder"),
                sampler.place(host[group], "batch", "frames"),
                reference,
                second_pass=options.second_pass and options.frames >= MIN_FRAMES_FOR_SECOND_PASS,
                frames_per_chunk=None if sampler.shares_frames else options.decode_frames_per_chunk,
            )
            videos.append(to_host(video))
        return np.concatenate(videos)

    def _conditions(
        self, sampler: Sampler, pairs: Sequence[PreparedPair], options: SamplingOptions, branches: int, ends: np.ndarray
    ) -> Conditions:
        """Everything that stays the same from step to step."""
        text = sampler.text(
            self._params(sampler, "clip_text"), sampler.place(tokenizer()([pair.prompt for pair in pairs]), "batch")
        )
        pixels = sampler.clip_pixels(sampler.place(np.stack([pair.ends[0] for pair in pairs]), "batch"))
        image = sampler.image_tokens(self._params(sampler, "clip_image", "image_projector"), pixels)
        contexts = [jnp.concatenate([text, image], axis=1)]
        if branches > 1:
            empty_text, zero_image = self._unconditional_tokens(sampler)
            empty_text = jnp.broadcast_to(empty_text, text.shape)
            if branches == 3:
                contexts.append(jnp.concatenate([empty_text, image], axis=1))
            contexts.append(jnp.concatenate([empty_text, jnp.broadcast_to(zero_image, image.shape)], axis=1))
        context = jnp.concatenate(contexts)

        sketch = None
        if any(pair.hints is not None for pair in pairs):
            blank = np.zeros((options.frames, *pairs[0].ends.shape[1:3], 1), np.float32)
            hints = np.stack([blank if pair.hints is None else pair.hints for pair in pairs])
            scale = np.asarray([0.0 if pair.hints is None else options.control_scale for pair in pairs], np.float32)
            sketch = sampler.sketch_condition(
                self._params(sampler, "sketch_encoder"),
                context,
                sampler.place(hints, None, "frames"),
                sampler.place(scale),
            )
        return Conditions(
            concat=condition_latents(sampler.place(ends), options.frames),
            context=sampler.context_keys(self._params(sampler, "unet"), context, frames=options.frames),
            fps=sampler.place(np.asarray([pair.fps for pair in pairs], np.int32)),
            guidance=Guidance(
                options.guidance_scale,
                options.guidance_rescale,
                1.0 if options.image_guidance_scale is None else options.image_guidance_scale,
            ),
            sketch=sketch,
        )

    def _unconditional_tokens(self, sampler: Sampler) -> tuple[jax.Array, jax.Array]:
        """Tokens of the empty prompt (1, 77, D) and of the all-zero picture (1, M, D) (spec section 6.4); computed once."""
        if id(sampler) not in self._unconditional:
            size = self.config.clip_image.image_size
            pixels = sampler.clip_pixels(sampler.place(np.zeros((1, size, size, 3), np.float32)))
            self._unconditional[id(sampler)] = (
                sampler.text(self._params(sampler, "clip_text"), sampler.place(tokenizer()([""]))),
                sampler.image_tokens(self._params(sampler, "clip_image", "image_projector"), pixels),
            )
        return self._unconditional[id(sampler)]


def find_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint directory of this path, or of the bundled model of this name; reads no tensors yet.

    Raises:
      UserError: if there is none, or it is damaged or incomplete.
    """
    path = Path(source)
    if not path.exists() and (BUNDLED / str(source)).is_dir():
        path = BUNDLED / str(source)
    if not path.exists() and path.name == str(source):
        raise UserError(
            f"there is no model '{source}': give a checkpoint directory that `python -m tooncrafter_jax convert` wrote"
        )
    checkpoint = Checkpoint(path)
    checkpoint.require()
    return checkpoint


def make_options(values: Mapping[str, Any]) -> SamplingOptions:
    """`SamplingOptions` from keyword arguments, with an error that names an unknown one.

    Raises:
      UserError: for an unknown option or one of the wrong type.
    """
    from tooncrafter_jax.config_codec import from_dict

    return from_dict(SamplingOptions, values, "the sampling options")


def default_dtype() -> str:
    """float32 on the CPU, bfloat16 on accelerators."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array as numpy, on every process."""
    if x.is_fully_addressable:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _replicated(devices: Sequence[Device]) -> jax.sharding.Sharding:
    if len(devices) == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(Mesh(np.asarray(devices), ("devices",)), PartitionSpec())
