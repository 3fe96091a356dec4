"""What every kind of test shares. Being here also lets tests import the modules beside this file."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from queen_rig import Rig, running_queen
from scripted_worker import ScriptedAgent, ScriptedWorker
from swarmesh.core import patience
from swarmesh.queen import foreign, process

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
WAIT_S = 15.0
SHORT_TMP = "/tmp"
STEP_S = 0.002

SAME, SEEK = "same", "seek"
settings.register_profile(SAME, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(SEEK, deadline=None)

Until = Callable[..., Awaitable[Any]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
NewAgent = Callable[[str], Awaitable[ScriptedAgent]]


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a directory of its own for temporary files, which ends with it: the sockets of every home that is
    too deep for them lie there, and a queen that a test kills takes nothing away. Its path is short for their sake;
    pytest's own directories stay where they were."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    made = tempfile.mkdtemp(prefix="smtest-", dir=SHORT_TMP)
    os.environ["TMPDIR"] = tempfile.tempdir = made
    config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Of a shell that runs this in its background; commands under test would inherit it, and are told to stop by it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--hypothesis-profile"):
        # The same examples in each run, however slow the machine is; a profile or a seed looks for others.
        settings.load_profile(SAME if config.getoption("--hypothesis-seed") is None else SEEK)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Protocols run on both loops; a queen runs on the one she is shipped with."""
    name = item.path.name
    if name.startswith("test_net_"):
        return LOOPS
    return {"uvloop": uvloop.new_event_loop} if name.startswith("test_queen_") else {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def until() -> Until:
    """Wait for a condition, awaited if need be, with a deadline: the one place where a test lets time pass."""

    async def wait(condition: Callable[[], Any], what: str = "", *, timeout_s: float = WAIT_S) -> Any:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not (found := (await seen) if inspect.isawaitable(seen := condition()) else seen):
            assert loop.time() < deadline_s, f"not within {timeout_s:g} s: {what or condition}"
            await asyncio.sleep(STEP_S)
        return found

    return wait


@pytest.fixture
def turn() -> Callable[[], Awaitable[None]]:
    """Let the loop run once whatever is ready; no time passes."""

    async def one_turn() -> None:
        loop = asyncio.get_running_loop()
        reached = loop.create_future()
        loop.call_soon(reached.set_result, None)
        await reached

    return one_turn


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A queen without workers, on a home of her own."""
    async with running_queen(tmp_path / "home") as running:
        yield running


@pytest.fixture
async def impatient_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A queen who lets nobody wait for long in the hope that a worker comes back."""
    monkeypatch.setattr(patience, "PATIENCE_MS", 200)
    monkeypatch.setattr(process, "TICK_INTERVAL_S", 0.05)
    monkeypatch.setattr(foreign, "PROBE_INTERVAL_S", 0.1)
    async with running_queen(tmp_path / "home") as running:
        yield running


@pytest.fixture
async def new_worker() -> AsyncIterator[NewWorker]:
    """Starts scripted workers, which end with the test."""
    started: list[ScriptedWorker] = []

    async def start(models: list[str] | None = None) -> ScriptedWorker:
        worker = ScriptedWorker(models)
        await worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        await worker.stop()


@pytest.fixture
async def new_agent() -> AsyncIterator[NewAgent]:
    """Starts scripted agents, which end with the test."""
    started: list[ScriptedAgent] = []

    async def start(worker_id: str) -> ScriptedAgent:
        agent = ScriptedAgent(worker_id)
        await agent.start()
        started.append(agent)
        return agent

    yield start
    for agent in started:
        await agent.stop()
