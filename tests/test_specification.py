"""What the sources cite is in the specification."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CITATION = re.compile(r"\bspec(?:ification)?\s+(?:sections?\s+)?((?:\d+(?:\.\d+)?)(?:(?:,| to| and)\s+\d+(?:\.\d+)?)*)")


def headings() -> set[str]:
    text = (ROOT / "docs" / "specification.md").read_text(encoding="utf-8")
    return set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", text, flags=re.MULTILINE))


def test_every_cited_section_exists() -> None:
    files = [
        *ROOT.glob("*.py"),
        *(path for room in ("tooncrafter_jax", "tests", "configs") for path in (ROOT / room).rglob("*.py")),
    ]
    cited = {
        (number, path.relative_to(ROOT).as_posix())
        for path in files
        for numbers in CITATION.findall(path.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+(?:\.\d+)?", numbers)
    }
    assert len(cited) > 100
    assert not sorted((number, path) for number, path in cited if number not in headings())


def test_there_is_one_name_for_it() -> None:
    """No source names another document of facts."""
    sources = [path for path in (ROOT / "tooncrafter_jax").rglob("*.py")]
    assert not [
        path.name for path in sources if re.search(r"spec\.md|quirks(\.md)? section", path.read_text(encoding="utf-8"))
    ]


def test_sections_are_numbered_in_order() -> None:
    chapters = [
        number for number in sorted(headings(), key=lambda n: [int(part) for part in n.split(".")]) if "." not in number
    ]
    assert chapters == [str(number) for number in range(1, len(chapters) + 1)]
