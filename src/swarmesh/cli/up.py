"""`swarmesh up`: a queen and her first workers, in one command."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from swarmesh.cli.hub_model import downloaded
from swarmesh.cli.queen_process import home_swarm, running_queen, start_queen
from swarmesh.cli.screen import note
from swarmesh.cli.waiting import REGISTER_WAIT_S_MAX, wait_healthy
from swarmesh.client import Swarmesh
from swarmesh.config.home import Home, QueenFile, find_home
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.local import LocalHost
from swarmesh.models.catalog import DEMO_NAME
from swarmesh.wire.spec import Backend
from swarmesh.wire.views import RustbeeView

Modelcell = Annotated[str, typer.Option(help="What the rustbees serve; 'swarmesh models list' shows the choice.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the queennode, if she has to be started.")]


def up(
    modelcell: Modelcell = DEMO_NAME,
    rustbees: Annotated[int, typer.Option(min=0, max=64, help="How many rustbees shall serve it.")] = 1,
    port: Port = None,
    # Called as the option is, --type.
    type: Annotated[Backend, typer.Option(help="What new rustbees compute on.")] = Backend.AUTO,  # noqa: A002
) -> None:
    """Start the queennode and rustbees, as many as are missing; example: swarmesh up --modelcell demo --rustbees 2."""
    queen, workers = bring_up(find_home(os.environ), modelcell, rustbees, port=port, backend=type)
    print(f"the queennode is healthy at {queen.url}, {len(workers)} rustbees serve {modelcell}")
    note('  next: swarmesh nectarflow submit --prompt "What is a rustbee?"')


def bring_up(
    home: Home, modelcell: str, rustbees: int, *, port: int | None = None, backend: Backend = Backend.AUTO
) -> tuple[QueenFile, list[RustbeeView]]:
    """Make sure that a queen runs and that at least ``rustbees`` workers serve ``modelcell``.

    Raises:
        SwarmeshError: The queen or a worker did not start; says why.
    """
    queen = running_queen(home)
    if queen is None:
        queen = start_queen(home, port=port)
        note(f"started the queennode at {queen.url}")
    with home_swarm(home, queen) as swarm:
        modelcell = downloaded(swarm, modelcell)
        known = _workers_of(swarm, home, modelcell)
        for _ in range(rustbees - len(known)):
            spawned = swarm.spawn(modelcell, type=backend).rustbee_id
            note(f"spawned {spawned} for {modelcell}")
            known.append(spawned)
        return queen, wait_healthy(swarm, known, modelcell, unknown_for_s=REGISTER_WAIT_S_MAX)


def _workers_of(swarm: Swarmesh, home: Home, modelcell: str) -> list[str]:
    # Agents of an earlier queen live on, and may not have introduced themselves to this one yet.
    agents = asyncio.run(LocalHost(home).workers())
    useful = {WorkerStatus.STARTING.value, WorkerStatus.HEALTHY.value, WorkerStatus.SUSPECT.value}
    known = {view.rustbee_id: view.status in useful for view in swarm.rustbees() if view.modelcell == modelcell}
    waiting = [agent.rustbee_id for agent in agents if agent.modelcell == modelcell and agent.rustbee_id not in known]
    return [rustbee_id for rustbee_id, is_useful in known.items() if is_useful] + waiting


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(up)
