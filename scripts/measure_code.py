"""The size and shape of a checkout in figures, as a table; several checkouts stand side by side.

    python scripts/measure_code.py [CHECKOUT ...] [--rooms] [--types]

Lines are those of code: without blank lines and docstrings. A public name is in a module's `__all__`, or, without one,
defined at its top and starts with no underscore. A bare array is `np.ndarray` or `jax.Array` without a shape, in the
signature of a public function or method. Two places repeat each other where six or more of their lines are equal, but
for white space; imports, comments and lines of brackets alone do not count. With `--types`, pyright counts the errors
that it finds in its standard mode, which takes minutes.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "tooncrafter_jax"
REPEATED = 6
"""Equal lines that make a pair of repeated blocks."""
COMMON = 8
"""Places that a run of lines may stand in before it is an idiom and no repetition."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(".")])
    parser.add_argument("--rooms", action="store_true", help="each room's lines, `Any`s and bare arrays as well")
    parser.add_argument("--types", action="store_true", help="pyright's errors in standard mode as well")
    options = parser.parse_args()
    columns = [measures(checkout, options.rooms, options.types) for checkout in options.checkouts]
    rows = list(dict.fromkeys(name for column in columns for name in column))
    width = max(map(len, rows))
    print(" " * width, *(f"{str(checkout)[-18:]:>18}" for checkout in options.checkouts))
    for row in rows:
        print(f"{row:{width}}", *(f"{column.get(row, '–')!s:>18}" for column in columns))


def measures(checkout: Path, rooms: bool = False, types: bool = False) -> dict[str, object]:
    """The figures of a checkout, by name."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=checkout, capture_output=True, text=True, check=True)
    sources = {name: (checkout / name).read_text() for name in listed.stdout.split() if (checkout / name).exists()}
    trees = {name: ast.parse(source) for name, source in sources.items()}
    lines = {name: code_lines(source, trees[name]) for name, source in sources.items()}
    package = [name for name in sources if name.startswith(f"{PACKAGE}/")]
    functions = [
        ((n.end_lineno or 0) - n.lineno + 1, name, n.name)
        for name in package
        for n in ast.walk(trees[name])
        if isinstance(n, _FUNCTIONS)
    ]
    longest = max(
        (source.count("\n"), name) for name, source in sources.items() if name.startswith((PACKAGE, "tests/"))
    )

    by_part: dict[str, list[str]] = defaultdict(list)
    for name in sources:
        by_part[name.split("/")[0] if "/" in name else "(top)"].append(name)
    figures: dict[str, object] = {
        f"lines, {part}": sum(lines[n] for n in names) for part, names in sorted(by_part.items())
    }
    figures |= {
        "public names": sum(len(public_names(trees[name])) for name in package),
        "training options": training_options({name: trees[name] for name in package}),
        "Any": sum(anys(sources[name]) for name in package),
        "bare arrays in public signatures": sum(bare_arrays(trees[name]) for name in package),
        "pairs of repeated blocks": len(repeated_pairs(sources)),
        "longest function": "{0} {2}".format(*max(functions)),
        "longest file": f"{longest[0]} {Path(longest[1]).name}",
        "modules at the package's root": sum(name.count("/") == 1 for name in package),
        "words of the README": len((checkout / "README.md").read_text().split()),
    }
    if rooms:
        by_room: dict[str, list[str]] = defaultdict(list)
        for name in package:
            by_room[name.split("/")[1] if name.count("/") > 1 else "(root)"].append(name)
        for room, names in sorted(by_room.items()):
            counts = (
                sum(lines[n] for n in names),
                sum(anys(sources[n]) for n in names),
                sum(bare_arrays(trees[n]) for n in names),
            )
            figures[f"{room}: lines, Any, bare"] = " ".join(map(str, counts))
    if types:
        figures["pyright errors, standard"] = type_errors(checkout)
    return figures


def code_lines(source: str, tree: ast.Module) -> int:
    """Lines that are neither blank nor part of a docstring."""
    documented = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *_FUNCTIONS)):
            for statement in node.body:
                if (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                ):
                    documented.update(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return sum(bool(line.strip()) and number not in documented for number, line in enumerate(source.splitlines(), 1))


def public_names(tree: ast.Module) -> list[str]:
    """Names that a module offers."""
    defined: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, *_FUNCTIONS)):
            defined.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if names == ["__all__"] and isinstance(node.value, (ast.List, ast.Tuple)):
                return [ast.literal_eval(item) for item in node.value.elts]
            defined += names
    return [name for name in defined if not name.startswith("_")]


def training_options(trees: dict[str, ast.Module]) -> int:
    """Fields of `TrainConfig`, and of the dataclasses in its fields, subclasses included; a model's are none of
    them.
    """
    classes = {n.name: n for tree in trees.values() for n in tree.body if isinstance(n, ast.ClassDef)}
    children: dict[str, list[str]] = defaultdict(list)
    for name, node in classes.items():
        for base in node.bases:
            children[ast.unparse(base)].append(name)
    counted: set[str] = set()

    def fields(name: str) -> int:
        if name in counted:
            return 0
        counted.add(name)
        total = sum(fields(child) for child in children[name])
        for item in classes[name].body:
            if isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item.annotation):
                nested = [
                    word for word in re.findall(r"\w+", ast.unparse(item.annotation)) if _is_options(classes.get(word))
                ]
                total += sum(map(fields, nested)) if nested else 1
        return total

    return fields("TrainConfig") if "TrainConfig" in classes else 0


def _is_options(node: ast.ClassDef | None) -> bool:
    return node is not None and any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def anys(source: str) -> int:
    """How often the word `Any` stands in a source, imports included."""
    return len(re.findall(r"\bAny\b", source))


def bare_arrays(tree: ast.Module) -> int:
    """Annotations of public parameters and results that say array, and nothing of its shape."""
    return sum(_bare(annotation) for annotation in _public_annotations(tree.body))


def _public_annotations(body: list[ast.stmt]) -> Iterator[ast.expr]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_annotations(node.body)
        elif isinstance(node, _FUNCTIONS) and (not node.name.startswith("_") or node.name.startswith("__")):
            arguments = [
                *node.args.posonlyargs,
                *node.args.args,
                *node.args.kwonlyargs,
                node.args.vararg,
                node.args.kwarg,
            ]
            yield from (argument.annotation for argument in arguments if argument and argument.annotation)
            if node.returns:
                yield node.returns


def _bare(annotation: ast.expr) -> int:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return _bare(ast.parse(annotation.value, mode="eval").body)
        except SyntaxError:
            return 0
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        first, *rest = annotation.slice.elts
        if ast.unparse(first) in _ARRAYS and rest and isinstance(rest[-1], ast.Constant):
            return 0  # Float[Array, "B T"]
    if ast.unparse(annotation) in _ARRAYS:
        return 1
    return sum(_bare(child) for child in ast.iter_child_nodes(annotation) if isinstance(child, ast.expr))


_ARRAYS = {"np.ndarray", "ndarray", "jax.Array", "Array", "jnp.ndarray"}


def repeated_pairs(sources: dict[str, str]) -> list[tuple[str, int, str, int, int]]:
    """Pairs of places as (file, line, file, line, equal lines), the longest first."""
    kept = {name: _comparable(source) for name, source in sources.items()}
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, rows in kept.items():
        for start in range(len(rows) - REPEATED + 1):
            windows[tuple(text for _, text in rows[start : start + REPEATED])].append((name, start))
    matches = {
        (first, second)
        for places in windows.values()
        if 1 < len(places) <= COMMON
        for index, first in enumerate(places)
        for second in places[index + 1 :]
        if first[0] != second[0] or second[1] - first[1] >= REPEATED
    }
    pairs = []
    for (one, start), (other, begin) in matches:
        if ((one, start - 1), (other, begin - 1)) in matches:
            continue  # inside a longer run
        length = 0
        while ((one, start + length), (other, begin + length)) in matches:
            length += 1
        pairs.append((one, kept[one][start][0], other, kept[other][begin][0], length + REPEATED - 1))
    return sorted(pairs, key=lambda pair: (-pair[-1], pair))


def _comparable(source: str) -> list[tuple[int, str]]:
    rows = ((number, " ".join(line.split())) for number, line in enumerate(source.splitlines(), 1))
    return [row for row in rows if re.search(r"\w", row[1]) and not row[1].startswith(("#", "import ", "from "))]


def type_errors(checkout: Path) -> int:
    """Errors of pyright in standard mode, over package, tests, configs and scripts."""
    root = checkout.resolve()
    include = [
        name for name in (PACKAGE, "tests", "configs", "scripts", "sample.py", "train.py") if (root / name).exists()
    ]
    settings = {"include": include, "typeCheckingMode": "standard", "pythonVersion": "3.11"}
    with tempfile.NamedTemporaryFile("w", dir=root, suffix=".json") as file:
        json.dump(settings, file)
        file.flush()
        command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", file.name, "--outputjson"]
        report = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    return Counter(found["severity"] for found in report["generalDiagnostics"])["error"]


if __name__ == "__main__":
    main()
