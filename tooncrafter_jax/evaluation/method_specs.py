"""What an evaluation is asked for: methods as they are named on a command line, and the columns of the paper's
tables.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.methods import (
    InBetweening,
    Reconstruction,
    ToonCrafterMethod,
    TrueSketches,
    checkpoint_identity,
)
from tooncrafter_jax.evaluation.metrics import NEED_CLIP
from tooncrafter_jax.evaluation.rivals.registry import FACTORIES as RIVALS
from tooncrafter_jax.evaluation.rivals.registry import FOLDER, in_betweener
from tooncrafter_jax.evaluation.run import Method, Truth
from tooncrafter_jax.evaluation.true_clips import TrueSet
from tooncrafter_jax.io.paths import url_of
from tooncrafter_jax.nn.attention import Backend
from tooncrafter_jax.notes import note
from tooncrafter_jax.options import declared, value_of
from tooncrafter_jax.sampling.model_loading import BUNDLED, find_checkpoint
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import SamplingOptions, make_options
from tooncrafter_jax.typing import JsonObject
from tooncrafter_jax.weights.hub_names import published_name


@dataclass(frozen=True)
class Preset:
    """What a table or figure of the paper measures (spec section 10).

    Attributes:
      metrics: its columns.
      methods: rivals that can be had here, beside those that the user names.
      reconstructs: whether it is of decoders.
    """

    metrics: tuple[str, ...]
    methods: tuple[str, ...] = ()
    reconstructs: bool = False


PRESETS = {
    "table1": Preset(
        ("fvd", "kvd", "lpips_alexnet", "clip_image", "clip_text", "cpbd"),
        ("truth", "still", "cross_fade", "flow_warp", "rife"),
    ),
    "table3": Preset(("fvd", "clip_image"), ("truth",)),
    "table4": Preset(("psnr", "ssim", "lpips_alexnet"), reconstructs=True),
    "figure8": Preset(("psnr", "ssim", "lpips_alexnet", "colour_drift"), reconstructs=True),
}
DEFAULT_METRICS = ("fvd", "kvd", "lpips_alexnet", "psnr", "ssim", "cpbd", "key_frames", "colour_drift", "flicker")
SKETCH_FRAMES = "sketch_frames"
"""Of a method's options the one that is not of sampling."""
DEFAULT_METHODS = ("truth", "still", "cross_fade", "flow_warp")


def chosen_methods(named: Sequence[str] | None, preset: str | None) -> Sequence[str]:
    """The methods that are compared.

    Args:
      named: by the user, if any.
      preset: a key of `PRESETS`, whose rivals come first.

    Raises:
      UserError: the preset is of decoders, and none is named.
    """
    if preset is None:
        return named or DEFAULT_METHODS
    if PRESETS[preset].reconstructs and not any("reconstruction:" in text for text in named or ()):
        raise UserError(f"--preset={preset} compares decoders: give --methods reconstruction:DIR ...")
    return [*PRESETS[preset].methods, *(text for text in named or () if text not in PRESETS[preset].methods)]


def chosen_metrics(named: Sequence[str] | None, preset: str | None, *, with_clip: bool) -> list[str]:
    """The metrics that are computed; a preset's that need CLIP are left out, with a note, where its weights are not
    given.

    Args:
      named: by the user, if any.
      preset: a key of `PRESETS`.
      with_clip: whether the weights of CLIP are given.

    Raises:
      UserError: metrics are named beside a preset, or need CLIP.
    """
    if named and preset:
        raise UserError("--metrics and --preset exclude each other: a preset is a list of metrics")
    names = list(PRESETS[preset].metrics if preset else named or DEFAULT_METRICS)
    without = [] if with_clip else [name for name in names if name in NEED_CLIP]
    if without and not preset:
        raise UserError(
            f"{' and '.join(without)} need the weights of CLIP: give them with --clip-weights, or leave these metrics "
            "out"
        )
    if without:
        note(f"{' and '.join(without)} need the weights of CLIP (--clip-weights) and are left out")
    return list(dict.fromkeys(name for name in names if name not in without))


def check_against(name: str, methods: Sequence[str]) -> None:
    """Raises UserError unless it is one of the columns of several methods, and not the truth's."""
    if name == Truth.name or name not in methods or len(methods) < 2:
        others = ", ".join(method for method in methods if method != Truth.name)
        raise UserError(f"--against={name} must be one of the methods that are compared: {others}")


@dataclass(frozen=True)
class MethodSpec:
    """A method as the command line names it.

    Attributes:
      text: as given.
      name: what it is called in the report; empty for its own name.
      kind: `truth`, `rival`, `model`, `sketched` or `reconstruction`.
      value: a rival's name, or a directory.
      options: how this model samples, before what is said for all: sampling options, and `sketch_frames`.
    """

    text: str
    name: str
    kind: str
    value: str
    options: JsonObject = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Reads [NAME=]METHOD or [NAME=]METHOD[OPTION=VALUE,...].

        Raises:
          UserError: it is none of the methods, naming the nearest, or has no options, or an option twice.
        """
        match = re.fullmatch(r"(?:([\w. +-]+)=)?(.+?)(?:\[(\w+=[^\[\]]+)\])?", text)
        if match is None:
            raise UserError(f"'{text}' is not a method: write METHOD or NAME=METHOD, as rife or mine=folder:DIR")
        spec = cls._of(text, match[1] or "", match[2])
        if match[3] is None:
            return spec
        if spec.kind not in ("model", "sketched"):
            raise UserError(f"'{text}' has options, which models alone sample by: leave out '[{match[3]}]'")
        parts = [part.partition("=") for part in re.split(r",(?=\w+=)", match[3])]
        names = [option for option, _, _ in parts]
        twice = next((option for option in names if names.count(option) > 1), None)
        if twice is not None:
            raise UserError(f"'{text}' gives {twice} more than once: leave one of them")
        known = declared(SamplingOptions)
        options = {option: value_of(value, known.get(option)) for option, _, value in parts}
        return replace(spec, options=options)

    @classmethod
    def _of(cls, text: str, name: str, method: str) -> MethodSpec:
        prefix, _, rest = method.partition(":")
        if method == Truth.name:
            if name:
                raise UserError(f"'{text}' gives the true clips another name, which no report knows: write {method}")
            return cls(text, name, "truth", "")
        if prefix in ("reconstruction", "sketched"):
            return cls(text, name, prefix, rest)
        if method.startswith(FOLDER) or method in RIVALS:
            return cls(text, name, "rival", method)
        is_here = Path(method).exists() or (BUNDLED / method).exists()
        if not url_of(method) and not is_here and published_name(method) is None:
            near = difflib.get_close_matches(method, ["truth", *RIVALS], n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(
                f"there is no method '{method}': {hint}give {', '.join(['truth', *RIVALS])}, folder:DIR, sketched:DIR, "
                "reconstruction:DIR, a model's directory or OWNER/NAME of a published one"
            )
        return cls(text, name, "model", method)

    @property
    def column(self) -> str:
        """Its name in the report.

        Raises:
          UserError: it is a folder that is not there.
        """
        if self.name:
            return self.name
        if self.kind == "truth":
            return Truth.name
        if self.kind == "rival":
            return in_betweener(self.value).name
        name = _name_of(Path(self.value)) + ("+sketches" if self.kind == "sketched" else "")
        return name + "".join(f" {option} {_as_name(value)}" for option, value in self.options.items())

    def make(
        self,
        sampling: Callable[[JsonObject], SamplingOptions],
        clips: TrueSet,
        *,
        prompts: bool,
        dtype: str | None,
        weight_dtype: str | None,
        attention: Backend,
        weights: Path | None,
        sketches: Callable[[Sequence[int] | None], TrueSketches],
    ) -> Method:
        """The method, after finding out that it can make the clips.

        Args:
          sampling: how a model samples, given the options that suit it.
          clips: the truth.
          prompts: whether models get the captions.
          dtype: in which models compute; by default that of the device.
          weight_dtype: in which their large weights are held; by default that in which they compute.
          attention: the back end that models compute attention with where it can be.
          weights: the directory of rivals' networks; by default where they are fetched to.
          sketches: makes what guides a model with `sketched`, of its own frames or of those for all.

        Raises:
          UserError: something that it needs is missing, or it cannot make clips of this kind.
        """
        if self.kind == "truth":
            return Truth()
        if self.kind == "rival":
            return InBetweening(in_betweener(self.value, weights=weights), clips.ids, self.name)
        if self.kind == "reconstruction":
            return Reconstruction(self.value, self.column, attention, weights)
        checkpoint = find_checkpoint(self.value)
        own = {option: value for option, value in self.options.items() if option != SKETCH_FRAMES}
        options = _changed(sampling(checkpoint.sampling), own, self.text)
        options.check(checkpoint.config)  # an impossible option is refused before anything is loaded
        frames = self._sketch_frames()
        if frames is not None and self.kind != "sketched":
            raise UserError(f"'{self.text}' has frames for sketches, but no sketches: write sketched:{self.value}")
        toon = ToonCrafter.load(
            self.value, dtype=dtype, devices=jax.local_devices(), attention=attention, weight_dtype=weight_dtype
        )
        guides = sketches(frames) if self.kind == "sketched" else None
        identity = checkpoint_identity(checkpoint)
        return ToonCrafterMethod(
            toon, self.column, options, with_prompts=prompts, sketches=guides, weights=weights, identity=identity
        )

    def _sketch_frames(self) -> Sequence[int] | None:
        """The frames that are sketched, where the method says which."""
        given = self.options.get(SKETCH_FRAMES)
        if given is None:
            return None
        numbers = str(given).split(",")
        if not all(number.strip().isdecimal() for number in numbers):
            raise UserError(f"'{self.text}' has {SKETCH_FRAMES}={given}, but frames are numbers, as 4,8,12")
        return [int(number) for number in numbers]


def _changed(options: SamplingOptions, changes: JsonObject, text: str) -> SamplingOptions:
    """Sampling options with some of one method's own."""
    for name in ("frames", "height", "width"):
        if name in changes:
            raise UserError(f"'{text}' has {name} of its own, but all methods make the same clips: give --{name}")
    checked = make_options(changes)
    return replace(options, **{name: getattr(checked, name) for name in changes})


def _as_name(value: object) -> str:
    return re.sub(r"[^\w. +-]+", " ", str(value)).strip()


def _name_of(directory: Path) -> str:
    """A checkpoint's name in a report: its directory's, or that of the run whose export it is."""
    path = directory.absolute()
    return path.parent.name if path.name == "export" else path.name
