"""What messages say of the config: every key that they name exists."""

import ast
import dataclasses
import re
import typing
from pathlib import Path

import pytest

import tooncrafter_jax
from tooncrafter_jax.training.run_config import TrainConfig
from tooncrafter_jax.training.stages import STAGES

PACKAGE = Path(tooncrafter_jax.__file__).parent
KEY = re.compile(r"(?<![\w.])config\.([a-z_0-9]+(?:\.[a-z_0-9]+)*)")
FILES = ("config.json",)


def texts(tree):
    """The string literals of a module, parts of f-strings among them, but no docstrings; with their lines."""
    with_docstrings = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            alone = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if alone and isinstance(node, with_docstrings):
                docstrings.add(statement.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value


def exists(path, kind=TrainConfig):
    """Whether a dotted path names a value of the config; below a mapping any key does."""
    name, _, rest = path.partition(".")
    if kind is TrainConfig and name in STAGES:
        return not rest or exists(rest, STAGES[name].Options)
    if not dataclasses.is_dataclass(kind):
        return typing.get_origin(kind) is not None
    hints = typing.get_type_hints(kind)
    return name in hints and (not rest or exists(rest, hints[name]))


def named_keys():
    for file in sorted(PACKAGE.rglob("*.py")):
        for line, text in texts(ast.parse(file.read_text())):
            for found in KEY.finditer(text):
                if found[0] not in FILES:
                    yield f"{file.relative_to(PACKAGE)}:{line}", found[1]


def test_keys_that_messages_name_exist():
    found = list(named_keys())
    assert len(found) > 20, "the messages are found"
    assert not [(where, key) for where, key in found if not exists(key)]


@pytest.mark.parametrize(
    ("key", "real"),
    [
        ("data.video", True),
        ("data.loader.video", False),
        ("steps", True),
        ("stepps", False),
        ("model_changes.unet", True),
    ],
)
def test_the_check_tells_keys_from_others(key, real):
    assert exists(key) is real
    text = f'raise UserError(f"set config.{key} to {{value}}")'
    assert [found[1] for _, text in texts(ast.parse(text)) if (found := KEY.search(text))] == [key]
