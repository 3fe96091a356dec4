"""`swarmesh rustbees list|stop` (R-03)."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from swarmesh.cli.screen import AsJson, duration, harmless, note, print_json, print_table
from swarmesh.cli.waiting import wait_gone
from swarmesh.client import Swarmesh
from swarmesh.core.liveness import WorkerStatus
from swarmesh.wire.views import RustbeeView

DEFAULT_GRACE_S: Final = 30.0
STOP_SLACK_S: Final = 15.0
"""How much longer than the grace a worker may take to end its engine."""

HEADINGS: Final = ("rustbee", "modelcell", "type", "host", "status", "cells", "MiB", "quality", "uptime")

app = typer.Typer(no_args_is_help=True, help="The rustbees of the swarm: list, stop.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the rustbees: what each serves, how it is and how busy."""
    with Swarmesh() as swarm:
        views = swarm.rustbees()
    if as_json:
        print_json(views)
        return
    if not views:
        note("no rustbees yet\n  next: swarmesh spawn rustbee --modelcell demo")
        return
    print_table(
        HEADINGS,
        (
            (
                view.rustbee_id,
                view.modelcell,
                view.backend,
                view.host,
                _status(view),
                f"{view.slots_busy}/{view.slots}",
                str(view.vram_used),
                f"{view.quality:.2f}",
                duration(view.uptime_s),
            )
            for view in views
        ),
    )
    for view in views:
        _explain(view)


@app.command()
def stop(
    rustbee_id: Annotated[str, typer.Argument(metavar="ID", help="As 'rustbees list' shows it.")],
    grace: Annotated[float, typer.Option(min=0, max=3600, help="Seconds its tasks get to end.")] = DEFAULT_GRACE_S,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once, not when it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a rustbee finish and stop it; example: swarmesh rustbees stop rustbee-1a2b --grace 5."""
    with Swarmesh() as swarm:
        swarm.stop_rustbee(rustbee_id, grace_s=grace)
        if not no_wait:
            wait_gone(swarm, [rustbee_id], grace + STOP_SLACK_S)
    show_stopped(rustbee_id, "draining" if no_wait else "ended", as_json=as_json)


def show_stopped(rustbee_id: str, status: str, *, as_json: bool) -> None:
    """Print what became of a worker that was asked to stop: it is ``draining``, or has ``ended``."""
    if as_json:
        print_json({"rustbee_id": rustbee_id, "status": status})
    else:
        print(f"{rustbee_id} {'has' if status == 'ended' else 'is'} {status}")


def _explain(view: RustbeeView) -> None:
    """Say what is wrong with one that lives, such as one that its queen cannot take back."""
    if view.error is not None and view.status != WorkerStatus.DEAD:
        hint = f"\n  next: {harmless(view.error.hint)}" if view.error.hint else ""
        note(f"{view.rustbee_id}: {harmless(view.error.message)}{hint}")


def _status(view: RustbeeView) -> str:
    step = view.progress
    if step is None or not step.total_bytes:
        return view.status
    return f"{view.status}, {step.step} {step.done_bytes / step.total_bytes:.0%}"


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="rustbees")
