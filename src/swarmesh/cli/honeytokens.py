"""`swarmesh honeytokens collect` (R-06): what a task produced, also long after and from anywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from swarmesh.cli.screen import AsJson, note, print_json
from swarmesh.cli.token_printer import Output, TokenPrinter
from swarmesh.client import Swarmesh
from swarmesh.client.events import read_token
from swarmesh.core.task import TaskStatus
from swarmesh.wire.flow import TokensView

app = typer.Typer(no_args_is_help=True, help="Honeytokens: what a task has produced.")


@app.callback()
def _group() -> None:
    """Honeytokens: what a task has produced."""


@app.command()
def collect(
    job_id: Annotated[str, typer.Option(help="As 'nectarflow submit --detach' printed it.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", help="Keep streaming until the task is done.")] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print all tokens of a task so far; example: swarmesh honeytokens collect --job-id ID --follow."""
    with Swarmesh() as swarm:
        if not follow:
            _print(swarm.collect(job_id), TokenPrinter(output), as_json=as_json)
            return
        with swarm.follow(job_id) as stream:
            if not as_json:
                TokenPrinter(output).print_all(stream)
                return
            for _ in stream:
                """Only its end is waited for: JSON is printed whole."""
        print_json(swarm.collect(job_id))


def _print(view: TokensView, printer: TokenPrinter, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    try:
        printer.write(view.text)
        for piece in view.outputs:
            printer.take_piece(read_token(piece))
    finally:
        printer.finish()
    status = TaskStatus(view.status)
    if not status.is_final:
        note(f"{view.job_id} is {status}\n  next: add --follow to see the rest as it comes")
    elif status is not TaskStatus.DONE:
        note(f"{view.job_id} is {status}\n  next: swarmesh nectarflow show {view.job_id}")


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="honeytokens")
