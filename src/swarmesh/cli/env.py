"""`swarmesh env`: what every OpenAI client needs to know."""

from __future__ import annotations

import os
import shlex

import typer

from swarmesh.cli.screen import AsJson, print_json
from swarmesh.client.endpoint import find_endpoint


def env(as_json: AsJson = False) -> None:
    """Print the base URL and key for OpenAI clients; use it as: eval "$(swarmesh env)"."""
    endpoint = find_endpoint(None, None, os.environ)
    variables = {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": endpoint.key}
    if as_json:
        print_json(variables)
        return
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(env)
