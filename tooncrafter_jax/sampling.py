"""The compiled parts of sampling, for one arrangement of devices: encode, condition, denoise in chunks, decode.

Each part is one `jax.jit` function of flat parameters and arrays. Seeds, prompts, frame rates, guidance scales, the number of
steps and the pictures are all arguments, so that one compiled program serves every call of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from math import gcd
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tooncrafter_jax.diffusion.ddim import Steps, sample_chunk
from tooncrafter_jax.diffusion.guidance import guide, guide_in_two_stages
from tooncrafter_jax.diffusion.noise import Stream, clip_noise
from tooncrafter_jax.models.autoencoder import Posterior
from tooncrafter_jax.models.clip_preprocess import preprocess
from tooncrafter_jax.models.configuration import ModelConfig
from tooncrafter_jax.models.dual_reference_decoder import References
from tooncrafter_jax.models.network import Network, Params
from tooncrafter_jax.models.unet_blocks import ContextKeys
from tooncrafter_jax.nn.logical_axes import axis_rules, constrain
from tooncrafter_jax.typing import Context, Hints, Images, Latents, TokenIds, Tokens, Video

AllParams = Mapping[str, Params]
"""Component -> flat parameters."""

AXIS_RULES = {"batch": "data", "frames": "frames", "pixels": "frames"}
"""Meaning of the models' logical axes while sampling: temporal attention trades its frames for pixels."""


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


def condition_latents(ends: Latents, frames: int) -> Latents:
    """(B, T, h, w, C): zeros, with the latents (B, 2, h, w, C) of the two pictures at the first and the last frame."""
    middle = jnp.zeros((ends.shape[0], frames - 2, *ends.shape[2:]), ends.dtype)
    return jnp.concatenate([ends[:, :1], middle, ends[:, 1:]], axis=1)


def sampling_mesh(devices: list[jax.Device], rows: int, frames: int) -> Mesh | None:
    """Lays devices out for `rows` independent clips (pairs times guidance branches) of `frames` frames.

    Rows come first; what devices are left over share the frames of a clip. None for a single device.
    """
    if len(devices) == 1:
        return None
    data = gcd(len(devices), rows)
    over_frames = gcd(len(devices) // data, frames)
    shape = (data, over_frames, len(devices) // (data * over_frames))
    return Mesh(np.asarray(devices).reshape(shape), ("data", "frames", "idle"), axis_types=(AxisType.Auto,) * 3)


def second_pass_frames(frames: int) -> tuple[list[int], slice, slice]:
    """How the published code decodes the middle twice (spec section 5.5).

    Returns:
      The frames that the second pass decodes, the frames that it replaces, and where in the second pass they are found.
    """
    kept = list(range(frames))
    del kept[1], kept[-2]
    middle, of_kept = frames // 2, len(kept) // 2
    return kept, slice(middle - 1, middle + 1), slice(of_kept - 1, of_kept + 1)


class Sampler:
    """Jitted functions for one mesh.

    Args:
      config: the model's architecture and diffusion constants.
      networks: the components; see `ModelConfig.networks`.
      mesh: from `sampling_mesh`; None for one device.
    """

    def __init__(self, config: ModelConfig, networks: Mapping[str, Network[Any]], mesh: Mesh | None = None) -> None:
        self.config, self.networks, self.mesh = config, networks, mesh
        self.text = self._jit(self._text)
        self.clip_pixels = self._jit(self._clip_pixels)
        self.image_tokens = self._jit(self._image_tokens)
        self.encode = self._jit(self._encode)
        self.initial_noise = self._jit(self._initial_noise, static_argnames=("frames", "frame_shape"))
        self.context_keys = self._jit(self._context_keys, static_argnames=("frames",))
        self.sketch_condition = self._jit(self._sketch_condition)
        self.denoise = self._jit(
            self._denoise, static_argnames=("branches", "with_predictions"), donate_argnames=("x",)
        )
        self.decode = self._jit(self._decode, static_argnames=("frames_per_chunk",))

    def _jit(self, fn: Callable[..., Any], **kwargs: Any) -> Any:
        """`jax.jit` of a method, with the logical axes meaning this mesh while it is traced."""
        if self.mesh is None:
            return jax.jit(fn, **kwargs)
        mesh = self.mesh

        @wraps(fn)
        def with_rules(*args: Any, **kw: Any) -> Any:
            with axis_rules(mesh, AXIS_RULES):
                return fn(*args, **kw)

        return jax.jit(with_rules, **kwargs)

    def place(self, x: Any, *axes: str | None) -> jax.Array:
        """Puts a host array on the mesh, replicated but for the named axes where the devices divide them."""
        if self.mesh is None:
            return jnp.asarray(x)
        sizes = np.shape(x)
        spec = [a if a and sizes[i] % self.mesh.shape[a] == 0 else None for i, a in enumerate(axes)]
        return jax.device_put(x, NamedSharding(self.mesh, PartitionSpec(*spec)))

    # ---------------------------------------------------------------------------------------------------------- encoding

    def _text(self, params: AllParams, token_ids: TokenIds) -> Tokens:
        """Text tokens (B, 77, D) of prompts."""
        return self.networks["clip_text"].bind(params["clip_text"])(token_ids)

    def _clip_pixels(self, images: Images) -> Images:
        """Pictures in [-1, 1] of any size as the image tower wants them."""
        return preprocess(images, self.config.clip_image.image_size)

    def _image_tokens(self, params: AllParams, pixels: Images) -> Tokens:
        """Image tokens (B, frames x tokens, D) of preprocessed first pictures."""
        tokens = self.networks["clip_image"].bind(params["clip_image"])(pixels)
        return self.networks["image_projector"].bind(params["image_projector"])(tokens)

    def _encode(
        self, params: AllParams, ends: Video, seeds: jax.Array, noise: Latents | None = None, last: int | jax.Array = 15
    ) -> tuple[Latents, References | None]:
        """The first and the last picture (B, 2, H, W, 3) to scaled latents (B, 2, h, w, C) and the decoder's references.

        `noise` replaces the posterior noise drawn from the seeds for frames 0 and `last`.
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

    def _initial_noise(self, seeds: jax.Array, *, frames: int, frame_shape: tuple[int, int, int]) -> Latents:
        return clip_noise(seeds, Stream.INITIAL, jnp.arange(frames), frame_shape)

    def _context_keys(self, params: AllParams, context: Context, *, frames: int) -> dict[str, list[ContextKeys]]:
        """The denoiser's keys and values of contexts (branches x B, 77 + M, D)."""
        return self.networks["unet"].bind(params["unet"]).context_keys(context, frames)

    def _sketch_condition(self, params: AllParams, context: Context, hints: Hints, scale: jax.Array) -> SketchCondition:
        encoder = self.networks["sketch_encoder"].bind(params["sketch_encoder"])
        return SketchCondition(encoder.context_keys(context), encoder.hint_features(hints), scale)

    def _denoise(
        self,
        params: AllParams,
        x: Latents,
        steps: Steps,
        seeds: jax.Array,
        conditions: Conditions,
        *,
        branches: int,
        with_predictions: bool = False,
        noise: Latents | None = None,
    ) -> tuple[Latents, Latents | None]:
        """A chunk of sampling steps.

        Args:
          params: components `unet` and, with sketches, `sketch_encoder`.
          x: (B, T, h, w, C) float32 latents before the chunk; donated.
          steps: the chunk's rows.
          seeds: (B,) uint32.
          conditions: see there.
          branches: 1 without guidance, 2 with, 3 for the three-branch variant.
          with_predictions: whether to return the clean latents predicted at each step.
          noise: (chunk, B, T, h, w, C), replaces the noise drawn from the seeds.
        """
        batch, frames = x.shape[:2]
        unet = self.networks["unet"].bind(params["unet"])
        sketch = conditions.sketch
        encoder = None if sketch is None else self.networks["sketch_encoder"].bind(params["sketch_encoder"])

        def every_branch(value: jax.Array) -> jax.Array:
            value = jnp.concatenate([value] * branches)
            axes = ("batch", "frames", None, None, None) if value.ndim == 5 else ("batch",)
            return constrain(value, *axes)

        def denoise(x: Latents, timestep: jax.Array) -> Latents:
            times = jnp.full((branches * batch,), timestep, jnp.int32)
            noisy = every_branch(x)
            controls = None
            if sketch is not None and encoder is not None:
                scale = every_branch(sketch.scale)[:, None, None, None, None]
                controls = encoder(noisy, times, sketch.context, every_branch(sketch.hint_features))
                controls = [control * scale.astype(control.dtype) for control in controls]
            model_input = jnp.concatenate([noisy, every_branch(conditions.concat)], axis=-1)
            v = unet(model_input, times, conditions.context, every_branch(conditions.fps), controls=controls)
            v = v.astype(jnp.float32)
            strength = conditions.guidance
            if branches == 1:
                return v
            if branches == 2:
                cond, uncond = jnp.split(v, 2)
                return guide(cond, uncond, strength.scale, strength.rescale)
            cond, image, uncond = jnp.split(v, 3)
            return guide_in_two_stages(cond, image, uncond, strength.scale, strength.image_scale, strength.rescale)

        def noise_of_step(index: jax.Array) -> Latents:
            if noise is not None:
                return noise[index - steps.index[0]]
            drawn = clip_noise(seeds, Stream.STEP, jnp.arange(frames), x.shape[2:], index)
            return constrain(drawn, None, "frames", None, None, None)

        return sample_chunk(denoise, x, steps, noise_of_step, with_predictions=with_predictions)

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
    ) -> Video:
        """Decodes, then (`second_pass`) decodes again without frames 1 and T-2 and takes the two middle frames from that."""
        decode = partial(self.decode, params, references=references, frames_per_chunk=frames_per_chunk)
        video = decode(latents)
        if not second_pass:
            return video
        kept, replaced, found = second_pass_frames(latents.shape[1])
        again = decode(latents[:, np.asarray(kept)])
        return video.at[:, replaced].set(again[:, found])
