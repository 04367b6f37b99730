"""`ToonCrafter`: load once, interpolate many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from tooncrafter_jax.diffusion.loop import chunks
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import solver_named
from tooncrafter_jax.diffusion.solvers.solver import number_of_rows
from tooncrafter_jax.io import to_uint8
from tooncrafter_jax.models.configuration import ModelConfig, preset
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.models.tooncrafter import Conditions, condition_latents
from tooncrafter_jax.nn.attention import Backend, check_backend
from tooncrafter_jax.nn.platform import tracing_on
from tooncrafter_jax.notes import once
from tooncrafter_jax.runtime.distributed import to_host
from tooncrafter_jax.runtime.processes import check_not_forked
from tooncrafter_jax.sampling.denoise import Guidance
from tooncrafter_jax.sampling.model_loading import (
    DEFAULT_MODEL,
    compute_dtype,
    find_checkpoint,
    load_components,
    replicated,
    stored_dtype,
)
from tooncrafter_jax.sampling.observation import Progress, Replay
from tooncrafter_jax.sampling.request import (
    ARGUMENTS,
    DEFAULT_FPS,
    DEFAULT_SEED,
    MIN_FRAMES_FOR_SECOND_PASS,
    Pair,
    Picture,
    PreparedPair,
    SamplingOptions,
    Sketch,
    check_pairs,
    check_sketch_encoder,
    make_options,
    make_pairs,
    prepare,
)
from tooncrafter_jax.sampling.sampler import Sampler, sampling_mesh
from tooncrafter_jax.sampling.sampling_keywords import SamplingKeywords
from tooncrafter_jax.typing import Device, Dtype
from tooncrafter_jax.weights.lora import load_lora, merged
from tooncrafter_jax.weights.rule import random_params


class ToonCrafter:
    """A model ready to sample.

    Make one with `load` or `random`.

    JAX does not survive a fork: a process that was forked after a model was made can neither use it nor make another, and is told
    so. Start processes with `multiprocessing.get_context("spawn")`, and load the model in each.

    Attributes:
      config: the architecture.
      params: component -> flat parameters, on all devices.
      dtype: of the computation.
      devices: what it runs on.
      sampling: options of `SamplingOptions` that suit this model; `interpolate` takes them where none are given.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Mapping[str, jax.Array]],
        *,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        networks: Mapping[str, Network[Any]] | None = None,
        sampling: Mapping[str, Any] | None = None,
        attention: Backend = "auto",
    ) -> None:
        check_not_forked()
        self.config, self.params, self.sampling = config, params, dict(sampling or {})
        self.devices = list(devices or jax.devices())
        self.dtype = compute_dtype(dtype, self.devices)
        with tracing_on(self.devices[0]):
            check_backend(attention, self.dtype, "attention")
        self.schedule = NoiseSchedule(config.schedule)
        self._networks = networks or config.networks(self.dtype, attention=attention)
        self._samplers: dict[Any, Sampler] = {}
        self._placed: dict[int, Mapping[str, Mapping[str, jax.Array]]] = {}
        self._unconditional: dict[Any, tuple[jax.Array, jax.Array]] = {}
        self._lock = threading.RLock()

    # ----------------------------------------------------------------------------------------------------------- loading

    @classmethod
    def load(
        cls,
        source: str | Path = DEFAULT_MODEL,
        *,
        lora: str | Path | None = None,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        attention: Backend = "auto",
    ) -> ToonCrafter:
        """Loads a model.

        Args:
          source: a checkpoint directory that `tooncrafter convert` or `tooncrafter train` wrote, or the name of a bundled model
            (see `DEFAULT_MODEL`).
          lora: file of low-rank factors that training with `lora` wrote; they are merged into the weights.
          dtype: of computation and matrices ("float32", "bfloat16"); by default float32 on the CPU, bfloat16 elsewhere. Norms and
            biases are kept in float32.
          devices: what to run on; all by default.
          attention: the back end that attention is computed with where it can be, "auto" elsewhere; see `nn.attention`.

        Raises:
          UserError: if there is no such model, it is damaged or incomplete, or it does not compute in this dtype or with this back
            end.
        """
        check_not_forked()
        checkpoint, chosen = find_checkpoint(source), list(devices or jax.devices())
        make_options(checkpoint.sampling)  # what cannot be is told before anything is loaded
        compute = compute_dtype(dtype, chosen)
        with tracing_on(chosen[0]):
            check_backend(attention, compute, "attention")
        networks = checkpoint.config.networks(compute, attention=attention)
        params = load_components(checkpoint, checkpoint.components, networks, dtype=compute, devices=chosen)
        if lora is not None:
            params = merged(params, load_lora(lora))
        own = checkpoint.sampling
        return cls(
            checkpoint.config,
            params,
            dtype=compute,
            devices=chosen,
            networks=networks,
            sampling=own,
            attention=attention,
        )

    @classmethod
    def random(
        cls,
        preset_name: str = "tiny",
        *,
        seed: int = 0,
        dtype: Dtype | None = None,
        devices: Sequence[Device] | None = None,
        attention: Backend = "auto",
    ) -> ToonCrafter:
        """A model of this preset with random weights: it draws noise, but exercises everything.

        Args:
          preset_name: "tiny" or "tooncrafter_512".
          seed: of the weights.
          dtype: as in `load`.
          devices: as in `load`.
          attention: as in `load`.

        Raises:
          UserError: if there is no such preset, or it does not compute in this dtype.
        """
        check_not_forked()
        config, chosen = preset(preset_name), list(devices or jax.devices())
        compute = compute_dtype(dtype, chosen)
        params = {}
        for name, network in config.networks().items():
            made = random_params({path: leaf.shape for path, leaf in network.abstract_params.items()}, seed)
            cast = {path: value.astype(stored_dtype(value.shape, compute)) for path, value in made.items()}
            params[name] = jax.device_put(cast, replicated(chosen))
        return cls(config, params, dtype=compute, devices=chosen, attention=attention)

    # ---------------------------------------------------------------------------------------------------------- sampling

    def interpolate(
        self,
        first: Picture | Sequence[Picture],
        last: Picture | Sequence[Picture],
        prompt: str | Sequence[str] = "",
        sketches: Mapping[int, Sketch | Picture] | Sequence[Mapping[int, Sketch | Picture] | None] | None = None,
        *,
        seed: int | Sequence[int] = DEFAULT_SEED,
        fps: int | Sequence[int] = DEFAULT_FPS,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[SamplingKeywords],
    ) -> np.ndarray:
        """Draws the frames between two pictures.

        Args:
          first: a picture (path, uint8 (H, W, 3) or Pillow image), or a list of them for a batch.
          last: the same.
          prompt: what happens; one for all, or a list.
          sketches: frame number -> drawing (`Sketch` for another polarity), or a list of such mappings.
          seed: 0 to 2^32 - 1; the same seed gives the same clip, alone or in a batch, on one device or many; one for all, or a
            list.
          fps: frame rate that the model is told, 1 to 1000; smaller means larger motion (spec section 6.5).
          on_progress: called after every chunk of steps.
          **options: see `SamplingOptions`; those that are not given are the model's own or the published ones.

        Returns:
          uint8 (T, H, W, 3); (B, T, H, W, 3) if lists were given.

        Raises:
          UserError: for an unknown option, a setting out of range, or a picture that cannot be used.
        """
        check_not_forked()
        pairs = make_pairs(first, last, prompt, sketches, seed, fps)
        videos = self.interpolate_pairs(
            pairs, make_options({**self.sampling, **options}, ARGUMENTS), on_progress=on_progress
        )
        return videos if isinstance(first, list | tuple) else videos[0]

    def interpolate_pairs(
        self,
        pairs: Sequence[Pair],
        options: SamplingOptions,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> np.ndarray:
        """`interpolate` for a batch given as `Pair`s.

        Args:
          pairs: B clips to make, at least one.
          options: how, the same for all.
          on_progress: called after every chunk of steps.

        Returns:
          uint8 (B, T, H, W, 3).

        Raises:
          UserError: if there are no pairs, a setting is out of range, a picture cannot be used, or there are sketches but no sketch
            encoder.
        """
        check_not_forked()
        check_pairs(pairs, options)
        options.check(self.config)
        with once():
            prepared = [prepare(pair, options, self.config) for pair in pairs]
        if any(pair.hints is not None for pair in prepared):
            check_sketch_encoder(self.config, self.params)
        frames = self.sample_prepared(prepared, options, on_progress)
        return to_uint8(frames)

    def sample_prepared(
        self,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None = None,
        replay: Replay | None = None,
    ) -> np.ndarray:
        """`interpolate_pairs` behind the checks.

        Args:
          pairs: B clips to make, of one size.
          options: how; must have been checked.
          on_progress: called after every chunk of steps.
          replay: given noise, and who watches; without it the noise comes from the seeds.

        Returns:
          The frames (B, T, H, W, 3), float32 in about [-1, 1].
        """
        check_not_forked()
        branches = 3 if options.image_guidance_scale is not None else 1 if options.guidance_scale == 1.0 else 2
        sampler = self.sampler(branches * len(pairs), options.frames)
        ends, references = self._encode(pairs, options, replay)
        conditions = self._conditions(sampler, pairs, options, branches, ends, replay)

        guidance = Guidance(
            options.guidance_scale,
            options.guidance_rescale,
            1.0 if options.image_guidance_scale is None else options.image_guidance_scale,
        )

        # Denoise.
        seeds = sampler.place(np.asarray([pair.seed for pair in pairs], np.uint32))
        if replay is None:
            x = sampler.initial_noise(seeds, frames=options.frames, frame_shape=ends.shape[2:])
        else:
            x = jnp.copy(sampler.place(replay.initial))  # the loop is given this, which must not be the caller's memory
        solver = solver_named(options.solver)
        rows = solver.rows(self.schedule, options.solver_options)
        total = number_of_rows(rows)
        if replay is not None:
            replay.observe("timesteps", rows.timestep)
        done, size, carry = 0, options.steps_per_chunk or total, solver.init(x)
        with_sketches = ("sketch_encoder",) if conditions.sketch is not None else ()
        params = self._params(sampler, "unet", *with_sketches)
        for chunk in chunks(rows, size):
            carry, predictions = sampler.denoise(
                params,
                carry,
                chunk,
                seeds,
                conditions,
                guidance,
                solver=solver,
                branches=branches,
                with_predictions=on_progress is not None or replay is not None,
                noise=None if replay is None else sampler.place(replay.steps[done : done + size]),
            )
            active = int(np.sum(chunk.active))
            done += active
            if replay is not None:
                replay.observe("latents", solver.latents(carry))
                replay.observe("clean", predictions[:active])
            if on_progress is not None:
                latest = predictions[active - 1]
                preview = partial(self._preview, latest, pairs, references, options)
                on_progress(Progress(done, total, preview))
        return self._decode(solver.latents(carry), pairs, references, options, replay)

    # ------------------------------------------------------------------------------------------------------------- parts

    def sampler(self, rows: int, frames: int) -> Sampler:
        """The compiled functions for `rows` independent clips of `frames` frames on this model's devices."""
        mesh = sampling_mesh(self.devices, rows, frames)
        key = None if mesh is None else tuple(mesh.shape.values())
        with self._lock:
            if key not in self._samplers:
                sampler = Sampler(self.config, self._networks, mesh, self.devices[0])
                # The same buffers under this mesh's name: one function's arguments must all speak of one mesh.
                self._placed[id(sampler)] = (
                    self.params if mesh is None else jax.device_put(self.params, NamedSharding(mesh, PartitionSpec()))
                )
                self._samplers[key] = sampler
            return self._samplers[key]

    def _params(self, sampler: Sampler, *components: str) -> dict[str, Mapping[str, jax.Array]]:
        params = self._placed[id(sampler)]
        return {name: params[name] for name in components if name in params}

    def _groups(self, count: int) -> tuple[int, list[slice]]:
        """Pairs that are encoded and decoded at a time: one a device, so that activations do not grow with the batch."""
        size = gcd(count, len(self.devices))
        return size, [slice(i, i + size) for i in range(0, count, size)]

    def _encode(
        self, pairs: Sequence[PreparedPair], options: SamplingOptions, replay: Replay | None
    ) -> tuple[np.ndarray, References | None]:
        """Latents (B, 2, h, w, C) of all end frames, on the host, and the decoder's references if there is but one group.

        References take 0.5 GiB a pair in float32 at 320x512. Those of several groups are not kept while denoising: encoding
        two frames again costs less than a hundredth of a step.
        """
        size, groups = self._groups(len(pairs))
        sampler = self.sampler(size, options.frames)
        latents, references = [], None
        for group in groups:
            encoded, references = self._encode_group(sampler, pairs, group, options, replay)
            latents.append(to_host(encoded))
        return np.concatenate(latents), references if len(groups) == 1 else None

    def _encode_group(
        self,
        sampler: Sampler,
        pairs: Sequence[PreparedPair],
        group: slice,
        options: SamplingOptions,
        replay: Replay | None = None,
    ) -> tuple[jax.Array, References | None]:
        ends = sampler.place(np.stack([pair.ends for pair in pairs[group]]), "batch")
        seeds = sampler.place(np.asarray([pair.seed for pair in pairs[group]], np.uint32))
        noise = None if replay is None else sampler.place(replay.posterior[group], "batch")
        params = self._params(sampler, "autoencoder", "decoder")
        return sampler.encode(params, ends, seeds, noise, last=np.int32(options.frames - 1))

    def _decode(
        self,
        latents: jax.Array,
        pairs: Sequence[PreparedPair],
        references: References | None,
        options: SamplingOptions,
        replay: Replay | None = None,
    ) -> np.ndarray:
        """Frames (B, T, H, W, 3); `references` are those of the one group, or None if they must be made again."""
        size, groups = self._groups(latents.shape[0])
        sampler = self.sampler(size, options.frames)
        host = to_host(latents)
        enough = options.frames >= MIN_FRAMES_FOR_SECOND_PASS or replay is not None
        videos = []
        for group in groups:
            of_group = references
            if of_group is None and self.config.decoder.references:
                of_group = self._encode_group(sampler, pairs, group, options, replay)[1]
            video = sampler.decode_twice(
                self._params(sampler, "decoder"),
                sampler.place(host[group], "batch", "frames"),
                of_group,
                second_pass=options.second_pass and enough,
                frames_per_chunk=None if sampler.shares_frames else options.decode_frames_per_chunk,
                window=None if replay is None else replay.window,
                observe=None if replay is None else replay.observe,
            )
            videos.append(to_host(video))
        return np.concatenate(videos)

    def _preview(
        self,
        latents: jax.Array,
        pairs: Sequence[PreparedPair],
        references: References | None,
        options: SamplingOptions,
    ) -> np.ndarray:
        return to_uint8(self._decode(latents, pairs, references, options))

    def _conditions(
        self,
        sampler: Sampler,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        branches: int,
        ends: np.ndarray,
        replay: Replay | None,
    ) -> Conditions:
        """Everything that stays the same from step to step."""
        text = sampler.text(
            self._params(sampler, "clip_text"), sampler.place(tokenizer()([pair.prompt for pair in pairs]), "batch")
        )
        seen = [pair.ends[0] if pair.clip_image is None else pair.clip_image for pair in pairs]
        pixels = sampler.clip_pixels(sampler.place(np.stack(seen), "batch"))
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
        concat = condition_latents(sampler.place(ends), options.frames)
        if replay is not None:
            for name, value in (("text", text), ("image", image), ("condition_latents", concat)):
                replay.observe(name, value)
        return Conditions(
            concat=concat,
            context=sampler.context_keys(self._params(sampler, "unet"), context, frames=options.frames),
            fps=sampler.place(np.asarray([pair.fps for pair in pairs], np.int32)),
            sketch=sketch,
        )

    def _unconditional_tokens(self, sampler: Sampler) -> tuple[jax.Array, jax.Array]:
        """Tokens of the empty prompt (1, 77, D) and of the all-zero picture (1, M, D) (spec section 6.4); computed once."""
        with self._lock:
            if id(sampler) not in self._unconditional:
                size = self.config.clip_image.image_size
                pixels = sampler.clip_pixels(sampler.place(np.zeros((1, size, size, 3), np.float32)))
                self._unconditional[id(sampler)] = (
                    sampler.text(self._params(sampler, "clip_text"), sampler.place(tokenizer()([""]))),
                    sampler.image_tokens(self._params(sampler, "clip_image", "image_projector"), pixels),
                )
            return self._unconditional[id(sampler)]
