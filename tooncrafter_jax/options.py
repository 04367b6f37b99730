"""Options that are declared once: a field's name, type and default, and an `Option` in its annotation, say all that is
known.

    @dataclass(frozen=True)
    class SamplingOptions:
        eta: Annotated[float, Option("noise added while sampling", least=0, most=1, published="--ddim_eta")] = 1.0

Made from that: the command line with its `--help` (`cli.declared_options`), the checks of ranges with their sentences
(`check_ranges`), the keyword arguments of `ToonCrafter.interpolate` and the table of the manual
(`scripts/write_options.py`), what records say and what a record that does not know an option stands for (`shown`,
`shown_defaults`), and the published script's names.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tooncrafter_jax.errors import UserError


@dataclass(frozen=True)
class Option:
    """What is known of an option beside its name, type and default.

    Attributes:
      help: what it does: the field's term, in lower case and without a full stop.
      least: the smallest value; None: there is none.
      most: the largest value; None: there is none.
      unit: of its values, e.g. "pixels".
      published: its names on the published script's command line, e.g. "--ddim_steps".
      called: what sentences call it; by default "the" and its name in words.
      choices: the names that it takes, where its type does not list them.
      unset: what its default is, in words, where that says more than the value.
      is_shown: whether it changes what a clip shows; the others only say how it is computed.
      like_none: the value that None comes to in the end.
      of_python: whether it is of Python alone, and no command has it.
      metavar: what stands for its value on the command line; by default that of its type.
    """

    help: str
    least: int | float | None = None
    most: int | float | None = None
    unit: str = ""
    published: str = ""
    called: str = ""
    choices: Sequence[str] = ()
    unset: str = ""
    is_shown: bool = True
    like_none: object = None
    of_python: bool = False
    metavar: str = ""


@dataclass(frozen=True)
class Declared:
    """An option with its name, its type (without None) and its default.

    Attributes:
      name: of the field.
      kind: `int`, `float`, `bool`, `str` or `Path`; of a `Literal`, `str`.
      hint: its type as it was written.
      default: of the field.
      option: all else.
    """

    name: str
    kind: type
    hint: object
    default: object
    option: Option

    @property
    def choices(self) -> Sequence[str]:
        """The names that it takes; none if it takes any value of its type."""
        return self.option.choices or next(
            (typing.get_args(part) for part in _parts(self.hint) if typing.get_origin(part) is Literal), ()
        )

    @property
    def called(self) -> str:
        """What sentences call it."""
        return self.option.called or f"the {self.name.replace('_', ' ')}"

    @property
    def values(self) -> str:
        """Its values in words, e.g. "0 to 1" or "crop or pad"; empty where anything goes."""
        if self.choices:
            *others, last = self.choices
            return f"{', '.join(others)} or {last}" if others else last
        least, most = (None if bound is None else _number(bound) for bound in (self.option.least, self.option.most))
        words = f"{least} to {most}" if least and most else f"{least} or more" if least else ""
        return f"{words} {self.option.unit}".strip()

    @property
    def description(self) -> str:
        """What it does, and its values where that does not name them."""
        named = self.choices and all(choice in self.option.help for choice in self.choices)
        return f"{self.option.help}; {self.values}" if self.values and not named else self.option.help

    @property
    def default_text(self) -> str:
        """Its default in words; empty for a switch that is off."""
        if self.option.unset:
            return self.option.unset
        if isinstance(self.default, bool):
            return "on" if self.default else ""
        return "" if self.default is None else _number(self.default)

    def check(self, value: object) -> None:
        """Raises UserError if a value of its type is out of range."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise UserError(f"unknown {self.name.replace('_', ' ')} '{value}': choose one of {', '.join(self.choices)}")
        least, most = self.option.least, self.option.most
        if least is None and most is None:
            return
        number = typing.cast(float, value)
        if not (least is None or number >= least) or not (most is None or number <= most):  # NaN is neither
            bounds = f"at least {_number(least)}" if most is None else f"from {_number(least)} to {_number(most)}"
            raise UserError(f"{self.called} must be {bounds}, not {value}")


@functools.cache
def declared(cls: type) -> Mapping[str, Declared]:
    """The options that a dataclass or a named tuple declares, by name, in order."""
    return {one.name: one for one in _declared(cls)}


def value_of(text: str, option: Declared | None = None) -> object:
    """The value of an option that is given as text: JSON, or the text itself where it is none or the option is a text,
    such as a `reuse` of 3.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_text = option is not None and option.kind is str
    return text if is_text and value is not None and not isinstance(value, str) else value


def check_ranges(options: object) -> None:
    """Raises UserError for the first option of a dataclass or named tuple that is out of its range."""
    for name, one in declared(type(options)).items():
        one.check(getattr(options, name))


def shown(options: object) -> dict[str, object]:
    """The options that change what a clip shows, by name."""
    return {
        name: one.option.like_none if (value := getattr(options, name)) is None else value
        for name, one in declared(type(options)).items()
        if one.option.is_shown
    }


def shown_defaults(cls: type) -> dict[str, object]:
    """The defaults of what `shown` gives: what a clip was made with whose record does not know an option."""
    return {
        name: one.option.like_none if one.default is None else one.default
        for name, one in declared(cls).items()
        if one.option.is_shown
    }


def as_shown(cls: type, values: Mapping[str, object]) -> dict[str, object]:
    """Values that an earlier version may have written, as this one compares them.

    Args:
      cls: declares the options.
      values: of options, and of other things, which stay as they are.

    Returns:
      The values without the options that only say how a clip is computed, and with those that were not known yet.
    """
    options = declared(cls)
    known = {
        name: options[name].option.like_none if name in options and value is None else value
        for name, value in values.items()
        if name not in options or options[name].option.is_shown
    }
    return {**shown_defaults(cls), **known}


def published_names(*classes: type) -> dict[str, str]:
    """Names of the published script's options, without dashes -> ours."""
    return {
        name.removeprefix("--"): one.name
        for cls in classes
        for one in declared(cls).values()
        for name in one.option.published.split()
        if name.removeprefix("--") != one.name
    }


def with_attributes(doc: str | None, cls: type) -> str:
    """A docstring that ends in its section of attributes, with the options that a class declares; for `help`."""
    doc = inspect.cleandoc(doc or "")
    title = "" if "Attributes:" in doc else "\n\nAttributes:"
    return f"{doc}{title}\n" + "".join(f"  {one.name}: {one.description}.\n" for one in declared(cls).values())


def _declared(cls: type) -> Iterator[Declared]:
    defaults: Mapping[str, object] = (
        {field.name: field.default for field in dataclasses.fields(cls)}
        if dataclasses.is_dataclass(cls)
        else getattr(cls, "_field_defaults", {})
    )
    for name, annotated in typing.get_type_hints(cls, include_extras=True).items():
        option = next((part for part in getattr(annotated, "__metadata__", ()) if isinstance(part, Option)), None)
        if option is not None:
            hint = annotated.__origin__
            yield Declared(name, _kind(hint), hint, defaults.get(name), option)


def _kind(hint: object) -> type:
    part = next(part for part in _parts(hint) if part is not type(None))
    return str if typing.get_origin(part) is Literal else part


def _parts(hint: object) -> tuple[Any, ...]:
    """The types of a union, and of anything else that one."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _number(value: object) -> str:
    """A number as a user would write it."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)
