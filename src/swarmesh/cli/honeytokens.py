"""`swarmesh honeytokens collect` (R-06): what a task produced, also long after and from anywhere."""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec
import typer

from swarmesh.cli.screen import AsJson, note, print_json
from swarmesh.cli.start_line import StartLine
from swarmesh.cli.token_printer import Output, TokenPrinter
from swarmesh.client import Done, Swarmesh, Token
from swarmesh.client.events import read_token
from swarmesh.core.task import TaskStatus
from swarmesh.wire.flow import TokenData, TokensView

app = typer.Typer(no_args_is_help=True, help="Honeytokens: what a task has produced.")


@app.callback()
def _group() -> None:
    """Honeytokens: what a task has produced."""


@app.command()
def collect(
    job_id: Annotated[str, typer.Option(help="As 'nectarflow submit --detach' printed it.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", help="Keep streaming until the task is done.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only what comes after the token of this number.")] = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print all tokens of a task so far; example: swarmesh honeytokens collect --job-id ID --follow."""
    with Swarmesh() as swarm:
        if not follow:
            _print(_collect(swarm, job_id, after), TokenPrinter(output), as_json=as_json)
            return
        with swarm.follow(job_id, after) as stream:
            if not as_json:
                TokenPrinter(output).print_all(StartLine().over(stream))
                return
            for _ in StartLine().over(stream):
                """Only its end is waited for: JSON is printed whole."""
        print_json(_collect(swarm, job_id, after))


def _collect(swarm: Swarmesh, job_id: str, after: int) -> TokensView:
    """What a task produced so far after a token; the events that are there already are read from its stream."""
    whole = swarm.collect(job_id)
    if after == 0:
        return whole
    pieces: list[Token] = []
    if after < whole.last_seq:
        with swarm.follow(job_id, after) as stream:
            for event in stream:
                if isinstance(event, Done):
                    break
                pieces.append(event)
                if event.seq is not None and event.seq >= whole.last_seq:
                    break
    text = "".join(piece.text for piece in pieces)
    outputs = tuple(_wire_form(piece) for piece in pieces if piece.media_type or piece.value is not None)
    return msgspec.structs.replace(whole, text=text, outputs=outputs)


def _wire_form(piece: Token) -> TokenData:
    return TokenData(piece.text, piece.media_type, base64.b64encode(piece.content).decode(), piece.value)


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
