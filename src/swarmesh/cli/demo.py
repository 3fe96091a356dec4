"""`swarmesh demo`: from nothing to a streaming answer, and what to type next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmesh.cli.queen_process import home_swarm
from swarmesh.cli.token_printer import TokenPrinter
from swarmesh.cli.up import Port, bring_up
from swarmesh.config.home import QueenFile, find_home
from swarmesh.models.catalog import DEMO_NAME

QUESTION: Final = "What is a rustbee?"


def demo(
    port: Port = None,
    rustbees: Annotated[int, typer.Option(min=1, max=64, help="How many rustbees shall serve the demo.")] = 2,
) -> None:
    """Bring up a queennode and two rustbees with the demo modelcell, ask them something, and leave them running."""
    home = find_home(os.environ)
    queen, workers = bring_up(home, DEMO_NAME, rustbees, port=port)
    names = ", ".join(view.rustbee_id for view in workers)
    print(f"The queennode is healthy at {queen.url}. Rustbees: {names}.\n\n> {QUESTION}", flush=True)
    with home_swarm(home, queen) as swarm, swarm.stream(QUESTION, modelcell=DEMO_NAME, temperature=0.0) as stream:
        TokenPrinter(None).print_all(stream)
    print(_next_steps(queen))


def _next_steps(queen: QueenFile) -> str:
    command = _command()
    named = os.environ.get("SWARMESH_HOME")
    home = f"export SWARMESH_HOME={shlex.quote(named)}\n" if named else ""
    return f"""
The swarm goes on running. What to type next:

{home}{command} rustbees list
{command} waggle status
{command} nectarflow submit --prompt "What is waggleproto?"

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
