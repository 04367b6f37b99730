"""The compiled parts of sampling, for one arrangement of devices: encode, condition, denoise in chunks, decode.

Each part is one `jax.jit` function of flat parameters and arrays. Seeds, prompts, frame rates, guidance scales, the number of
steps and the pictures are all arguments, so that one compiled program serves every call of the same size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import Array, Float, Shaped, UInt32

from tooncrafter_jax.diffusion.loop import Chunk, chunks
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.objective import noisy_target
from tooncrafter_jax.diffusion.schedule import NoiseSchedule
from tooncrafter_jax.diffusion.solvers import Carry, Solver
from tooncrafter_jax.diffusion.solvers.solver import Rows, number_of_rows
from tooncrafter_jax.models.clip_preprocess import preprocess
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.network import AnyNetwork
from tooncrafter_jax.models.tokenizer import tokenizer
from tooncrafter_jax.models.tooncrafter import (
    BoundModel,
    Conditions,
    Kept,
    Moments,
    SketchCondition,
    condition_latents,
    draw_latents,
    guided_by_motion,
)
from tooncrafter_jax.models.unet_blocks import ContextKeys
from tooncrafter_jax.nn.logical_axes import axis_rules, constrain, dividing_axes
from tooncrafter_jax.nn.platform import exact_float32, tracing_on
from tooncrafter_jax.runtime.compiler_options import compiler_options
from tooncrafter_jax.runtime.kept_programs import KeptFunction
from tooncrafter_jax.sampling.denoise import Guidance, Remembered, denoise_chunk
from tooncrafter_jax.sampling.feature_reuse import Reuse
from tooncrafter_jax.sampling.sampling_mesh import mesh_rules
from tooncrafter_jax.typing import (
    AllParams,
    Device,
    FramesPerSecond,
    Hints,
    Images,
    Latents,
    Params,
    PyTree,
    TokenIds,
    Tokens,
    Trajectory,
    Video,
)

UnconditionalTokens = tuple[Float[Array, "1 L D"], Float[Array, "1 M D"]]
"""Tokens of the empty prompt, and of the all-zero picture."""
LeadingAway = tuple[Float[Array, "texts L D"], Float[Array, "1 M D"]]
"""What guidance leads away from: the same, or with tokens of a negative prompt for each clip."""
Seeds = UInt32[Array, "B"]
"""Of the clips."""
BranchedContext = Float[Array, "rows N D"]
"""Contexts of all clips in all guidance branches."""


class Sampled(NamedTuple):
    """Where sampling stands after a chunk of rows.

    Attributes:
      done: rows that were run.
      latents: (B, T, h, w, C).
      predictions: (rows of the chunk, B, T, h, w, C) clean latents that were predicted, or None.
    """

    done: int
    latents: Latents
    predictions: Trajectory | None


class Sampler:
    """Jitted functions for one mesh.

    Args:
      config: the model's architecture and diffusion constants.
      networks: the components; see `ModelConfig.networks`.
      mesh: from `sampling_mesh`; None for one device.
      device: that one; by default JAX's first.

    Attributes:
      config, networks, mesh: as given.
      device: the first device.
      rules: meaning of the logical axes.
    """

    def __init__(
        self,
        config: ModelConfig,
        networks: Mapping[str, AnyNetwork],
        mesh: Mesh | None = None,
        device: Device | None = None,
    ) -> None:
        self.config, self.networks, self.mesh = config, networks, mesh
        self.device: Device = (device or jax.devices()[0]) if mesh is None else mesh.devices.flat[0]
        self.rules = {} if mesh is None else mesh_rules(mesh)
        self.text = self._jit(self._text)
        self.clip_pixels = self._jit(self._clip_pixels)
        self.image_tokens = self._jit(self._image_tokens)
        self.encode = self._jit(self._encode)
        self.end_latents = self._jit(self._end_latents)
        self.encode_clip = self._jit(self._encode_clip, static_argnames=("frames_at_a_time",))
        self.noised = self._jit(self._noised)
        self.initial_noise = self._jit(self._initial_noise, static_argnames=("frames", "frame_shape"))
        self.context_keys = self._jit(self._context_keys, static_argnames=("frames",))
        self.sketch_condition = self._jit(self._sketch_condition)
        self.motion = self._jit(self._motion, static_argnames=("frames", "most_sketches"))
        self.guided_by_motion = self._jit(self._guided_by_motion)
        self.nothing_kept = self._jit(
            self._nothing_kept, static_argnames=("rows", "frames", "frame_size", "blocks", "with_controls")
        )
        self.denoise = self._jit(
            self._denoise,
            static_argnames=("solver", "branches", "with_predictions", "in_sequence", "reused_blocks"),
            donate_argnames=("carry",),
        )
        self.decode = self._jit(self._decode, static_argnames=("frames_per_chunk", "tile_size"))

    def _jit(
        self,
        fn: Callable[..., PyTree],
        static_argnames: Sequence[str] | None = None,
        donate_argnames: Sequence[str] | None = None,
    ) -> KeptFunction:
        """`jax.jit` of a method, traced for these devices: their platform, their mesh, and float32 that is float32."""
        mesh = self.mesh
        dtype = self.networks["unet"].dtype

        @wraps(fn)
        def traced(*args: PyTree, **kw: PyTree) -> PyTree:
            with tracing_on(self.device), contextlib.ExitStack() as stack:
                if mesh is not None:
                    stack.enter_context(axis_rules(mesh, self.rules))
                stack.enter_context(exact_float32(dtype))
                return fn(*args, **kw)

        jitted = jax.jit(
            traced,
            static_argnames=static_argnames,
            donate_argnames=donate_argnames,
            compiler_options=compiler_options(self.device),
        )
        networks = {name: (network.dtype, network.attention) for name, network in self.networks.items()}
        layout = None if mesh is None else (mesh.shape, self.rules)
        return KeptFunction(jitted, static_argnames or (), repr((self.config, networks, layout)))

    def _model(self, params: AllParams) -> BoundModel:
        return BoundModel(self.config, lambda name: self.networks[name].bind(params[name]))

    @property
    def shares_frames(self) -> bool:
        """Whether the frames of a clip are spread over devices."""
        return bool(self.rules.get("frames"))

    def layout(self, shape: Sequence[int], *names: str | None) -> Sharding:
        """Where an array lies whose leading axes have logical names ("batch", "frames"); whole on each device without."""
        if self.mesh is None:
            return SingleDeviceSharding(self.device)
        axes = [dividing_axes(self.mesh, self.rules.get(n or ""), side) for n, side in zip(names, shape, strict=False)]
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def place(
        self, x: Shaped[Array, "*shape"] | Shaped[np.ndarray, "*shape"], *names: str | None
    ) -> Shaped[Array, "*shape"]:
        """Puts a host array on the devices, its axes laid out by logical name ("batch", "frames") and else replicated."""
        return jax.device_put(x, self.layout(np.shape(x), *names))

    def _rows_at_a_time(self, rows: int) -> int:
        """How many of the independent rows run together.

        Where devices share the frames of a clip, each of them works on one row at a time: a merged (rows, frames) axis of which
        both parts are sharded has no simple layout, and resharding would cost more than the sharing gains.
        """
        return self.mesh.shape["data"] if self.mesh is not None and self.shares_frames else rows

    # ---------------------------------------------------------------------------------------------------------- encoding

    def _text(self, params: AllParams, token_ids: TokenIds) -> Tokens:
        """Text tokens (B, 77, D) of prompts."""
        return self._model(params).text_tokens(token_ids)

    def _clip_pixels(self, images: Images) -> Float[Array, "B S S 3"]:
        """Pictures in [-1, 1] of any size as the image tower wants them."""
        return preprocess(images, self.config.clip_image.image_size)

    def _image_tokens(self, params: AllParams, pixels: Images) -> Tokens:
        """Image tokens (B, frames x tokens, D) of preprocessed first pictures."""
        model = self._model(params)
        return model.image_tokens(model.network("clip_image")(pixels))

    def _encode(self, params: AllParams, ends: Video) -> tuple[Moments, References | None]:
        """Moments of the latents (B, 2, h, w, 2C) of the first and the last picture (B, 2, H, W, 3), and what the decoder
        refers to of both.
        """
        model = self._model(params)
        moments, hidden = model.encode(ends)
        return moments, model.references(hidden, ends)

    def _end_latents(
        self, moments: Moments, seeds: jax.Array, noise: Latents | None = None, *, last: int | jax.Array
    ) -> Latents:
        """Scaled latents (B, 2, h, w, C) of the first and the last picture, of their moments.

        `noise` (B, 2, h, w, C) replaces the posterior noise drawn from the seeds for frames 0 and `last`.
        """
        return self._model({}).end_latents(moments, seeds, last, noise)

    def _encode_clip(
        self, params: AllParams, video: Video, seeds: jax.Array, *, frames_at_a_time: int | None = None
    ) -> Latents:
        """Whole clips (B, T, H, W, 3) in [-1, 1] to scaled latents, so many frames at a time."""
        moments = self._model(params).moments(video, frames_at_a_time)
        return self.config.schedule.scale_factor * draw_latents(moments, seeds)

    def _noised(self, latents: Latents, noise: Latents, timestep: jax.Array) -> Latents:
        """Scaled latents with the noise of a diffusion time."""
        times = jnp.full(latents.shape[0], timestep, jnp.int32)
        return noisy_target(NoiseSchedule(self.config.schedule), latents, noise, times).noisy

    def _motion(
        self,
        params: AllParams,
        ends: Video,
        hints: Hints | None = None,
        *,
        frames: int,
        most_sketches: int | None = None,
    ) -> Motion:
        """Motion in pixels between the first and the last picture (B, 2, H, W, 3), for clips of so many frames."""
        return self._model(params).motion(ends, frames, hints, most_sketches)

    # --------------------------------------------------------------------------------------------------------- denoising

    def _initial_noise(self, seeds: jax.Array, *, frames: int, frame_shape: tuple[int, ...]) -> Latents:
        return clip_noise(seeds, Stream.INITIAL, jnp.arange(frames), frame_shape)

    def _context_keys(
        self, params: AllParams, context: BranchedContext, *, frames: int
    ) -> dict[str, list[ContextKeys]]:
        """The denoiser's keys and values of contexts (branches x B, 77 + M, D)."""
        return self._model(params).context_keys(context, frames)

    def _sketch_condition(
        self, params: AllParams, context: BranchedContext, hints: Hints, scale: jax.Array
    ) -> SketchCondition:
        return self._model(params).sketch_condition(context, hints, scale)

    def _guided_by_motion(self, concat: Latents, motion: Motion) -> tuple[Latents, tuple[Motion, ...] | None]:
        return guided_by_motion(concat, motion, self.config)

    def unconditional_tokens(self, params: AllParams) -> UnconditionalTokens:
        """Tokens of the empty prompt (1, 77, D) and of the all-zero picture (1, M, D) (spec section 6.4)."""
        size = self.config.clip_image.image_size
        pixels = self.clip_pixels(self.place(np.zeros((1, size, size, 3), np.float32)))
        text = self.text(only(params, "clip_text"), self.place(tokenizer()([""])))
        return text, self.image_tokens(only(params, "clip_image", "image_projector"), pixels)

    def conditions(
        self,
        params: AllParams,
        ends: Float[Array, "B 2 h w C"],
        frames: int,
        contexts: BranchedContext,
        fps: FramesPerSecond,
        hints: Hints | None = None,
        scale: Float[Array, "B"] | None = None,
        motion: Motion | None = None,
    ) -> Conditions:
        """Everything that stays the same from step to step.

        Args:
          params: components `unet` and, with sketches, `sketch_encoder`.
          ends: scaled latents of both pictures.
          frames: of a clip.
          contexts: of every branch, see `branch_contexts`.
          fps: frame rates.
          hints: sketches, or None.
          scale: of their control; needed with them.
          motion: between the two pictures, in pixels; None for no motion guidance.
        """
        sketch = None
        if hints is not None:
            sketch = self.sketch_condition(only(params, "sketch_encoder"), contexts, hints, scale)
        keys = self.context_keys(only(params, "unet"), contexts, frames=frames)
        concat, levels = condition_latents(ends, frames), None
        if motion is not None:
            concat, levels = self.guided_by_motion(concat, motion)
        return Conditions(concat, keys, fps, sketch, levels)

    def sample(
        self,
        params: AllParams,
        x: Latents,
        seeds: Seeds,
        conditions: Conditions,
        guidance: Guidance,
        *,
        solver: Solver,
        rows: Rows,
        branches: int,
        rows_per_chunk: int | None = None,
        with_predictions: bool = False,
        in_sequence: bool = False,
        noise: Float[np.ndarray, "K B T h w C"] | None = None,
        reuse: Reuse | None = None,
    ) -> Iterator[Sampled]:
        """Runs a solver over all of its rows, chunk by chunk; what a chunk gives is valid until the next one is asked for.

        Args:
          params: components `unet` and, with sketches, `sketch_encoder`.
          x: (B, T, h, w, C) noise to start from; given up.
          seeds: (B,) uint32.
          conditions: of the clips, in every branch.
          guidance: strengths.
          solver: what is made of the predictions.
          rows: the solver's.
          branches: 1 without guidance, 2 with, 3 for the three-branch variant.
          rows_per_chunk: rows of a chunk; None for all in one.
          with_predictions: whether the clean latents predicted for each row are wanted.
          in_sequence: whether one branch is predicted after another, which needs less memory, instead of all together.
          noise: (rows, B, T, h, w, C), instead of what the seeds draw.
          reuse: how features of the denoiser are reused; None: all are computed in every row.
        """
        size, done, carry, fresh = rows_per_chunk or number_of_rows(rows), 0, solver.init(x), None
        if reuse is not None:
            clips, frames, height, width, _ = x.shape
            kept = self.nothing_kept(
                rows=branches * clips,
                frames=frames,
                frame_size=(height, width),
                blocks=reuse.blocks,
                with_controls=conditions.sketch is not None,
            )
            carry = Remembered(carry, kept)
            fresh = reuse.fresh(np.asarray(rows.timestep), _on_host(guidance.times))
        used = only(params, "unet", *(() if conditions.sketch is None else ("sketch_encoder",)))
        for chunk in chunks(rows, size, fresh):
            carry, predictions = self.denoise(
                used,
                carry,
                chunk,
                seeds,
                conditions,
                guidance,
                solver=solver,
                branches=branches,
                with_predictions=with_predictions,
                in_sequence=in_sequence,
                noise=None if noise is None else self.place(noise[done : done + size]),
                reused_blocks=None if reuse is None else reuse.blocks,
            )
            active = int(np.sum(chunk.active))
            done += active
            latents = solver.latents(carry.carry if isinstance(carry, Remembered) else carry)
            yield Sampled(done, latents, None if predictions is None else predictions[:active])

    def _nothing_kept(
        self, *, rows: int, frames: int, frame_size: tuple[int, int], blocks: int, with_controls: bool
    ) -> Kept:
        """Zeros in the place of what a whole prediction keeps."""
        unet, dtype = self.config.unet, self.networks["unet"].dtype

        def zeros(channels: int) -> jax.Array:
            x = jnp.zeros((rows, frames, *frame_size, channels), dtype)
            return constrain(x, "batch", "frames", None, None, None)

        widths = (unet.width, *[unet.width * unet.multipliers[0]] * (blocks - 1)) if with_controls else ()
        return Kept(zeros(unet.reused_channels(blocks)), tuple(zeros(width) for width in widths))

    def _denoise(
        self,
        params: AllParams,
        carry: Carry | Remembered,
        chunk: Chunk,
        seeds: Seeds,
        conditions: Conditions,
        guidance: Guidance,
        *,
        solver: Solver,
        branches: int,
        with_predictions: bool = False,
        in_sequence: bool = False,
        noise: Trajectory | None = None,
        reused_blocks: int | None = None,
    ) -> tuple[Carry | Remembered, Trajectory | None]:
        """`denoise_chunk` with the components `unet` and, with sketches, `sketch_encoder`; the carry is donated."""
        return denoise_chunk(
            self._model(params),
            carry,
            chunk,
            seeds,
            conditions,
            guidance,
            solver=solver,
            branches=branches,
            rows_at_a_time=self._rows_at_a_time((1 if in_sequence else branches) * conditions.concat.shape[0]),
            with_predictions=with_predictions,
            noise=noise,
            reused_blocks=reused_blocks,
        )

    # ---------------------------------------------------------------------------------------------------------- decoding

    def _decode(
        self,
        params: AllParams,
        latents: Latents,
        references: References | None,
        motion: Motion | None = None,
        *,
        frames_per_chunk: int | None = None,
        tile_size: int | None = None,
    ) -> Video:
        """Scaled latents (B, T, h, w, C) to frames (B, T, H, W, 3), float32, about [-1, 1]."""
        return self._model(params).decode(latents, references, frames_per_chunk, motion, tile_size)


def _on_host(
    times: tuple[jax.Array | np.ndarray, jax.Array | np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    return None if times is None else (np.asarray(times[0]), np.asarray(times[1]))


def only(params: AllParams, *components: str) -> dict[str, Params]:
    """The parameters of these components, of those that there are."""
    return {name: params[name] for name in components if name in params}


def branch_contexts(
    text: Float[Array, "B L D"],
    image: Float[Array, "B M D"],
    unconditional: LeadingAway | None,
    branches: int,
) -> BranchedContext:
    """Contexts of clips in every guidance branch, one after another: conditional, (image), unconditional.

    Args:
      text: (B, 77, D) tokens of the prompts.
      image: (B, M, D) tokens of the first pictures.
      unconditional: of the empty or the negative prompts and the all-zero picture; not needed for one branch.
      branches: 1 without guidance, 2 with, 3 for the three-branch variant.
    """
    contexts = [jnp.concatenate([text, image], axis=1)]
    if branches > 1 and unconditional is not None:
        empty_text, zero_image = (
            jnp.broadcast_to(a, b.shape) for a, b in zip(unconditional, (text, image), strict=True)
        )
        if branches == 3:
            contexts.append(jnp.concatenate([empty_text, image], axis=1))
        contexts.append(jnp.concatenate([empty_text, zero_image], axis=1))
    return jnp.concatenate(contexts)
