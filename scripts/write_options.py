"""Writes what is made from what is declared: the keyword arguments of `ToonCrafter.interpolate`, the manual's table of
options, and that of the published models.

python scripts/write_options.py [--check]

With --check nothing is written; the exit code is 1 where a file is not up to date, as in `tests/test_options.py`.
"""

from __future__ import annotations

import argparse
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

from tooncrafter_jax.cli.declared_options import flag_of
from tooncrafter_jax.cli.sample import build_parser
from tooncrafter_jax.options import declared
from tooncrafter_jax.sampling.request import Pair, SamplingOptions
from tooncrafter_jax.weights.known_models import KNOWN_MODELS

ROOT = Path(__file__).resolve().parents[1]
KEYWORDS = ROOT / "tooncrafter_jax" / "sampling" / "sampling_keywords.py"
MANUAL = ROOT / "docs" / "sampling.md"
WEIGHTS = ROOT / "docs" / "published-weights.md"
BEGIN, END = "<!-- made by scripts/write_options.py -->\n", "<!-- end -->"
IN_PYTHON = {
    "--first": "first",
    "--last": "last",
    "--sketch": "sketches",
    "--reference": "colour(references)",
    "--sketches": "colour(sketches)",
    "--samples-per-pair": "samples_per_pair",
    "--pick": "pick",
    "--keys": "interpolate_sequence(keys)",
    "--timing": "interpolate_sequence(timing=)",
    "--exposure": "interpolate_sequence(exposure=)",
    "--prompt-at": "interpolate_sequence(prompt=)",
    "--exact-keys": "interpolate_sequence(exact_keys=)",
    "--through-keys": "interpolate_sequence(through_keys=)",
    "--unevenness": "interpolate_sequence(unevenness=)",
    "--model": "load(source)",
    "--lora": "load(lora=)",
    "--dtype": "load(dtype=)",
    "--weight-dtype": "load(weight_dtype=)",
    "--memory": "load(memory=)",
    "--attention": "load(attention=)",
}
"""Arguments of `ToonCrafter.interpolate` and `ToonCrafter.load` that are no declared options."""
HEAD = '''"""The keyword arguments of `ToonCrafter.interpolate`, as editors and type checkers want them.

Made from `SamplingOptions` by scripts/write_options.py: change them there.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class SamplingKeywords(TypedDict, total=False):
    """Options of `SamplingOptions`; those that are left out are the model's own or the published ones."""

'''


def keywords() -> str:
    """The text of `sampling_keywords.py`."""
    lines = [
        f'    {one.name}: {_type(one.hint)}\n    """{_sentence(one.description)}"""\n'
        for one in _declared(SamplingOptions)
    ]
    return HEAD + "".join(lines)


def table() -> str:
    """The options of `tooncrafter sample`, group by group, as Markdown."""
    in_python = IN_PYTHON | {flag_of(one): one.name for cls in (SamplingOptions, Pair) for one in _declared(cls)}
    lines, group = [], ""
    for one in build_parser().described_options():
        if one.name == "--help":
            continue
        if one.group != group:
            group = one.group
            lines += [
                f"\n**{group[0].upper()}{group[1:]}**\n",
                "| option | in Python | what it does |",
                "|---|---|---|",
            ]
        shown = (f"`{one.name}={one.metavar}`" if one.metavar else f"`{one.name}`").replace("|", "\\|")
        opposite = f", `{one.opposite}`" if one.opposite else ""
        name = in_python.get(one.name, "")
        lines.append(f"| {shown}{opposite} | {f'`{name}`' if name else ''} | {_cell(one.text)} |")
    return "\n".join(lines) + "\n"


def models() -> str:
    """The published models that are known, as Markdown."""
    head = "\n| name | about GB | licence | what it is |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{one.name}` | {one.gigabytes:.1f} | {one.licence} | {one.purpose} |\n" for one in KNOWN_MODELS.values()
    )


def with_table(text: str, table: str) -> str:
    """A page with its table brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table}\n{END}{after}"


def _declared(cls: type) -> Any:
    return declared(cls).values()


def _type(hint: Any) -> str:
    """A type as it is written in source."""
    if hint is type(None):
        return "None"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(_type(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return f"Literal[{', '.join(f'{one!r}' for one in typing.get_args(hint))}]".replace("'", '"')
    return hint.__name__


def _sentence(description: str) -> str:
    return f"{description[0].upper()}{description[1:]}."


def _cell(text: str) -> str:
    """A help text inside a table: names of the published script as code, and forms with parts that may be left out."""
    text = re.sub(r"\[(--[^]]+)\]", r"[`\1`]", text)
    return re.sub(r"(\w\S*\[[@/]\S*\])", r"`\1`", text).replace("|", "\\|")


def main() -> int:
    """Writes, or checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    wanted = {
        KEYWORDS: keywords(),
        MANUAL: with_table(MANUAL.read_text(encoding="utf-8"), table()),
        WEIGHTS: with_table(WEIGHTS.read_text(encoding="utf-8"), models()),
    }
    old = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'is not up to date' if check else 'written'}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
