"""The entry point of `swarmesh` and `llorch-pool`."""

from __future__ import annotations

import io
import sys

from swarmesh import __version__


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if sys.argv[1:] in (["version"], ["--version"]):
        print(f"swarmesh {__version__}")
        return
    try:
        from swarmesh.cli.program import run  # noqa: PLC0415 - the parser takes longer to import than this to print

        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A terminal that cannot show a character must not end the answer it stands in.
                stream.reconfigure(errors="backslashreplace")
        code = run(sys.argv)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
