"""The repository's own files, read once, with the line of everything that is found in them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "swarmesh"
TESTS = ROOT / "tests"


@functools.cache
def python_files(directory: Path) -> tuple[Path, ...]:
    """Every Python file below a directory."""
    found = tuple(sorted(directory.rglob("*.py")))
    assert found, f"{directory} has no Python files"
    return found


@functools.cache
def lines_of(path: Path) -> tuple[str, ...]:
    """A file's lines."""
    return tuple(path.read_text(encoding="utf-8").splitlines())


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def nodes(directory: Path) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every file."""
    for path in python_files(directory):
        for node in ast.walk(tree_of(path)):
            yield path, node


def place(path: Path, line: int = 1) -> str:
    """``file:line`` from the root, as editors open it."""
    return f"{path.relative_to(ROOT)}:{line}"


def at(path: Path, node: ast.AST) -> str:
    """The place of a node."""
    return place(path, getattr(node, "lineno", 1))


def modules_of(node: ast.AST) -> list[str]:
    """The modules an import statement names; none for any other node."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str() as module, level=0):
            return [module]
        case _:
            return []


def dotted(node: ast.AST) -> str:
    """``a.b.c`` for a name or an attribute of one; empty for anything else."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            before = dotted(node.value)
            return f"{before}.{node.attr}" if before else ""
        case _:
            return ""
