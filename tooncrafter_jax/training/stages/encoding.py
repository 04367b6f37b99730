"""What a batch is to the networks: the latents of its frames, and what predictions are conditioned on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from tooncrafter_jax.diffusion.noise import clip_timesteps, clips_with_motion
from tooncrafter_jax.models.motion import Motion
from tooncrafter_jax.models.tooncrafter import FRAMES_AT_A_TIME, BoundModel, Conditions, Moments, draw_latents
from tooncrafter_jax.nn.logical_axes import constrain, devices_sharing
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.training.stages.stage import Batch
from tooncrafter_jax.typing import Dtype, Hints, Latents, Tokens


def frame_moments(model: BoundModel, video: UInt8[Array, "B T H W 3"]) -> Moments:
    """Moments of all frames, a few at a time unless the rules in force share them out to devices."""
    video = constrain(video, "batch", "frames", None, None, None)
    shared = devices_sharing("frames", video.shape[1]) > 1
    return model.moments(video, None if shared else FRAMES_AT_A_TIME)


def clean_latents(model: BoundModel, batch: Batch) -> Latents:
    """Scaled latents of all frames, drawn from the posterior by the examples' seeds, without gradient."""
    return model.config.schedule.scale_factor * drawn_latents(model, batch)


def drawn_latents(model: BoundModel, batch: Batch) -> Latents:
    """The same, not scaled: of the batch's moments where it has them, else of its frames."""
    moments = batch["moments"] if "moments" in batch else frame_moments(model, batch["video"])
    return jax.lax.stop_gradient(draw_latents(moments, batch["seed"]))


def times_of(batch: Batch, timesteps: int, last_time_share: float) -> Int[Array, "B"]:
    """The diffusion time of each clip, by its seed: the last one for this share, drawn evenly for the others."""
    return clip_timesteps(batch["seed"], timesteps, last_time_share)


def ends_of(video: Array) -> Array:
    """The first and the last frame (B, 2, ...) of clips (B, T, ...)."""
    return video[:, jnp.asarray([0, -1])]


def text_tokens(model: BoundModel, batch: Batch, dtype: Dtype) -> Tokens:
    """Text tokens of the captions, which the loader has dropped some of; gradient only where the tower is trained."""
    return batch["text"].astype(dtype) if "text" in batch else model.text_tokens(batch["token_ids"])


def picture_tokens(model: BoundModel, batch: Batch, dtype: Dtype) -> Tokens:
    """CLIP's tokens of the first frame, or of an all-zero picture where the loader says so."""
    if "image" in batch:
        return batch["image"].astype(dtype)
    first = to_pixels(batch["video"][:, 0])
    return model.picture_tokens(jnp.where(batch["drop_image"][:, None, None, None], 0.0, first))


def conditions_of(
    model: BoundModel,
    batch: Batch,
    ends: Float[Array, "B 2 h w C"],
    frames: int,
    dtype: Dtype,
    hints: Hints | None = None,
    scale: Float[Array, "B"] | None = None,
    motion: Motion | None = None,
) -> Conditions:
    """Everything that predictions for a batch are conditioned on.

    Args:
      model: the networks.
      batch: captions, first pictures and frame rates.
      ends: scaled latents of the first and the last frame.
      frames: of a clip.
      dtype: of the computation.
      hints: sketches, or None.
      scale: of their control; 1 by default.
      motion: of `motion_of`.
    """
    image = model.image_tokens(picture_tokens(model, batch, dtype))
    return model.condition(ends, frames, text_tokens(model, batch, dtype), image, batch["fps"], hints, scale, motion)


def motion_of(model: BoundModel, batch: Batch, share: float) -> Motion | None:
    """Motion between the key frames of a batch's clips, bent to their sketches, which guides this share of them, by
    their seeds; None if it guides none.
    """
    if not share:
        return None
    motion = model.motion(to_pixels(ends_of(batch["video"])), batch["video"].shape[1], batch.get("hints"))
    return motion if share == 1 else motion._replace(guided=clips_with_motion(batch["seed"], share))


def guided_hints(batch: Batch, *, every_clip: bool = False) -> tuple[Hints | None, Float[Array, "B"] | None]:
    """A batch's sketches, if it has any, and the scale of their control: 0 for clips without one, unless all have
    some.
    """
    if "hints" not in batch:
        return None, None
    hints = constrain(batch["hints"], "batch", "frames", None, None, None)
    return hints, None if every_clip else jnp.any(batch["sketched"], axis=1).astype(jnp.float32)


def without_hints(batch: Batch) -> Batch:
    """The batch for a denoiser without sketches."""
    return {name: rows for name, rows in batch.items() if name != "hints"}
