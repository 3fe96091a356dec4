"""What the repository promises as a whole: its name, its layers, its pages and its targets."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from source_tree import ROOT, place

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*?) *#*$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
MAKE_IN_FENCE = re.compile(r"^\s*(?:\$ )?make +([^#\n]*)", re.MULTILINE)
MAKE_IN_SPAN = re.compile(r"`make\s+([^`]*)`")
TARGET = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_. -]*):(?!=)", re.MULTILINE)


def test_the_distribution_is_called_rustbee_and_the_command_swarmesh() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "rustbee"
    assert project["license"] == "Apache-2.0"
    assert {"swarmesh", "llorch-pool"} <= set(project["scripts"])


def test_imports_go_one_way() -> None:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout, "both contracts of pyproject.toml were looked at"


def test_the_state_machines_in_the_docs_are_those_of_the_code() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "state_tables.py"), "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "python scripts/state_tables.py writes them anew" + done.stderr


def test_links_between_pages_lead_somewhere() -> None:
    found = []
    for page in PAGES:
        for number, target in _links(page):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            if not linked.exists():
                found.append(f"{place(page, number)} links to {target}, which is not there")
            elif anchor and linked.suffix == ".md" and anchor not in _anchors(linked):
                found.append(f"{place(page, number)} links to {target}, a heading that is not there")
    assert not found, "\n" + "\n".join(found)


def _links(page: Path) -> Iterator[tuple[int, str]]:
    text = FENCE.sub(lambda fence: "\n" * fence.group().count("\n"), page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if not re.match(r"[a-z]+:", target):
            yield text.count("\n", 0, match.start()) + 1, target


def _anchors(page: Path) -> set[str]:
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_make_target_the_pages_name_exists() -> None:
    targets = {name for line in TARGET.findall((ROOT / "Makefile").read_text()) for name in line.split()}
    assert {"setup", "demo", "test"} <= targets
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in (*MAKE_IN_SPAN.finditer(text), *_make_in_fences(text)):
            words = [word for word in match[1].split() if "=" not in word and not word.startswith("-")]
            line = text.count("\n", 0, match.start()) + 1
            found += [f"{place(page, line)} names 'make {word}'" for word in words if word not in targets]
    assert not found, "\n" + "\n".join(found)


def _make_in_fences(text: str) -> Iterator[re.Match[str]]:
    for fence in FENCE.finditer(text):
        yield from MAKE_IN_FENCE.finditer(text, fence.start(), fence.end())


def test_what_make_runs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for module in re.findall(r"-m ((?:bench|swarmesh)[\w.]*)", makefile):
        path = (ROOT / "src" if module.startswith("swarmesh") else ROOT) / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"Makefile runs {module}"
    for script in re.findall(r"scripts/\w+\.py", makefile):
        assert (ROOT / script).exists(), f"Makefile runs {script}"
