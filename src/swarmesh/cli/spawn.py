"""`swarmesh spawn rustbee` (R-02): the queen starts a worker, or adopts a running server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from swarmesh.cli.failure import UsageError
from swarmesh.cli.hub_model import downloaded
from swarmesh.cli.screen import AsJson, note, print_json
from swarmesh.cli.waiting import wait_healthy
from swarmesh.client import Swarmesh
from swarmesh.wire.spec import Backend
from swarmesh.wire.views import RustbeeView, Spawned

Modelcell = Annotated[str, typer.Option(help="What it serves, such as demo.", show_default=False)]
AnyModelcell = Annotated[str, typer.Option(help="What it serves: a name, or hf:ORG/REPOSITORY/FILE.gguf.")]
Gpu = Annotated[int | None, typer.Option(min=0, max=64, help="The only GPU it may use.")]
Cellalloc = Annotated[int | None, typer.Option(min=1, help="MiB to reserve in place of the estimate.")]
Slots = Annotated[int | None, typer.Option(min=1, max=4096, help="Tasks at once.")]
Context = Annotated[int | None, typer.Option(min=256, help="Tokens of prompt plus answer per slot.")]
ClassPath = Annotated[str, typer.Option("--class", help="module:Class of your own, for type python.")]
PythonPath = Annotated[Path | None, typer.Option(help="Directory its module lies in.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once, not when it is healthy.")]

app = typer.Typer(no_args_is_help=True, help="Start rustbees.")


@app.callback()
def _group() -> None:
    """Start rustbees."""


@app.command()
def rustbee(
    *,
    modelcell: AnyModelcell,
    # Called as the option is, --type.
    type: Annotated[Backend, typer.Option(help="What it computes on, or python, or openai.")] = Backend.AUTO,  # noqa: A002
    host: Annotated[str, typer.Option(help="Machine to start it on, or any; the queennode's own when left out.")] = "",
    gpu: Gpu = None,
    cellalloc: Cellalloc = None,
    slots: Slots = None,
    context: Context = None,
    url: Annotated[str, typer.Option(help="A running OpenAI-compatible server to adopt.")] = "",
    api_key_env: Annotated[str, typer.Option(metavar="VAR", help="Variable that holds that server's key.")] = "",
    class_path: ClassPath = "",
    python_path: PythonPath = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Start a rustbee and wait until it is healthy; example: swarmesh spawn rustbee --type cpu --modelcell demo."""
    backend, key = backend_of(type, url=url, class_path=class_path), secret_of(api_key_env)
    with Swarmesh() as swarm:
        modelcell = downloaded(swarm, modelcell)
        spawned = swarm.spawn(
            modelcell,
            type=backend,
            host=host,
            gpu=gpu,
            cellalloc=cellalloc,
            slots=slots,
            context=context,
            url=url,
            api_key=key,
            class_path=class_path,
            python_path=str(python_path.absolute()) if python_path else "",
        )
        if no_wait:
            show_spawned(spawned, as_json=as_json)
            return
        note(f"{spawned.rustbee_id} is starting")
        (healthy,) = wait_healthy(swarm, [spawned.rustbee_id], modelcell)
    show_spawned(healthy, as_json=as_json, where=f" on {healthy.host}" if host else "")


def backend_of(asked: Backend, *, url: str, class_path: str) -> Backend:
    """The type that goes with the other options.

    Raises:
        UsageError: They do not go together.
    """
    if url and class_path:
        raise UsageError("--url and --class do not go together", hint="--url adopts a server, --class runs your code.")
    needed = Backend.OPENAI if url else Backend.PYTHON if class_path else None
    if needed is not None and asked not in {needed, Backend.AUTO}:
        option = "--url" if url else "--class"
        raise UsageError(f"{option} needs --type {needed}, not {asked}", hint="Leave --type out.")
    if asked is Backend.OPENAI and not url:
        raise UsageError("--type openai needs --url", hint="Example: --url http://127.0.0.1:11434")
    return needed or asked


def secret_of(variable: str) -> str:
    """The value of an environment variable; secrets are never options, which every user of a machine can read.

    Raises:
        UsageError: It is not set.
    """
    if not variable:
        return ""
    value = os.environ.get(variable, "")
    if not value:
        raise UsageError(f"the variable {variable} is not set", hint=f"export {variable}=KEY")
    return value


def show_spawned(spawned: RustbeeView | Spawned, *, as_json: bool, where: str = "") -> None:
    """Print a new worker; ``where`` is told to people only."""
    if as_json:
        print_json(spawned)
    else:
        print(f"{spawned.rustbee_id} is {spawned.status}{where}")


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="spawn")
