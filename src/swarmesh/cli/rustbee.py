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

from swarmesh.cli.agent_health import agent_status
from swarmesh.cli.failure import UsageError
from swarmesh.cli.rustbees import DEFAULT_GRACE_S, show_stopped
from swarmesh.cli.screen import AsJson, duration, note, print_json, print_table
from swarmesh.cli.spawn import Cellalloc, ClassPath, Context, Gpu, Modelcell, NoWait, PythonPath, Slots, backend_of
from swarmesh.cli.waiting import LOAD_WAIT_S_MAX, WaitTimeoutError, progress
from swarmesh.config.home import Home, find_home, read_queen_file
from swarmesh.config.settings import load_settings
from swarmesh.config.worker_key import worker_key, worker_secret
from swarmesh.core.errors import EngineStartError, NotEnoughMemoryError, NotFoundError
from swarmesh.core.ids import LOCAL_HOST
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.host import SpawnedAgent
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import ProcessIdentity
from swarmesh.models.catalog import Catalog
from swarmesh.queen.spawning import offered_here, plan_worker
from swarmesh.wire.spec import Backend, WorkerSpec
from swarmesh.wire.views import SpawnRequest

HEADINGS: Final = ("rustbee", "modelcell", "type", "pid", "engine pid", "uptime", "socket")
_POLL_S: Final = 0.1

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
    host = LocalHost(home)
    spec, agent = asyncio.run(_start(home, host, request))
    status = WorkerStatus.STARTING if no_wait else asyncio.run(_wait(home, host, spec, agent))
    if as_json:
        print_json({"rustbee_id": agent.worker_id, "modelcell": modelcell, "status": status, "pid": agent.pid})
    else:
        print(f"{agent.worker_id} is {status}, pid {agent.pid}")


@app.command()
def stop(
    rustbee_id: Annotated[str, typer.Argument(metavar="ID", help="As 'rustbee list' shows it.")],
    grace: Annotated[float, typer.Option(min=0, max=3600, help="Seconds its tasks get to end.")] = DEFAULT_GRACE_S,
    as_json: AsJson = False,
) -> None:
    """Stop a rustbee of this machine; example: swarmesh rustbee stop rustbee-1a2b."""
    asyncio.run(_stop(LocalHost(find_home(os.environ)), rustbee_id, grace))
    show_stopped(rustbee_id, "ended", as_json=as_json)


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


async def _start(home: Home, host: LocalHost, request: SpawnRequest) -> tuple[WorkerSpec, SpawnedAgent]:
    facts = await host.probe()
    worker_id = f"rustbee-{secrets.token_hex(4)}"
    plan = plan_worker(
        request,
        offered_here(Catalog(home.root), request),
        facts,
        load_settings(home.config_file).rustbee,
        worker_id=worker_id,
        host=LOCAL_HOST,
        key=worker_key(worker_secret(home), worker_id),
    )
    if not plan.gpus and plan.need_mib > facts.available_mib:
        raise NotEnoughMemoryError(
            f"modelcell {request.modelcell!r} needs {plan.need_mib:,} MiB and this machine has "
            f"{facts.available_mib:,} MiB available of {facts.total_mib:,} MiB",
            hint="Fewer --slots or a smaller --context need less; 'swarmesh rustbee list' shows what runs.",
        )
    return plan.spec, await host.spawn(plan.spec)


async def _wait(home: Home, host: LocalHost, spec: WorkerSpec, agent: SpawnedAgent) -> WorkerStatus:
    """Wait until the agent itself says that it is healthy, for which no queen is needed.

    Raises:
        EngineStartError: It ended before; says what it said.
        WaitTimeoutError: It is neither healthy nor gone after `LOAD_WAIT_S_MAX`.
    """
    if read_queen_file(home.queen_file) is None:
        note("no queennode is there now; the rustbee waits for one")
    process = ProcessIdentity(agent.pid, agent.started_at, agent.boot_id)
    began_s = time.monotonic()
    with progress() as show:
        while (status := await agent_status(spec)) is not WorkerStatus.HEALTHY:
            waited_s = time.monotonic() - began_s
            if not process.alive:
                said = await host.tail(agent.worker_id) or "it said nothing"
                raise EngineStartError(f"{agent.worker_id} ended while it was starting:\n{said}")
            if waited_s > LOAD_WAIT_S_MAX:
                raise WaitTimeoutError(
                    f"still not healthy after {duration(waited_s)}: {agent.worker_id}",
                    hint=f"'swarmesh rustbee stop {agent.worker_id}' ends it.",
                )
            show(f"loading {spec.modelcell}, {duration(waited_s)}")
            await asyncio.sleep(_POLL_S)
    return status


async def _stop(host: LocalHost, rustbee_id: str, grace_s: float) -> None:
    if rustbee_id not in {agent.rustbee_id for agent in await host.workers()}:
        raise NotFoundError(
            f"no rustbee {rustbee_id!r} runs on this machine", hint="'swarmesh rustbee list' shows those that do."
        )
    await host.stop(rustbee_id, grace_s)


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="rustbee")
