"""`swarmesh version`."""

from __future__ import annotations

import platform

import typer

from swarmesh import __version__
from swarmesh.cli.screen import AsJson, print_json


def version(as_json: AsJson = False) -> None:
    """Show the version of Swarmesh."""
    if as_json:
        print_json({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
    else:
        print(f"swarmesh {__version__}")


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(version)
