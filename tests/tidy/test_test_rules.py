"""What the tests of this house do not do."""

from __future__ import annotations

import ast
import re
from collections import Counter

from source_tree import TESTS, at, dotted, nodes, place, python_files

QUICK = ("unit", "property", "simulation", "tidy")
YIELDS_ONLY = "asyncio.sleep(0)"


def test_quick_tests_do_not_wait_for_the_clock() -> None:
    found = [
        f"{at(path, node)} sleeps: wait for what happens, or move the clock"
        for kind in QUICK
        for path, node in nodes(TESTS / kind)
        if isinstance(node, ast.Call)
        and dotted(node.func) in {"time.sleep", "asyncio.sleep", "sleep", "anyio.sleep"}
        and ast.unparse(node) != YIELDS_ONLY
    ]
    assert not found, "\n" + "\n".join(found)


def test_file_names_are_unique_so_that_pytest_can_import_them() -> None:
    names = Counter(path.name for path in python_files(TESTS) if path.name != "conftest.py")
    found = [place(path) for path in python_files(TESTS) if names[path.name] > 1]
    assert not found, "\nnamed alike:\n" + "\n".join(found)


def test_test_directories_are_no_packages() -> None:
    assert not [place(path) for path in TESTS.rglob("__init__.py")]


def test_every_test_file_has_tests() -> None:
    files = [path for path in python_files(TESTS) if path.name.startswith("test_")]
    empty = [place(path) for path in files if not re.search(r"def test_|TestCase", path.read_text(encoding="utf-8"))]
    assert not empty, "\nno test in:\n" + "\n".join(empty)
