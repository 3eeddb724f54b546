"""How the files import one another, counted: `python -m tests.helpers.architecture` prints it and fails where a rule is
broken. The layers themselves are import-linter's contracts (pyproject.toml).

Two rules: no two files import each other, however far round; and what is ours is imported at the top of a file, so that
a reader sees what it stands on. Two kinds of function-level import are meant: the command line's (`--help` is instant),
and those of the files in `HEAVY`, which need torch, trl, vLLM or Ray Tune as soon as they are imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "tasks", "tune", "cluster", "mergefront")
LAZY = "orchestrator.cli"
HEAVY = {
    "tasks.finetuning.icft",
    "tasks.finetuning.train",
    "tasks.merging.live",
    "tasks.serving.vllm_engine",
    "tune.run",
}
"""Files that import torch, trl, vLLM or Ray Tune at their top."""


def modules(root: Path) -> dict[str, Path]:
    """Module → its file."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(tree: ast.AST, known: set[str]) -> Iterator[tuple[str, int]]:
    """Our modules that a piece of code imports, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                target = name if name in known else node.module
                if target in known:
                    yield target, node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in known)


def top_level(tree: ast.Module, known: set[str]) -> set[str]:
    """Our modules that a file imports as it is imported itself, `if TYPE_CHECKING:` included."""
    inside = {line for node in functions(tree) for _, line in imported(node, known)}
    return {target for target, line in imported(tree, known) if line not in inside}


def functions(tree: ast.Module) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def type_checking(tree: ast.Module, known: set[str]) -> Iterator[tuple[str, int]]:
    """Our modules that are imported for type checkers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from imported(node, known)


def circles(root: Path) -> list[list[str]]:
    """Files that import one another; the first circle that is found, if there is one."""
    files = modules(root)
    graph = {name: top_level(ast.parse(file.read_text()), set(files)) - {name} for name, file in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [error.args[1]]
    return []


def hidden_imports(root: Path) -> list[str]:
    """Imports of ours in functions or for type checkers alone that are not meant."""
    files = modules(root)
    found = []
    for name, file in files.items():
        if name == LAZY or name.startswith(f"{LAZY}."):
            continue
        tree = ast.parse(file.read_text())
        inner = {(target, line) for node in functions(tree) for target, line in imported(node, set(files))}
        wrong = [each for each in inner if each[0] not in HEAVY] + list(type_checking(tree, set(files)))
        found += [f"{file.relative_to(root)}:{line} imports {target}" for target, line in sorted(wrong)]
    return found


def main() -> int:
    found, hidden = circles(ROOT), hidden_imports(ROOT)
    for circle in found:
        print(f"circle: {' → '.join(circle)}")
    for each in hidden:
        print(f"hidden: {each}")
    print(f"{len(modules(ROOT))} files, {len(found)} circles, {len(hidden)} imports of ours inside functions")
    return 1 if found or hidden else 0


if __name__ == "__main__":
    sys.exit(main())
