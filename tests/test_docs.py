"""Every file that a page links to or shows is there, and every heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests" / "golden").rglob("*.md")]
PRESENT = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "experiments"]
"""Pages of what is; the others tell what was."""
_FILE = re.compile(r"`(\w[\w.-]*/[\w./-]*)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MADE = "api/"
"""The API reference is made by scripts/build_docs.py."""


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path):
    for link in _LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        if re.match(r"https?:", link) or link.startswith(_MADE):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in headings(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path):
    """Of a folder of the repository, or of a room of the package."""
    for path in _FILE.findall(page.read_text()):
        folder = next(
            (base for base in (ROOT / "tooncrafter_jax", ROOT) if (base / path.partition("/")[0]).is_dir()), None
        )
        assert folder is None or (folder / path).exists(), f"{page.name} names {path}"


def test_the_readme_stays_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in config, f"{page.name} is missing from mkdocs.yml"
