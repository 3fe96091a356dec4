"""`swarmesh down`: stop the queen, and with `--all` everything."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Final

import msgspec
import typer

from swarmesh.cli.queen_process import home_swarm, running_queen, stop_queen
from swarmesh.cli.screen import counted, note
from swarmesh.cli.waiting import WITHIN_REACH, WaitTimeoutError, wait_gone
from swarmesh.client import Swarmesh
from swarmesh.config.home import Home, QueenFile, find_home
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.ids import LOCAL_HOST
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import boot_id
from swarmesh.store.sqlite import SqliteStore
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import HostStatus, HostView
from swarmesh.wire.views import RustbeeView

GRACE_S: Final = 5.0
"""What running tasks get to end by themselves."""
STOP_SLACK_S: Final = 10.0
"""How much longer than the grace the queen may take."""
ASK_TIMEOUT_S: Final = 5.0
"""A queen who does not say which rustbees go on is stopped all the same."""
ROUNDS_MAX: Final = 3
"""How often she is asked for rustbees that came meanwhile, such as those of a host that has just been reached again."""

Leftovers = Mapping[str, Sequence[str]]
"""Rustbees that could not be stopped, by the name of their host."""


class LeftoverError(SwarmeshError):
    """Something of this swarm could not be stopped."""

    code = "leftover"


class Stopped(msgspec.Struct, frozen=True):
    """What the queen did: the workers that have ended, and those on other machines that have not."""

    ended: frozenset[str] = frozenset()
    left: Leftovers = {}


def down(
    every: Annotated[
        bool, typer.Option("--all", help="Stop every rustbee on every host too, and check that nothing is left.")
    ] = False,
) -> None:
    """Stop the queennode; rustbees stay and find the next one, unless --all is given."""
    home = find_home(os.environ)
    queen = running_queen(home)
    stopped, elsewhere = Stopped(), Counter[str]()
    if every:
        stopped = Stopped(left=asyncio.run(_known_elsewhere(home))) if queen is None else _stop_workers(home, queen)
    elif queen is not None:
        elsewhere = _elsewhere(home, queen)
    ended = stop_queen(home)
    print("no queennode runs here" if ended is None else f"the queennode, pid {ended.pid}, has ended")
    agents = asyncio.run(_stop_agents(home) if every else LocalHost(home).workers())
    if every:
        _remove_sockets_dir(home)
    if stopped.left:
        raise _leftover(stopped.left, queen_ran=queen is not None)
    if every:
        count = len(stopped.ended | {agent.rustbee_id for agent in agents})
        print(f"{counted(count, 'rustbee')} {'has' if count == 1 else 'have'} ended, nothing is left")
    elif agents or elsewhere:
        note(_go_on(len(agents), elsewhere))


def _elsewhere(home: Home, queen: QueenFile) -> Counter[str]:
    """How many workers live on each other machine, as far as the queen says so in time."""
    try:
        with home_swarm(home, queen, timeout_s=ASK_TIMEOUT_S) as swarm:
            views = swarm.rustbees()
    except SwarmeshError as error:
        note(f"which rustbees go on elsewhere is not known: {error.message}")
        return Counter()
    return Counter(view.host for view in views if view.host != LOCAL_HOST and view.status != WorkerStatus.DEAD)


def _go_on(here: int, elsewhere: Counter[str]) -> str:
    places = [f"{here} here"] if here else []
    places += [f"{count} on {host}" for host, count in sorted(elsewhere.items())]
    count = here + elsewhere.total()
    verb, them = ("goes", "it") if count == 1 else ("go", "them")
    return f"{counted(count, 'rustbee')} {verb} on ({', '.join(places)}); 'swarmesh down --all' stops {them} too"


def _remove_sockets_dir(home: Home) -> None:
    """Where it had to lie outside the home, nobody who deletes the home would find it."""
    if not home.sockets_dir.is_relative_to(home.root):
        with suppress(OSError):  # Something is in it, or it is not there.
            home.sockets_dir.rmdir()


def _stop_workers(home: Home, queen: QueenFile) -> Stopped:
    """Let the queen stop her workers; what she does not reach on this machine is found there afterwards."""
    try:
        with home_swarm(home, queen) as swarm:
            return _stop_all(swarm)
    except SwarmeshError as error:
        note(f"the queennode could not stop them all: {error.message}")
        return Stopped()


def _stop_all(swarm: Swarmesh) -> Stopped:
    hosts = {view.name: view for view in swarm.hosts()}
    away = {view.name for view in hosts.values() if view.status not in WITHIN_REACH}
    asked: dict[str, RustbeeView] = {}
    for _ in range(ROUNDS_MAX):
        new = [view for view in swarm.rustbees() if view.rustbee_id not in asked]
        if not new:
            break
        asked |= {view.rustbee_id: view for view in new}
        _stop_some(swarm, new, away)
    left = _left(swarm, {name: view for name, view in hosts.items() if view.status is not HostStatus.LOCAL})
    lived = {rustbee_id for rustbee_id, view in asked.items() if view.status != WorkerStatus.DEAD}
    return Stopped(frozenset(lived.difference(*left.values())), left)


def _stop_some(swarm: Swarmesh, views: Sequence[RustbeeView], away: Collection[str]) -> None:
    for view in views:
        with suppress(RemoteError):  # It ended by itself a moment ago, or its host is out of reach.
            swarm.stop_rustbee(view.rustbee_id, grace_s=GRACE_S)
    try:
        wait_gone(swarm, [view.rustbee_id for view in views if view.host not in away], GRACE_S + STOP_SLACK_S)
    except WaitTimeoutError as error:
        note(error.message)


def _left(swarm: Swarmesh, before: Mapping[str, HostView]) -> Leftovers:
    """Workers on other machines that were not seen to end: a host that is out of reach may have all it ever had."""
    now = {view.name: view for view in swarm.hosts()}
    found: dict[str, set[str]] = {}
    for name in before:
        host = now.get(name, before[name])
        lost = host.status not in WITHIN_REACH
        if lost:
            found[name] = {*before[name].rustbees, *host.rustbees}
    for view in swarm.rustbees():
        if view.host in before and (view.host in found or view.status != WorkerStatus.DEAD):
            found.setdefault(view.host, set()).add(view.rustbee_id)
    return {name: sorted(rustbee_ids) for name, rustbee_ids in sorted(found.items()) if rustbee_ids}


async def _known_elsewhere(home: Home) -> Leftovers:
    """Workers on other machines that the last queen knew; without a queen nobody can reach them."""
    if not home.hivecomb.exists():
        return {}
    store = await SqliteStore.open(home.hivecomb, boot_id=boot_id())
    try:
        names = {record.name for record in await store.hosts()}
        workers = [record for record in await store.workers() if record.host in names]
    finally:
        await store.close()
    return {name: [w.worker_id for w in workers if w.host == name] for name in sorted({w.host for w in workers})}


async def _stop_agents(home: Home) -> list[AgentFile]:
    host = LocalHost(home)
    agents = await host.workers()
    await asyncio.gather(*(host.stop(agent.rustbee_id, GRACE_S) for agent in agents))
    left = await host.workers()
    if left:
        names = ", ".join(f"{agent.rustbee_id} (pid {agent.pid})" for agent in left)
        raise LeftoverError(f"still running: {names}", hint="Look at them with ps; 'kill -9 PID' ends one.")
    return agents


def _leftover(left: Leftovers, *, queen_ran: bool) -> LeftoverError:
    names = "; ".join(f"{host}: {', '.join(rustbee_ids)}" for host, rustbee_ids in left.items())
    if not queen_ran:
        return LeftoverError(
            f"without a queennode nothing on other hosts can be stopped ({names})",
            hint="'swarmesh queennode start', then 'swarmesh down --all' again.",
        )
    return LeftoverError(
        f"not known to have ended ({names})",
        hint="Once the host is back: 'swarmesh up' and 'swarmesh down --all' here, or 'swarmesh rustbee stop' there. "
        "Without a queennode they end by themselves after orphan_ttl_s, 15 minutes by default.",
    )


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(down)
