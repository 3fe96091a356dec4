"""The one command that is ever run over SSH. Whatever differs goes in by standard input, where no shell reads it.

It finds a Python, has it read one line with a length and a program of that length, and runs the program
(`swarmesh.hosts.bootstrap`, which needs nothing but Python). The program reads one line of JSON, its order, from the
rest of standard input; so nothing may be read ahead, and nothing is: the input is read without a buffer.
"""

from __future__ import annotations

from typing import Final

_STAGE_0: Final = (
    r"f=open(0,\"rb\",0,closefd=False);n=int(f.readline());exec(compile(b\"\".join(f.read(1) for _ in range(n)),"
    r"\"swarmesh\",\"exec\"))"
)
"""Reads byte by byte: a FileIO without a buffer takes no more from the pipe than is asked for."""

_OLD: Final = "import sys; sys.exit(sys.version_info < (3, 11))"

REMOTE_COMMAND: Final = (
    "exec /bin/sh -c '"
    'PATH="$PATH:/usr/local/bin:/opt/homebrew/bin:/usr/bin"; export PATH; '
    "for p in python3 python3.13 python3.12 python3.11 python3.14; do "
    f'if "$p" -c "{_OLD}" </dev/null >/dev/null 2>&1; then exec "$p" -I -u -c "{_STAGE_0}"; fi; '
    "done; echo swarmesh: no python 3.11 >&2; exit 127'"
)
"""Quoted for every login shell: single quotes without a backslash before one, an exclamation mark or a line break."""

NO_PYTHON_MARK: Final = "swarmesh: no python 3.11"
"""On standard error, with exit code 127, when no Python is new enough."""
