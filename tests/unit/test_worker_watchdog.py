"""What shows that an engine is wedged, and what only looks like it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from scripted_engine import ScriptedEngine
from swarmesh.worker.meter import Meter
from swarmesh.worker.watchdog import Watchdog, WatchdogPolicy

FOREVER_S = 10_000.0
WAIT_S = 30
QUICK = WatchdogPolicy(look_interval_s=0.0, canary_timeout_s=0.0, ask_interval_s=FOREVER_S)
Turn = Callable[[], Awaitable[None]]


class Watched:
    """An engine, its meter and the watchdog's word on them."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine()
        self.meter = Meter()
        self.word: asyncio.Task[str] | None = None

    def watch(self, policy: WatchdogPolicy) -> asyncio.Task[str]:
        self.word = asyncio.create_task(Watchdog(self.engine, self.meter, policy).wait_wedged())
        return self.word


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    yield watched
    if watched.word is not None:
        watched.word.cancel()
        await asyncio.gather(watched.word, return_exceptions=True)


async def looks(watched: Watched, count: int, turn: Turn) -> None:
    """Let the watchdog look so many times."""
    wanted = watched.engine.looked_at + count
    while watched.engine.looked_at < wanted:
        await turn()


async def word(task: asyncio.Task[str]) -> str:
    async with asyncio.timeout(WAIT_S):
        return await task


async def test_a_stopped_process_is_wedged_work_or_not(watched: Watched, turn: Turn) -> None:
    task = watched.watch(QUICK)
    await looks(watched, 10, turn)
    assert not task.done()
    watched.engine.stopped_by_signal = True
    assert await word(task) == "a signal had stopped it for 0 s"


async def test_one_that_is_stopped_for_a_moment_goes_on(watched: Watched, turn: Turn) -> None:
    task = watched.watch(WatchdogPolicy(look_interval_s=0.0, ask_interval_s=FOREVER_S, stopped_looks=20))
    for _ in range(10):
        watched.engine.stopped_by_signal = True
        await looks(watched, 10, turn)
        watched.engine.stopped_by_signal = False
        await looks(watched, 1, turn)
    assert not task.done()


async def test_without_work_silence_is_no_sign(watched: Watched, turn: Turn) -> None:
    watched.engine.sings = False
    task = watched.watch(QUICK)
    await looks(watched, 50, turn)
    assert not task.done()
    assert watched.engine.sung == 0


async def test_work_without_a_token_sends_a_canary_and_without_its_song_it_is_wedged(watched: Watched) -> None:
    watched.engine.sings = False
    watched.meter.busy = 1
    assert "no token for 0 s, no answer to a question for 0.0 s, and used 0.00 s" in await word(watched.watch(QUICK))
    assert watched.engine.sung == 1


async def test_a_canary_that_is_turned_away_is_none_that_sang(watched: Watched) -> None:
    watched.engine.answers = False
    watched.meter.busy = 1
    assert "no answer to a question" in await word(watched.watch(QUICK))


async def test_a_canary_that_sings_proves_it_alive(watched: Watched, turn: Turn) -> None:
    watched.meter.busy = 1
    task = watched.watch(WatchdogPolicy(look_interval_s=0.0, ask_interval_s=FOREVER_S))
    while watched.engine.sung < 3:
        await turn()
    assert not task.done()


async def test_tokens_make_a_canary_needless(watched: Watched, turn: Turn) -> None:
    watched.engine.sings = False
    watched.meter.busy = 1
    task = watched.watch(msgspec.structs.replace(QUICK, quiet_looks=20))
    for _ in range(20):
        await looks(watched, 10, turn)
        watched.meter.tokens(0.0, 1)
    assert not task.done()
    assert watched.engine.sung == 0


async def test_a_busy_processor_is_no_wedge(watched: Watched, turn: Turn) -> None:
    watched.engine.sings = False
    watched.engine.cpu_step_s = 1.0
    watched.meter.busy = 1
    task = watched.watch(QUICK)
    while watched.engine.sung < 3:
        await turn()
    assert not task.done()
    watched.engine.cpu_step_s = 0.0
    assert "no answer to a question" in await word(task)


async def test_a_token_that_comes_while_the_canary_is_out_proves_it_alive(watched: Watched, turn: Turn) -> None:
    watched.engine.sings = False
    watched.meter.busy = 1
    task = watched.watch(WatchdogPolicy(look_interval_s=0.0, canary_timeout_s=0.01, ask_interval_s=FOREVER_S))
    for sent in (1, 2):
        while watched.engine.sung < sent:
            await turn()
        watched.meter.tokens(0.0, 1)
    assert not task.done()
    await word(task)


async def test_clients_that_give_up_early_hide_nothing(watched: Watched, turn: Turn) -> None:
    watched.engine.sings = False
    watched.meter.busy = 1
    task = watched.watch(msgspec.structs.replace(QUICK, quiet_looks=20))
    await looks(watched, 5, turn)
    watched.meter.busy = 0
    assert "no token" in await word(task)


async def test_work_that_was_done_owes_nothing(watched: Watched, turn: Turn) -> None:
    watched.engine.sings = False
    watched.meter.busy = 1
    task = watched.watch(msgspec.structs.replace(QUICK, quiet_looks=20))
    await looks(watched, 5, turn)
    watched.meter.busy = 0
    watched.meter.outcome(0.0, good=True)
    await looks(watched, 50, turn)
    assert not task.done()


async def test_one_that_does_not_answer_for_long_is_wedged_however_busy(watched: Watched) -> None:
    watched.engine.answers = False
    watched.engine.cpu_step_s = 1.0
    policy = WatchdogPolicy(look_interval_s=FOREVER_S, ask_interval_s=0.0, stuck_after_s=0.0)
    assert "it did not answer for" in await word(watched.watch(policy))


@pytest.mark.parametrize("rung", [{"stopped_by_signal": True}, {"sings": False}], ids=["stopped", "quiet"])
async def test_what_an_agent_saw_that_was_held_up_itself_counts_for_nothing(
    watched: Watched, turn: Turn, rung: dict[str, Any]
) -> None:
    for name, value in rung.items():
        setattr(watched.engine, name, value)
    watched.meter.busy = 1
    # Every look comes later than it may.
    late = WatchdogPolicy(look_interval_s=0.0, canary_timeout_s=0.0, ask_interval_s=FOREVER_S, held_up_s=-1.0)
    task = watched.watch(late)
    for _ in range(200):
        await turn()
    assert not task.done()
