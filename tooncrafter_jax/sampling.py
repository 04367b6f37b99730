"""The compiled parts of sampling, for one arrangement of devices: encode, condition, denoise in chunks, decode.

Each part is one `jax.jit` function of flat parameters and arrays. Seeds, prompts, frame rates, guidance scales, the number of
steps and the pictures are all arguments, so that one compiled program serves every call of the same size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import wraps
from math import gcd, prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from tooncrafter_jax.diffusion.guidance import guide, guide_in_two_stages
from tooncrafter_jax.diffusion.loop import Chunk, run_chunk
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.diffusion.solvers import Carry, Solver
from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.clip_preprocess import preprocess
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.network import Network, Params
from tooncrafter_jax.models.unet_blocks import ContextKeys
from tooncrafter_jax.nn.logical_axes import MeshAxes, axis_rules, constrain, dividing_axes
from tooncrafter_jax.nn.platform import exact_float32, tracing_on
from tooncrafter_jax.typing import Device, Hints, Images, Latents, TokenIds, Tokens, Trajectory, Video

AllParams = Mapping[str, Params]
"""Component -> flat parameters."""

BranchedContext = Float[Array, "rows N D"]
"""Contexts of all clips in all guidance branches."""


class Guidance(NamedTuple):
    """Strengths of the conditions; all scalars, all traced.

    Attributes:
      scale: of the prompt and the image tokens together, or of the prompt alone in the three-branch variant.
      rescale: share of the prediction brought back to the conditional standard deviation.
      image_scale: of the image tokens; used in the three-branch variant only.
    """

    scale: jax.Array | float
    rescale: jax.Array | float
    image_scale: jax.Array | float = 1.0


class SketchCondition(NamedTuple):
    """What the sketch encoder needs in every step, computed once.

    Attributes:
      context: its keys and values for every branch.
      hint_features: (B, T, h, w, width).
      scale: (B,) control scale; 0 for a clip without sketches.
    """

    context: dict[str, list[ContextKeys]]
    hint_features: jax.Array
    scale: jax.Array


class Conditions(NamedTuple):
    """Everything that a run is conditioned on; its parts do not change from step to step.

    Attributes:
      concat: (B, T, h, w, C) condition latents: zero but for the first and the last frame.
      context: the denoiser's keys and values, with the branches along the batch: conditional, (image), unconditional.
      fps: (B,) integer frame rates.
      guidance: strengths.
      sketch: None without sketches.
    """

    concat: Latents
    context: dict[str, list[ContextKeys]]
    fps: jax.Array
    guidance: Guidance
    sketch: SketchCondition | None = None


def condition_latents(ends: Float[Array, "B 2 h w C"], frames: int) -> Latents:
    """(B, T, h, w, C): zeros, with the latents (B, 2, h, w, C) of the two pictures at the first and the last frame."""
    middle = jnp.zeros((ends.shape[0], frames - 2, *ends.shape[2:]), ends.dtype)
    return jnp.concatenate([ends[:, :1], middle, ends[:, 1:]], axis=1)


def sampling_mesh(devices: list[Device], rows: int, frames: int) -> Mesh | None:
    """Lays devices out for `rows` independent clips (pairs times guidance branches) of `frames` frames.

    Rows come first (axis `data`); devices left over share the frames of a clip. Those have one mesh axis for each prime
    factor (`frames_0`, `frames_1`, ...), so that a clip of 14 frames can use some of the devices that 16 frames use.

    Returns:
      The mesh, or None for a single device.
    """
    if len(devices) == 1:
        return None
    data = gcd(len(devices), rows)
    factors = prime_factors(gcd(len(devices) // data, frames))
    shape = (data, *factors, len(devices) // (data * prod(factors)))
    names = ("data", *(f"frames_{i}" for i in range(len(factors))), "idle")
    return Mesh(np.asarray(devices).reshape(shape), names, axis_types=(AxisType.Auto,) * len(names))


def prime_factors(number: int) -> list[int]:
    """Prime factors in ascending order; none for 1."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors


def mesh_rules(mesh: Mesh) -> dict[str, MeshAxes]:
    """Meaning of the models' logical axes while sampling: temporal attention trades its frames for pixels."""
    over_frames = tuple(name for name in mesh.axis_names if name.startswith("frames_"))
    return {"batch": "data", "frames": over_frames, "pixels": over_frames}


def second_pass_frames(frames: int) -> tuple[list[int], slice, slice]:
    """How the published code decodes the middle twice (spec section 5.5).

    Returns:
      The frames that the second pass decodes, the frames that it replaces, and where in the second pass they are found.
    """
    kept = list(range(frames))
    del kept[1], kept[-2]
    middle, of_kept = frames // 2, len(kept) // 2
    return kept, slice(middle - 1, middle + 1), slice(of_kept - 1, of_kept + 1)


def map_rows(fn: Callable[[Any], jax.Array], rows: Any, at_a_time: int) -> jax.Array:
    """fn(rows), for a tree of arrays with a common leading axis, computed on `at_a_time` entries of it at a time.

    Args:
      fn: treats the entries independently.
      rows: a tree of arrays (rows, ...).
      at_a_time: must divide the number of rows, unless it is larger.

    Returns:
      (rows, ...).
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if at_a_time >= count:
        return fn(rows)
    groups = jax.tree.map(lambda x: x.reshape(count // at_a_time, at_a_time, *x.shape[1:]), rows)
    out = jax.lax.map(fn, groups)
    return out.reshape(count, *out.shape[2:])


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
        networks: Mapping[str, Network[Any]],
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
        self.initial_noise = self._jit(self._initial_noise, static_argnames=("frames", "frame_shape"))
        self.context_keys = self._jit(self._context_keys, static_argnames=("frames",))
        self.sketch_condition = self._jit(self._sketch_condition)
        self.denoise = self._jit(
            self._denoise, static_argnames=("solver", "branches", "with_predictions"), donate_argnames=("carry",)
        )
        self.decode = self._jit(self._decode, static_argnames=("frames_per_chunk",))

    def _jit(self, fn: Callable[..., Any], **kwargs: Any) -> Any:
        """`jax.jit` of a method, traced for these devices: their platform, their mesh, and float32 that is float32."""
        mesh = self.mesh
        dtype = self.networks["unet"].dtype

        @wraps(fn)
        def traced(*args: Any, **kw: Any) -> Any:
            with tracing_on(self.device), contextlib.ExitStack() as stack:
                if mesh is not None:
                    stack.enter_context(axis_rules(mesh, self.rules))
                stack.enter_context(exact_float32(dtype))
                return fn(*args, **kw)

        return jax.jit(traced, **kwargs)

    @property
    def shares_frames(self) -> bool:
        """Whether the frames of a clip are spread over devices."""
        return bool(self.rules.get("frames"))

    def place(self, x: Any, *names: str | None) -> jax.Array:
        """Puts a host array on the mesh, its axes laid out by logical name ("batch", "frames") and else replicated."""
        if self.mesh is None:
            return jax.device_put(x, self.device)
        spec = [
            dividing_axes(self.mesh, self.rules.get(n or ""), size) for n, size in zip(names, np.shape(x), strict=False)
        ]
        return jax.device_put(x, NamedSharding(self.mesh, PartitionSpec(*spec)))

    def _rows_at_a_time(self, rows: int) -> int:
        """How many of the independent rows run together.

        Where devices share the frames of a clip, each of them works on one row at a time: a merged (rows, frames) axis of which
        both parts are sharded has no simple layout, and resharding would cost more than the sharing gains.
        """
        return self.mesh.shape["data"] if self.mesh is not None and self.shares_frames else rows

    # ---------------------------------------------------------------------------------------------------------- encoding

    def _text(self, params: AllParams, token_ids: TokenIds) -> Tokens:
        """Text tokens (B, 77, D) of prompts."""
        return self.networks["clip_text"].bind(params["clip_text"])(token_ids)

    def _clip_pixels(self, images: Images) -> Float[Array, "B S S 3"]:
        """Pictures in [-1, 1] of any size as the image tower wants them."""
        return preprocess(images, self.config.clip_image.image_size)

    def _image_tokens(self, params: AllParams, pixels: Images) -> Tokens:
        """Image tokens (B, frames x tokens, D) of preprocessed first pictures."""
        tokens = self.networks["clip_image"].bind(params["clip_image"])(pixels)
        return self.networks["image_projector"].bind(params["image_projector"])(tokens)

    def _encode(
        self, params: AllParams, ends: Video, seeds: jax.Array, noise: Latents | None = None, *, last: int | jax.Array
    ) -> tuple[Latents, References | None]:
        """The first and the last picture (B, 2, H, W, 3) to scaled latents (B, 2, h, w, C) and the decoder's references.

        `noise` (B, 2, h, w, C) replaces the posterior noise drawn from the seeds for frames 0 and `last`.
        """
        moments, hidden = self.networks["autoencoder"].bind(params["autoencoder"])(ends)
        posterior = Posterior.from_moments(moments)
        if noise is None:
            frames = jnp.asarray([0, last])
            noise = clip_noise(seeds, Stream.POSTERIOR, frames, posterior.mean.shape[2:])
        latents = self.config.schedule.scale_factor * posterior.sample(noise)
        if not self.config.decoder.references:
            return latents, None
        return latents, self.networks["decoder"].bind(params["decoder"]).prepare_references(hidden)

    # --------------------------------------------------------------------------------------------------------- denoising

    def _initial_noise(self, seeds: jax.Array, *, frames: int, frame_shape: tuple[int, ...]) -> Latents:
        return clip_noise(seeds, Stream.INITIAL, jnp.arange(frames), frame_shape)

    def _context_keys(
        self, params: AllParams, context: BranchedContext, *, frames: int
    ) -> dict[str, list[ContextKeys]]:
        """The denoiser's keys and values of contexts (branches x B, 77 + M, D)."""
        return self.networks["unet"].bind(params["unet"]).context_keys(context, frames)

    def _sketch_condition(
        self, params: AllParams, context: BranchedContext, hints: Hints, scale: jax.Array
    ) -> SketchCondition:
        encoder = self.networks["sketch_encoder"].bind(params["sketch_encoder"])
        return SketchCondition(encoder.context_keys(context), encoder.hint_features(hints), scale)

    def _denoise(
        self,
        params: AllParams,
        carry: Carry,
        chunk: Chunk,
        seeds: jax.Array,
        conditions: Conditions,
        *,
        solver: Solver,
        branches: int,
        with_predictions: bool = False,
        noise: Trajectory | None = None,
    ) -> tuple[Carry, Trajectory | None]:
        """A chunk of sampling steps.

        Args:
          params: components `unet` and, with sketches, `sketch_encoder`.
          carry: the solver's, before the chunk; donated.
          chunk: the solver's rows.
          seeds: (B,) uint32.
          conditions: see there.
          solver: what is made of the predictions.
          branches: 1 without guidance, 2 with, 3 for the three-branch variant.
          with_predictions: whether to return the clean latents predicted at each step.
          noise: (rows, B, T, h, w, C), replaces the noise drawn from the seeds.
        """
        batch, frames = conditions.concat.shape[:2]
        unet = self.networks["unet"].bind(params["unet"])
        sketch = conditions.sketch
        encoder = None if sketch is None else self.networks["sketch_encoder"].bind(params["sketch_encoder"])

        def every_branch(value: jax.Array) -> jax.Array:
            return jnp.concatenate([value] * branches)

        def predict(row: dict[str, Any]) -> Latents:
            """The prediction for some rows: clips in some branch."""
            noisy = constrain(row["noisy"], "batch", "frames", None, None, None)
            concat = constrain(row["concat"], "batch", "frames", None, None, None)
            controls = None
            if encoder is not None:
                scale = row["control_scale"][:, None, None, None, None]
                controls = encoder(noisy, row["times"], row["sketch_context"], row["hint_features"])
                controls = [control * scale.astype(control.dtype) for control in controls]
            model_input = jnp.concatenate([noisy, concat], axis=-1)
            v = unet(model_input, row["times"], row["context"], row["fps"], controls=controls)
            return constrain(v.astype(jnp.float32), "batch", "frames", None, None, None)

        def denoise(x: Latents, timestep: jax.Array) -> Latents:
            rows: dict[str, Any] = {
                "noisy": every_branch(x),
                "concat": every_branch(conditions.concat),
                "times": jnp.full((branches * batch,), timestep, jnp.int32),
                "fps": every_branch(conditions.fps),
                "context": conditions.context,
            }
            if sketch is not None:
                rows["hint_features"] = every_branch(sketch.hint_features)
                rows["control_scale"] = every_branch(sketch.scale)
                rows["sketch_context"] = sketch.context
            v = map_rows(predict, rows, self._rows_at_a_time(branches * batch))
            strength = conditions.guidance
            if branches == 1:
                return v
            if branches == 2:
                cond, uncond = jnp.split(v, 2)
                return guide(cond, uncond, strength.scale, strength.rescale)
            cond, image, uncond = jnp.split(v, 3)
            return guide_in_two_stages(cond, image, uncond, strength.scale, strength.image_scale, strength.rescale)

        def noise_of_row(index: jax.Array) -> Latents:
            if noise is not None:
                return noise[index - chunk.index[0]]
            drawn = clip_noise(seeds, Stream.STEP, jnp.arange(frames), conditions.concat.shape[2:], index)
            return constrain(drawn, None, "frames", None, None, None)

        return run_chunk(solver, denoise, carry, chunk, noise_of_row, with_predictions=with_predictions)

    # ---------------------------------------------------------------------------------------------------------- decoding

    def _decode(
        self,
        params: AllParams,
        latents: Latents,
        references: References | None,
        *,
        frames_per_chunk: int | None = None,
    ) -> Video:
        """Scaled latents (B, T, h, w, C) to frames (B, T, H, W, 3), float32, about [-1, 1]."""
        decoder = self.networks["decoder"].bind(params["decoder"])
        latents = latents / self.config.schedule.scale_factor
        return decoder(latents, references, frames_per_chunk=frames_per_chunk).astype(jnp.float32)

    def decode_twice(
        self,
        params: AllParams,
        latents: Latents,
        references: References | None,
        *,
        second_pass: bool = True,
        frames_per_chunk: int | None = None,
        window: int | None = None,
        observe: Callable[[str, jax.Array], None] | None = None,
    ) -> Video:
        """Decodes a clip, and its middle once more among other neighbours (spec section 5.5).

        Args:
          params: component `decoder`.
          latents: (B, T, h, w, C), scaled.
          references: of the two end frames.
          second_pass: whether the clip is decoded again without frames 1 and T-2, to take the two middle frames from that.
          frames_per_chunk: how many frames are worked on at a time, with the same result; None for all.
          window: how many frames the decoder sees at a time, with another result at its borders; None for all.
          observe: called with `first_pass` and `second_pass` and their frames.

        Returns:
          (B, T, H, W, 3), float32, about [-1, 1].
        """
        observe = observe or (lambda name, value: None)

        def decode(latents: Latents) -> Video:
            frames = latents.shape[1]
            size = window or frames
            parts = [
                self.decode(params, latents[:, i : i + size], references, frames_per_chunk=frames_per_chunk)
                for i in range(0, frames, size)
            ]
            return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)

        video = decode(latents)
        observe("first_pass", video)
        if not second_pass:
            return video
        kept, replaced, found = second_pass_frames(latents.shape[1])
        again = decode(latents[:, np.asarray(kept)])
        observe("second_pass", again)
        return video.at[:, replaced].set(again[:, found])
