"""The command line as a whole: builds the command that was typed, runs it, and turns its end into an exit code.

Only the module of the noun that was typed is imported, so that none waits for what it does not use.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from swarmesh import __version__
from swarmesh.cli.failure import ExitCode, report, report_usage
from swarmesh.core.errors import SwarmeshError

HOST_PROGRAM: Final = "llorch-pool"
"""The name under which only the commands for one host exist (R-07)."""

NOUNS: Final[Mapping[str, str]] = {
    "up": "swarmesh.cli.up",
    "down": "swarmesh.cli.down",
    "demo": "swarmesh.cli.demo",
    "queennode": "swarmesh.cli.queennode",
    "spawn": "swarmesh.cli.spawn",
    "rustbees": "swarmesh.cli.rustbees",
    "hosts": "swarmesh.cli.hosts",
    "waggle": "swarmesh.cli.waggle",
    "nectarflow": "swarmesh.cli.nectarflow",
    "honeytokens": "swarmesh.cli.honeytokens",
    "models": "swarmesh.cli.models",
    "keys": "swarmesh.cli.keys",
    "swarmscale": "swarmesh.cli.swarmscale",
    "policy": "swarmesh.cli.policy",
    "explain": "swarmesh.cli.explain",
    "rustbee": "swarmesh.cli.rustbee",
    "chaos": "swarmesh.cli.chaos",
    "sim": "swarmesh.cli.sim",
    "env": "swarmesh.cli.env",
    "doctor": "swarmesh.cli.doctor",
    "version": "swarmesh.cli.version",
}
HOST_NOUNS: Final[Mapping[str, str]] = {name: NOUNS[name] for name in ("rustbee", "version")}


def run(argv: Sequence[str]) -> int:
    """Run one command line, its program name first, and return the exit code."""
    program, arguments = Path(argv[0]).name, list(argv[1:])
    as_json = "--json" in arguments
    app = build(HOST_NOUNS if program == HOST_PROGRAM else NOUNS, arguments)
    try:
        code = app(args=arguments, prog_name=program, standalone_mode=False)
    except SwarmeshError as error:
        return report(error, as_json=as_json)
    except TyperException as error:
        return report_usage(error, as_json=as_json)
    except typer.Abort:
        return ExitCode.FAILED
    return code if isinstance(code, int) else ExitCode.DONE


def build(nouns: Mapping[str, str], arguments: Sequence[str]) -> typer.Typer:
    """The application, with the one noun that was typed, or all of them when it is none."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, callback=_root)
    typed = arguments[0] if arguments else ""
    for module in [nouns[typed]] if typed in nouns else nouns.values():
        importlib.import_module(module).add_to(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"swarmesh {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Swarmesh: one private AI swarm made of the machines you already own."""
