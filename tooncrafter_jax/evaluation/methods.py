"""What can be evaluated: models and rivals that draw in-betweens, and decoders that reconstruct true clips (paper,
Table 4).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8, UInt32

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.in_betweener import ClipRequest, InBetweener
from tooncrafter_jax.evaluation.true_clips import TrueClip
from tooncrafter_jax.io import to_uint8
from tooncrafter_jax.models.configuration import MOTION
from tooncrafter_jax.models.tooncrafter import FRAMES_AT_A_TIME, BoundModel, draw_latents
from tooncrafter_jax.nn.attention import Backend
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.nn.platform import exact_float32
from tooncrafter_jax.options import shown
from tooncrafter_jax.sampling.cost import denoiser_flops
from tooncrafter_jax.sampling.model_loading import find_checkpoint
from tooncrafter_jax.sampling.motion_source import missing_motion
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch, check_sketch_encoder
from tooncrafter_jax.sketches import SketchExtractor
from tooncrafter_jax.typing import AllParams, JsonObject, Uint8Videos, Video
from tooncrafter_jax.weights.store import Checkpoint


class InBetweening:
    """Clips drawn from their end frames.

    Args:
      draws: a rival.
      ids: of the clips that it will be asked for.
      name: of its column, if not the rival's own.

    Raises:
      UserError: something that it needs for these clips is missing.
    """

    def __init__(self, draws: InBetweener, ids: Sequence[str], name: str = "") -> None:
        self.name, self.title, self._draws = name or draws.name, name or draws.title, draws
        draws.require(ids)

    def settings(self) -> JsonObject:
        """What the clips depend on besides the truth."""
        return self._draws.settings()

    def make(self, clips: Sequence[TrueClip]) -> Uint8Videos:
        """The clips (B, T, H, W, 3)."""
        return self._draws(
            [
                ClipRequest(
                    id=clip.id,
                    first=clip.video[0],
                    last=clip.video[-1],
                    frames=len(clip.video),
                    prompt=clip.prompt,
                    seed=clip.seed,
                    fps=clip.fps,
                )
                for clip in clips
            ]
        )


@dataclasses.dataclass(frozen=True)
class TrueSketches:
    """Sketches of true frames, by which a model is guided.

    Attributes:
      extractor: draws them.
      name: of the extractor, and of its weights if they are not the usual ones.
      frames: numbers of the frames that they guide, from 0.
    """

    extractor: SketchExtractor
    name: str
    frames: tuple[int, ...]

    def __call__(self, clip: TrueClip) -> dict[int, Sketch]:
        """Frame number -> drawing, dark lines on light paper, (H, W, 3) uint8."""
        lines = np.asarray(self.extractor(to_pixels(jnp.asarray(clip.video[list(self.frames)]))))
        pictures = np.repeat(np.rint(lines * 255).astype(np.uint8), 3, axis=-1)
        return {
            frame: Sketch(picture, dark_lines=True, may_be_blank=True)
            for frame, picture in zip(self.frames, pictures, strict=True)
        }


class ToonCrafterMethod:
    """A ToonCrafter model: end frames, captions and frame rates in, clips out; one seed a clip.

    Args:
      toon: the model; on several hosts, on this process's devices.
      name: of its column.
      options: how it samples; `frames`, `height` and `width` must be the true clips'.
      with_prompts: whether it is given the captions.
      sketches: what guides it besides.
      weights: the directory of fetched networks, for motion guidance of a model without a motion network.
      identity: fingerprint of its weights.

    Raises:
      UserError: it cannot sample so, or there is no such frame to guide.
    """

    def __init__(
        self,
        toon: ToonCrafter,
        name: str,
        options: SamplingOptions,
        *,
        with_prompts: bool = True,
        sketches: TrueSketches | None = None,
        weights: Path | None = None,
        identity: JsonObject | None = None,
    ) -> None:
        self.name = self.title = name
        self._toon, self._options, self._with_prompts, self._sketches = toon, options, with_prompts, sketches
        self._identity = dict(identity or {})
        options.check(toon.config)
        if options.motion_guidance:
            toon.add_missing_motion(weights)
        if sketches is not None:
            check_sketch_encoder(toon.config, toon.params)
            missing = [frame for frame in sketches.frames if not 0 <= frame < options.frames]
            if missing:
                raise UserError(f"--sketch-frames has {missing[0]}, but frames are numbered 0 to {options.frames - 1}")

    def settings(self) -> JsonObject:
        """What the clips depend on besides the truth."""
        own: dict[str, object] = {"dtype": str(jnp.dtype(self._toon.dtype)), "prompts": self._with_prompts}
        if self._toon.weight_dtype is not None:
            own["weight_dtype"] = self._toon.weight_dtype.name
        if self._sketches is not None:
            own["sketches"] = {"extractor": self._sketches.name, "frames": list(self._sketches.frames)}
        return {**self._identity, **own, **shown(self._options)}

    def denoiser_flops(self) -> float:
        """Operations of all passes of the denoiser for one clip, without the sketch encoder's."""
        return denoiser_flops(self._toon.config, self._options)

    def make(self, clips: Sequence[TrueClip]) -> Uint8Videos:
        """The clips (B, T, H, W, 3)."""
        pairs = [
            Pair(
                clip.video[0],
                clip.video[-1],
                clip.prompt if self._with_prompts else "",
                None if self._sketches is None else self._sketches(clip),
                clip.seed,
                clip.fps,
            )
            for clip in clips
        ]
        return self._toon.interpolate_pairs(pairs, self._options)


class Reconstruction:
    """A decoder on the latents of true frames, the first and the last as references: what Table 4 of the paper
    measures.

    Latents are drawn from the posterior by the clip's seed, as in sampling and training. A decoder that carries its
    references does so along the motion between the first and the last frame.

    Args:
      source: a checkpoint with `autoencoder` and `decoder`, or the name of a bundled model.
      name: of its column.
      attention: the back end that attention is computed with where it can be.
      weights: the directory of fetched networks, for a decoder that carries references beside no motion network.

    Raises:
      UserError: there is no such checkpoint, or it lacks one of them.
    """

    def __init__(self, source: str | Path, name: str, attention: Backend = "auto", weights: Path | None = None) -> None:
        self.name = self.title = name
        checkpoint = find_checkpoint(source, ["autoencoder", "decoder"])
        networks = checkpoint.config.networks(attention=attention)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        config = checkpoint.config
        carries = config.decoder.carried
        self._params = {
            part: checkpoint.restore(part, networks[part], sharding=device, dtype=lambda leaf: jnp.float32)
            for part in ("autoencoder", "decoder", MOTION)
            if part in checkpoint.components and (carries or part != MOTION)
        }
        if carries and (missing := missing_motion(config, checkpoint.components, weights)):
            self._params[MOTION] = jax.device_put(missing, device)

        @jax.jit
        @exact_float32(jnp.float32)
        def reconstruct(params: AllParams, videos: UInt8[Array, "B T H W 3"], seeds: UInt32[Array, "B"]) -> Video:
            model = BoundModel(config, lambda part: networks[part].bind(params[part]))
            latents = draw_latents(model.moments(videos, FRAMES_AT_A_TIME), seeds)
            ends = to_pixels(videos[:, jnp.asarray([0, -1])])
            motion = model.motion(ends, videos.shape[1]) if carries else None
            return model.decode_unscaled(latents, model.references_of(ends), FRAMES_AT_A_TIME, motion)

        self._reconstruct = partial(reconstruct, self._params)
        self._multiple = checkpoint.config.autoencoder.downscaling
        self._identity = checkpoint_identity(checkpoint)

    def settings(self) -> JsonObject:
        """What the clips depend on besides the truth."""
        return self._identity

    def make(self, clips: Sequence[TrueClip]) -> Uint8Videos:
        """The clips (B, T, H, W, 3).

        Raises:
          UserError: the frames' sides are no multiples of the autoencoder's.
        """
        _, height, width, _ = clips[0].video.shape
        if height % self._multiple or width % self._multiple:
            raise UserError(
                f"'{self.name}' reconstructs sides that are multiples of {self._multiple}, not {height}x{width}: give "
                "other --height and --width"
            )
        made = []
        for clip in clips:  # one by one: what is made of a clip does not depend on the batch, nor does the memory
            seeds = np.asarray([clip.seed], np.uint32)
            made.append(np.asarray(self._reconstruct(clip.video[None], seeds)))
        return to_uint8(np.concatenate(made))


def checkpoint_identity(checkpoint: Checkpoint) -> dict[str, object]:
    """The identity of a checkpoint: a checksum of its description, which has fingerprints of its weights."""
    description = (checkpoint.directory / "model.json").read_bytes()
    return {"model": hashlib.sha256(description).hexdigest()}
