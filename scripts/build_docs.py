"""Builds the documentation into build/docs/site: the manuals of docs/, and an API reference of one page a room.

    python scripts/build_docs.py        (or make docs, which makes an environment with the extra 'docs')

It ends with exit code 1 if a docstring is none that griffe can read, or a link leads nowhere. Nothing is imported from
the package, and nothing fetched.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import griffe  # pyright: ignore[reportMissingImports]
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "tooncrafter_jax"
OUT = ROOT / "build" / "docs"


def main() -> int:
    """Builds; returns the exit code."""
    if problems := docstring_problems():
        print("\n".join(problems), file=sys.stderr)
        return 1
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "docs", OUT / "docs")
    (OUT / PACKAGE).symlink_to(ROOT / PACKAGE)
    rooms = write_api(OUT / "docs" / "api")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    pages = {"api/": rooms, "experiments/": sorted(path.name for path in (ROOT / "docs" / "experiments").glob("*.md"))}
    config["nav"] = [expanded(entry, pages) for entry in config["nav"]]
    (OUT / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    code = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=OUT, check=False).returncode
    if code == 0:
        print(f"{OUT / 'site' / 'index.html'}: {len(list((OUT / 'site').rglob('*.html')))} pages")
    return code


def docstring_problems() -> list[str]:
    """What griffe cannot make of the package's docstrings in Google style, a line each: FILE:LINE: what."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logging.getLogger("griffe").addHandler(handler)
    package = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser="google").load(PACKAGE)
    read_docstrings(package)
    return found


def read_docstrings(thing: griffe.Object | griffe.Alias) -> None:
    """Lets griffe read the docstrings of a module, class or function and of all in it."""
    if thing.is_alias:
        return
    if thing.docstring is not None:
        _ = thing.docstring.parsed
    for member in thing.members.values():
        read_docstrings(member)


def write_api(directory: Path) -> list[str]:
    """Writes a page for the public names and one for each room; returns the pages' names."""
    directory.mkdir()
    (directory / "index.md").write_text(
        f"# The public names\n\nWhat `import {PACKAGE}` offers; everything else may change from version to version.\n\n"
        f"::: {PACKAGE}\n    options:\n      show_submodules: false\n      show_root_heading: false\n"
    )
    pages = ["index.md"]
    for room in sorted((ROOT / PACKAGE).glob("*/__init__.py")):
        name = room.parent.name
        (directory / f"{name}.md").write_text(f"# {name}\n\n::: {PACKAGE}.{name}\n")
        pages.append(f"{name}.md")
    return pages


def expanded(entry: object, pages: dict[str, list[str]]) -> object:
    """An entry of the navigation, with the pages of a folder in the folder's place."""
    if isinstance(entry, dict):
        return {title: expanded(value, pages) for title, value in entry.items()}
    if isinstance(entry, list):
        return [expanded(value, pages) for value in entry]
    return [f"{entry}{page}" for page in pages[entry]] if isinstance(entry, str) and entry in pages else entry


if __name__ == "__main__":
    sys.exit(main())
