"""What names a method that is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.method_specs import MethodSpec, check_against
from tooncrafter_jax.evaluation.methods import TrueSketches
from tooncrafter_jax.evaluation.true_clips import TrueClip, TrueSet
from tooncrafter_jax.sampling.request import make_options


@pytest.mark.parametrize(
    ("text", "kind", "name", "value"),
    [
        ("truth", "truth", "", ""),
        ("still", "rival", "", "still"),
        ("small", "model", "", "small"),
        ("ours=small", "model", "ours", "small"),
        ("Doubiiu/ToonCrafter", "model", "", "Doubiiu/ToonCrafter"),
        ("theirs=hf://owner/name@v1/model.ckpt", "model", "theirs", "hf://owner/name@v1/model.ckpt"),
        ("sketched:Doubiiu/ToonCrafter", "sketched", "", "Doubiiu/ToonCrafter"),
    ],
)
def test_a_method_is_read(text: str, kind: str, name: str, value: str) -> None:
    spec = MethodSpec.parse(text)
    assert (spec.kind, spec.name, spec.value) == (kind, name, value)


@pytest.mark.parametrize(
    ("text", "kind", "value", "options"),
    [
        ("small[steps=8]", "model", "small", {"steps": 8}),
        ("small[reuse=3,timesteps=999]", "model", "small", {"reuse": "3", "timesteps": "999"}),
        ("s=small[solver=unipc,eta=0.5]", "model", "small", {"solver": "unipc", "eta": 0.5}),
        ("sketched:small[sketch_frames=4,8,12,steps=2]", "sketched", "small", {"sketch_frames": "4,8,12", "steps": 2}),
        (
            "hf://a/b@v1/x.ckpt?y=1[guidance_interval=0.2:0.8]",
            "model",
            "hf://a/b@v1/x.ckpt?y=1",
            {"guidance_interval": "0.2:0.8"},
        ),
    ],
)
def test_a_model_has_options_of_its_own(text: str, kind: str, value: str, options: dict[str, object]) -> None:
    spec = MethodSpec.parse(text)
    assert (spec.kind, spec.value, spec.options) == (kind, value, options)


def test_an_option_is_given_once() -> None:
    with pytest.raises(UserError, match=r"gives steps more than once: leave one of them"):
        MethodSpec.parse("small[steps=8,eta=0,steps=4]")


def test_methods_that_do_not_sample_have_no_options() -> None:
    with pytest.raises(UserError, match=r"'still\[steps=8\]' has options, which models alone sample by"):
        MethodSpec.parse("still[steps=8]")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("small[step=8]", "step"),
        ("small[steps=eight]", "steps"),
        ("small[frames=8]", "has frames of its own, but all methods make the same clips: give --frames"),
        ("small[sketch_frames=8]", "has frames for sketches, but no sketches: write sketched:small"),
        ("sketched:small[sketch_frames=a]", "has sketch_frames=a, but frames are numbers, as 4,8,12"),
    ],
)
def test_options_that_cannot_be_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made(text)


def test_a_method_is_named_after_its_options() -> None:
    method = made("sketched:small[sketch_frames=4,8,steps=2]")
    assert method.name == "small+sketches sketch_frames 4 8 steps 2"
    assert method.settings()["steps"] == 2
    assert method.settings()["sketches"] == {"extractor": "none", "frames": [4, 8]}


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("truth", "truth"),
        ("rife", "rife"),
        ("mine=rife", "mine"),
        ("reconstruction:small", "small"),
        ("small[eta=0]", "small eta 0"),
        ("mine=small[eta=0]", "mine"),
    ],
)
def test_columns_are_known_before_anything_is_loaded(text: str, column: str) -> None:
    assert MethodSpec.parse(text).column == column


class OneClip(TrueSet):
    """A set of one clip, which nobody draws."""

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return ("a",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return TrueClip("a", "", np.zeros((16, 128, 128, 3), np.uint8), "", 8, 0)

    def sentence(self) -> str:
        return ""

    def rule_text(self) -> str:
        return ""


class NoLines:
    """An extractor of empty paper."""

    def __call__(self, images: Any) -> Any:
        return np.ones_like(images[..., :1])


def made(text: str) -> Any:
    """The method of the bundled model, with an extractor that draws nothing."""

    def sketches(own: Sequence[int] | None) -> TrueSketches:
        return TrueSketches(NoLines(), "none", tuple(own or (8,)))

    return MethodSpec.parse(text).make(
        lambda own: make_options({**own, "frames": 16, "height": 128, "width": 128}),
        OneClip(),
        prompts=True,
        dtype=None,
        weight_dtype=None,
        attention="auto",
        weights=None,
        sketches=sketches,
    )


@pytest.mark.parametrize("name", ["rife", "truth"])
def test_what_is_compared_against_is_one_of_the_methods(name: str) -> None:
    check_against("still", ["truth", "still", "small"])
    with pytest.raises(UserError, match=f"--against={name} must be one of the methods that are compared: still, small"):
        check_against(name, ["truth", "still", "small"])


def test_a_mistyped_method_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match="there is no method 'stil': did you mean 'still'. give truth, .* of a published"
    ):
        MethodSpec.parse("stil")
