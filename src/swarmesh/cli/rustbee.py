"""`swarmesh rustbee spawn|stop|list` (R-07): workers of this machine, with or without a queen.

Also the whole of `llorch-pool`, the name these commands have on a host that only lends its hardware.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from typing import Annotated, Final

import typer

from swarmesh.cli.failure import UsageError
from swarmesh.cli.queen_process import home_swarm, running_queen
from swarmesh.cli.rustbees import DEFAULT_GRACE_S
from swarmesh.cli.screen import AsJson, duration, note, print_json, print_table
from swarmesh.cli.spawn import Cellalloc, ClassPath, Context, Gpu, Modelcell, NoWait, PythonPath, Slots, backend_of
from swarmesh.cli.waiting import REGISTER_WAIT_S_MAX, wait_healthy
from swarmesh.config.home import Home, find_home
from swarmesh.config.settings import load_settings
from swarmesh.core.errors import EngineStartError, NotEnoughMemoryError, NotFoundError
from swarmesh.hosts.host import SpawnedAgent
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import ProcessIdentity
from swarmesh.queen.spawning import need_mib, worker_spec
from swarmesh.wire.spec import Backend, WorkerSpec
from swarmesh.wire.views import SpawnRequest

HEADINGS: Final = ("rustbee", "modelcell", "type", "pid", "engine pid", "uptime", "socket")

app = typer.Typer(no_args_is_help=True, help="Rustbees of this machine, with or without a queennode.")


@app.command()
def spawn(
    type: Annotated[Backend, typer.Argument(help="What it computes on.")],  # noqa: A002 - the option's name
    modelcell: Modelcell,
    gpu: Gpu = None,
    cellalloc: Cellalloc = None,
    slots: Slots = None,
    context: Context = None,
    class_path: ClassPath = "",
    python_path: PythonPath = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Start a rustbee on this machine; example: swarmesh rustbee spawn cpu --modelcell demo."""
    if type is Backend.OPENAI:
        raise UsageError("a running server is adopted by the queennode", hint="swarmesh spawn rustbee --type openai")
    request = SpawnRequest(
        type=backend_of(type, url="", class_path=class_path),
        modelcell=modelcell,
        gpu=gpu,
        cellalloc=cellalloc,
        slots=slots,
        context=context,
        class_path=class_path,
        python_path=str(python_path.absolute()) if python_path else "",
    )
    home = find_home(os.environ)
    home.make()
    spec = worker_spec(home, load_settings(home.config_file), request, f"rustbee-{secrets.token_hex(4)}")
    host = LocalHost(home)
    agent = asyncio.run(_start(host, spec))
    status = "starting" if no_wait else _wait(home, host, agent, modelcell)
    if as_json:
        print_json({"rustbee_id": agent.worker_id, "modelcell": modelcell, "status": status, "pid": agent.pid})
    else:
        print(f"{agent.worker_id} is {status}, pid {agent.pid}")


@app.command()
def stop(
    rustbee_id: Annotated[str, typer.Argument(metavar="ID", help="As 'rustbee list' shows it.")],
    grace: Annotated[float, typer.Option(min=0, max=3600, help="Seconds its tasks get to end.")] = DEFAULT_GRACE_S,
) -> None:
    """Stop a rustbee of this machine; example: swarmesh rustbee stop rustbee-1a2b."""
    asyncio.run(_stop(LocalHost(find_home(os.environ)), rustbee_id, grace))
    print(f"{rustbee_id} has ended")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the rustbees that run on this machine, whether a queennode knows them or not."""
    agents = asyncio.run(LocalHost(find_home(os.environ)).workers())
    if as_json:
        print_json(agents)
        return
    if not agents:
        note("no rustbees run here\n  next: swarmesh rustbee spawn cpu --modelcell demo")
        return
    now = time.time()
    print_table(
        HEADINGS,
        (
            (
                agent.rustbee_id,
                agent.modelcell,
                agent.backend,
                str(agent.pid),
                str(agent.engine_pid or ""),
                duration(max(0.0, now - agent.started_at)),
                agent.socket_path,
            )
            for agent in agents
        ),
    )


async def _start(host: LocalHost, spec: WorkerSpec) -> SpawnedAgent:
    facts = await host.probe()
    need = need_mib(spec, available_mib=facts.available_mib, total_mib=facts.total_mib)
    if need > facts.available_mib:
        raise NotEnoughMemoryError(
            f"modelcell {spec.modelcell!r} needs {need:,} MiB and this machine has {facts.available_mib:,} MiB "
            f"available of {facts.total_mib:,} MiB",
            hint="Fewer --slots or a smaller --context need less; 'swarmesh rustbee list' shows what runs.",
        )
    return await host.spawn(spec)


def _wait(home: Home, host: LocalHost, agent: SpawnedAgent, modelcell: str) -> str:
    queen = running_queen(home)
    if queen is None:
        note("no queennode runs here; the rustbee waits for one")
        return "starting"

    def must_live() -> None:
        if not ProcessIdentity(agent.pid, agent.started_at, agent.boot_id).alive:
            said = asyncio.run(host.tail(agent.worker_id)) or "it said nothing"
            raise EngineStartError(f"{agent.worker_id} ended while it was starting:\n{said}")

    with home_swarm(home, queen) as swarm:
        (view,) = wait_healthy(
            swarm, [agent.worker_id], modelcell, unknown_for_s=REGISTER_WAIT_S_MAX, each_time=must_live
        )
    return view.status


async def _stop(host: LocalHost, rustbee_id: str, grace_s: float) -> None:
    if rustbee_id not in {agent.rustbee_id for agent in await host.workers()}:
        raise NotFoundError(
            f"no rustbee {rustbee_id!r} runs on this machine", hint="'swarmesh rustbee list' shows those that do."
        )
    await host.stop(rustbee_id, grace_s)


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="rustbee")
