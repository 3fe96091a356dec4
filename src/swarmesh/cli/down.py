"""`swarmesh down`: stop the queen, and with `--all` everything."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Annotated, Final

import typer

from swarmesh.cli.queen_process import home_swarm, running_queen, stop_queen
from swarmesh.cli.screen import note
from swarmesh.cli.waiting import wait_gone
from swarmesh.config.home import Home, QueenFile, find_home
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.local import LocalHost
from swarmesh.wire.errors import RemoteError

GRACE_S: Final = 5.0
"""What running tasks get to end by themselves."""
STOP_SLACK_S: Final = 10.0
"""How much longer than the grace the queen may take."""


class LeftoverError(SwarmeshError):
    """Something of this swarm could not be stopped."""

    code = "leftover"


def down(
    every: Annotated[
        bool, typer.Option("--all", help="Stop every rustbee too, and check that nothing is left.")
    ] = False,
) -> None:
    """Stop the queennode; rustbees stay and find the next one, unless --all is given."""
    home = find_home(os.environ)
    queen = running_queen(home)
    stopped = _stop_through_queen(home, queen) if every and queen is not None else 0
    ended = stop_queen(home)
    print("no queennode runs here" if ended is None else f"the queennode, pid {ended.pid}, has ended")
    agents = asyncio.run(_stop_agents(home) if every else LocalHost(home).workers())
    if every:
        print(f"{stopped + len(agents)} rustbees have ended, nothing is left")
    elif agents:
        note(f"{len(agents)} rustbees go on; 'swarmesh down --all' stops them too")


def _stop_through_queen(home: Home, queen: QueenFile) -> int:
    """Let the queen stop her workers; what she does not reach is found on this machine afterwards."""
    try:
        with home_swarm(home, queen) as swarm:
            rustbee_ids = [view.rustbee_id for view in swarm.rustbees()]
            for rustbee_id in rustbee_ids:
                with suppress(RemoteError):  # It ended by itself a moment ago.
                    swarm.stop_rustbee(rustbee_id, grace_s=GRACE_S)
            wait_gone(swarm, rustbee_ids, GRACE_S + STOP_SLACK_S)
            return len(rustbee_ids)
    except SwarmeshError as error:
        note(f"the queennode could not stop them all: {error.message}")
        return 0


async def _stop_agents(home: Home) -> list[AgentFile]:
    host = LocalHost(home)
    agents = await host.workers()
    await asyncio.gather(*(host.stop(agent.rustbee_id, GRACE_S) for agent in agents))
    left = await host.workers()
    if left:
        names = ", ".join(f"{agent.rustbee_id} (pid {agent.pid})" for agent in left)
        raise LeftoverError(f"still running: {names}", hint="Look at them with ps; 'kill -9 PID' ends one.")
    return agents


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(down)
