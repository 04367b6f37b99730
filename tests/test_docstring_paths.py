"""A dotted path in a docstring, such as `sampling.request.Pair`, leads to what is there.

Read from the sources: a path may end in a module, or in what a module defines or imports, without importing any.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tooncrafter_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
_PATH = re.compile(r"`([a-z_]\w*(?:\.\w+)+)(?:\(\))?`")
_OF_FILES = (".json", ".md", ".safetensors")
"""Endings of names that are those of files."""


def told_paths(file: Path) -> set[str]:
    """What stands in backticks in a module's docstrings, those of its constants too, and has a dot in it."""
    texts = (
        node.value.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return {path for text in texts for path in _PATH.findall(text) if not path.endswith(_OF_FILES)}


def starts(file: Path, path: str) -> Iterator[Path]:
    """The folders that a path may be told from, where they have what it begins with: a room, or a neighbour."""
    first = path.partition(".")[0]
    for folder in file.parents:
        if (folder / first / "__init__.py").is_file() or ((folder / f"{first}.py").is_file() and folder == file.parent):
            yield folder
        if folder == PACKAGE:
            return


def leads_somewhere(folder: Path, names: Sequence[str]) -> bool:
    """Whether names, below a folder, are those of folders, then of a module, then of what stands in it."""
    for count, name in enumerate(names):
        if not (folder / name).is_dir():
            module = folder / f"{name}.py"
            if module.is_file():
                return is_defined(ast.parse(module.read_text()).body, names[count + 1 :])
            return is_defined(ast.parse((folder / "__init__.py").read_text()).body, names[count:])
        folder /= name
    return True


def is_defined(body: Sequence[ast.stmt], names: Sequence[str]) -> bool:
    """Whether statements define the first of the names, and what stands in it the others; what is imported is taken
    for whole.
    """
    if not names:
        return True
    name, *rest = names
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.ClassDef() if statement.name == name:
                return is_defined(statement.body, rest)
            case ast.Import() | ast.ImportFrom() if any((one.asname or one.name) == name for one in statement.names):
                return True
            case ast.Assign(targets=targets) if any(isinstance(one, ast.Name) and one.id == name for one in targets):
                return not rest
            case ast.AnnAssign(target=ast.Name(id=target)) if target == name:
                return not rest
    return False


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_a_docstring_names_is_there(file: Path):
    for path in sorted(told_paths(file)):
        folders = list(starts(file, path))
        assert not folders or any(leads_somewhere(folder, path.split(".")) for folder in folders), path


def test_a_path_that_leads_nowhere_is_found():
    def leads(path: str) -> bool:
        return leads_somewhere(PACKAGE, path.split("."))

    assert leads("sampling.request.Pair") and leads("options.Option.help") and leads("diffusion.solvers")
    assert (
        not leads("sampling.requests.Pair") and not leads("sampling.request.Twin") and not leads("options.Option.hlp")
    )
    assert list(starts(PACKAGE / "data" / "loader.py", "transforms.resize_and_crop")) == [PACKAGE / "data"]
    assert not list(starts(PACKAGE / "data" / "loader.py", "jax.jit"))
