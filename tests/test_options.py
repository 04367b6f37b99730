"""Options that are declared once: sentences, the command line, defaults of records, and what is generated from them."""

from __future__ import annotations

import re
import runpy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.declared_options import add_declared, given_options
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.options import Option, check_ranges, declared, published_names, shown, shown_defaults
from tooncrafter_jax.sampling.batch.outputs import OutputPlan
from tooncrafter_jax.sampling.request import Pair, SamplingOptions

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Colours:
    """Options of all kinds."""

    hue: Annotated[float | None, Option("angle on the wheel", least=0, most=360, unit="degrees", like_none=0.0)] = None
    shades: Annotated[int, Option("how many", least=1, published="--n_shades --levels")] = 3
    paper: Annotated[Literal["white", "black"], Option("what lies below")] = "white"
    dither: Annotated[bool, Option("scatter rounding errors")] = True
    fast: Annotated[bool, Option("round carelessly", is_shown=False)] = False
    name: str = "no option"


def parsed(*argv: str) -> dict[str, Any]:
    parser = Parser("colours")
    add_declared(parser.add_argument, Colours)
    return given_options(parser.parse_args(argv), Colours)


def test_only_what_is_given_is_parsed() -> None:
    assert parsed() == {}
    argv = ("--hue=12", "--shades=4", "--paper=black", "--no-dither", "--fast")
    assert parsed(*argv) == {"hue": 12.0, "shades": 4, "paper": "black", "dither": False, "fast": True}


def test_a_switch_can_be_said_either_way() -> None:
    assert parsed("--no-fast", "--dither") == {"dither": True, "fast": False}
    parser = Parser("colours")
    add_declared(parser.add_argument, Colours)
    opposites = {one.name: one.opposite for one in parser.described_options() if one.opposite}
    assert opposites == {"--dither": "--no-dither", "--fast": "--no-fast"}


def test_help_says_values_published_names_and_defaults() -> None:
    parser = Parser("colours")
    add_declared(parser.add_argument, Colours)
    assert {(one.name, one.metavar, one.text) for one in parser.described_options()[1:]} == {
        ("--hue", "X", "angle on the wheel; 0 to 360 degrees"),
        ("--shades", "N", "how many; 1 or more [--n_shades --levels] (default: 3)"),
        ("--paper", "NAME", "what lies below; white or black (default: white)"),
        ("--dither", "", "scatter rounding errors (default: on)"),
        ("--fast", "", "round carelessly"),
    }
    with pytest.raises(
        UserError, match=re.escape("unknown argument '--levels=4', did you mean --shades? (see colours")
    ):
        parsed("--levels=4")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Colours(hue=360.5), "the hue must be from 0 to 360, not 360.5"),
        (Colours(hue=float("nan")), "the hue must be from 0 to 360, not nan"),
        (Colours(shades=0), "the shades must be at least 1, not 0"),
    ],
)
def test_what_is_out_of_range_is_one_sentence(options: Colours, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check_ranges(options)
    assert str(caught.value) == sentence


def test_bounds_are_in_range() -> None:
    for options in (Colours(), Colours(hue=0.0), Colours(hue=360.0, shades=1)):
        check_ranges(options)


@pytest.mark.usefixtures("unchecked_types")
def test_a_name_that_is_no_choice_is_reported() -> None:
    with pytest.raises(UserError, match="unknown paper 'red': choose one of white, black"):
        check_ranges(Colours(paper="red"))  # pyright: ignore[reportArgumentType]


def test_what_is_shown_is_what_records_compare() -> None:
    assert shown(Colours(fast=True)) == shown_defaults(Colours)
    assert shown_defaults(Colours) == {"hue": 0.0, "shades": 3, "paper": "white", "dither": True}


def test_published_names_lead_to_ours() -> None:
    assert published_names(Colours) == {"n_shades": "shades", "levels": "shades"}


def test_every_field_of_the_sampling_options_is_declared_and_described() -> None:
    assert set(declared(SamplingOptions)) == {field.name for field in fields(SamplingOptions)}
    for cls in (SamplingOptions, Pair, OutputPlan):
        for one in declared(cls).values():
            assert re.search(rf"^ +{one.name}: .+\.$", cls.__doc__ or "", re.MULTILINE), one.name


def test_what_is_made_from_the_options_is_up_to_date() -> None:
    script = runpy.run_path(str(REPOSITORY / "scripts" / "write_options.py"))
    advice = "run python scripts/write_options.py"
    assert script["KEYWORDS"].read_text(encoding="utf-8") == script["keywords"](), advice
    text = script["MANUAL"].read_text(encoding="utf-8")
    assert text == script["with_table"](text, script["table"]()), advice
    models = script["WEIGHTS"].read_text(encoding="utf-8")
    assert models == script["with_table"](models, script["models"]()), advice
    for option in ("--pixel-format", "--dark-sketches", "--fit", "--order", "--cross-fade", "--attention"):
        assert f"| `{option}" in text
