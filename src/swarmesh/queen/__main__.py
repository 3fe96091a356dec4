"""``python -m swarmesh.queen``: the queennode in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys

import msgspec
import structlog
import uvloop

from swarmesh.config.home import find_home
from swarmesh.config.settings import QueenSettings, load_settings
from swarmesh.core.errors import ConfigError, SwarmeshError
from swarmesh.queen.process import serve
from swarmesh.wire.errors import envelope


def main() -> int:
    """Run until told to stop; 1 and one line of JSON on stderr when she cannot start."""
    parser = argparse.ArgumentParser(prog="python -m swarmesh.queen", description="The queennode, in the foreground.")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on, 0 lets the system choose")
    arguments = parser.parse_args()
    _log_as_json()
    try:
        home = find_home(os.environ)
        settings = load_settings(home.config_file)
        uvloop.run(serve(home, msgspec.structs.replace(settings, queennode=_changed(settings.queennode, arguments))))
    except SwarmeshError as error:
        sys.stderr.write(envelope(error).decode() + "\n")
        return 1
    return 0


def _changed(settings: QueenSettings, arguments: argparse.Namespace) -> QueenSettings:
    changes = {name: value for name, value in vars(arguments).items() if value is not None}
    try:
        # Converted, not replaced: a port beyond the range would be taken modulo 65536 by the event loop.
        return msgspec.convert({**msgspec.structs.asdict(settings), **changes}, QueenSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"an argument cannot be used: {error}") from error


def _log_as_json() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
