"""`swarmesh policy`: the rules by which rustbees are chosen, and the script that is asked before them."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from swarmesh.cli import policy_script
from swarmesh.cli.failure import given
from swarmesh.cli.screen import AsJson, note, print_json, print_table
from swarmesh.client import Swarmesh
from swarmesh.wire.policies import PolicyView

HEADINGS: Final = ("policy", "holds for", "what it does")

app = typer.Typer(no_args_is_help=True, help="Policies: the rules by which rustbees are chosen.")


@app.callback()
def _group() -> None:
    """Policies: the rules by which rustbees are chosen."""


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the policies: what each does, and for which modelcells it holds."""
    with Swarmesh() as swarm:
        views = swarm.policies()
    if as_json:
        print_json(views)
        return
    print_table(HEADINGS, ((view.name, _holds_for(view), view.description) for view in views))
    policy_script.print_line()


@app.command()
def use(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As 'policy list' shows it.")],
    modelcell: Annotated[
        str | None, typer.Option(callback=given, help="Only for this one; else for all that have none of their own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose rustbees by another policy from now on; example: swarmesh policy use foraging --modelcell demo."""
    with Swarmesh() as swarm:
        views = swarm.use_policy(name, modelcell=modelcell or "")
    if as_json:
        print_json(views)
        return
    print(f"{modelcell or 'every modelcell without a policy of its own'} goes by {name} now")
    table, key = ("[routing.modelcells]", modelcell) if modelcell else ("[routing]", "policy")
    note(f'until the queennode is started anew\n  next: {table} {key} = "{name}" in swarmesh.toml says it for good')


@app.command()
def unset(
    modelcell: Annotated[str, typer.Option(help="The one whose own policy is taken away.")], as_json: AsJson = False
) -> None:
    """Let a modelcell go by the policy of all others again; example: swarmesh policy unset --modelcell demo."""
    with Swarmesh() as swarm:
        views = swarm.unset_policy(modelcell)
    if as_json:
        print_json(views)
        return
    name = next((view.name for view in views if view.active), "")
    print(f"{modelcell} goes by {name} now, as every modelcell without a policy of its own")
    note("until the queennode is started anew\n  next: [routing.modelcells] in swarmesh.toml says what holds then")


def _holds_for(view: PolicyView) -> str:
    cells = ", ".join(f"{name} (no such modelcell)" if name in view.unknown else name for name in view.modelcells)
    if not view.active:
        return cells
    return f"all others, {cells}" if cells else "all"


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    policy_script.add_to(app)
    root.add_typer(app, name="policy")
