"""`swarmesh keys create|list|revoke`: who may use the swarm, and how much of it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from swarmesh.cli.failure import UsageError
from swarmesh.cli.screen import AsJson, clock, harmless, note, print_json, print_table
from swarmesh.client import RemoteError, Swarmesh
from swarmesh.core.errors import NotFoundError
from swarmesh.wire.keys import KeyRole, KeyView

HEADINGS: Final = (
    "id",
    "name",
    "role",
    "at once",
    "tokens per minute",
    "running",
    "waiting",
    "tokens",
    "created",
)

NAME_CHARS_MAX: Final = 64
LIMIT_MAX: Final = 1_000_000_000
ROLE_HELP: Final = (
    "A client asks for answers, and sees how the swarm is and its own tasks; an admin commands everything."
)

app = typer.Typer(no_args_is_help=True, help="API keys: who may use the swarm, and how much of it.")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What you call it: a person, a program, a machine.")],
    role: Annotated[KeyRole, typer.Option(help=ROLE_HELP)] = KeyRole.CLIENT,
    concurrency: Annotated[int, typer.Option(min=0, max=LIMIT_MAX, help="Tasks at once; 0 is no limit.")] = 0,
    tokens_per_minute: Annotated[
        int, typer.Option(min=0, max=LIMIT_MAX, help="Tokens read and written in a minute; 0 is no limit.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once; example: swarmesh keys create --name laptop --concurrency 4."""
    if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise UsageError(f"a key's name is one line of 1 to {NAME_CHARS_MAX} characters")
    with Swarmesh() as swarm:
        made = swarm.make_key(name, role=role, concurrency=concurrency, tokens_per_minute=tokens_per_minute)
    if as_json:
        print_json(made)
        return
    print(made.key)
    note(f"  {made.key_id} is for {harmless(made.name)}; keep it now, it is never shown again")
    note("  next: SWARMESH_API_KEY or 'Authorization: Bearer KEY' says it")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the keys: their limits, and what they have now and have had since the queennode was started."""
    with Swarmesh() as swarm:
        views = swarm.keys()
    if as_json:
        print_json(views)
    else:
        print_table(HEADINGS, map(_row, views))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Its id or its name, as 'keys list' shows them.")],
    as_json: AsJson = False,
) -> None:
    """Take a key back at once; tasks that were accepted with it go on."""
    if not key:
        raise UsageError("an id or a name is needed")
    with Swarmesh() as swarm:
        key_id = _revoked(swarm, key)
    if as_json:
        print_json({"key_id": key_id, "revoked": True})
    else:
        print(f"{key_id} opens nothing any more")


def _revoked(swarm: Swarmesh, key: str) -> str:
    """Revoke the key of that id, else of that name; its id."""
    try:
        swarm.revoke_key(key)
    except RemoteError as error:
        if error.code != "not_found":
            raise
        known = swarm.keys()
        named = [view.key_id for view in known if view.name == key]
        if len(named) != 1:
            raise NotFoundError(
                f"no key has the id or name {key!r}", hint="'swarmesh keys list' shows them."
            ) from error
        swarm.revoke_key(named[0])
        return named[0]
    return key


def _row(view: KeyView) -> tuple[str, ...]:
    return (
        view.key_id,
        harmless(view.name),
        view.role,
        f"{view.concurrency:,}" if view.concurrency else "",
        f"{view.tokens_per_minute:,}" if view.tokens_per_minute else "",
        str(view.running),
        str(view.waiting),
        f"{view.honeytokens:,}",
        clock(view.created_at),
    )


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="keys")
