"""The architecture of a whole model: one frozen config for each component, and presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import jax.numpy as jnp

from tooncrafter_jax.config_codec import from_dict, to_dict
from tooncrafter_jax.diffusion.schedule import ScheduleConfig
from tooncrafter_jax.errors import UserError, printable
from tooncrafter_jax.models.autoencoder import Autoencoder, AutoencoderConfig
from tooncrafter_jax.models.bounds import (
    LARGEST_INTEGER,
    LONGEST_NAME,
    check_extent,
    check_numbers,
    check_pictures,
)
from tooncrafter_jax.models.clip_image import ClipImage, ClipImageConfig
from tooncrafter_jax.models.clip_text import ClipText, ClipTextConfig
from tooncrafter_jax.models.dual_reference_decoder import Decoder, DecoderConfig
from tooncrafter_jax.models.image_projector import ImageProjector, ImageProjectorConfig
from tooncrafter_jax.models.motion_network import MotionConfig, MotionNetwork
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.rife import RifeConfig
from tooncrafter_jax.models.sketch_encoder import HINT_DOWNSCALING, SketchEncoder, SketchEncoderConfig
from tooncrafter_jax.models.unet import UNet, UNetConfig
from tooncrafter_jax.nn.attention import Backend
from tooncrafter_jax.typing import Dtype

COMPONENTS = (
    "unet",
    "image_projector",
    "clip_text",
    "clip_image",
    "autoencoder",
    "decoder",
    "sketch_encoder",
    "motion",
)
"""Names of the components, in the order of a checkpoint directory."""
MOTION = "motion"
"""The component that finds the motion between the pictures."""
OPTIONAL_COMPONENTS = ("sketch_encoder", MOTION)
"""Components without which a model samples all the same."""


_EQUAL = {
    "clip_text.width": "unet.context_dim",
    "image_projector.output_dim": "unet.context_dim",
    "sketch_encoder.context_dim": "unet.context_dim",
    "image_projector.input_dim": "clip_image.width",
    "autoencoder.latent_channels": "unet.out_channels",
    "sketch_encoder.in_channels": "unet.out_channels",
    "decoder.width": "autoencoder.width",
    "decoder.multipliers": "autoencoder.multipliers",
}
"""Sizes of one component that those of another must meet."""


@dataclass(frozen=True)
class ModelConfig:
    """Every component's architecture and the diffusion constants; the defaults are the published 512 model's.

    Attributes:
      name: of the preset or the run that it comes from.
      height, width: pixels that the model was made for (spec section 1).
    """

    name: str = "tooncrafter_512"
    height: int = 320
    width: int = 512
    unet: UNetConfig = UNetConfig()
    image_projector: ImageProjectorConfig = ImageProjectorConfig()
    clip_text: ClipTextConfig = ClipTextConfig()
    clip_image: ClipImageConfig = ClipImageConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    sketch_encoder: SketchEncoderConfig = SketchEncoderConfig()
    motion: MotionConfig = MotionConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @cached_property
    def pixel_multiple(self) -> int:
        """Heights and widths must be multiples of this: 64 for the published model (spec section 1)."""
        return self.autoencoder.downscaling * self.unet.latent_multiple

    def check(self, where: str) -> None:
        """Checks that networks of these sizes can be built and fit each other.

        Args:
          where: what is being read, for messages, e.g. "the config in model.json".

        Raises:
          UserError: naming the first number that does not fit.
        """

        def need(condition: bool, sentence: str) -> None:
            if not condition:
                raise UserError(f"{where}: {sentence}")

        need(
            len(self.name) <= LONGEST_NAME and self.name.isprintable(),
            f"the model's name must be at most {LONGEST_NAME} letters, digits and signs",
        )
        for name in (*COMPONENTS, "schedule"):
            own = vars(getattr(self, name)).items()
            check_numbers(name, {key: value for key, value in own if not is_dataclass(value)}, need)
        need(self.decoder.carried or not self.decoder.corrects_motion, "decoder.corrects_motion needs decoder.carried")
        need(self.decoder.references or not self.decoder.carried, "decoder.carried needs decoder.references")
        need(
            self.schedule.timesteps > 1 or not self.schedule.zero_terminal_snr,
            "schedule.timesteps is 1, which is too small: the last of them is pure noise, the first is not",
        )
        check_pictures(self.height, self.width, need)
        for name in ("unet", "sketch_encoder", "autoencoder", "decoder"):
            part = getattr(self, name)
            check_extent(
                name, len(part.multipliers), part.blocks_per_level, getattr(part, "transformer_depth", 0), need
            )
            for width in (part.width * multiplier for multiplier in part.multipliers):
                need(
                    width % part.norm_groups == 0,
                    f"{name} has {width} channels at a level, which must be a multiple of {part.norm_groups}",
                )
                need(
                    width <= LARGEST_INTEGER,
                    f"{name} has {width} channels at a level, which is too many: {LARGEST_INTEGER:,} is the limit",
                )
                need(
                    width >= getattr(part, "head_dim", 0),
                    f"{name} has {width} channels at a level, not enough for a head",
                )
        for name in ("clip_text", "clip_image"):
            part = getattr(self, name)
            need(part.width % part.heads == 0, f"{name}.width is {part.width}, which {part.heads} heads do not divide")
        self.motion.check(need)
        need(
            self.clip_image.image_size % self.clip_image.patch_size == 0,
            f"clip_image.image_size is {self.clip_image.image_size}, no multiple of the patches' "
            f"{self.clip_image.patch_size}",
        )
        need(
            self.sketch_encoder.hint_downscaling % HINT_DOWNSCALING == 0,
            f"sketch_encoder.hint_downscaling is {self.sketch_encoder.hint_downscaling}, "
            f"which must be a multiple of {HINT_DOWNSCALING}",
        )
        for name, other in _EQUAL.items():
            one, another = (attrgetter(path)(self) for path in (name, other))
            need(one == another, f"{name} is {one} and {other} is {another}, but they must be equal")
        latents, noisy = self.unet.in_channels, self.unet.out_channels
        need(latents == 2 * noisy, f"unet.in_channels is {latents}, which must be twice unet.out_channels, {noisy}")

    def networks(
        self, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32, attention: Backend = "auto"
    ) -> dict[str, Network[Any]]:
        """All components as networks; `attention` is the back end that their layers prefer.

        They compute in `dtype`, but for the motion network: flows of 40 pixels in bfloat16 are off by a tenth of one.
        """
        modules = {
            "unet": UNet,
            "image_projector": ImageProjector,
            "clip_text": ClipText,
            "clip_image": ClipImage,
            "autoencoder": Autoencoder,
            "decoder": Decoder,
            "sketch_encoder": SketchEncoder,
            "motion": MotionNetwork,
        }
        return {
            name: Network(
                modules[name],
                getattr(self, name),
                dtype=jnp.float32 if name == MOTION else dtype,
                param_dtype=jnp.float32 if name == MOTION else param_dtype,
                attention=attention,
            )
            for name in COMPONENTS
        }


def tooncrafter_512() -> ModelConfig:
    """The published model: 320x512 pixels, 16 frames."""
    return ModelConfig()


def tiny() -> ModelConfig:
    """The narrow model of the reference numbers, with every switch as published; for tests and for a quick look."""
    shared: dict[str, Any] = {"width": 64, "head_dim": 16, "context_dim": 64}
    return ModelConfig(
        name="tiny",
        height=64,
        width=128,
        unet=UNetConfig(**shared),
        image_projector=ImageProjectorConfig(dim=48, depth=2, head_dim=16, heads=6, input_dim=96, output_dim=64),
        clip_text=ClipTextConfig(width=64, heads=4, layers=3),
        clip_image=ClipImageConfig(width=96, heads=4, layers=3),
        autoencoder=AutoencoderConfig(width=32),
        decoder=DecoderConfig(width=32),
        sketch_encoder=SketchEncoderConfig(**shared),
        motion=MotionConfig(
            RifeConfig((16, 16, 8, 8), depth=1),
            refinement_widths=(16, 8),
            refinement_scales=(4, 1),
            refinement_depth=1,
        ),
    )


def small() -> ModelConfig:
    """A model for a laptop's CPU: 128x128 pixels, every part as published but narrow; beside them RIFE, whose motion
    sketches bend, and along which the decoder carries its references.

    Normalisations of the autoencoder have a single group: with few channels a group would hold nearly one channel
    alone, whose mean is the very colour to be drawn. There are no transformers at full latent resolution but the
    stem's.
    """
    first_stage: dict[str, Any] = {
        "width": 16,
        "multipliers": (1, 2, 3, 4),
        "blocks_per_level": 1,
        "z_channels": 16,
        "latent_channels": 16,
        "norm_groups": 1,
    }
    denoiser: dict[str, Any] = {
        "width": 32,
        "multipliers": (1, 2, 3),
        "blocks_per_level": 1,
        "attention_levels": (1, 2),
        "head_dim": 8,
        "context_dim": 48,
        "norm_groups": 8,
    }
    return ModelConfig(
        name="small",
        height=128,
        width=128,
        unet=UNetConfig(in_channels=32, out_channels=16, dropout=0.0, **denoiser),
        image_projector=ImageProjectorConfig(dim=48, depth=1, head_dim=12, heads=4, input_dim=48, output_dim=48),
        clip_text=ClipTextConfig(vocabulary_size=3072, width=48, heads=4, layers=3),
        clip_image=ClipImageConfig(image_size=64, patch_size=16, width=48, heads=4, layers=2),
        autoencoder=AutoencoderConfig(**first_stage),
        decoder=DecoderConfig(
            **first_stage, attention_levels=(3,), reference_head_dim=8, carried=True, corrects_motion=True
        ),
        sketch_encoder=SketchEncoderConfig(in_channels=16, **denoiser),
        motion=MotionConfig(enlargement=2, both_ways=True, through_sketches=True),
    )


PRESETS = {"tooncrafter_512": tooncrafter_512, "tiny": tiny, "small": small}


def preset(name: str) -> ModelConfig:
    """The preset of this name.

    Raises:
      UserError: if there is none.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}': choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()


# --------------------------------------------------------------------------------------------------------------------
# Configs in the published code's vocabulary.

_FIXED: dict[str, dict[str, Any]] = {
    "diffusion": {"beta_schedule": "linear", "parameterization": "v", "conditioning_key": "hybrid"},
    "unet": {
        "use_linear": True,
        "temporal_conv": True,
        "temporal_attention": True,
        "temporal_selfatt_only": True,
        "use_relative_position": False,
        "use_causal_attention": False,
        "addition_attention": True,
        "image_cross_attention": True,
        "fs_condition": True,
    },
    "sketch_encoder": {"use_spatial_transformer": True, "use_linear_in_transformer": True, "legacy": False},
    "vae.ddconfig": {"double_z": True, "attn_resolutions": []},
}
"""Switches that every ToonCrafter model has in this position; others belong to other models."""


def from_official(config: Any, name: str, where: str) -> ModelConfig:
    """Reads an architecture given in the published code's keys (sections diffusion, unet, vae, open_clip, ...).

    Those keys say nothing of the pixels that a model was made for: the result always has 320 x 512.

    Args:
      config: the nested mapping; anything else is refused.
      name: the result's name.
      where: the file, for messages.

    Raises:
      UserError: if a section or number is missing, a switch is in a position that this model family does not have, or
        sizes do not fit each other (`ModelConfig.check`).
    """

    def section(path: str) -> Mapping[str, Any]:
        values: Any = config
        for part in path.split("."):
            if not isinstance(values, Mapping) or part not in values:
                raise UserError(f"{where} has no section '{path}'")
            values = values[part]
        if not isinstance(values, Mapping):
            raise UserError(f"{where} has a section '{path}' that is no object")
        return values

    for path, switches in _FIXED.items():
        for key, expected in switches.items():
            found = section(path).get(key, expected)
            if found != expected:
                raise UserError(
                    f"{where} sets {path}.{key} to {printable(repr(found), 50)}, but a ToonCrafter model has "
                    f"{expected!r}"
                )
    try:
        result = _from_official(section, config.get("text_layer", "penultimate"), name)
    except KeyError as error:
        raise UserError(f"{where} lacks the number {error}") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{where} has a value of another kind than its key has ({printable(error, 200)}): correct it"
        ) from error
    result = from_dict(ModelConfig, to_dict(result), where)  # whatever is of another type than its field
    result.check(where)
    return result


def _from_official(section: Any, text_layer: str, name: str) -> ModelConfig:
    diffusion, unet, sketch = section("diffusion"), section("unet"), section("sketch_encoder")
    vae, text, image = section("vae.ddconfig"), section("open_clip.text_cfg"), section("open_clip.vision_cfg")
    projector, latent_channels = section("image_projector"), section("vae")["embed_dim"]
    first_stage = {
        "width": vae["ch"],
        "multipliers": tuple(vae["ch_mult"]),
        "blocks_per_level": vae["num_res_blocks"],
        "z_channels": vae["z_channels"],
        "latent_channels": latent_channels,
    }

    def shared_unet(values: Mapping[str, Any]) -> dict[str, Any]:
        levels = range(len(values["channel_mult"]))
        return {
            "in_channels": values["in_channels"],
            "width": values["model_channels"],
            "multipliers": tuple(values["channel_mult"]),
            "blocks_per_level": values["num_res_blocks"],
            "attention_levels": tuple(level for level in levels if 2**level in values["attention_resolutions"]),
            "head_dim": values["num_head_channels"],
            "transformer_depth": values["transformer_depth"],
            "context_dim": values["context_dim"],
            "dropout": float(values.get("dropout", 0.0)),
        }

    schedule = ScheduleConfig(
        timesteps=diffusion["timesteps"],
        linear_start=diffusion["linear_start"],
        linear_end=diffusion["linear_end"],
        zero_terminal_snr=diffusion["rescale_betas_zero_snr"],
        dynamic_rescale=diffusion["use_dynamic_rescale"],
        scale_factor=diffusion["scale_factor"],
    )
    if schedule.dynamic_rescale:
        schedule = replace(
            schedule, base_scale=float(diffusion["base_scale"]), turning_step=diffusion.get("turning_step", 400)
        )
    autoencoder = AutoencoderConfig(**first_stage, image_channels=vae["in_channels"])
    return replace(
        ModelConfig(),
        name=name,
        unet=UNetConfig(
            **shared_unet(unet),
            out_channels=unet["out_channels"],
            default_fps=unet["default_fs"],
            temporal_length=unet["temporal_length"],
        ),
        image_projector=ImageProjectorConfig(
            dim=projector["dim"],
            depth=projector["depth"],
            head_dim=projector["dim_head"],
            heads=projector["heads"],
            queries_per_frame=projector["num_queries"],
            frames=projector["video_length"],
            input_dim=projector["embedding_dim"],
            output_dim=projector["output_dim"],
            ff_mult=projector["ff_mult"],
        ),
        clip_text=ClipTextConfig(
            vocabulary_size=text["vocab_size"],
            context_length=text["context_length"],
            width=text["width"],
            heads=text["heads"],
            layers=text["layers"],
            penultimate=text_layer == "penultimate",
        ),
        clip_image=ClipImageConfig(
            image_size=image["image_size"],
            patch_size=image["patch_size"],
            width=image["width"],
            heads=image["width"] // image["head_width"],
            layers=image["layers"],
            mlp_ratio=image.get("mlp_ratio", 4.0),
        ),
        autoencoder=autoencoder,
        decoder=DecoderConfig(**first_stage, image_channels=vae["out_ch"]),
        sketch_encoder=SketchEncoderConfig(**shared_unet(sketch), hint_channels=sketch["hint_channels"]),
        schedule=schedule,
    )
