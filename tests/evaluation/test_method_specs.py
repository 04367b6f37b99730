"""What names a method that is evaluated."""

from __future__ import annotations

import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.method_specs import MethodSpec


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


def test_a_mistyped_method_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match="there is no method 'stil': did you mean 'still'. give truth, .* of a published"
    ):
        MethodSpec.parse("stil")
