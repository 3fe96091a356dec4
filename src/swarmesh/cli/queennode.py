"""`swarmesh queennode start|stop|status` (R-01)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Annotated

import typer

from swarmesh.cli.queen_process import (
    home_swarm,
    log_path,
    queen_command,
    queen_environ,
    queen_error,
    running_queen,
    start_queen,
    stop_queen,
)
from swarmesh.cli.screen import AsJson, duration, print_facts, print_json
from swarmesh.client import Swarmesh
from swarmesh.config.home import Home, find_home

Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 lets the system choose.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="from swarmesh.toml")]

app = typer.Typer(no_args_is_help=True, help="The queennode of this machine: start, stop, status.")


@app.command()
def start(
    port: Port = None,
    host: Host = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, with her log on the terminal.")] = False,
) -> None:
    """Start the queennode and return when she is healthy; example: swarmesh queennode start --port 8500."""
    home = find_home(os.environ)
    queen = running_queen(home)
    if queen is not None:
        print(f"the queennode runs already at {queen.url}, pid {queen.pid}")
        return
    if foreground:
        raise typer.Exit(_stay(home, port=port, host=host))
    queen = start_queen(home, port=port, host=host)
    print(f"the queennode is healthy at {queen.url}, pid {queen.pid}, log {log_path(home)}")


@app.command()
def stop() -> None:
    """Stop the queennode; rustbees go on and find the next one."""
    queen = stop_queen(find_home(os.environ))
    print("no queennode runs here" if queen is None else f"the queennode, pid {queen.pid}, has ended")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show how the queennode and her swarm are."""
    home = find_home(os.environ)
    queen = None if os.environ.get("SWARMESH_URL") else running_queen(home)
    with Swarmesh() if queen is None else home_swarm(home, queen) as swarm:
        health = swarm.health()
    if as_json:
        print_json(health)
        return
    counts = ", ".join(f"{count} {status}" for status, count in sorted(health.rustbees.items()))
    print_facts(
        [
            ("status", health.status),
            ("url", health.url),
            ("version", health.version),
            ("pid", str(health.pid)),
            ("uptime", duration(health.uptime_s)),
            ("rustbees", counts or "none"),
            ("modelcells", ", ".join(health.modelcells) or "none"),
            ("broodqueue", str(health.queue_depth)),
            ("streams", str(health.streams)),
        ]
    )


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="queennode")


def _stay(home: Home, *, port: int | None, host: str | None) -> int:
    home.make()
    process = subprocess.Popen(
        queen_command(port=port, host=host),
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=queen_environ(home),
    )
    # She stops in order when asked to; until then this process only carries her words and her exit code.
    signal.signal(signal.SIGTERM, lambda _number, _frame: process.terminate())
    signal.signal(signal.SIGINT, lambda _number, _frame: process.terminate())
    with process:
        assert process.stderr is not None, "it was opened as a pipe"
        for line in process.stderr:
            if (error := queen_error(line)) is not None:
                raise error
            sys.stderr.write(line)
    return process.returncode
