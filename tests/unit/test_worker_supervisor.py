"""An engine's lives, and when there are no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from scripted_engine import ScriptedEngine
from swarmesh.core.errors import EngineStartError
from swarmesh.core.liveness import WorkerStatus
from swarmesh.engines.engine_exit import EndCode
from swarmesh.worker import supervisor
from swarmesh.worker.meter import Meter
from swarmesh.worker.supervisor import RestartPolicy, Supervisor
from swarmesh.worker.watchdog import WatchdogPolicy

FOREVER_S = 10_000.0
WAIT_S = 30
ASLEEP = WatchdogPolicy(look_interval_s=FOREVER_S, ask_interval_s=FOREVER_S)


class Script:
    """Makes engines, watches them, and writes down what it is told."""

    def __init__(self, policy: RestartPolicy | None = None, watchdog: WatchdogPolicy = ASLEEP) -> None:
        self.engines: list[ScriptedEngine] = []
        self.coming: list[ScriptedEngine] = []
        self.told: list[tuple[str, str, bool]] = []
        self.changed = asyncio.Event()
        self.supervisor = Supervisor(self.make, self, Meter(), policy, watchdog)

    def make(self) -> ScriptedEngine:
        engine = self.coming.pop(0) if self.coming else ScriptedEngine(pid=100 + len(self.engines))
        self.engines.append(engine)
        return engine

    def engine_changed(self) -> None:
        self.changed.set()

    def engine_failed(self, code: str, message: str, *, returning: bool) -> None:
        self.told.append((code, message, returning))
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def serving(self, number: int) -> ScriptedEngine:
        await self.until(lambda: len(self.engines) == number and self.supervisor.serving is self.engines[-1])
        return self.engines[-1]


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    script = Script()
    task = asyncio.create_task(script.supervisor.run())
    yield script
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(engine.stopped for engine in script.engines)


async def test_it_serves_once_its_engine_has_started(script: Script) -> None:
    before = Script().supervisor
    assert before.status is WorkerStatus.STARTING
    assert (before.serving, before.engine_pid, before.memory_mib()) == (None, 0, 0)
    engine = await script.serving(1)
    assert script.supervisor.status is WorkerStatus.HEALTHY
    assert script.supervisor.engine_pid == engine.pid
    assert script.supervisor.info is not None
    assert script.supervisor.memory_mib() == 7


async def test_an_engine_that_dies_is_told_and_replaced(script: Script) -> None:
    engine = await script.serving(1)
    engine.die("killed by signal 9")
    replacement = await script.serving(2)
    assert script.told == [("engine_died", "killed by signal 9", True)]
    assert engine.stopped == 1
    assert script.supervisor.engine_pid == replacement.pid


async def test_the_fourth_death_within_the_window_is_the_last() -> None:
    script = Script()
    task = asyncio.create_task(script.supervisor.run())
    for life in range(1, 5):
        (await script.serving(life)).die(f"death {life}")
    async with asyncio.timeout(WAIT_S):
        await task
    assert [returning for _, _, returning in script.told] == [True, True, True, False]
    assert script.supervisor.serving is None
    assert script.supervisor.engine_pid == 0


async def test_deaths_far_apart_are_forgiven() -> None:
    script = Script(RestartPolicy(restarts_max=1, window_s=-1.0))
    task = asyncio.create_task(script.supervisor.run())
    for life in range(1, 6):
        (await script.serving(life)).die("again")
    await script.serving(6)
    assert all(returning for _, _, returning in script.told)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_does_not_start_even_once_is_given_up_at_once() -> None:
    script = Script()
    script.coming = [ScriptedEngine(start_error=EngineStartError("the model file is gone"))]
    await script.supervisor.run()
    assert script.told == [("engine_start_failed", "the model file is gone", False)]
    assert script.engines[0].stopped == 1


async def test_a_restart_that_fails_is_tried_again() -> None:
    script = Script()
    script.coming = [ScriptedEngine(), ScriptedEngine(start_error=EngineStartError("not now")), ScriptedEngine(pid=9)]
    task = asyncio.create_task(script.supervisor.run())
    (await script.serving(1)).die("x")
    assert (await script.serving(3)).pid == 9
    assert [code for code, _, _ in script.told] == ["engine_died", "engine_start_failed"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_crash_is_told_as_one(script: Script) -> None:
    (await script.serving(1)).die("killed by signal 6", EndCode.CRASHED)
    await script.serving(2)
    assert script.told == [("engine_crashed", "killed by signal 6", True)]


async def test_a_stuck_engine_is_killed_and_replaced() -> None:
    script = Script(watchdog=WatchdogPolicy(look_interval_s=0.0, ask_interval_s=FOREVER_S))
    script.coming = [ScriptedEngine()]
    task = asyncio.create_task(script.supervisor.run())
    (await script.serving(1)).stopped_by_signal = True
    await script.serving(2)
    assert script.engines[0].killed == 1
    [(code, message, returning)] = script.told
    assert (code, returning) == ("engine_stuck", True)
    assert message.startswith("the engine was stuck: a signal had stopped it")
    assert message.endswith("; killed")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("code", list(EndCode))
async def test_a_stream_that_broke_learns_how_its_engine_ended(code: EndCode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "END_WAIT_S", 30.0)  # However late this process has its turn.
    watchdog = WatchdogPolicy(look_interval_s=0.0, ask_interval_s=FOREVER_S) if code is EndCode.STUCK else ASLEEP
    script = Script(watchdog=watchdog)
    task = asyncio.create_task(script.supervisor.run())
    engine = await script.serving(1)
    asked = asyncio.create_task(script.supervisor.end_reason())
    engine.stopped_by_signal = True
    if code is not EndCode.STUCK:
        engine.die("x", code)
    assert await asked is code
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_break_without_an_end_is_no_crash(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "END_WAIT_S", 0.0)
    (await script.serving(1)).die("x", EndCode.CRASHED)
    await script.serving(2)
    assert await script.supervisor.end_reason() is EndCode.DIED


async def test_why_it_ended_is_known_until_the_next_one_serves() -> None:
    script = Script()
    script.coming = [ScriptedEngine(), ScriptedEngine()]
    replacement = script.coming[1]
    replacement.startable.clear()
    task = asyncio.create_task(script.supervisor.run())
    (await script.serving(1)).die("x", EndCode.CRASHED)
    await script.until(lambda: len(script.engines) == 2)
    assert await script.supervisor.end_reason() is EndCode.CRASHED
    replacement.startable.set()
    await script.serving(2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_draining_is_final(script: Script) -> None:
    engine = await script.serving(1)
    script.supervisor.drain()
    assert script.supervisor.serving is None
    engine.die("x")
    await script.until(lambda: len(script.engines) == 2)
    assert script.supervisor.status is WorkerStatus.DRAINING
