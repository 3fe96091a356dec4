"""`swarmesh demo`: from nothing to a streaming answer that outlives its rustbee, and what to type next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmesh.cli import recital
from swarmesh.cli.local_rustbee import LocalRustbee, is_local, local_rustbee
from swarmesh.cli.queen_process import home_swarm
from swarmesh.cli.recital import Connect, DrillError, recite, recite_broken, verdict
from swarmesh.cli.screen import note
from swarmesh.cli.start_line import StartLine
from swarmesh.cli.token_printer import TokenPrinter
from swarmesh.cli.up import Port, bring_up
from swarmesh.cli.waiting import wait_gone
from swarmesh.config.home import Home, QueenFile, find_home
from swarmesh.core.errors import SwarmeshError
from swarmesh.models.catalog import DEMO_NAME
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.views import RustbeeView

QUESTION: Final = "What is a rustbee?"
TRIES_MAX: Final = 3
"""How often the recital may be over before the kill comes; each try starts a replacement for the rustbee it cost."""
GONE_WAIT_S: Final = 15.0


def demo(
    port: Port = None,
    rustbees: Annotated[int, typer.Option(min=1, max=64, help="How many rustbees shall serve the demo.")] = 2,
    chaos: Annotated[bool, typer.Option("--chaos/--no-chaos", help="Kill a rustbee while it answers.")] = True,
) -> None:
    """Bring up a queennode and two rustbees, ask them something, kill one mid-stream, and leave two running."""
    home = find_home(os.environ)
    queen, workers = bring_up(home, DEMO_NAME, rustbees, port=port)
    names = ", ".join(view.rustbee_id for view in workers)
    print(f"The queennode is healthy at {queen.url}. Rustbees: {names}.\n\n> {QUESTION}", flush=True)
    with home_swarm(home, queen) as swarm, swarm.stream(QUESTION, modelcell=DEMO_NAME, temperature=0.0) as stream:
        TokenPrinter(None).print_all(StartLine().over(stream))
    if chaos and len(workers) > 1:
        _drill(home, queen, workers)
    print(_next_steps(queen))


def _drill(home: Home, queen: QueenFile, workers: list[RustbeeView]) -> None:
    """Kill the rustbee that recites, and compare what came with a recital in peace.

    Raises:
        SwarmeshError: The stream did not outlive its rustbee; the swarm is whole again all the same.
    """
    connect = partial(home_swarm, home, queen)
    with connect() as swarm:
        unbroken = recite(swarm)
    rustbees = len(workers)
    for _ in range(TRIES_MAX):
        bees = {view.rustbee_id: local_rustbee(home, view) for view in workers if is_local(home, view)}
        print(f"\nNow the rustbee that answers is killed with kill -9 mid-stream.\n\n> {recital.QUESTION}", flush=True)
        try:
            broken = recite_broken(connect, bees, TokenPrinter(None))
        except SwarmeshError as error:
            if isinstance(error, RemoteError):
                note(f"the recital did not outlive its rustbee; it ended openly, with the error {error.code}")
            _replace(home, connect, bees, rustbees)
            raise
        workers = _replace(home, connect, bees, rustbees)
        if broken.attempts > 1:
            print(f"\n{verdict(broken, unbroken)}", flush=True)
            return
        note("the recital was over before the kill; once more")
    raise DrillError(f"the recital was over before the kill in each of {TRIES_MAX} tries")


def _replace(home: Home, connect: Connect, bees: Mapping[str, LocalRustbee], rustbees: int) -> list[RustbeeView]:
    """As many rustbees as before, new ones in the place of those that were killed."""
    dead = [rustbee_id for rustbee_id, bee in bees.items() if not bee.agent.alive]
    with connect() as swarm:
        wait_gone(swarm, dead, GONE_WAIT_S)
    _, workers = bring_up(home, DEMO_NAME, rustbees)
    return workers


def _next_steps(queen: QueenFile) -> str:
    command = _command()
    named = os.environ.get("SWARMESH_HOME")
    home = f"export SWARMESH_HOME={shlex.quote(named)}\n" if named else ""
    return f"""
The swarm goes on running. What to type next:

{home}{command} rustbees list
{command} waggle status
{command} nectarflow submit --prompt "What is waggleproto?"
{command} chaos kill-worker

eval "$({command} env)"
curl {queen.url}/v1/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{DEMO_NAME}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

pip install openai  # any OpenAI client will do
python -c 'from openai import OpenAI
answer = OpenAI().chat.completions.create(model="{DEMO_NAME}", messages=[{{"role": "user", "content": "Hello"}}])
print(answer.choices[0].message.content)'

{command} down --all"""


def _command() -> str:
    """How this command can be typed again: by its name where that finds it, else by its path."""
    this, found = Path(sys.argv[0]), shutil.which("swarmesh")
    if found is not None and this.exists() and Path(found).samefile(this):
        return "swarmesh"
    return shlex.quote(os.path.relpath(this)) if this.name == "swarmesh" else "swarmesh"


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(demo)
