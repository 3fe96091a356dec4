"""What the code of this house does not do. Each failure names the file and the line."""

from __future__ import annotations

import ast
import re

from source_tree import ROOT, SRC, TESTS, at, dotted, lines_of, modules_of, nodes, place, python_files, tree_of

SRC_LINES_MAX = 400
TEST_LINES_MAX = 480
LONG_FILES: dict[str, str] = {
    "src/swarmesh/hosts/bootstrap.py": "it is sent to a host as one text, with nothing beside it",
}
"""Longer files, each with the reason why it stays one."""

IMPURE = frozenset({"asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random"})
IMPURE |= {"secrets", "select", "shutil", "signal", "socket", "structlog", "subprocess", "sys", "tempfile", "threading"}
IMPURE |= {"time", "uuid", "uvloop"}
PURE_PACKAGES = ("core", "wire")

DANGEROUS_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "imp"})
DANGEROUS_CALLS = frozenset(
    {"eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
)

WIDE_EXCEPT_EDGES = {
    "src/swarmesh/queen/driver.py": "what one task's runner does wrong must not take other tasks' commands along",
    "src/swarmesh/queen/front.py": "one request must not take the connection's others along",
    "src/swarmesh/queen/process.py": "the outer edge of time: without ticks nobody would ever be found dead again",
    "src/swarmesh/queen/scripts.py": "whatever came of one look at a file, saves after it must not pass unseen",
    "src/swarmesh/queen/seeks.py": "the core waits for an answer, and must get one whatever went wrong",
    "src/swarmesh/store/writer.py": "a thread's outer edge: callers hear of it as an error of theirs",
    "src/swarmesh/hosts/ssh_host.py": "what one host says wrongly must not end the tries to reach it",
    "src/swarmesh/engines/python_class.py": "the user's own code may raise anything; its task fails, the worker lives",
}

VAGUE_NAMES = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "base", "misc", "stuff"})

ELLIPSIS = "\u2026"
"""Allowed in words for people, like any ASCII character."""

SPAWNING = re.compile(r"(^|\.)(Popen|subprocess\.run|create_subprocess_exec|subprocess_exec|execv|execve)$")
SECRET_WORD = re.compile(r"(^|_)(key|secret|token|password|api_key)$")
SECRET_OPTION = re.compile(r"^--([a-z-]*-)?(key|secret|token|password)$")


def none(found: list[str]) -> None:
    """Fail with one line for each finding."""
    assert not found, "\n" + "\n".join(found)


def test_files_are_short() -> None:
    limits = [(path, SRC_LINES_MAX) for path in python_files(SRC)]
    limits += [(path, TEST_LINES_MAX) for path in python_files(TESTS)]
    none(
        [
            f"{place(path)} has {len(lines_of(path))} lines, more than {limit}: a file is one noun"
            for path, limit in limits
            if len(lines_of(path)) > limit and str(path.relative_to(ROOT)) not in LONG_FILES
        ]
    )


def test_long_files_are_still_long() -> None:
    none(
        [
            f"{name} is short again; strike it from LONG_FILES"
            for name in LONG_FILES
            if len(lines_of(ROOT / name)) <= 400
        ]
    )


def test_core_and_wire_are_pure() -> None:
    none(
        [
            f"{at(path, node)} imports {module}: the clock, chance and the world stay outside {package}/"
            for package in PURE_PACKAGES
            for path, node in nodes(SRC / package)
            for module in modules_of(node)
            if module.split(".")[0] in IMPURE
        ]
    )


def test_nothing_dangerous_is_imported_or_called() -> None:
    found = []
    for path, node in nodes(SRC):
        found += [
            f"{at(path, node)} imports {name}" for name in modules_of(node) if name.split(".")[0] in DANGEROUS_MODULES
        ]
        if isinstance(node, ast.Call) and dotted(node.func) in DANGEROUS_CALLS:
            found.append(f"{at(path, node)} calls {dotted(node.func)}")
    none(found)


def test_no_shell_strings() -> None:
    found = []
    for path, node in nodes(SRC):
        if isinstance(node, ast.Call):
            shell = [word for word in node.keywords if word.arg == "shell"]
            found += [f"{at(path, node)} passes shell=: hand over a list of arguments" for _ in shell]
            if dotted(node.func).endswith("create_subprocess_shell"):
                found.append(f"{at(path, node)} starts a shell")
    none(found)


def test_no_secrets_in_arguments() -> None:
    found = []
    for path, node in nodes(SRC):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SECRET_OPTION.match(node.value):
            found.append(f"{at(path, node)} takes {node.value}: every user of the machine can read an argument")
        if isinstance(node, ast.Call) and SPAWNING.search(dotted(node.func)):
            given = [word for argument in node.args for word in ast.walk(argument)]
            names = [dotted(word).split(".")[-1] for word in given if isinstance(word, ast.Name | ast.Attribute)]
            secrets = [name for name in names if SECRET_WORD.search(name.lower())]
            found += [f"{at(path, node)} puts {name} into a command line: use its standard input" for name in secrets]
    none(found)


def test_wide_excepts_stand_at_edges_or_raise_again() -> None:
    found = []
    for path, node in nodes(SRC):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ["everything"] if node.type is None else [dotted(kind) for kind in ast.walk(node.type)]
        wide = {"everything", "Exception", "BaseException"} & set(caught)
        raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if wide and not raises_again and str(path.relative_to(ROOT)) not in WIDE_EXCEPT_EDGES:
            found.append(f"{at(path, node)} catches {wide.pop()} and goes on: name what can happen")
        if node.type is None:
            found.append(f"{at(path, node)} has a bare except")
    none(found)


def test_every_edge_is_still_one() -> None:
    none(
        [f"{name} catches no Exception any more" for name in WIDE_EXCEPT_EDGES if "except Exception" not in _text(name)]
    )


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    found = [
        f"{place(path, number)} has a note for later: do it, or write an issue"
        for path in (*python_files(SRC), *python_files(TESTS))
        for number, line in enumerate(lines_of(path), 1)
        if mark.search(line)
    ]
    found += [
        f"{at(path, node)} raises NotImplementedError"
        for path, node in nodes(SRC)
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]
    none(found)


def test_only_the_command_line_prints() -> None:
    none(
        [
            f"{at(path, node)} prints"
            for path, node in nodes(SRC)
            if isinstance(node, ast.Call) and dotted(node.func) == "print" and "cli" not in path.relative_to(SRC).parts
        ]
    )


def test_no_global_statements() -> None:
    none([f"{at(path, node)} has a global statement" for path, node in nodes(SRC) if isinstance(node, ast.Global)])


def test_a_file_is_the_noun_it_defines() -> None:
    found = []
    for path in (*python_files(SRC), *python_files(TESTS)):
        words = set(path.stem.removeprefix("test_").split("_")) | set(path.relative_to(ROOT).parts[:-1])
        found += [f"{place(path)} is called {word}, which says nothing" for word in sorted(words & VAGUE_NAMES)]
    none(found)


def test_every_package_says_what_it_is() -> None:
    found = []
    for directory in {path.parent for path in python_files(SRC)}:
        start = directory / "__init__.py"
        if not start.exists():
            found.append(f"{place(directory)} has no __init__.py")
        elif not ast.get_docstring(tree_of(start)):
            found.append(f"{place(start)} has no docstring")
    none(found)


def test_source_is_ascii() -> None:
    none(
        [
            f"{place(path, number)} is not ASCII: write an escape"
            for path in python_files(SRC)
            for number, line in enumerate(lines_of(path), 1)
            if not line.replace(ELLIPSIS, "").isascii()
        ]
    )


def test_every_exemption_has_its_reason() -> None:
    exemption = re.compile(r"#\s*(noqa(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?|type:\s*ignore(?:\[[\w, -]+\])?)(.*)")
    found = []
    for path in python_files(SRC):
        for number, line in enumerate(lines_of(path), 1):
            match = exemption.search(line)
            explained = number > 1 and lines_of(path)[number - 2].lstrip().startswith("#")
            if match and not explained and len(match[2].strip(" -#:").split()) < 2:
                found.append(f"{place(path, number)} has {match[1]!r} without a reason")
            if match and match[1] in {"noqa", "type: ignore"}:
                found.append(f"{place(path, number)} exempts a line from everything: name the rule")
    none(found)
