"""`swarmesh waggle status` (R-04)."""

from __future__ import annotations

from typing import Final

import typer

from swarmesh.cli.screen import AsJson, clock, duration, harmless, note, print_json, print_table
from swarmesh.client import Swarmesh
from swarmesh.wire.views import WaggleView

ALARMS_SHOWN: Final = 5
HEADINGS: Final = (
    "rustbee",
    "modelcell",
    "status",
    "load",
    "MiB",
    "quality",
    "trail",
    "tokens/s",
    "age",
    "took",
    "next",
)

app = typer.Typer(no_args_is_help=True, help="Waggles: the heartbeats of the rustbees.")


@app.callback()
def _group() -> None:
    """Waggles: the heartbeats of the rustbees."""


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the last waggle of every rustbee, how old it is and how long it took, and the last alarms."""
    with Swarmesh() as swarm:
        waggles = swarm.waggles()
        alarms = [] if as_json else swarm.alarms()[:ALARMS_SHOWN]
    if as_json:
        print_json(waggles)
        return
    if waggles:
        print_table(HEADINGS, map(_row, waggles))
    else:
        note("no rustbees yet\n  next: swarmesh spawn rustbee --modelcell demo")
    for alarm in alarms:
        print(f"alarm  {clock(alarm.at)}  {alarm.rustbee_id}  {alarm.code}: {_in_one_line(alarm.message)}")


def _row(waggle: WaggleView) -> tuple[str, ...]:
    return (
        waggle.rustbee_id,
        waggle.modelcell,
        waggle.status,
        f"{waggle.load:.2f}",
        str(waggle.vram_used),
        f"{waggle.quality:.2f}",
        f"{waggle.trail:.2f}",
        f"{waggle.tokens_per_s:.1f}",
        "never" if waggle.waggle_age_s is None else duration(waggle.waggle_age_s),
        "" if waggle.waggle_rtt_ms is None else f"{waggle.waggle_rtt_ms:.1f} ms",
        f"{waggle.next_waggle:g} s",
    )


def _in_one_line(message: str) -> str:
    # Last words of an engine are often a traceback: its first line says what happened, its last one why.
    lines = [line.strip() for line in harmless(message).splitlines() if line.strip()]
    return " ... ".join(lines if len(lines) <= 2 else (lines[0], lines[-1]))


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="waggle")
