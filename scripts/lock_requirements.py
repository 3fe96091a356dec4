"""Writes what another host installs, with versions and hashes, from uv.lock; ``--check`` says whether it is current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "src" / "swarmesh" / "hosts" / "requirements.lock"
UV = Path(sys.executable).parent / "uv"
EXPORT = ("export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate", "--quiet")
NEVER = "sys_platform == 'win32'"


def exported() -> str:
    """Every runtime dependency, each with all its hashes.

    What Windows alone needs is left out. Any other condition would have to be decided for the host, while pip decides
    for the machine it runs on, so there must be none.
    """
    done = subprocess.run([UV, *EXPORT], cwd=ROOT, capture_output=True, text=True, check=True)
    requirements = done.stdout.strip().replace(" \\\n    ", "\0").splitlines()
    kept = [line for line in requirements if NEVER not in line]
    assert kept, "uv found no dependencies"
    for line in kept:
        assert ";" not in line, f"{line.partition(' --hash')[0]} depends on the host, which no lock here can say"
    return "\n".join(kept).replace("\0", " \\\n    ") + "\n"


def main() -> int:
    """Exit status 1 when ``--check`` finds a difference."""
    text = exported()
    if "--check" in sys.argv[1:]:
        return int(not LOCK.exists() or LOCK.read_text(encoding="utf-8") != text)
    LOCK.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
