"""The entry point of `swarmesh` and `llorch-pool`."""

from __future__ import annotations

import errno
import io
import os
import sys

from swarmesh import __version__

_UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        code = _written(run(sys.argv))
    except KeyboardInterrupt:
        code = 130
    except RuntimeError as error:
        # Before Python 3.12, Ctrl-C while a dataclass is being made comes as this.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = 130
    except OSError as error:
        code = _unwritable(error)
    sys.exit(code)


def _written(code: int) -> int:
    """The exit code, once all output has left: the interpreter would only complain of what does not as it ends."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _unwritable(error: OSError) -> int:
    """What it means that standard output takes no more; other errors of the system are nobody's to explain here."""
    if error.errno not in _UNWRITABLE or error.filename is not None:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # What is left in the buffer goes there, without a word.
    if error.errno != errno.EPIPE:  # Who reads no more, as `head`, has what it wants.
        print(f"error: output cannot be written: {error.strerror}", file=sys.stderr)
    return 1
