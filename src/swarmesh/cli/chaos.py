"""`swarmesh chaos kill-worker|kill-queen|pause-worker|cut`: faults on purpose, to see the swarm outlive them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from swarmesh.cli.local_rustbee import LocalRustbee, is_local, local_rustbee, pick_view, send
from swarmesh.cli.queen_process import kill_queen, start_queen
from swarmesh.cli.screen import AsJson, note, print_json
from swarmesh.client import Swarmesh
from swarmesh.config.home import Home, QueenFile, find_home
from swarmesh.core.errors import QueenUnreachableError
from swarmesh.hosts.process_identity import ProcessIdentity
from swarmesh.wire.views import RustbeeView

CUT_S_MIN: Final = 0.1
CUT_S_MAX: Final = 300.0
PAUSE_S_MAX: Final = 3600.0
_LOOK_S: Final = 0.05
WATCH: Final = "  watch: swarmesh rustbees list; swarmesh waggle status"

Rustbee = Annotated[
    str | None, typer.Argument(metavar="[RUSTBEE]", help="As 'rustbees list' shows it; else a busy one, else any.")
]

app = typer.Typer(
    no_args_is_help=True,
    help="Drills: break a running swarm on purpose and watch it go on. They do it at once, without asking.",
)


@app.command()
def kill_worker(
    rustbee: Rustbee = None,
    engine_only: Annotated[
        bool, typer.Option("--engine-only", help="Leave its agent, which starts a new one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drill: kill -9 a rustbee of this machine, agent and engine; example: swarmesh chaos kill-worker --engine-only."""
    found = _find_local(rustbee)
    if engine_only:
        engine = found.must_have_engine()
        send(engine, signal.SIGKILL, f"the engine of {found.rustbee_id}")
        said = f"killed the engine of {found.rustbee_id}, pid {engine.pid}, with -9; its agent starts a new one"
    else:
        found.kill()
        said = f"killed {found.rustbee_id} with -9: agent pid {found.agent.pid}, engine pid {_pid(found.engine)}"
    killed = {"agent_pid": None if engine_only else found.agent.pid, "engine_pid": _pid(found.engine)}
    _say({"drill": "kill-worker", "rustbee_id": found.rustbee_id, **killed}, said, as_json=as_json)


@app.command("kill-queen")
def kill_queen_(
    restart: Annotated[bool, typer.Option("--restart/--no-restart", help="Start her again at once.")] = True,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the new one; else the old one's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Drill: kill -9 the queennode of this machine and start her again; streams and rustbees outlive it."""
    home = find_home(os.environ)
    began_s = time.monotonic()
    killed = kill_queen(home)
    if killed is None:
        raise QueenUnreachableError(f"no queennode runs with the home {home.root}")
    said: dict[str, Any] = {
        "drill": "kill-queen",
        "pid": killed.pid,
        "url": killed.url,
        "new_pid": None,
        "down_s": None,
    }
    if not restart:
        words = f"killed the queennode, pid {killed.pid}, with -9; 'swarmesh queennode start' starts her again"
        _say(said, words, as_json=as_json)
        return
    new = _start_again(home, killed, port)
    down_s = round(time.monotonic() - began_s, 3)
    said |= {"url": new.url, "new_pid": new.pid, "down_s": down_s}
    words = f"killed the queennode, pid {killed.pid}, with -9; pid {new.pid} answers at {new.url} after {down_s:.2f} s"
    _say(said, words, as_json=as_json)


@app.command()
def pause_worker(
    rustbee: Rustbee = None,
    for_s: Annotated[float, typer.Option(min=CUT_S_MIN, max=PAUSE_S_MAX, help="Seconds until it goes on.")] = 10.0,
    agent: Annotated[bool, typer.Option("--agent/--engine", help="Which of its two processes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drill: stop a process of a rustbee with SIGSTOP and let it go on afterwards, also when you press Ctrl-C.

    A paused engine looks like one that hangs: its agent kills it and starts another, which is what is to be seen.
    """
    found = _find_local(rustbee)
    process, which = (found.agent, "agent") if agent else (found.must_have_engine(), "engine")
    name = f"the {which} of {found.rustbee_id}"
    ended_after_s = _pause(process, for_s, name)
    said = {"drill": "pause-worker", "rustbee_id": found.rustbee_id, "process": which, "pid": process.pid}
    words = f"{name}, pid {process.pid}, goes on" if ended_after_s is None else f"{name} was ended while it was paused"
    _say({**said, "paused_s": for_s, "ended_after_s": ended_after_s}, words, as_json=as_json)


@app.command()
def cut(
    rustbee: Rustbee = None,
    for_s: Annotated[float, typer.Option(min=CUT_S_MIN, max=CUT_S_MAX, help="Seconds until it heals.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Drill: the queennode drops everything to and from a rustbee for a while, as a broken network would."""
    with Swarmesh() as swarm:
        picked = pick_view(swarm.rustbees()) if rustbee is None else None
        rustbee_id = picked.rustbee_id if picked is not None else str(rustbee)
        swarm.cut(rustbee_id, for_s)
    if picked is not None:  # Only now: the queen lets no client's key do it.
        _say_picked(picked)
    words = f"{rustbee_id} is cut off from the queennode for {for_s:g} s; it heals by itself"
    _say({"drill": "cut", "rustbee_id": rustbee_id, "seconds": for_s}, words, as_json=as_json)


def add_to(root: typer.Typer) -> None:
    """Add the noun."""
    root.add_typer(app, name="chaos")


def _find_local(rustbee_id: str | None) -> LocalRustbee:
    home = find_home(os.environ)
    with Swarmesh() as swarm:
        if rustbee_id is not None:
            return local_rustbee(home, swarm.rustbee(rustbee_id))
        return local_rustbee(home, _picked([view for view in swarm.rustbees() if is_local(home, view)]))


def _picked(views: list[RustbeeView]) -> RustbeeView:
    view = pick_view(views)
    _say_picked(view)
    return view


def _say_picked(view: RustbeeView) -> None:
    note(f"took {view.rustbee_id}, {view.slots_busy} of its {view.slots} cells busy")


def _start_again(home: Home, killed: QueenFile, port: int | None) -> QueenFile:
    """A new queen where the old one was, so that clients who only know her address find her, too."""
    where = urlsplit(killed.url)
    return start_queen(home, port=where.port if port is None else port, host=where.hostname)


def _pause(process: ProcessIdentity, seconds: float, name: str) -> float | None:
    """Pause a process and wait; after how many seconds it ended, None if it lived. It always goes on afterwards."""
    with _ends_in_order():
        try:
            send(process, signal.SIGSTOP, name)
            began_s = time.monotonic()
            note(f"paused {name}, pid {process.pid}, for {seconds:g} s; Ctrl-C lets it go on at once\n{WATCH}")
            while (passed_s := time.monotonic() - began_s) < seconds:
                if not process.alive:
                    return round(passed_s, 2)
                time.sleep(_LOOK_S)
        finally:
            process.send(signal.SIGCONT)
    return None


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Let a polite end of this command be an exception, so that what it paused is not left so."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _pid(process: ProcessIdentity | None) -> int | None:
    return None if process is None else process.pid


def _say(facts: dict[str, Any], words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print(words, flush=True)
        note(WATCH)
