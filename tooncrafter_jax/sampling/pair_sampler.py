"""Samples prepared pairs with one model: what is encoded and decoded together, and what waits where meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import gcd
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float

from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import solver_named
from tooncrafter_jax.diffusion.solvers.solver import number_of_rows
from tooncrafter_jax.io import to_uint8
from tooncrafter_jax.models.configuration import MOTION, ModelConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.models.tooncrafter import FRAMES_AT_A_TIME, Conditions
from tooncrafter_jax.runtime.distributed import to_host
from tooncrafter_jax.sampling.denoise import Guidance
from tooncrafter_jax.sampling.encoded_pictures import EncodedPictures, HostMoments, HostPictures
from tooncrafter_jax.sampling.feature_reuse import Reuse
from tooncrafter_jax.sampling.guidance_interval import guided_times
from tooncrafter_jax.sampling.motion_source import missing_motion
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.request import MIN_FRAMES_FOR_SECOND_PASS, PreparedPair
from tooncrafter_jax.sampling.residence import Residence
from tooncrafter_jax.sampling.sampler import LeadingAway, Sampler, UnconditionalTokens, branch_contexts
from tooncrafter_jax.sampling.sampling_mesh import sampling_mesh
from tooncrafter_jax.sampling.sampling_options import SamplingOptions
from tooncrafter_jax.sampling.second_pass import decode_twice
from tooncrafter_jax.typing import Device, DeviceParams, HostVideos, Uint8Videos

_with_open_ends = jax.jit(References.with_open_ends)
HALF_LEVEL = 1 / 255
"""Of a byte, of values in [-1, 1]."""
AFTER = ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0))
"""Pads hints by a frame."""
HostMotion = tuple[Float[np.ndarray, "B T H W 4"], Float[np.ndarray, "B T H W 1"]]
"""Flows and shares of `Motion`, on the host."""


class PairSampler:
    """Samples with one model on its devices; may be used by several threads.

    Args:
      config: the architecture.
      residence: the parameters; `add_missing_motion` may add a component.
      networks: the components; see `ModelConfig.networks`.
      devices: what to run on.

    Attributes:
      config, residence, devices: as given.
    """

    def __init__(
        self,
        config: ModelConfig,
        residence: Residence,
        networks: Mapping[str, AnyNetwork],
        devices: Sequence[Device],
    ) -> None:
        self.config, self.residence, self.devices = config, residence, list(devices)
        self._schedule, self._networks = NoiseSchedule(config.schedule), networks
        self._samplers: dict[tuple[int, ...] | None, Sampler] = {}
        self._unconditional: dict[int, UnconditionalTokens] = {}
        self._encoded = EncodedPictures()
        self._lock = threading.RLock()

    def sample(
        self,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> HostVideos:
        """Draws clips; see `ToonCrafter.sample_prepared`."""
        if options.motion_guidance:
            self.add_missing_motion()
        branches = options.branches
        at_once = 1 if options.sequential_guidance else branches
        sampler = self.sampler(at_once * len(pairs), options.frames)
        ends, references = self._encode(pairs, options)
        is_guided = options.motion_guidance and bool(self.has_motion(pairs).any())
        motion = self.motion(pairs, options) if is_guided else None
        conditions = self._conditions(sampler, pairs, options, branches, known_ends(ends, pairs), motion)
        guidance = Guidance(
            options.guidance_scale,
            options.guidance_rescale,
            1.0 if options.image_guidance_scale is None else options.image_guidance_scale,
            guided_times(options.guidance_interval, self._schedule),
        )
        seeds = sampler.place(np.asarray([pair.seed for pair in pairs], np.uint32))
        solver = solver_named(options.solver)
        rows = solver.rows(self._schedule, options.solver_options)
        x = self._start(sampler, pairs, options, ends.shape[2:], int(rows.timestep[0]))
        total, latents = number_of_rows(rows), x
        for reached in sampler.sample(
            self._params(sampler, "unet", "sketch_encoder"),
            x,
            seeds,
            conditions,
            guidance,
            solver=solver,
            rows=rows,
            branches=branches,
            rows_per_chunk=options.steps_per_chunk,
            with_predictions=on_progress is not None,
            in_sequence=at_once < branches,
            reuse=None if options.reuse is None else Reuse.parse(options.reuse, self.config.unet),
        ):
            latents = reached.latents
            if on_progress is not None and reached.predictions is not None:
                preview = partial(self._preview, reached.predictions[-1], pairs, references, motion, options)
                on_progress(Progress(reached.done, total, preview))
        return self._decode(latents, pairs, references, motion, options)

    def sampler(self, rows: int, frames: int) -> Sampler:
        """The compiled functions for `rows` independent clips of `frames` frames on this model's devices."""
        mesh = sampling_mesh(self.devices, rows, frames)
        key = None if mesh is None else tuple(mesh.shape.values())
        with self._lock:
            if key not in self._samplers:
                self._samplers[key] = Sampler(self.config, self._networks, mesh, self.devices[0])
            return self._samplers[key]

    def add_missing_motion(self, cache: Path | None = None) -> None:
        """Gives a model without a motion network RIFE's published weights, for motion guidance.

        Args:
          cache: the directory that `tooncrafter fetch-metric-weights` wrote to; the default one without.

        Raises:
          UserError: they were not fetched, or the model wants a network of its own.
        """
        with self._lock:
            missing = missing_motion(self.config, self.residence.params, cache)
            if missing is not None:
                self.residence.add(MOTION, missing)

    def _params(self, sampler: Sampler, *components: str) -> dict[str, DeviceParams]:
        return self.residence.of(sampler.mesh, *components)

    def _groups(self, count: int) -> tuple[int, list[slice]]:
        """Pairs that are encoded and decoded at a time: one a device, so that activations do not grow with the
        batch.
        """
        size = gcd(count, len(self.devices))
        return size, [slice(i, i + size) for i in range(0, count, size)]

    def _encode(self, pairs: Sequence[PreparedPair], options: SamplingOptions) -> tuple[np.ndarray, References | None]:
        """Latents (B, 2, h, w, C) of all end frames, on the host, and the decoder's references if there is but one
        group and memory for them.

        References take 0.5 GiB a pair in float32 at 320x512. Those of several groups are not kept while denoising:
        encoding two frames again costs less than a hundredth of a step.
        """
        size, groups = self._groups(len(pairs))
        sampler, references = self.sampler(size, options.frames), None
        if len(groups) == 1 and self.residence.memory == "high":
            moments, references = self._encode_group(sampler, pairs)
        else:
            ends = np.stack([pair.ends for pair in pairs])
            moments = sampler.place(self._encoded.moments(ends, partial(self._host_moments, sampler), size), "batch")
        seeds = sampler.place(np.asarray([pair.seed for pair in pairs], np.uint32))
        return to_host(sampler.end_latents(moments, seeds, last=np.int32(options.frames - 1))), references

    def _encode_group(self, sampler: Sampler, pairs: Sequence[PreparedPair]) -> tuple[jax.Array, References | None]:
        """Moments and the decoder's references of one group."""
        ends = sampler.place(np.stack([pair.ends for pair in pairs]), "batch")
        moments, references = sampler.encode(self._params(sampler, "autoencoder", "decoder"), ends)
        is_open = [pair.open_end for pair in pairs]
        if references is not None and any(is_open):
            references = _with_open_ends(references, sampler.place(np.asarray(is_open), "batch"))
        return moments, references

    def _host_moments(self, sampler: Sampler, ends: HostPictures) -> HostMoments:
        """Moments of as many pictures as a group has; by its own program, whose references are not needed."""
        params = self._params(sampler, "autoencoder", "decoder")
        return to_host(sampler.encode(params, sampler.place(ends, "batch"))[0])

    def _start(
        self,
        sampler: Sampler,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        frame_shape: tuple[int, ...],
        timestep: int,
    ) -> jax.Array:
        """What sampling starts from (B, T, h, w, C): noise, or drafts with the noise of the first time that is
        visited.
        """
        seeds = sampler.place(np.asarray([pair.seed for pair in pairs], np.uint32))
        x = sampler.initial_noise(seeds, frames=options.frames, frame_shape=frame_shape)
        given = [pair.latents for pair in pairs]
        if any(latents is not None for latents in given):
            drawn = to_host(x)
            own = [noise if latents is None else latents for noise, latents in zip(drawn, given, strict=True)]
            x = sampler.place(np.stack(own))
        drafts = [pair.draft for pair in pairs if pair.draft is not None]
        if not drafts:
            return x
        encoded = sampler.place(self._encode_drafts(pairs, np.stack(drafts), options))
        return sampler.noised(encoded, x, np.int32(timestep))

    def _encode_drafts(
        self, pairs: Sequence[PreparedPair], drafts: Float[np.ndarray, "B T H W 3"], options: SamplingOptions
    ) -> Float[np.ndarray, "B T h w C"]:
        """Scaled latents of drafts, on the host."""
        size, groups = self._groups(len(pairs))
        sampler = self.sampler(size, options.frames)
        at_a_time = None if sampler.shares_frames else FRAMES_AT_A_TIME
        latents = []
        for group in groups:
            seeds = sampler.place(np.asarray([pair.seed for pair in pairs[group]], np.uint32))
            video = sampler.place(drafts[group], "batch", "frames")
            encoded = sampler.encode_clip(
                self._params(sampler, "autoencoder"), video, seeds, frames_at_a_time=at_a_time
            )
            latents.append(to_host(encoded))
        return np.concatenate(latents)

    def _decode(
        self,
        latents: jax.Array,
        pairs: Sequence[PreparedPair],
        references: References | None,
        motion: HostMotion | None,
        options: SamplingOptions,
    ) -> HostVideos:
        """Frames (B, T, H, W, 3); `references` are those of the one group, or None if they must be made again."""
        size, groups = self._groups(latents.shape[0])
        sampler = self.sampler(size, options.frames)
        host = to_host(latents)
        second_pass = options.second_pass and options.frames >= MIN_FRAMES_FOR_SECOND_PASS
        frames_per_chunk = None if sampler.shares_frames else options.decode_frames_per_chunk
        params, videos = self._params(sampler, "decoder"), []
        for group in groups:
            of_group = references
            if of_group is None and self.config.decoder.references:
                of_group = self._encode_group(sampler, pairs[group])[1]
            decode = partial(
                sampler.decode,
                params,
                references=of_group,
                frames_per_chunk=frames_per_chunk,
                tile_size=options.decode_tile_size,
            )
            placed = sampler.place(host[group], "batch", "frames")
            moves, guided = None, self.has_motion(pairs[group])
            if motion is not None and self.config.decoder.carried:
                moves = _placed(sampler, motion, pairs[group], group, guided)
            video = to_host(decode_twice(decode, placed, moves, second_pass=second_pass).video)
            videos.append(video if moves is None else _to_be_rounded(video, guided))
        return np.concatenate(videos)

    def _preview(
        self,
        latents: jax.Array,
        pairs: Sequence[PreparedPair],
        references: References | None,
        motion: HostMotion | None,
        options: SamplingOptions,
    ) -> Uint8Videos:
        return to_uint8(self._decode(latents, pairs, references, motion, options))

    def _conditions(
        self,
        sampler: Sampler,
        pairs: Sequence[PreparedPair],
        options: SamplingOptions,
        branches: int,
        ends: np.ndarray,
        motion: HostMotion | None,
    ) -> Conditions:
        """Everything that stays the same from step to step."""
        text = sampler.text(
            self._params(sampler, "clip_text"), sampler.place(tokenizer()([pair.prompt for pair in pairs]), "batch")
        )
        seen = [pair.ends[0] if pair.clip_image is None else pair.clip_image for pair in pairs]
        pixels = sampler.clip_pixels(sampler.place(np.stack(seen), "batch"))
        image = sampler.image_tokens(self._params(sampler, "clip_image", "image_projector"), pixels)
        unconditional = self._leading_away(sampler, pairs) if branches > 1 else None
        contexts = branch_contexts(text, image, unconditional, branches)
        hints = scale = None
        drawn = _hints(pairs)
        if drawn is not None:
            hints = sampler.place(drawn, None, "frames")
            scales = [0.0 if pair.hints is None else options.control_scale for pair in pairs]
            scale = sampler.place(np.asarray(scales, np.float32))
        fps = sampler.place(np.asarray([pair.fps for pair in pairs], np.int32))
        # Where nothing is known of the last frame, the denoiser's condition has nothing at its end to be carried.
        has_two = np.asarray([not pair.open_end for pair in pairs])
        placed = _placed(sampler, motion, pairs, slice(None), has_two) if motion is not None and has_two.any() else None
        return sampler.conditions(
            self._params(sampler, "unet", "sketch_encoder"),
            sampler.place(ends),
            options.frames,
            contexts,
            fps,
            hints,
            scale,
            placed,
        )

    def motion(self, pairs: Sequence[PreparedPair], options: SamplingOptions) -> HostMotion:
        """Motion between the pictures of all pairs, on the host, bent to their sketches.

        Of a pair with one picture it is that to this picture, which its sketches show; without (`has_motion`) it means
        nothing.
        """
        size, groups = self._groups(len(pairs))
        sampler, parts = self.sampler(size, options.frames), []
        hints = _hints(pairs) if self.config.motion.follows_sketches else None
        params = self._params(sampler, MOTION)

        def found(group: slice, own: np.ndarray | None, frames: int) -> HostMotion:
            ends = sampler.place(np.stack([pair.ends for pair in pairs[group]]), "batch")
            placed = None if own is None else sampler.place(own, "batch")
            most = None if own is None else _most_sketches(own)
            motion = sampler.motion(params, ends, placed, frames=frames, most_sketches=most)
            return to_host(motion.flows), to_host(motion.share)

        for group in groups:
            is_open = np.asarray([pair.open_end for pair in pairs[group]])
            own = hints[group] if hints is not None and hints[group].any() else None
            closed = opened = None
            if own is None or not is_open.all():
                closed = found(group, own, options.frames)
            if own is not None and is_open.any():
                # Behind the last frame there is the first picture again: so the last one is like those between.
                longer = found(group, np.pad(own, AFTER), options.frames + 1)
                opened = tuple(part[:, :-1] for part in longer)
            if closed is None or opened is None:
                parts.append(closed or opened)
            else:
                of_open = is_open[:, None, None, None, None]
                parts.append(tuple(np.where(of_open, *both) for both in zip(opened, closed, strict=True)))
        flows, share = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return flows, share

    def has_motion(self, pairs: Sequence[PreparedPair]) -> Bool[np.ndarray, "B"]:
        """Which pairs there is motion for: those with two pictures, and those with one and a sketch of the last frame,
        where sketches say how things move.
        """
        return np.asarray(
            [
                not pair.open_end
                or (self.config.motion.through_sketches and pair.hints is not None and bool(pair.hints[-1].any()))
                for pair in pairs
            ]
        )

    def _leading_away(self, sampler: Sampler, pairs: Sequence[PreparedPair]) -> LeadingAway:
        """Tokens of the negative prompts, or of the empty one where there are none, and of the all-zero picture."""
        text, image = self._unconditional_tokens(sampler)
        negative = [pair.negative_prompt for pair in pairs]
        if any(negative):
            text = sampler.text(self._params(sampler, "clip_text"), sampler.place(tokenizer()(negative), "batch"))
        return text, image

    def _unconditional_tokens(self, sampler: Sampler) -> UnconditionalTokens:
        """Those of the sampler, computed once."""
        with self._lock:
            if id(sampler) not in self._unconditional:
                towers = self._params(sampler, "clip_text", "clip_image", "image_projector")
                self._unconditional[id(sampler)] = sampler.unconditional_tokens(towers)
            return self._unconditional[id(sampler)]


def known_ends(ends: Float[np.ndarray, "B 2 h w C"], pairs: Sequence[PreparedPair]) -> Float[np.ndarray, "B 2 h w C"]:
    """Latents of end frames, zero as those of all other frames where nothing is known of the last one.

    The published code has no such clips; so a picture that is not there is given as it is for the frames between
    (spec section 1).
    """
    known = ends.copy()
    known[[pair.open_end for pair in pairs], 1] = 0
    return known


def _hints(pairs: Sequence[PreparedPair]) -> np.ndarray | None:
    """Hints (B, T, H, W, 1) of all pairs, zeros for those without; None where no pair has any."""
    blank = next((np.zeros_like(pair.hints) for pair in pairs if pair.hints is not None), None)
    if blank is None:
        return None
    return np.stack([blank if pair.hints is None else pair.hints for pair in pairs])


def _most_sketches(hints: Float[np.ndarray, "B T H W 1"]) -> int:
    """Sketches between the ends that one clip has at most, up to a power of two, so that few numbers are compiled."""
    most = int(hints[:, 1:-1].any(axis=(2, 3, 4)).sum(axis=1).max())
    return 1 << max(0, most - 1).bit_length()


def _to_be_rounded(video: HostVideos, guided: Bool[np.ndarray, "B"]) -> HostVideos:
    """Clips that `to_uint8`, which truncates as the published code does, rounds where they are guided.

    What is carried there are pictures: truncated, those between the keys would be half a level darker than these.
    """
    return video + np.where(guided, np.float32(HALF_LEVEL), np.float32(0))[:, None, None, None, None]


def _placed(
    sampler: Sampler,
    motion: HostMotion,
    pairs: Sequence[PreparedPair],
    group: slice,
    guided: Bool[np.ndarray, "G"],
) -> Motion:
    """The motion of a group of pairs on the devices; its frames lie where those of latents do."""
    flows, share = (sampler.place(part[group], "batch", "frames") for part in motion)
    is_open = np.asarray([pair.open_end for pair in pairs])
    if not is_open.any():
        return Motion(flows, share)
    return Motion(flows, share, *(sampler.place(which, "batch") for which in (guided, is_open)))
